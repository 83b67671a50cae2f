"""A director at work beside the readers: reports of the fleet's clients, through the real store, 50 rows a second.

``python -m tests.benchmarks.writing STORE``, until it is ended.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reconciler.store import Store
from schema.observed import LogLine, Outcome, RepositoryStatistics, RunFinished, RunLog, RunStarted, Trigger

if TYPE_CHECKING:
    from schema.observed import Report

EVERY: Final = 0.2
"""Seconds from one client's report to the next's; each writes about ten rows."""


async def report(path: Path) -> None:
    """Let one client after the other report a run."""
    connection = sqlite3.connect(path)
    places = connection.execute("SELECT client, backup, running FROM backups ORDER BY backup, client").fetchall()
    keys = dict(connection.execute("SELECT name, public_key FROM clients").fetchall())
    connection.close()
    epoch = secrets.token_hex(16)
    sequences = dict.fromkeys(keys, 0)
    async with await Store.open(path) as store:
        for client, backup, _ in itertools.cycle(places):
            now = datetime.now(UTC)
            reports = _reports(backup, now=now)
            first = sequences[client] + 1
            sequences[client] += len(reports)
            await store.ingest(
                client=client,
                public_key=keys[client],
                epoch=epoch,
                items=list(enumerate(reports, first)),
                through=sequences[client],
                received=now,
            )
            await asyncio.sleep(EVERY)


def _reports(backup: str, *, now: datetime) -> list[Report]:
    run = secrets.token_hex(16)
    lines = tuple(LogLine(at=now, level="info", message=f"vault: line {number}") for number in range(3))
    statistics = RepositoryStatistics(repository="vault", archive="new", archive_id=run * 2, original_size=10**9)
    return [
        RunStarted(at=now, run=run, backup=backup, trigger=Trigger.SCHEDULE),
        RunLog(run=run, first=0, lines=lines),
        RunFinished(at=now, run=run, backup=backup, outcome=Outcome.SUCCEEDED, statistics=(statistics,), log_lines=3),
    ]


if __name__ == "__main__":
    asyncio.run(report(Path(sys.argv[1])))
