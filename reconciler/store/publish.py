"""Publishing a revision: its clients, backups and signed desired states, in one transaction. Functions of a connection.

The cost follows the change: the caller gives changed rows and the keys of removed ones. The rows of ``evidence`` are
made to match the repositories that are declared; what was seen in one that is still declared, at the same url, is kept.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, case, delete, or_, select
from sqlalchemy.dialects.sqlite import insert

from reconciler.core.issue import Issued
from reconciler.store.prepared import Prepared
from reconciler.store.source import add_events, event_row
from schema.assessment import oldest_of_newest, protected_until
from schema.tables import (
    archives,
    backups,
    clients,
    conditions,
    contents,
    definitions,
    evidence,
    issued,
    observed,
    pending,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from reconciler.core.issue import BackupRow, ClientRow, DefinitionRow

_CHUNK = 500
Key = tuple[str, str]
"""Client and backup."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What changed with a revision."""

    clients: Sequence[ClientRow]
    backups: Sequence[BackupRow]
    issued: Sequence[Issued]
    removed_clients: Sequence[str]
    removed_backups: Sequence[Key]
    at: datetime
    definitions: Sequence[DefinitionRow] = ()
    removed_definitions: Sequence[str] = ()


def _replacing(table: Table, keys: list[str], columns: list[str]) -> Prepared:
    statement = insert(table)
    upsert = statement.on_conflict_do_update(
        index_elements=keys, set_={name: statement.excluded[name] for name in columns}
    )
    return Prepared(upsert, into=table)


_PUT_CLIENT = _replacing(clients, ["name"], ["public_key", "labels", "origin", "suspended"])
_DECLARED = ["origin", "cron", "time_zone", "rpo", "suspended", "repositories"]
_PUT_BACKUP = _replacing(backups, ["client", "backup"], [*_DECLARED, "newest_archive", "protected_until"])
_PUT_DEFINITION = _replacing(definitions, ["backup"], ["retention", "options"])
_ISSUED = ["audience", "generation", "digest", "revision", "issued", "expires", "envelope", "content"]


def _replacing_issued() -> Prepared:
    """Return the upsert that keeps the content which the client follows, as long as that is not the newest."""
    statement = insert(issued)
    applied = select(observed.c.digest).where(observed.c.client == issued.c.client).correlate(issued).scalar_subquery()
    follows = (issued.c.digest == applied) & (issued.c.digest != statement.excluded.digest)
    upsert = statement.on_conflict_do_update(
        index_elements=["client"],
        set_={
            **{name: statement.excluded[name] for name in _ISSUED},
            "former_digest": case((follows, issued.c.digest), else_=issued.c.former_digest),
            "former": case((follows, issued.c.content), else_=issued.c.former),
        },
    )
    return Prepared(upsert, into=issued)


_PUT_ISSUED = _replacing_issued()
_ADD_EVIDENCE = Prepared(insert(evidence), into=evidence)
_OF_BACKUP = "of_client", "of_backup"


def publish(connection: Connection, publication: Publication) -> None:
    """Keep what was published."""
    _remove_clients(connection, publication.removed_clients)
    _remove_backups(connection, publication.removed_backups)
    if publication.clients:
        _PUT_CLIENT.run_many(connection, map(_columns, publication.clients))
        _end_waiting(connection, publication.clients, at=publication.at)
    for chunk in _chunks(publication.backups):
        _put_backups(connection, chunk, at=publication.at)
    if publication.definitions:
        _PUT_DEFINITION.run_many(connection, map(_columns, publication.definitions))
    for chunk in _chunks(publication.removed_definitions):
        connection.execute(delete(definitions).where(definitions.c.backup.in_(chunk)))
    if publication.issued:
        _PUT_ISSUED.run_many(connection, map(_columns, publication.issued))


def _end_waiting(connection: Connection, rows: Sequence[ClientRow], *, at: datetime) -> None:
    """Keys that waited and now stand in Git wait no more: that is their approval."""
    names = {row.public_key: row.name for row in rows if row.public_key}
    waiting = set(connection.execute(select(pending.c.public_key)).scalars()) & names.keys()
    if not waiting:
        return
    connection.execute(delete(pending).where(pending.c.public_key.in_(waiting)))
    approved = [
        event_row(
            reason="ClientApproved",
            message=f"'{names[key]}' was approved by a commit",
            at=at,
            actor="git",
            client=names[key],
        )
        for key in sorted(waiting)
    ]
    add_events(connection, approved)


def _columns(row: Any) -> dict[str, Any]:
    """Return a row's fields by name, as they are (``asdict`` would copy models too)."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _chunks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _remove_clients(connection: Connection, names: Sequence[str]) -> None:
    """Forget clients that are no longer published; ``issued`` stays for its generation, until it expires (``trim``)."""
    for name in names:
        connection.execute(delete(clients).where(clients.c.name == name))
        for table in (backups, evidence, archives, contents):
            connection.execute(delete(table).where(table.c.client == name))
        prefix = f"backup/{name}/"
        theirs = conditions.c.object.between(prefix, prefix + "\x7f")
        connection.execute(delete(conditions).where(or_(theirs, conditions.c.object == f"client/{name}")))


def _remove_backups(connection: Connection, keys: Sequence[Key]) -> None:
    if not keys:
        return
    values = [dict(zip(_OF_BACKUP, key, strict=True)) for key in keys]
    for table in (backups, evidence, archives, contents):
        gone = delete(table).where(table.c.client == bindparam("of_client"), table.c.backup == bindparam("of_backup"))
        connection.execute(gone, values)
    connection.execute(
        delete(conditions).where(conditions.c.object == bindparam("of_object")),
        [{"of_object": f"backup/{client}/{backup}"} for client, backup in keys],
    )


def _put_backups(connection: Connection, rows: Sequence[BackupRow], *, at: datetime) -> None:
    names = {row.client for row in rows}
    first_seen = {
        (row.client, row.backup): row.first_seen
        for row in connection.execute(
            select(backups.c.client, backups.c.backup, backups.c.first_seen).where(backups.c.client.in_(names))
        )
    }
    seen: dict[Key, dict[str, Any]] = defaultdict(dict)
    names_of = ("client", "backup", "repository", "url", "declared", "newest")
    columns = [evidence.c[name] for name in names_of]
    for row in connection.execute(select(*columns).where(evidence.c.client.in_(names))):
        seen[row.client, row.backup][row.repository] = row

    values, fresh, gone = [], [], []
    for declared in rows:
        key = (declared.client, declared.backup)
        urls = {repository["name"]: repository for repository in declared.repositories}
        former = seen[key]
        kept = {name for name, row in former.items() if name in urls and row.url == urls[name]["url"]}
        gone += [(*key, name) for name in former.keys() - kept]
        fresh += [
            {"client": key[0], "backup": key[1], "repository": name, "url": one["url"], "encryption": one["encryption"]}
            for name, one in urls.items()
            if name not in kept
        ]
        pairs = [(former[name].newest, former[name].declared) if name in kept else (None, at) for name in urls]
        values.append(
            {
                **_columns(declared),
                "first_seen": first_seen.get(key, at),
                "newest_archive": oldest_of_newest(newest for newest, _ in pairs),
                "protected_until": protected_until(pairs, rpo=declared.rpo),
            }
        )
    _forget_repositories(connection, gone)
    if fresh:
        _ADD_EVIDENCE.run_many(connection, (one | {"declared": at} for one in fresh))
    _PUT_BACKUP.run_many(connection, values)


def _forget_repositories(connection: Connection, keys: Sequence[tuple[str, str, str]]) -> None:
    if not keys:
        return
    values = [dict(zip((*_OF_BACKUP, "of_repository"), key, strict=True)) for key in keys]
    for table in (evidence, archives, contents):
        gone = delete(table).where(
            table.c.client == bindparam("of_client"),
            table.c.backup == bindparam("of_backup"),
            table.c.repository == bindparam("of_repository"),
        )
        connection.execute(gone, values)


_SIGNED = [issued.c[name] for name in Issued.__dataclass_fields__ if name != "content"]
_HEADS = [column for column in _SIGNED if column.name != "envelope"]


def read_issued(connection: Connection, names: Sequence[str]) -> dict[str, Issued]:
    """Return the newest signed desired states by client, without the content (it is in the envelope)."""
    found: dict[str, Issued] = {}
    for chunk in _chunks(names):
        rows = connection.execute(select(*_SIGNED).where(issued.c.client.in_(chunk))).mappings()
        found |= {row["client"]: Issued(**row) for row in rows}
    return found


def read_all_issued(connection: Connection) -> dict[str, Issued]:
    """Return what was issued to every client, without envelope and content."""
    return {row["client"]: Issued(**row) for row in connection.execute(select(*_HEADS)).mappings()}


def read_keys(connection: Connection) -> tuple[frozenset[str], frozenset[Key]]:
    """Return the names of the published clients, and client and backup of the published backups."""
    names = connection.execute(select(clients.c.name)).scalars()
    pairs = connection.execute(select(backups.c.client, backups.c.backup))
    return frozenset(names), frozenset((row.client, row.backup) for row in pairs)


def read_committed_keys(connection: Connection) -> dict[str, str]:
    """Return the public keys of the published clients that have one, by name."""
    rows = connection.execute(select(clients.c.name, clients.c.public_key).where(clients.c.public_key != ""))
    return {row.name: row.public_key for row in rows}
