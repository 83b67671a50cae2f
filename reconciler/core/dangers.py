"""Changes after which data may be gone, or may no longer be backed up, kept or checked. Called by ``plan``.

One function for each kind of danger, over the merged options of one backup before and after; a danger that many clients
share is found once. Switching healing of drift off, or suspending, endangers no data and is shown as a setting only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict

from reconciler.core import archives, render
from reconciler.core.changes import touched
from reconciler.core.expand import Origin
from schema.resources import Client
from schema.scalars import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from reconciler.core.build import Build
    from reconciler.core.catalogue import Located
    from reconciler.core.expand import Effective

CODES: Mapping[str, str] = {
    "client-removed": "a client leaves the source",
    "client-key-changed": "a client's public key is replaced or taken away",
    "backup-removed": "a backup no longer runs on a client",
    "repository-removed": "a backup no longer goes to a repository",
    "repository-changed": "a repository's url changes: the backup begins anew elsewhere",
    "encryption-changed": "a repository's encryption mode changes",
    "retention-shortened": "prune keeps less",
    "prune-started": "a backup that did not prune begins to",
    "prune-widened": "prune matches archives that it did not match",
    "archives-orphaned": "existing archives no longer match, so nothing prunes or checks them",
    "source-dropped": "something is no longer backed up",
    "exclude-added": "something is excluded that was not",
    "create-stopped": "a backup no longer creates archives",
    "schedule-removed": "a backup no longer runs by itself",
    "checks-removed": "a repository or its archives are no longer checked",
    "objective-loosened": "the newest archive may be older",
}
"""Every code, in the order in which dangers are told."""

_ORDER = {code: index for index, code in enumerate(CODES)}


class Danger(BaseModel):
    """One dangerous change for one client, and where it was written."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    client: str
    backup: str | None
    path: str
    line: int
    column: int

    @property
    def place(self) -> str:
        """``file:line:column``."""
        return f"{self.path}:{self.line}:{self.column}"


class Finding(NamedTuple):
    """A danger before it is known whom it meets."""

    code: str
    message: str
    origin: Origin


def find(before: Build, after: Build, *, names: Iterable[str] | None = None) -> Iterator[Danger]:
    """Yield every danger of publishing ``after`` in the place of ``before``, by client and backup.

    ``names`` are the clients that were ``changes.touched``.
    """
    shared: dict[tuple[int, int], list[Finding]] = {}
    for name in touched(before, after) if names is None else names:
        if name not in before.expansion.clients:
            continue
        old = before.catalogue.all(Client)[name]
        new = after.catalogue.get(Client, name)
        if new is None:
            yield _danger(Finding("client-removed", "the client is removed", Origin(old, ())), client=name)
            continue
        yield from (_danger(finding, client=name) for finding in _key(old, new))
        former, latter = before.expansion.clients[name], after.expansion.clients[name]
        if former is not latter:
            yield from _client(name, former, latter, shared=shared)


def _client(
    client: str,
    before: Iterable[Effective],
    after: Iterable[Effective],
    *,
    shared: dict[tuple[int, int], list[Finding]],
) -> Iterator[Danger]:
    latter = {effective.name: effective for effective in after}
    for old in before:
        new = latter.get(old.name)
        if new is old:
            continue
        if new is None:
            finding = Finding("backup-removed", "the backup no longer runs here", Origin(old.backup, ()))
            yield _danger(finding, client=client, backup=old.name)
            continue
        pair = (id(old), id(new))
        if pair not in shared:
            shared[pair] = [finding for look in _LOOKS for finding in look(old, new)]
        for finding in sorted((*shared[pair], *_names(client, old, new)), key=lambda finding: _ORDER[finding.code]):
            yield _danger(finding, client=client, backup=old.name)


def _danger(finding: Finding, *, client: str, backup: str | None = None) -> Danger:
    line, column = finding.origin.located.position(finding.origin.pointer)
    return Danger(
        code=finding.code,
        message=finding.message,
        client=client,
        backup=backup,
        path=finding.origin.located.path,
        line=line,
        column=column,
    )


# --- The client -------------------------------------------------------------------------------------------------------


def _key(before: Located[Client], after: Located[Client]) -> Iterator[Finding]:
    former, latter = before.resource.spec.public_key, after.resource.spec.public_key
    if former is not None and former != latter:
        what = "is taken away: the machine is no longer approved" if latter is None else "is replaced by another"
        yield Finding("client-key-changed", f"the public key {what}", Origin(after, ("spec", "publicKey")))


# --- Retention and names ----------------------------------------------------------------------------------------------


def _retention(before: Effective, after: Effective) -> Iterator[Finding]:
    if not _runs(after, "prune"):
        return
    if not _runs(before, "prune"):
        yield Finding("prune-started", "archives are pruned that were all kept", _action_origin(after))
        return
    for option in archives.RETENTION:
        former, latter = before.options.get(option), after.options.get(option)
        if _kept(option, latter) < _kept(option, former):
            yield Finding("retention-shortened", f"{option}: {_shown(former)} → {_shown(latter)}", after.origin(option))


_UNITS = {"S": 1, "M": 60, "H": 3_600, "d": 86_400, "w": 604_800, "m": 2_678_400, "y": 31_536_000}
"""Units of Borg's ``--keep-within``; a month counts 31 days, a year 365 (borg.helpers.parseformat.interval)."""


def _kept(option: str, value: JsonValue) -> float:
    """Return how much a retention option keeps, so that less is less. Nothing is 0, and -1 is everything."""
    if option == "keep_within":
        match = re.fullmatch(r"(\d+)([SMHdwmy])", value) if isinstance(value, str) else None
        return int(match[1]) * _UNITS[match[2]] if match else 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return float("inf") if value < 0 else value


def _names(client: str, before: Effective, after: Effective) -> Iterator[Finding]:
    """Compare what prune matches with what it matched, and with the names that archives have had."""
    old, new = (archives.claim(url="", repository="", client=client, effective=each) for each in (before, after))
    matched, was = new.matches, old.matches
    option = next((name for name in archives.NAMING if before.options.get(name) != after.options.get(name)), None)
    if option is None:
        return
    change = f"{option}: {_shown(before.options.get(option))} → {_shown(after.options.get(option))}"
    if new.prunes is not None and not archives.covers(was, matched):
        yield Finding("prune-widened", change, after.origin(option))
    if not archives.covers(matched, old.names):
        yield Finding("archives-orphaned", change, after.origin(option))


# --- Sources ----------------------------------------------------------------------------------------------------------


def _sources(before: Effective, after: Effective) -> Iterator[Finding]:
    for option in render.SOURCES:
        if option == "patterns":
            continue
        former, latter = before.options.get(option), after.options.get(option)
        if option == "zfs" and option in before.options and option not in after.options:
            yield Finding("source-dropped", "zfs is removed", after.origin())
        for item in _lost(former, latter):
            yield Finding("source-dropped", f"{option}: {item} is removed", after.origin(option))
    lines = _pattern_lines(after, roots=True)
    for line in _pattern_lines(before, roots=True):
        if line not in lines:
            yield Finding("source-dropped", f"patterns: '{line}' is removed", after.origin("patterns"))


_EXCLUDING_LISTS = ("exclude_patterns", "exclude_from", "exclude_if_present")
_EXCLUDING_FLAGS = ("exclude_caches", "exclude_nodump", "one_file_system")


def _excludes(before: Effective, after: Effective) -> Iterator[Finding]:
    for option in _EXCLUDING_LISTS:
        for item in _lost(after.options.get(option), before.options.get(option)):
            yield Finding("exclude-added", f"{option}: {item} is added", after.origin(option))
    for option in _EXCLUDING_FLAGS:
        if after.options.get(option) is True and before.options.get(option) is not True:
            yield Finding("exclude-added", f"{option} is switched on", after.origin(option))
    lines = _pattern_lines(before, roots=False)
    for line in _pattern_lines(after, roots=False):
        if line not in lines:
            yield Finding("exclude-added", f"patterns: '{line}' is added", after.origin("patterns"))


def _pattern_lines(effective: Effective, *, roots: bool) -> list[str]:
    """Return the lines of ``patterns`` that bring something in (R, P, +), or those that leave something out (-, !)."""
    lines = effective.options.get("patterns")
    texts = [line.strip() for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    return [line for line in texts if (line[:1] in "-!") != roots]


def _lost(before: JsonValue, after: JsonValue) -> list[str]:
    """Return the entries of a list option that are gone, by name where they have one (databases)."""
    kept = set(_entries(after))
    return [entry for entry in _entries(before) if entry not in kept]


def _entries(value: JsonValue) -> list[str]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [_entry(item) for item in items]


def _entry(item: JsonValue) -> str:
    if not isinstance(item, dict):
        return str(item)
    # One database server's "app" is not another's.
    words = [str(item.get("name", item.get("url", "all")))]
    words += [f"on {item[place]}" for place in ("hostname", "container") if item.get(place)]
    return " ".join(words)


# --- Repositories, actions, promises ----------------------------------------------------------------------------------


def _repositories(before: Effective, after: Effective) -> Iterator[Finding]:
    latter = {repository.resource.metadata.name: repository for repository in after.repositories}
    for old in before.repositories:
        name = old.resource.metadata.name
        new = latter.get(name)
        if new is None:
            origin = Origin(after.backup, ("spec", "repositories"))
            yield Finding("repository-removed", f"nothing more goes to repository '{name}'", origin)
            continue
        if new.resource.spec.url != old.resource.spec.url:
            change = f"repository '{name}': {old.resource.spec.url} → {new.resource.spec.url}"
            yield Finding("repository-changed", change, Origin(new, ("spec", "url")))
        modes = (old.resource.spec.encryption.mode, new.resource.spec.encryption.mode)
        if modes[0] != modes[1]:
            origin = Origin(new, ("spec", "encryption", "mode"))
            yield Finding("encryption-changed", f"repository '{name}': {modes[0]} → {modes[1]}", origin)


def _actions(before: Effective, after: Effective) -> Iterator[Finding]:
    if _runs(before, "create") and not _runs(after, "create"):
        yield Finding("create-stopped", "no more archives are created", _action_origin(after))
    if before.schedule is not None and after.schedule is None:
        origin = Origin(after.backup, ("spec",))
        yield Finding("schedule-removed", "the backup runs only when a person starts it", origin)
    if not _runs(before, "check"):
        return
    if not _runs(after, "check"):
        yield Finding("checks-removed", "nothing is checked any more", _action_origin(after))
        return
    for name in sorted(_checks(before) - _checks(after)):
        yield Finding("checks-removed", f"check '{name}' is removed", after.origin("checks"))


_DEFAULT_CHECKS = frozenset({"repository", "archives"})  # borgmatic.actions.check.DEFAULT_CHECKS


def _checks(effective: Effective) -> frozenset[str]:
    checks = effective.options.get("checks")
    if not isinstance(checks, list) or not checks:
        return _DEFAULT_CHECKS
    names = {str(check.get("name")) if isinstance(check, dict) else str(check) for check in checks}
    return frozenset() if "disabled" in names else frozenset(names)


def _objective(before: Effective, after: Effective) -> Iterator[Finding]:
    former, latter = (each.backup.resource.spec.objectives for each in (before, after))
    if former is not None and (latter is None or latter.rpo > former.rpo):
        shown = "none" if latter is None else format_duration(latter.rpo)
        origin = Origin(after.backup, ("spec", "objectives", "rpo"))
        yield Finding("objective-loosened", f"rpo: {format_duration(former.rpo)} → {shown}", origin)


_LOOKS = (_retention, _sources, _excludes, _repositories, _actions, _objective)


def _runs(effective: Effective, action: str) -> bool:
    return archives.runs(action, actions=effective.backup.resource.spec.actions, options=effective.options)


def _action_origin(effective: Effective) -> Origin:
    if effective.options.get("skip_actions"):
        return effective.origin("skip_actions")
    return Origin(effective.backup, ("spec", "actions"))


def _shown(value: JsonValue) -> str:
    return "none" if value is None else str(value)
