"""How repositories grow, day by day. Functions of a read connection."""

from __future__ import annotations

from datetime import UTC, date
from typing import TYPE_CHECKING

from sqlalchemy import select

from schema.status import Growth
from schema.tables import growth

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


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
