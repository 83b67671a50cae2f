"""Forgetting history by age, a bounded batch at a time, so that no other write waits long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select, tuple_

from reconciler.store.source import SOURCE, put_value, value
from schema.tables import (
    approvals,
    clients,
    events,
    growth,
    issued,
    moment_text,
    observed,
    revisions,
    run_logs,
    runs,
    samples,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH: Final = 500
RUN_BATCH: Final = 20
"""Runs whose log lines go at once: each has up to 200,000."""
MAX_EVENTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long history is kept, in days."""

    runs: int = 400
    logs: int = 60
    events: int = 400
    samples: int = 1_100


Step = Callable[["Connection"], int]
"""Forgets one batch and returns how many rows went; 0 when there is nothing more to do."""


def steps(retention: Retention, *, now: datetime) -> dict[str, Step]:
    """Return what to repeat until it returns 0, by name."""
    return {
        "logs": lambda connection: _logs(connection, before=now - timedelta(days=retention.logs)),
        "runs": lambda connection: _runs(connection, before=now - timedelta(days=retention.runs)),
        "samples": lambda connection: _samples(connection, before=now - timedelta(days=retention.samples)),
        "growth": lambda connection: _growth(connection, before=now - timedelta(days=retention.samples)),
        "revisions": lambda connection: _revisions(connection, before=now - timedelta(days=retention.events)),
        "events": lambda connection: _events(connection, before=now - timedelta(days=retention.events)),
        "clients": lambda connection: _clients(connection, now=now, before=now - timedelta(days=retention.runs)),
    }


def _logs(connection: Connection, *, before: datetime) -> int:
    """Forget the log lines of old runs; the runs stay. A mark remembers how far this got."""
    mark = value(connection, "trimmed") or ""
    old = select(runs.c.id, runs.c.started).where(runs.c.started < before).order_by(runs.c.started).limit(RUN_BATCH)
    if mark:
        old = old.where(runs.c.started > datetime.fromisoformat(mark))
    found = connection.execute(old).all()
    if not found:
        return 0
    connection.execute(delete(run_logs).where(run_logs.c.run.in_([row.id for row in found])))
    put_value(connection, "trimmed", moment_text(found[-1].started))
    return len(found)


def _runs(connection: Connection, *, before: datetime) -> int:
    old = select(runs.c.id).where(runs.c.started < before).order_by(runs.c.started).limit(RUN_BATCH)
    return connection.execute(delete(runs).where(runs.c.id.in_(old))).rowcount


def _samples(connection: Connection, *, before: datetime) -> int:
    key = tuple_(samples.c.client, samples.c.backup, samples.c.repository, samples.c.at)
    old = select(samples.c.client, samples.c.backup, samples.c.repository, samples.c.at)
    return connection.execute(delete(samples).where(key.in_(old.where(samples.c.at < before).limit(BATCH)))).rowcount


def _growth(connection: Connection, *, before: datetime) -> int:
    """Forget the oldest day: one at a time, for each has a row for every repository."""
    oldest = select(func.min(growth.c.day)).where(growth.c.day < before.astimezone(UTC).date().isoformat())
    return connection.execute(delete(growth).where(growth.c.day == oldest.scalar_subquery())).rowcount


def _revisions(connection: Connection, *, before: datetime) -> int:
    """Forget how old revisions were judged and what they changed, but for the published one and the head."""
    kept = value(connection, SOURCE) or {}
    current = [kept.get("revision", ""), kept.get("head", "")]
    old = select(revisions.c.id).where(revisions.c.seen < before, revisions.c.revision.not_in(current)).limit(BATCH)
    return connection.execute(delete(revisions).where(revisions.c.id.in_(old))).rowcount


def _events(connection: Connection, *, before: datetime) -> int:
    old = select(events.c.id).where(events.c.at < before).limit(BATCH)
    gone = connection.execute(delete(events).where(events.c.id.in_(old))).rowcount
    newest = connection.execute(select(func.max(events.c.id))).scalar() or 0
    # Only what clients said: a client that says much must not push approvals and refusals out of the audit trail.
    said = events.c.actor.like("client:%")
    surplus = select(events.c.id).where(events.c.id <= newest - MAX_EVENTS, said).order_by(events.c.id).limit(BATCH)
    return gone + connection.execute(delete(events).where(events.c.id.in_(surplus))).rowcount


def _clients(connection: Connection, *, now: datetime, before: datetime) -> int:
    """Forget what is left of clients that are neither published nor approved, when it serves no purpose any more."""
    known = select(clients.c.name).union(select(approvals.c.name))
    expired = delete(issued).where(issued.c.client.not_in(known), issued.c.expires < now)
    silent = delete(observed).where(observed.c.client.not_in(known), observed.c.last_seen < before)
    return connection.execute(expired).rowcount + connection.execute(silent).rowcount
