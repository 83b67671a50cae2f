"""The tables of current state of a large fleet: clients and backups as they stand, and who may get in."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from schema import assessment
from schema.desired import Content, DesiredRepository, DesiredSchedule, Job, ManagedFile
from schema.directories import Directories
from schema.observed import JobState, Outcome, StateReport, Versions
from schema.scalars import format_duration
from schema.status import SourceStatus
from schema.tables import moment_text
from tests.benchmarks.fleet import DAY, HOUR, Fleet, Run, backups_of, labels_of, repositories_of, revision_of, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.benchmarks.fleet import Place

    Put = Callable[[str, str, Iterator[Sequence[Any]]], None]

RPO: Final = 48 * 3600
ARCHIVES: Final = 12
CRON, ZONE = "0 1 * * *", "Europe/Berlin"
_CONFIGURATION: Final = """\
repositories:
{repositories}
archive_name_format: "{client}.{backup}.{{now:%Y-%m-%dT%H:%M:%S}}"
encryption_passphrase: "{{credential file /var/lib/borgmatic-director-client/secrets/vault.passphrase}}"
compression: zstd,6
keep_daily: 7
keep_weekly: 4
keep_monthly: 6
exclude_caches: true
source_directories:
  - /etc
  - /srv/{backup}
"""


def write(put: Put, fleet: Fleet, newest: Mapping[Place, Run]) -> None:
    """Write clients, backups, evidence, the source and who waits. ``newest`` is the last run of each backup."""
    moment = fleet.moment
    put(
        "clients",
        "name public_key labels origin",
        ((one, _key(one), json.dumps(labels_of(one)), f"clients/{one}.yaml") for one in fleet.names),
    )
    put(
        "issued",
        "client audience generation digest revision issued expires envelope content",
        (_issued(one, moment=moment) for one in fleet.names),
    )
    put(
        "observed",
        "client public_key connected address last_seen reported generation digest revision expires refused drifted"
        " state",
        (_observed(one, number, moment=moment) for number, one in enumerate(fleet.names)),
    )
    put(
        "backups",
        "client backup origin cron time_zone rpo repositories first_seen next_due running last_run last_outcome"
        " last_finished last_success newest_archive protected_until",
        (_backup(run, number, moment=moment) for number, run in enumerate(newest.values())),
    )
    put(
        "evidence",
        "client backup repository url declared seen available repository_id encryption newest newest_archive archives"
        " original_size compressed_size deduplicated_size repository_size",
        (row for number, run in enumerate(newest.values()) for row in _evidence(run, number, moment=moment)),
    )
    _source(put, moment=moment)
    _trust(put, moment=moment)


def newest_archive(run: Run, number: int) -> datetime | None:
    """Return when a backup's newest archive was made: of a hundred one is overdue, of five hundred one has none yet."""
    if number % 500 == 99:
        return None
    return run.started - (4 * DAY if number % 100 == 37 else DAY if run.outcome is None else timedelta())


# --- Clients ----------------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    return f"bd1-client.{hashlib.sha256(name.encode()).hexdigest()[:43]}"


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _generation(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)


def _issued(name: str, *, moment: datetime) -> Sequence[Any]:
    content = _content(name).model_dump_json()
    return (
        name,
        _key(name),
        _generation(moment),
        _digest(name),
        revision_of(1),
        moment_text(moment - DAY),
        moment_text(moment + 80 * DAY),
        content.encode(),  # the envelope is about as long as its content
        content,
    )


def _content(name: str) -> Content:
    repository = partial(DesiredRepository, encryption="repokey-blake2")
    schedule = DesiredSchedule(name="nightly", cron=CRON, time_zone=ZONE)
    jobs, files = [], []
    for backup in backups_of(name):
        places = repositories_of(name, backup)
        listed = "\n".join(f"  - path: {url}\n    label: {label}" for label, url in places.items())
        jobs.append(
            Job(
                backup=backup,
                file=f"{backup}.yaml",
                schedule=schedule,
                actions=("create", "prune", "compact"),
                repositories=tuple(repository(name=label, url=url) for label, url in places.items()),
                rpo=format_duration(RPO),  # type: ignore[arg-type]
            )
        )
        files.append(
            ManagedFile(
                place="config",
                path=f"{backup}.yaml",
                origin=f"backups/{backup}.yaml",
                content=_CONFIGURATION.format(repositories=listed, client=name, backup=backup),
            )
        )
    return Content(client=name, directories=Directories(), jobs=tuple(jobs), files=tuple(files))


def _observed(name: str, number: int, *, moment: datetime) -> Sequence[Any]:
    """Return one client's row: two of a hundred are away, two behind; of two hundred one refuses and one drifted."""
    away, behind, refuses, drifted = number % 50 == 7, number % 50 == 9, number % 200 == 11, number % 200 == 13
    digest = _digest("older") if behind or refuses else _digest(name)
    seen, expires = moment - (9 * HOUR if away else timedelta()), moment + 80 * DAY
    state = StateReport(
        at=seen,
        generation=_generation(moment),
        digest=digest,
        revision=revision_of(1),
        expires=expires,
        jobs=tuple(JobState(backup=backup, next_due=moment + DAY) for backup in backups_of(name)),
        versions=Versions(client="0.1.0", borgmatic="2.1.10", borg="1.4.0", python="3.11.7", platform="Debian 12"),
    )
    return (
        name,
        _key(name),
        not away,
        f"10.20.{number // 250}.{number % 250}",
        moment_text(seen),
        moment_text(seen),
        _generation(moment),
        digest,
        revision_of(1),
        moment_text(expires),
        _generation(moment) if refuses else 0,
        int(drifted),
        state.model_dump_json(),
    )


# --- Backups ----------------------------------------------------------------------------------------------------------


def _backup(run: Run, number: int, *, moment: datetime) -> Sequence[Any]:
    newest, first_seen = newest_archive(run, number), _first_seen(run, number, moment=moment)
    rpo = None if number % 50 == 3 else RPO
    until = assessment.protected_until([(newest, first_seen)], rpo=rpo)
    ended = moment_text(run.started + timedelta(seconds=run.seconds)) if run.outcome else None
    repositories = [
        {"name": name, "url": url, "encryption": "repokey-blake2"}
        for name, url in repositories_of(run.client, run.backup).items()
    ]
    return (
        run.client,
        run.backup,
        f"backups/{run.backup}.yaml",
        CRON,
        ZONE,
        rpo,
        json.dumps(repositories),
        moment_text(first_seen),
        moment_text(run.started + DAY),
        "" if run.outcome else run.id,
        run.id if run.outcome else "",
        run.outcome or "",
        ended,
        ended if run.outcome in {Outcome.SUCCEEDED, Outcome.WARNED} else None,
        newest and moment_text(newest),
        until and moment_text(until),
    )


def _first_seen(run: Run, number: int, *, moment: datetime) -> datetime:
    return moment - (DAY if newest_archive(run, number) is None else 300 * DAY)


def _evidence(run: Run, number: int, *, moment: datetime) -> Iterator[Sequence[Any]]:
    newest, size = newest_archive(run, number), size_of(run.client, run.backup)
    for name, url in repositories_of(run.client, run.backup).items():
        seen = (
            (
                moment_text(newest),
                f"{run.client}.{run.backup}.{newest:%Y-%m-%dT%H:%M:%S}",
                ARCHIVES,
                size,
                size * 61 // 100,
                size // 400,
                size * 8 // 10,
            )
            if newest
            else (None, "", 0, 0, 0, 0, 0)
        )
        declared = moment_text(_first_seen(run, number, moment=moment))
        repository = hashlib.sha256(url.encode()).hexdigest()
        place = (run.client, run.backup, name, url, declared, moment_text(moment), True, repository, "repokey-blake2")
        yield place + seen


# --- The source, and who may get in -----------------------------------------------------------------------------------


def _source(put: Put, *, moment: datetime) -> None:
    source = SourceStatus(
        url="https://git.example/ops/backups.git",
        branch="main",
        head=revision_of(1),
        revision=revision_of(1),
        published=moment - DAY,
        fetched=moment,
    )
    put("meta", "key value", iter([("source", source.model_dump_json(exclude={"conditions"}))]))
    put(
        "conditions",
        "object type status reason message last_transition_time",
        iter([("source", "Ready", "True", "Published", "the newest revision is published", moment_text(moment - DAY))]),
    )


def _trust(put: Put, *, moment: datetime) -> None:
    at, later = moment_text(moment - HOUR), moment_text(moment + 30 * DAY)
    put(
        "pending",
        "public_key name address first_seen last_seen",
        ((_key(f"new-{number}"), f"new-{number}", f"10.30.0.{number}", at, at) for number in range(10)),
    )
    put(
        "tokens",
        "id hash note created expires uses_left",
        ((f"{number:012x}", _digest(str(number)), "laptops", at, later, 5) for number in range(20)),
    )
    put(
        "lockouts",
        "address failures window_start locked_until",
        ((f"203.0.113.{number}", 10, at, later) for number in range(50)),
    )
