"""How repositories grow, day by day. Functions of a read connection."""

from __future__ import annotations

from datetime import UTC, date
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select

from schema.status import Growth
from schema.tables import backups, definitions, evidence, growth
from web_readonly import retention

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


MAX_DEFINITIONS: Final = 300


_SIZES: Final = tuple(name for name in Growth.model_fields if name != "day")
_DAYS: Final = (
    select(growth.c.day, *(growth.c[name] for name in _SIZES))
    .where(
        growth.c.repository == bindparam("repository"),
        growth.c.url == bindparam("url"),
        growth.c.day.between(bindparam("first"), bindparam("last")),
    )
    .order_by(growth.c.day)
)


def read_growth(
    connection: Connection, *, repository: str, url: str, since: datetime, until: datetime
) -> tuple[Growth, ...]:
    """Return sizes day by day, oldest first: of one url, of a repository at all its urls, or of all."""
    first, last = (moment.astimezone(UTC).date().isoformat() for moment in (since, until))
    rows = connection.execute(_DAYS, {"repository": repository, "url": url, "first": first, "last": last})
    return tuple(Growth(day=date.fromisoformat(day), **dict(zip(_SIZES, sizes, strict=True))) for day, *sizes in rows)


_RETENTION: Final = select(definitions.c.backup, definitions.c.retention).limit(MAX_DEFINITIONS + 1)
_CLIENTS: Final = select(func.count(), func.min(backups.c.client)).where(backups.c.backup == bindparam("name"))
_PLACES: Final = (
    select(func.count())
    .select_from(evidence)
    .where(evidence.c.client == bindparam("client"), evidence.c.backup == bindparam("name"))
)


def read_wanted(connection: Connection) -> int:
    """Return how many archives the retention of all backups keeps at most; ``UNLIMITED`` when there is no end.

    A backup has the same repositories on each of its clients: they are counted on one of them.
    """
    found = connection.execute(_RETENTION).all()
    total = 0
    for name, keeps in found:
        most = retention.most(keeps)
        if most == retention.UNLIMITED or len(found) > MAX_DEFINITIONS:
            return retention.UNLIMITED
        number, client = connection.execute(_CLIENTS, {"name": name}).one()
        total += most * number * (connection.execute(_PLACES, {"client": client, "name": name}).scalar() or 0)
    return total
