"""What needs a person: the clients and backups that the overview names. Functions of a read connection."""

from __future__ import annotations

import heapq
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, String, and_, bindparam, case, func, or_, select, type_coerce

from schema import assessment
from schema.status import Following
from schema.tables import UtcText, approvals, backups, clients, issued, observed, runs
from web_readonly.reader.backups import assessed, read_keyed, read_whole
from web_readonly.reader.clients import FOLLOWING, by_heads, read_named
from web_readonly.reader.source import read_suspended

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from schema.status import BackupStatus, ClientStatus

FAILED_WITHIN: Final = timedelta(days=8)
"""A weekly backup's last run is younger."""
_FAILURES: Final = 200
"""The newest of each kind that are looked at: in a large fleet a day has more, and most were followed by a success."""
_NOW: Final = bindparam("now", type_=UtcText)
_LIMIT: Final = bindparam("limit", type_=Integer)

# --- Clients ----------------------------------------------------------------------------------------------------------

_told = observed.alias("told")
_AWAY: Final = and_(
    func.coalesce(observed.c.connected, 0) == 0, observed.c.last_seen < bindparam("away_since", type_=UtcText)
)
_PERHAPS: Final = or_(
    _told.c.connected.is_(False), _told.c.refused > 0, _told.c.stale, _told.c.expires < _NOW, _told.c.drifted > 0
)
"""Told from one walk through an index; only of those it is asked how they follow."""
_KNOWN: Final = or_(
    select(clients.c.name).where(clients.c.name == _told.c.client).exists(),
    select(approvals.c.name).where(approvals.c.name == _told.c.client).exists(),
)
_BAD: Final = FOLLOWING.in_([Following.REFUSED.value, Following.STALE.value])
_URGENT: Final = case((FOLLOWING.in_([Following.REFUSED.value]), 0), (_AWAY, 1), else_=2).label("urgent")
_TROUBLED: Final = (
    by_heads(select(_URGENT, _told.c.client))
    .with_hint(_told, "INDEXED BY ix_observed_heads")
    .select_from(
        # Outer, although each is there: SQLite keeps to this order then.
        _told.outerjoin(observed, observed.c.client == _told.c.client).outerjoin(
            issued, issued.c.client == _told.c.client
        )
    )
    .where(_PERHAPS, or_(_AWAY, _BAD, observed.c.drifted > 0), _KNOWN)
    .order_by(_URGENT, _told.c.client)
    .limit(_LIMIT)
)


def read_troubled(connection: Connection, *, limit: int, away_since: datetime, now: datetime) -> list[ClientStatus]:
    """Return clients that need a person: refusing, expired, drifted, or away since before ``away_since``."""
    found = connection.execute(_TROUBLED, {"limit": limit, "away_since": away_since, "now": now})
    return read_named(connection, [name for _, name in found], now=now)


# --- Backups ----------------------------------------------------------------------------------------------------------

_NEWEST: Final = (
    select(runs.c.id, runs.c.client, runs.c.backup, runs.c.started)
    .where(runs.c.outcome == bindparam("outcome"), runs.c.started > bindparam("since", type_=UtcText))
    .order_by(runs.c.started.desc())
    .limit(_FAILURES)
    .subquery("newest")
)


@lru_cache(maxsize=4)
def _late(suspended: frozenset[str]) -> Select[Any]:
    late = select(backups).where(backups.c.protected_until < _NOW, assessed(suspended) == "unprotected")
    return late.order_by(backups.c.protected_until).limit(_LIMIT)


@lru_cache(maxsize=4)
def _failed(suspended: frozenset[str]) -> Select[Any]:
    """Return what asks for backups whose last run ended so while they are inside their objective, and when it began."""
    theirs = (backups.c.client == _NEWEST.c.client) & (backups.c.backup == _NEWEST.c.backup)
    joined = _NEWEST.join(backups, theirs & (backups.c.last_run == _NEWEST.c.id))
    started = type_coerce(_NEWEST.c.started, String())  # text sorts as time
    return (
        select(started, backups.c.client, backups.c.backup)
        .select_from(joined)
        .where(assessed(suspended) != "unprotected")
    )


def read_unwell(connection: Connection, *, limit: int, now: datetime) -> tuple[BackupStatus, ...]:
    """Return backups that need a person: outside their objective, the longest first; then those whose last run failed.

    At most ``limit`` of each.
    """
    suspended = read_suspended(connection)
    asked = {"limit": limit, "now": now, "since": now - FAILED_WITHIN}
    late = connection.execute(_late(suspended), asked).mappings().all()
    failed: list[Any] = []
    for outcome in sorted(assessment.FAILURES):  # one after the other, each in the order of its index
        failed += connection.execute(_failed(suspended), {**asked, "outcome": outcome})
    keys = [(client, backup) for _, client, backup in heapq.nlargest(limit, failed, key=itemgetter(0))]
    rows = [*late, *read_keyed(connection, keys)]
    return read_whole(connection, rows, suspended=suspended, now=now)
