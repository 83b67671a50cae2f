"""Runs, their logs, and the sizes they left. Functions of a read connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import select

from schema.observed import Outcome
from schema.status import LogEntry, Page, RunStatus, Sample
from schema.tables import run_logs, runs, samples
from web_readonly.reader.paging import beyond, bounded, contains, decode, encode, unindexed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
Level = Literal["debug", "info", "warning", "error", "critical"]
_KEY: Final = (runs.c.started, runs.c.id)
_FILTERED: Final = (runs.c.backup, runs.c.outcome)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; empty fields select all. ``running`` selects those that have not ended."""

    client: str = ""
    backup: str = ""
    outcome: Outcome | Literal["running"] | None = None


def read_runs(connection: Connection, wanted: RunFilter, *, limit: int, before: str) -> Page[RunStatus]:
    """Return runs, the last started first."""
    query = select(runs).order_by(*(column.desc() for column in _KEY)).limit(bounded(limit) + 1)
    if wanted.client:
        query = query.where(runs.c.client == wanted.client)
    # One client's runs are few, whatever else is asked of them.
    backup, outcome = map(unindexed, _FILTERED) if wanted.client else _FILTERED
    if wanted.backup:
        query = query.where(backup == wanted.backup)
    if wanted.outcome is not None:
        ended = None if wanted.outcome == "running" else wanted.outcome.value
        query = query.where(outcome.is_(None) if ended is None else outcome == ended)
    if before:
        started, run = decode(before, datetime, str)
        # The first line is what the index is entered by; the second leaves out what shares the moment.
        here, there = beyond(_KEY, (started, run))
        query = query.where(runs.c.started <= started, here < there)
    items = tuple(_run(row) for row in connection.execute(query).mappings())
    more = len(items) > limit
    return Page(items=items[:limit], next=encode([items[limit - 1].started, items[limit - 1].id]) if more else "")


_ANY: Final = select(runs.c.id).limit(1)


def has_runs(connection: Connection) -> bool:
    """Return whether there is any run."""
    return connection.execute(_ANY).first() is not None


def read_run(connection: Connection, run: str) -> RunStatus | None:
    """Return one run."""
    row = connection.execute(select(runs).where(runs.c.id == run)).mappings().first()
    return None if row is None else _run(row)


def read_several(connection: Connection, ids: Iterable[str]) -> dict[str, RunStatus]:
    """Return runs by id; what was trimmed is left out."""
    wanted = sorted({one for one in ids if one})
    found = connection.execute(select(runs).where(runs.c.id.in_(wanted))).mappings() if wanted else ()
    return {row["id"]: _run(row) for row in found}


def read_log(connection: Connection, run: str, *, after: int, limit: int, level: Level, text: str) -> Page[LogEntry]:
    """Return log lines of a run, from ``level`` upwards and with ``text`` in them, whose number is above ``after``."""
    query = select(run_logs).where(run_logs.c.run == run, run_logs.c.number > after)
    if level != LEVELS[0]:
        query = query.where(run_logs.c.level.in_(LEVELS[LEVELS.index(level) :]))
    if text:
        query = query.where(run_logs.c.message.like(contains(text), escape="\\"))
    rows = connection.execute(query.order_by(run_logs.c.number).limit(bounded(limit) + 1)).mappings().all()
    items = tuple(
        LogEntry(number=row["number"], at=row["at"], level=row["level"], message=row["message"]) for row in rows[:limit]
    )
    return Page(items=items, next=str(items[-1].number) if len(rows) > limit else "")


def read_samples(
    connection: Connection, *, client: str, backup: str, since: datetime, limit: int
) -> tuple[Sample, ...]:
    """Return how a backup's repositories grew, oldest first; of too many the newest."""
    here = (samples.c.client == client) & (samples.c.backup == backup)
    query = select(samples).where(here, samples.c.at >= since).order_by(samples.c.at.desc()).limit(limit)
    rows = connection.execute(query).mappings().all()
    return tuple(Sample(**{name: row[name] for name in Sample.model_fields}) for row in reversed(rows))


def _run(row: Any) -> RunStatus:
    return RunStatus.model_validate({**row, "statistics": row["statistics"] or ()}, by_name=True)
