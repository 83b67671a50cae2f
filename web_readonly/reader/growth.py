"""How repositories grow, day by day. Functions of a read connection."""

from __future__ import annotations

from datetime import UTC, date
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from schema.status import Growth
from schema.tables import backups, definitions, evidence, growth
from web_readonly import retention

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


MAX_DEFINITIONS: Final = 300


def read_growth(
    connection: Connection, *, repository: str, url: str, since: datetime, until: datetime
) -> tuple[Growth, ...]:
    """Return sizes day by day, oldest first: of one url, of a repository at all its urls, or of all."""
    first, last = (moment.astimezone(UTC).date().isoformat() for moment in (since, until))
    days = growth.c.day.between(first, last)
    query = select(growth).where(growth.c.repository == repository, growth.c.url == url, days)
    rows = connection.execute(query.order_by(growth.c.day)).mappings()
    names = [name for name in Growth.model_fields if name != "day"]
    return tuple(
        Growth.model_construct(day=date.fromisoformat(row["day"]), **{name: row[name] for name in names})
        for row in rows
    )


def read_wanted(connection: Connection) -> int:
    """Return how many archives the retention of all backups keeps at most; ``UNLIMITED`` when there is no end.

    A backup has the same repositories on each of its clients: they are counted on one of them.
    """
    found = connection.execute(select(definitions.c.backup, definitions.c.retention).limit(MAX_DEFINITIONS + 1)).all()
    total = 0
    for name, keeps in found:
        most = retention.most(keeps)
        if most == retention.UNLIMITED or len(found) > MAX_DEFINITIONS:
            return retention.UNLIMITED
        theirs = select(func.count(), func.min(backups.c.client)).where(backups.c.backup == name)
        number, client = connection.execute(theirs).one()
        here = (evidence.c.client == client) & (evidence.c.backup == name)
        total += most * number * (connection.execute(select(func.count()).where(here)).scalar() or 0)
    return total
