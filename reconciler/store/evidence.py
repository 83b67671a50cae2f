"""What the objective is held against, kept on each backup's row: shared by publishing and by ingesting.

``newest_archive`` is the oldest, over the backup's repositories, of each one's newest archive, and empty when any has
none. ``protected_until`` follows from it, so that pages count and order the unprotected by an index.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from schema.assessment import oldest_of_newest, protected_until
from schema.tables import backups, evidence

if TYPE_CHECKING:
    from sqlalchemy import Connection


def renew(connection: Connection, *, client: str, backup: str) -> None:
    """Set both on the row of one backup from the evidence as it is now."""
    here = (backups.c.client == client) & (backups.c.backup == backup)
    columns = (evidence.c.newest, evidence.c.declared)
    seen = select(*columns).where(evidence.c.client == client, evidence.c.backup == backup)
    pairs = [(row.newest, row.declared) for row in connection.execute(seen)]
    rpo = connection.execute(select(backups.c.rpo).where(here)).scalar()
    newest, until = oldest_of_newest(one for one, _ in pairs), protected_until(pairs, rpo=rpo)
    connection.execute(update(backups).where(here).values(newest_archive=newest, protected_until=until))


SLACK = timedelta(hours=1)
"""How far a machine's clock may run ahead of ours before its times are not believed."""


def settle(at: datetime, *, received: datetime) -> datetime:
    """Return a client's time, or ours when its clock is far ahead (it would head every list, and never be trimmed)."""
    return received if at > received + SLACK else at
