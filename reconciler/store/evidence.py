"""What the objective is held against, kept on each backup's row: shared by publishing and by ingesting.

``newest_archive`` is the oldest, over the backup's repositories, of each one's newest archive, and empty when any has
none. ``protected_until`` follows from it, so that pages count and order the unprotected by an index.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update

from reconciler.store.prepared import Prepared
from schema.assessment import oldest_of_newest, protected_until
from schema.tables import backups, evidence

if TYPE_CHECKING:
    from sqlalchemy import Connection


_here = (backups.c.client == bindparam("of_client")) & (backups.c.backup == bindparam("of_backup"))
_DEADLINES = Prepared(
    select(backups.c.rpo, evidence.c.newest, evidence.c.declared)
    .join(evidence, (evidence.c.client == backups.c.client) & (evidence.c.backup == backups.c.backup))
    .where(_here)
)
_RENEW = Prepared(
    update(backups).where(_here).values(newest_archive=bindparam("newest"), protected_until=bindparam("until"))
)


def renew(connection: Connection, *, client: str, backup: str) -> None:
    """Set both on the row of one backup from the evidence as it is now."""
    rows = _DEADLINES.run(connection, of_client=client, of_backup=backup).fetchall()
    if not rows:
        return
    pairs = [(newest and datetime.fromisoformat(newest), datetime.fromisoformat(since)) for _, newest, since in rows]
    newest, until = oldest_of_newest(one for one, _ in pairs), protected_until(pairs, rpo=rows[0][0])
    _RENEW.run(connection, of_client=client, of_backup=backup, newest=newest, until=until)


SLACK = timedelta(hours=1)
"""How far a machine's clock may run ahead of ours before its times are not believed."""


def settle(at: datetime, *, received: datetime) -> datetime:
    """Return a client's time, or ours when its clock is far ahead (it would head every list, and never be trimmed)."""
    return received if at > received + SLACK else at
