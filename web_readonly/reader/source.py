"""The source, its revisions, events, tokens and lockouts. Functions of a read connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from schema.errors import Problem
from schema.status import (
    Condition,
    EventRecord,
    LockoutStatus,
    Page,
    RevisionStatus,
    SourceStatus,
    TokenStatus,
)
from schema.tables import conditions, events, lockouts, meta, revisions, tokens
from web_readonly.reader.paging import beyond, bounded, decode, encode

if TYPE_CHECKING:
    from sqlalchemy import Connection


_KEPT: Final = select(meta.c.value).where(meta.c.key == bindparam("key"))
_CONDITIONS: Final = select(conditions).where(conditions.c.object == bindparam("subject")).order_by(conditions.c.type)


def read_source(connection: Connection) -> SourceStatus:
    """Return the source's status; an empty one before the director's first pass."""
    kept = connection.execute(_KEPT, {"key": "source"}).scalar() or {}
    return SourceStatus.model_validate(kept | {"conditions": read_conditions(connection, "source")})


def read_conditions(connection: Connection, subject: str) -> list[Condition]:
    """Return the kept conditions of an object."""
    found = connection.execute(_CONDITIONS, {"subject": subject})
    return [Condition.model_validate(dict(row), by_name=True) for row in found.mappings()]


def read_suspended(connection: Connection) -> frozenset[str]:
    """Return what is suspended by command."""
    return frozenset(connection.execute(_KEPT, {"key": "suspended"}).scalar() or ())


_LISTED: Final = tuple(revisions.c[name] for name in RevisionStatus.model_fields if name not in {"changes", "problems"})


def read_revisions(connection: Connection, *, limit: int, before: str) -> Page[RevisionStatus]:
    """Return revisions, newest first."""
    query = select(revisions.c.id, *_LISTED).order_by(revisions.c.id.desc()).limit(bounded(limit) + 1)
    if before:
        query = query.where(revisions.c.id < decode(before, int)[0])
    rows = connection.execute(query).mappings().all()
    items = tuple(RevisionStatus.model_validate(dict(row), by_name=True) for row in rows[:limit])
    return Page(items=items, next=encode([rows[limit - 1]["id"]]) if len(rows) > limit else "")


def read_revision(connection: Connection, revision: str) -> tuple[RevisionStatus, tuple[Problem, ...]] | None:
    """Return one revision (whole, or at least seven characters) and its problems."""
    if len(revision) < 7:
        return None
    named = revisions.c.revision.between(revision, revision + "\x7f")
    row = connection.execute(select(revisions).where(named).limit(1)).mappings().first()
    if row is None:
        return None
    shown = RevisionStatus.model_validate(dict(row), by_name=True)
    return shown, shown.problems


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; empty fields select all. ``since`` is included, ``until`` is not."""

    client: str = ""
    reason: str = ""
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None


_EVENT_KEY: Final = (events.c.at, events.c.id)


def read_events(connection: Connection, wanted: EventFilter, *, limit: int, before: str) -> Page[EventRecord]:
    """Return the audit trail, what happened last first."""
    query = select(events).order_by(*(column.desc() for column in _EVENT_KEY)).limit(bounded(limit) + 1)
    for column, value in (
        (events.c.client, wanted.client),
        (events.c.reason, wanted.reason),
        (events.c.actor, wanted.actor),
    ):
        if value:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(events.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(events.c.at < wanted.until)
    if before:
        at, number = decode(before, datetime, int)
        # The first line is what the index is entered by; the second leaves out what shares the moment.
        here, there = beyond(_EVENT_KEY, (at, number))
        query = query.where(events.c.at <= at, here < there)
    rows = connection.execute(query).mappings().all()
    items = tuple(EventRecord.model_validate(dict(row), by_name=True) for row in rows[:limit])
    return Page(items=items, next=encode([items[-1].at, items[-1].id]) if len(rows) > limit else "")


def read_tokens(connection: Connection) -> tuple[TokenStatus, ...]:
    """Return the tokens without their hashes, newest first."""
    columns = [tokens.c[name] for name in TokenStatus.model_fields]
    found = connection.execute(select(*columns).order_by(tokens.c.created.desc(), tokens.c.id)).mappings()
    return tuple(TokenStatus.model_validate(dict(row), by_name=True) for row in found)


def read_lockouts(connection: Connection, *, now: datetime) -> tuple[LockoutStatus, ...]:
    """Return the addresses that are locked out now."""
    columns = [lockouts.c[name] for name in LockoutStatus.model_fields]
    locked = select(*columns).where(lockouts.c.locked_until > now).order_by(lockouts.c.address)
    return tuple(LockoutStatus.model_validate(dict(row), by_name=True) for row in connection.execute(locked).mappings())
