"""Who is connected, and where running backups stand. Functions of a connection.

These are facts of the moment, which a crash may lose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from reconciler.store.prepared import Prepared
from schema.tables import observed, outboxes, runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from schema.observed import RunProgress

_new_session = insert(observed)
_CONNECT = Prepared(
    _new_session.on_conflict_do_update(
        index_elements=["client"],
        set_={name: _new_session.excluded[name] for name in ("public_key", "connected", "address", "last_seen")},
    ),
    into=observed,
)
_HAS_OUTBOX = Prepared(select(outboxes.c.epoch).where(outboxes.c.public_key == bindparam("of_key")).limit(1))
_DISCONNECT = Prepared(
    update(observed)
    .where(observed.c.client == bindparam("of_client"), observed.c.public_key == bindparam("of_key"))
    .values(connected=False, last_seen=bindparam("at"))
)
_SEEN = update(observed).where(observed.c.client == bindparam("of_client")).values(last_seen=bindparam("at"))
_PROGRESS = (
    update(runs)
    .where(runs.c.id == bindparam("run"), runs.c.client == bindparam("of_client"), runs.c.finished.is_(None))
    .values(progress=bindparam("now"))
)


def connect(connection: Connection, *, client: str, public_key: str, address: str, at: datetime) -> bool:
    """Keep that a session began, and return whether anything of this key's outbox was ever stored."""
    _CONNECT.run(connection, client=client, public_key=public_key, connected=True, address=address, last_seen=at)
    return _HAS_OUTBOX.value(connection, of_key=public_key) is not None


def disconnect(connection: Connection, *, client: str, public_key: str, at: datetime) -> None:
    """Keep that a session ended; one that another key has opened since is left alone."""
    _DISCONNECT.run(connection, of_client=client, of_key=public_key, at=at)


def disconnect_all(connection: Connection) -> None:
    """At the start nobody is connected, whatever the last director wrote before it died."""
    connection.execute(update(observed).where(observed.c.connected.is_(True)).values(connected=False))


def put_seen(connection: Connection, times: Mapping[str, datetime]) -> None:
    """Keep when clients were last heard."""
    connection.execute(_SEEN, [{"of_client": client, "at": at} for client, at in times.items()])


def put_progress(connection: Connection, latest: Mapping[str, tuple[str, RunProgress]]) -> None:
    """Keep the newest progress of running backups: run → client and progress."""
    rows = [{"run": run, "of_client": client, "now": progress} for run, (client, progress) in latest.items()]
    connection.execute(_PROGRESS, rows)
