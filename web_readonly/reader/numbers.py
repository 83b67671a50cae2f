"""The numbers of ``/metrics``, and of badges: plain rows, because a scrape reads twenty thousand of them at once.

One statement for each sort of row, and no model for each row. ``web_readonly.metrics`` writes them down as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import String, and_, bindparam, case, func, select, true, tuple_, type_coerce

from schema.tables import UtcText, backups, definitions, evidence, issued, observed, runs
from web_readonly.reader.backups import assessed, count_backups
from web_readonly.reader.clients import FOLLOWING, NAMES, count_clients, count_pending
from web_readonly.reader.source import read_source, read_suspended

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from schema.status import SourceStatus
    from web_readonly.reader.clients import ClientCounts


class BackupNumbers(NamedTuple):
    """One backup on one client. Times are as stored: text, or None."""

    client: str
    backup: str
    state: str
    objective: int | None
    running: bool
    newest_archive: str | None
    protected_until: str | None
    last_success: str | None
    last_outcome: str
    last_finished: str | None
    last_started: str | None
    """Of the run that finished last; None when that run is forgotten."""
    retention: str | None
    """JSON, as stored: ``{"keep_daily": 7, …}``."""


class RepositoryNumbers(NamedTuple):
    """One repository of one backup on one client."""

    client: str
    backup: str
    repository: str
    available: bool | None
    newest: str | None
    archives: int
    original_size: int
    compressed_size: int
    deduplicated_size: int
    repository_size: int


class ClientNumbers(NamedTuple):
    """One client."""

    client: str
    connected: bool
    following: str
    drifted: int
    last_seen: str | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything of one moment. Rows are the first by name; the counts are of all."""

    source: SourceStatus
    clients: ClientCounts
    backups: dict[str, int]
    """State, or ``running`` → how many."""
    pending: int
    backup_rows: Sequence[BackupNumbers]
    repository_rows: Sequence[RepositoryNumbers]
    client_rows: Sequence[ClientNumbers]


class Standing(NamedTuple):
    """How many backups stand alike. ``has_archive``: each of their repositories has one."""

    state: str
    has_archive: bool
    number: int


def read_numbers(connection: Connection, *, limit: int, now: datetime) -> Numbers:
    """Return the counts of all, and at most ``limit`` clients and backups one by one."""
    shown = _backups(connection, limit=limit, now=now)
    return Numbers(
        source=read_source(connection),
        clients=count_clients(connection, now=now),
        backups=count_backups(connection, now=now),
        pending=count_pending(connection),
        backup_rows=shown,
        repository_rows=_repositories(connection, through=shown[-1]) if shown else (),
        client_rows=_clients(connection, limit=limit, now=now),
    )


def read_standings(connection: Connection, *, client: str, backup: str, now: datetime) -> tuple[Standing, ...]:
    """Return how the backups of a name stand; of all when no name is given."""
    state = assessed(read_suspended(connection)).label("state")
    has_archive = backups.c.newest_archive.is_not(None).label("has_archive")
    query = select(state, has_archive, func.count()).group_by(state, has_archive)
    if client:
        query = query.where(backups.c.client == client)
    if backup:
        query = query.where(backups.c.backup == backup)
    if backup and not client:
        # To walk through all backups in this index costs a third of looking up each one of the name.
        query = query.with_hint(backups, "INDEXED BY ix_backups_protected_until")
    return tuple(Standing(one, bool(archive), number) for one, archive, number in connection.execute(query, _at(now)))


_NOW: Final = bindparam("now", type_=UtcText)


def _at(now: datetime) -> dict[str, Any]:
    return {_NOW.key: now}


def _as_stored(column: ColumnElement[Any]) -> ColumnElement[str | None]:
    """Return the text of a time or of JSON: reading a datetime for each would cost more than the whole query."""
    return type_coerce(column, String())


def _backups(connection: Connection, *, limit: int, now: datetime) -> list[BackupNumbers]:
    ended = and_(runs.c.id == backups.c.last_run, runs.c.client == backups.c.client, runs.c.finished.is_not(None))
    query = (
        select(
            backups.c.client,
            backups.c.backup,
            assessed(read_suspended(connection)),
            backups.c.rpo,
            backups.c.running != "",
            _as_stored(backups.c.newest_archive),
            _as_stored(backups.c.protected_until),
            _as_stored(backups.c.last_success),
            backups.c.last_outcome,
            _as_stored(backups.c.last_finished),
            _as_stored(runs.c.started),
            _as_stored(definitions.c.retention),
        )
        .select_from(backups.outerjoin(runs, ended).outerjoin(definitions, definitions.c.backup == backups.c.backup))
        .order_by(backups.c.client, backups.c.backup)
        .limit(limit)
    )
    return [BackupNumbers(*row) for row in connection.execute(query, _at(now))]


def _repositories(connection: Connection, *, through: BackupNumbers) -> list[RepositoryNumbers]:
    query = (
        select(
            evidence.c.client,
            evidence.c.backup,
            evidence.c.repository,
            evidence.c.available,
            _as_stored(evidence.c.newest),
            evidence.c.archives,
            evidence.c.original_size,
            evidence.c.compressed_size,
            evidence.c.deduplicated_size,
            evidence.c.repository_size,
        )
        .where(tuple_(evidence.c.client, evidence.c.backup) <= tuple_(through.client, through.backup))
        .order_by(evidence.c.client, evidence.c.backup, evidence.c.repository)
    )
    return [RepositoryNumbers(*row) for row in connection.execute(query)]


def _clients(connection: Connection, *, limit: int, now: datetime) -> list[ClientNumbers]:
    connected = case((observed.c.connected.is_(True), true()), else_=0)
    query = (
        select(
            NAMES.c.name,
            connected,
            FOLLOWING,
            func.coalesce(observed.c.drifted, 0),
            _as_stored(observed.c.last_seen),
        )
        .select_from(
            NAMES.outerjoin(issued, issued.c.client == NAMES.c.name).outerjoin(
                observed, observed.c.client == NAMES.c.name
            )
        )
        .order_by(NAMES.c.name)
        .limit(limit)
    )
    return [ClientNumbers(*row) for row in connection.execute(query, _at(now))]
