"""What lists can be narrowed by, with how many there are of each; and facts of the whole store. Of a read connection.

Counting stops where it would cost more than it tells (``MAX_COUNT``): "1,000 or more" is answer enough for a filter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, func, literal_column, select, text

from schema.scalars import Moment
from schema.status import Shown
from schema.tables import SCHEMA_VERSION, backups, clients, definitions, events, evidence, revisions, runs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

MAX_COUNT: Final = 1_000
MAX_FACETS: Final = 60


class Facet(NamedTuple):
    """One value of a filter."""

    value: str
    number: int

    @property
    def is_more(self) -> bool:
        """Whether counting stopped here."""
        return self.number >= MAX_COUNT


def read_labels(connection: Connection, *, limit: int = MAX_FACETS) -> tuple[Facet, ...]:
    """Return the labels of the published clients as ``key=value``, those with most clients first, then by name."""
    found = Counter[str]()
    # Many clients have the same labels: each set of them is taken apart once.
    for row in connection.execute(select(clients.c.labels, func.count().label("number")).group_by(clients.c.labels)):
        for key, value in row.labels.items():
            found[f"{key}={value}"] += row.number
    in_order = sorted(found.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Facet(label, number) for label, number in in_order[:limit])


def read_reasons(connection: Connection) -> tuple[Facet, ...]:
    """Return the reasons of the audit trail by name, each found by one step in the index instead of a walk over all."""
    next_reason = text(
        "WITH RECURSIVE found(reason) AS (SELECT min(reason) FROM events UNION ALL "
        "SELECT (SELECT min(reason) FROM events WHERE reason > found.reason) FROM found "
        "WHERE found.reason IS NOT NULL) SELECT reason FROM found WHERE reason IS NOT NULL LIMIT :limit"
    )
    reasons = connection.execute(next_reason, {"limit": MAX_FACETS}).scalars().all()
    return tuple(Facet(reason, _count(connection, reason)) for reason in reasons)


def _count(connection: Connection, reason: str) -> int:
    some = select(literal_column("1")).where(events.c.reason == reason).limit(MAX_COUNT).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one()


def read_known_revisions(connection: Connection, names: Iterable[str]) -> frozenset[str]:
    """Return those of the revisions that the store still knows: the others have no page to link to."""
    wanted = sorted({name for name in names if name})
    if not wanted:
        return frozenset()
    return frozenset(connection.execute(select(revisions.c.revision).where(revisions.c.revision.in_(wanted))).scalars())


def read_options(connection: Connection, client: str) -> Mapping[str, Mapping[str, str]]:
    """Return, for each backup of a client, option path → ``file:line`` in Git."""
    query = select(definitions.c.backup, definitions.c.options).join(backups, backups.c.backup == definitions.c.backup)
    found = connection.execute(query.where(backups.c.client == client))
    return {row.backup: {option: place for option, place in row.options if place} for row in found}


Named = Literal["client", "backup", "repository"]
_NAMED: Final[Mapping[str, ColumnElement[str]]] = {
    "client": clients.c.name,
    "backup": backups.c.backup,
    "repository": evidence.c.repository,
}
_NEIGHBOURS: Final = 100


def read_neighbours(connection: Connection, kind: Named, name: str) -> tuple[str, ...]:
    """Return the names of a kind that stand around ``name`` in the alphabet: among them is what was meant."""
    column = _NAMED[kind]
    before = select(column).distinct().where(column < name).order_by(column.desc()).limit(_NEIGHBOURS)
    after = select(column).distinct().where(column > name).order_by(column).limit(_NEIGHBOURS)
    return (*connection.execute(before).scalars(), *connection.execute(after).scalars())


class StoreFacts(Shown):
    """What is kept, and since when."""

    schema_version: str
    size: int
    """Bytes on disk, with what SQLite has not written back yet."""
    oldest_run: Moment | None = None
    oldest_event: Moment | None = None


def read_facts(connection: Connection, *, size: int) -> StoreFacts:
    """Return the facts of a store whose files have this many bytes."""
    oldest = [
        connection.execute(select(column).order_by(column).limit(1)).scalar()
        for column in (runs.c.started, events.c.at)
    ]
    return StoreFacts(schema_version=SCHEMA_VERSION, size=size, oldest_run=oldest[0], oldest_event=oldest[1])
