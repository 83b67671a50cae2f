"""What a change would do: for each client its files as a diff, schedules, secrets, settings, and the dangers by name.

Called by ``director plan``, the pre-receive hook and CI with two builds. A danger is a change after which data may be
gone, or may no longer be backed up, kept or checked. It does not forbid anything: it wants a person to say that it is
meant, with a trailer in the commit message::

    Director-Acknowledge: retention-shortened

``dangers`` finds them; this module says what changed and puts both into one model with stable JSON.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from reconciler.core import dangers
from reconciler.core.dangers import Danger
from schema.scalars import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.core.build import Build
    from schema.desired import Content, DesiredSchedule, Job

TRAILER = "Director-Acknowledge"
_TRAILER_LINE = re.compile(r"(?P<key>[A-Za-z][A-Za-z0-9-]*): *(?P<value>.*)")

Change = Literal["added", "removed", "changed"]
_SIGNS: Mapping[Change, str] = {"added": "+", "removed": "-", "changed": "~"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileChange(_Model):
    """A managed file. ``diff`` is unified, without the header that names the revision."""

    path: str
    """Below the directory it belongs to: ``config/web.yaml``, ``state/known_hosts/nas``."""
    change: Change
    diff: str


class SecretChange(_Model):
    """A sealed value: its names, never its ciphertext."""

    secret: str
    key: str
    change: Change


class SettingChange(_Model):
    """Something beside the files; empty text is "none"."""

    backup: str | None
    """None for the client's own."""
    setting: str
    before: str
    after: str


class ClientPlan(_Model):
    """What changes for one client."""

    client: str
    change: Change
    files: tuple[FileChange, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    secrets: tuple[SecretChange, ...] = ()


class Plan(_Model):
    """The difference between two revisions, as far as machines are concerned."""

    clients: tuple[ClientPlan, ...]
    """Those for which something changes, by name."""
    unchanged: int = Field(description="How many clients keep everything as it is.")
    dangers: tuple[Danger, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no machine would notice."""
        return not self.clients and not self.dangers


def plan(before: Build, after: Build) -> Plan:
    """Return what publishing ``after`` in the place of ``before`` would do. Both must be without errors."""
    before.require_ok()
    after.require_ok()
    names = sorted(before.contents.keys() | after.contents.keys())
    clients = [
        _client_plan(name, before.contents.get(name), after.contents.get(name))
        for name in names
        if before.digests.get(name) != after.digests.get(name)
    ]
    changed = tuple(each for each in clients if each is not None)
    return Plan(clients=changed, unchanged=len(names) - len(changed), dangers=tuple(dangers.find(before, after)))


def acknowledgements(messages: Iterable[str]) -> frozenset[str]:
    """Return the danger codes that the commit messages' trailers acknowledge; ``all`` stands for every one.

    As in Git, trailers are the last paragraph of a message and never its first.
    """
    codes: set[str] = set()
    for message in messages:
        paragraphs = re.split(r"\n[ \t]*\n", message.strip().replace("\r\n", "\n"))
        lines = paragraphs[-1].splitlines() if len(paragraphs) > 1 else []
        matches = [_TRAILER_LINE.fullmatch(line.strip()) for line in lines]
        for match in matches if all(matches) else ():
            if match is not None and match["key"].lower() == TRAILER.lower():
                codes.update(match["value"].replace(",", " ").split())
    return frozenset(codes)


def unacknowledged(found: Iterable[Danger], codes: frozenset[str]) -> tuple[Danger, ...]:
    """Return the dangers that nobody has acknowledged."""
    return () if "all" in codes else tuple(danger for danger in found if danger.code not in codes)


# --- Differences ------------------------------------------------------------------------------------------------------


def _client_plan(name: str, before: Content | None, after: Content | None) -> ClientPlan | None:
    """Return what changes for a client; None when only the place in Git of something did."""
    files = tuple(_files(before, after))
    settings = tuple(_settings(before, after))
    secrets = tuple(_secrets(before, after))
    if before is not None and after is not None and not (files or settings or secrets):
        return None
    change = _change(before, after)
    return ClientPlan(client=name, change=change, files=files, settings=settings, secrets=secrets)


def _change(before: object | None, after: object | None) -> Change:
    if before is None:
        return "added"
    return "removed" if after is None else "changed"


def _files(before: Content | None, after: Content | None) -> Iterator[FileChange]:
    old, new = ({f"{file.place}/{file.path}": file for file in side.files} if side else {} for side in (before, after))
    for path in sorted(old.keys() | new.keys()):
        first, second = old.get(path), new.get(path)
        former, latter = (file.content if file is not None else None for file in (first, second))
        if former != latter:
            yield FileChange(path=path, change=_change(former, latter), diff=_diff(path, former, latter))
        elif first is not None and second is not None and first.mode != second.mode:
            yield FileChange(path=path, change="changed", diff=f"mode {first.mode:o} → {second.mode:o}")


def _diff(path: str, before: str | None, after: str | None) -> str:
    return "\n".join(
        difflib.unified_diff(
            (before or "").splitlines(),
            (after or "").splitlines(),
            "/dev/null" if before is None else f"a/{path}",
            "/dev/null" if after is None else f"b/{path}",
            lineterm="",
        )
    )


def _secrets(before: Content | None, after: Content | None) -> Iterator[SecretChange]:
    old, new = (
        {(each.secret, each.key): each.sealed for each in side.secrets} if side else {} for side in (before, after)
    )
    for name in sorted(old.keys() | new.keys()):
        former, latter = old.get(name), new.get(name)
        if former != latter:
            yield SecretChange(secret=name[0], key=name[1], change=_change(former, latter))


def _settings(before: Content | None, after: Content | None) -> Iterator[SettingChange]:
    yield from _compare(None, _client_settings(before), _client_settings(after))
    old, new = ({job.backup: job for job in side.jobs} if side else {} for side in (before, after))
    for name in sorted(old.keys() | new.keys()):
        yield from _compare(name, _job_settings(old.get(name)), _job_settings(new.get(name)))


def _compare(backup: str | None, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[SettingChange]:
    for setting in {**before, **after}:
        former, latter = before.get(setting, ""), after.get(setting, "")
        if former != latter:
            yield SettingChange(backup=backup, setting=setting, before=former, after=latter)


def _client_settings(content: Content | None) -> dict[str, str]:
    if content is None:
        return {}
    return {
        "drift": content.drift,
        "suspend": _yes(content.suspend),
        "config directory": content.directories.config,
        "state directory": content.directories.state,
    }


def _job_settings(job: Job | None) -> dict[str, str]:
    if job is None:
        return {}
    return {
        "schedule": describe_schedule(job.schedule),
        "actions": ", ".join(job.actions),
        "rpo": _duration(job.rpo),
        "timeout": _duration(job.timeout),
        "drift": job.drift,
        "suspend": _yes(job.suspend),
        "mountpoints": ", ".join(each.mountpoint for each in job.repositories if each.mountpoint),
    }


def describe_schedule(schedule: DesiredSchedule | None) -> str:
    """Return a schedule in words: ``nightly: 30 2 * * * Europe/Berlin, jitter 15m``; empty for none."""
    if schedule is None:
        return ""
    words = f"{schedule.name}: {schedule.cron} {schedule.time_zone}"
    words += f", jitter {format_duration(schedule.jitter)}" if schedule.jitter else ""
    return words if schedule.catch_up else f"{words}, no catch-up"


def _duration(seconds: int | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _yes(value: object) -> str:
    return "yes" if value else ""


# --- Text -------------------------------------------------------------------------------------------------------------


def lines(planned: Plan, *, acknowledged: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the plan as plain lines for a terminal, dangers last, where they are read."""
    for client in planned.clients:
        yield f"{_SIGNS[client.change]} client {client.client}"
        for setting in client.settings:
            whose = f"backup {setting.backup}: " if setting.backup else ""
            yield f"    {whose}{setting.setting}: {setting.before or 'none'} → {setting.after or 'none'}"
        for secret in client.secrets:
            yield f"    {_SIGNS[secret.change]} secret {secret.secret} {secret.key}"
        for file in client.files:
            yield f"    {_SIGNS[file.change]} {file.path}"
            yield from (f"      {line}" for line in file.diff.splitlines())
    yield _summary(planned)
    yield from _danger_lines(planned.dangers, acknowledged)


def _summary(planned: Plan) -> str:
    counts = {change: sum(each.change == change for each in planned.clients) for change in _SIGNS}
    parts = [f"{count} {change}" for change, count in counts.items() if count]
    return f"clients: {', '.join([*parts, f'{planned.unchanged} unchanged'])}"


def _danger_lines(found: Iterable[Danger], acknowledged: frozenset[str]) -> Iterator[str]:
    """Yield one entry for each thing done in one place, however many clients it meets."""
    groups: dict[tuple[str, str, str, str | None], list[str]] = {}
    for danger in found:
        groups.setdefault((danger.code, danger.message, danger.place, danger.backup), []).append(danger.client)
    for (code, message, place, backup), clients in groups.items():
        state = "acknowledged" if acknowledged & {code, "all"} else "danger"
        more = f" and {len(clients) - 3} more" if len(clients) > 3 else ""
        subject = f" of backup {backup}" if backup else ""
        yield f"{state} {code}: {message} ({', '.join(clients[:3])}{more}{subject})"
        yield f"    at {place}"
    missing = sorted({code for code, *_ in groups} - acknowledged)
    if missing and "all" not in acknowledged:
        yield f"where dangers are held (CI, hold_dangers), end the commit message with: {TRAILER}: {' '.join(missing)}"
