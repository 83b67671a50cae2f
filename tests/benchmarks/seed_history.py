"""The history of a large fleet: runs and their logs, archives, sizes, revisions and events."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from schema.observed import Outcome
from schema.tables import moment_text
from tests.benchmarks.fleet import DAY, Fleet, Run, repositories_of, revision_of, size_of
from tests.benchmarks.seed_state import ARCHIVES, newest_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.fleet import Place
    from tests.benchmarks.seed_state import Put

LINES: Final = 12
"""Log lines of a run; only the last night's are kept."""
LONG_LOG: Final = 50_000
"""Of the very first backup's last run."""
REVISIONS: Final = 2_000
EVENTS: Final = 100_000
SAMPLED: Final = 4_000
"""Backups whose sizes were sampled every night: a fifth, enough for every page that shows them."""
_WORKED: Final = frozenset({Outcome.SUCCEEDED, Outcome.WARNED})
_CODES: Final = {Outcome.SUCCEEDED: 0, Outcome.WARNED: 1, Outcome.FAILED: 2}


def write_runs(put: Put, fleet: Fleet) -> dict[Place, Run]:
    """Write all runs, and return the newest of each backup."""
    newest: dict[Place, Run] = {}

    def rows() -> Iterator[Sequence[Any]]:
        for run in fleet.nightly():
            newest[run.client, run.backup] = run
            yield _run(run)

    columns = "id client backup trigger started finished due outcome exit_code error hint revision statistics log_lines"
    put("runs", columns, rows())
    return newest


def write(put: Put, fleet: Fleet, newest: Mapping[Place, Run]) -> None:
    """Write the rest of the history."""
    put("run_logs", "run number at level message", _lines(newest))
    put(
        "archives",
        "client backup repository id name start original_size compressed_size deduplicated_size files",
        (row for number, run in enumerate(newest.values()) for row in _archives(run, number)),
    )
    put(
        "samples",
        "client backup repository at original_size compressed_size deduplicated_size repository_size duration",
        _samples(newest, nights=fleet.nights),
    )
    put(
        "growth",
        "day repository url original_size compressed_size deduplicated_size repository_size archives",
        _growth(fleet),
    )
    put(
        "revisions",
        "revision author subject committed seen outcome changed_clients summary problems",
        (_revision(number, fleet=fleet) for number in range(REVISIONS, 0, -1)),
    )
    put("events", "at reason actor client message", _events(fleet))


# --- Runs -------------------------------------------------------------------------------------------------------------


def _run(run: Run) -> Sequence[Any]:
    started = moment_text(run.started)
    failed = run.outcome is Outcome.FAILED
    return (
        run.id,
        run.client,
        run.backup,
        "schedule",
        started,
        moment_text(run.started + timedelta(seconds=run.seconds)) if run.outcome else None,
        started,
        run.outcome,
        None if run.outcome is None else _CODES.get(run.outcome),
        "vault: Failed to create/acquire the lock (timeout)." if failed else "",
        "look whether another program uses the repository; if none: borgmatic break-lock" if failed else "",
        revision_of(run.night),
        _statistics(run) if run.outcome in _WORKED else None,
        LONG_LOG if run.night == 1 and run.number == 0 else LINES,
    )


def _statistics(run: Run) -> str:
    size = size_of(run.client, run.backup)
    return json.dumps(
        [
            {
                "repository": repository,
                "archive": f"{run.client}.{run.backup}.{moment_text(run.started)[:19]}",
                "archive_id": run.id * 2,
                "files": size // 300_000,
                "original_size": size - run.night * 9_000_000,
                "compressed_size": size * 61 // 100,
                "deduplicated_size": size // 400 + run.seconds * 10_000,
                "duration": run.seconds - 12.5,
                "repository_size": size * 8 // 10,
            }
            for repository in repositories_of(run.client, run.backup)
        ],
        separators=(",", ":"),
    )


def _lines(newest: Mapping[Place, Run]) -> Iterator[Sequence[Any]]:
    for run in sorted(newest.values(), key=lambda one: one.id):
        at = moment_text(run.started)
        for number in range(LONG_LOG if run.number == 0 else LINES):
            level = "error" if number == 9 and run.outcome is Outcome.FAILED else "debug" if number % 3 else "info"
            yield (
                run.id,
                number,
                at,
                level,
                f"vault: line {number} of what borgmatic says while it backs up {run.backup}",
            )


# --- Archives and sizes -----------------------------------------------------------------------------------------------


def _archives(run: Run, number: int) -> Iterator[Sequence[Any]]:
    newest, size = newest_archive(run, number), size_of(run.client, run.backup)
    if newest is None:
        return
    for repository in repositories_of(run.client, run.backup):
        for back in range(ARCHIVES):
            start = newest - back * DAY
            name = f"{run.client}.{run.backup}.{moment_text(start)[:19]}"
            sizes = size - back * 9_000_000, size * 61 // 100, size // 400, size // 300_000
            # Borg's ids are hashes; these are as long, and no two of one backup are the same.
            yield (
                run.client,
                run.backup,
                repository,
                f"{back:02x}{run.id}{run.id[2:]}",
                name,
                moment_text(start),
                *sizes,
            )


def _samples(newest: Mapping[Place, Run], *, nights: int) -> Iterator[Sequence[Any]]:
    for run in list(newest.values())[:SAMPLED]:
        size = size_of(run.client, run.backup)
        for repository in repositories_of(run.client, run.backup):
            for back in range(nights, 0, -1):
                sizes = size - back * 9_000_000, size * 61 // 100, size // 400, size * 8 // 10
                yield run.client, run.backup, repository, moment_text(run.started - back * DAY), *sizes, 300.0


def _growth(fleet: Fleet) -> Iterator[Sequence[Any]]:
    """Yield each repository on each day; without a url a repository's sum, and without a repository that of all."""
    sizes = Counter[tuple[str, str]]()
    for client, backup in fleet.places:
        for repository, url in repositories_of(client, backup).items():
            for place in ((repository, url), (repository, ""), ("", "")):
                sizes[place] += size_of(client, backup)
    for back in range(fleet.nights):
        day = (fleet.moment - back * DAY).date().isoformat()
        for (repository, url), size in sizes.items():
            then = size * (1_000 - back) // 1_000
            yield day, repository, url, then, then * 61 // 100, then // 4, then // 4, ARCHIVES


# --- The audit trail --------------------------------------------------------------------------------------------------


def _revision(number: int, *, fleet: Fleet) -> Sequence[Any]:
    seen = moment_text(fleet.moment - DAY - timedelta(hours=4 * (number - 1)))
    outcome = "published" if number == 1 else "stalled" if number % 40 == 0 else "superseded"
    problem = '[{"code":"unknown-option","message":"no such option","path":"backups/web.yaml","line":3,"column":1}]'
    changed = number % 300
    summary = "".join(f"{name}: system.yaml +2 -1\n" for name in fleet.names[:changed])
    return (
        revision_of(number),
        "Ada Novak",
        f"Change number {number} of the fleet",
        seen,
        seen,
        outcome,
        changed,
        summary,
        problem if outcome == "stalled" else "[]",
    )


def _events(fleet: Fleet) -> Iterator[Sequence[Any]]:
    for number in range(EVENTS):
        client = fleet.names[number * 7 % len(fleet.names)]
        at = moment_text(fleet.moment - (EVENTS - number) * timedelta(seconds=300))
        if number % 100 == 0:
            yield at, "TokenCreated", "operator:ada", "", "a token for 4 uses: laptops"
        else:
            yield at, "Applied", f"client:{client}", client, f"applied revision {revision_of(1)[:12]}"
