"""Backups with their evidence, repositories and archives. Functions of a read connection.

``assessed`` says in SQL, from ``protected_until``, what ``schema.assessment.protected`` says in Python; a test compares
the two.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import (
    JSON,
    ColumnElement,
    bindparam,
    case,
    false,
    func,
    literal,
    or_,
    select,
)

from schema import assessment
from schema.status import ArchiveStatus, BackupStatus, Evidence, OptionOrigin, Page, RepositoryStatus
from schema.tables import UtcText, archives, backups, definitions, evidence
from web_readonly.reader.paging import beyond, bounded, decode, encode, unindexed
from web_readonly.reader.runs import read_several
from web_readonly.reader.source import read_conditions, read_suspended

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, RowMapping, Select

Assessed = Literal["protected", "unprotected", "unknown", "without-objective"]
_NOW: Final = bindparam("now", type_=UtcText)
_KEY: Final = (backups.c.client, backups.c.backup)
_KEY_OF_EVIDENCE: Final = (evidence.c.client, evidence.c.backup)
_EVIDENCE_NAMES: Final = tuple(Evidence.model_fields)
_EVIDENCE: Final = tuple(evidence.c[name] for name in _EVIDENCE_NAMES)
MAX_USERS: Final = 1_000


@lru_cache(maxsize=4)
def assessed(suspended: frozenset[str]) -> ColumnElement[str]:
    """Return the expression for a backup's state; ``suspended`` are the objects suspended by command.

    They are seldom others than a moment ago: what is built of the expression is kept with it.
    """
    return case(
        (backups.c.rpo.is_(None), "without-objective"),
        (or_(backups.c.suspended.is_(True), _suspended_by_command(suspended)), "unknown"),
        (backups.c.protected_until < _NOW, "unprotected"),
        (backups.c.newest_archive.is_(None), "unknown"),
        else_="protected",
    )


def _suspended_by_command(suspended: Iterable[str]) -> ColumnElement[bool]:
    names = sorted(suspended)
    if not names:
        return false()
    return or_(
        (literal("client/") + backups.c.client).in_(names),
        (literal("backup/") + backups.c.client + "/" + backups.c.backup).in_(names),
    )


@dataclass(frozen=True, slots=True)
class BackupFilter:
    """Which backups; empty fields select all."""

    client: str = ""
    backup: str = ""
    repository: str = ""
    state: Assessed | None = None
    running: bool = False


def read_backups(
    connection: Connection, wanted: BackupFilter, *, limit: int, after: str, now: datetime
) -> Page[BackupStatus]:
    """Return backups by client and name."""
    query = select(backups).order_by(*_KEY).limit(bounded(limit) + 1)
    if wanted.client:
        query = query.where(backups.c.client == wanted.client)
    if wanted.backup:
        query = query.where(backups.c.backup == wanted.backup)
    if wanted.repository:
        used = (evidence.c.client == backups.c.client) & (evidence.c.backup == backups.c.backup)
        query = query.where(
            select(evidence.c.url).where(used, evidence.c.repository == wanted.repository).correlate(backups).exists()
        )
    if wanted.running:
        query = query.where(backups.c.running != "")
    suspended = read_suspended(connection)
    if wanted.state is not None:
        query = query.where(assessed(suspended) == wanted.state)
    if wanted.state == "unprotected":
        query = query.where(backups.c.protected_until < _NOW)  # says nothing new, and can be looked up
    if after:
        here, there = beyond(_KEY, decode(after, str, str))
        query = query.where(here > there)
    rows = connection.execute(query, {"now": now}).mappings().all()
    items = read_whole(connection, rows[:limit], suspended=suspended, now=now)
    return Page(items=items, next=encode([items[-1].client, items[-1].backup]) if len(rows) > limit else "")


def read_backup(connection: Connection, *, client: str, backup: str, now: datetime) -> BackupStatus | None:
    """Return one backup on one client, with all its conditions."""
    query = select(backups).where(backups.c.client == client, backups.c.backup == backup)
    rows = connection.execute(query).mappings().all()
    for shown in read_whole(connection, rows, suspended=read_suspended(connection), now=now):
        computed = {condition.type for condition in shown.conditions}
        kept = read_conditions(connection, f"backup/{client}/{backup}")
        more = [condition for condition in kept if condition.type not in computed]
        options = connection.execute(select(definitions.c.options).where(definitions.c.backup == backup)).scalar()
        return shown.model_copy(
            update={
                "conditions": (*shown.conditions, *more),
                "options": tuple(OptionOrigin(option=option, place=place) for option, place in options or ()),
            }
        )
    return None


_EVERYTHING: Final = select(func.count()).select_from(backups)


@lru_cache(maxsize=4)
def _noteworthy(suspended: frozenset[str]) -> Select[str, bool, int]:
    """Return what counts backups by state, without those that are protected and at rest, which almost all are."""
    state, running = assessed(suspended).label("state"), (backups.c.running != "").label("running")
    perhaps = or_(
        backups.c.rpo.is_(None),
        backups.c.suspended.is_(True),
        _suspended_by_command(suspended),
        backups.c.protected_until < _NOW,
        backups.c.newest_archive.is_(None),
        running,
    )
    return select(state, running, func.count().label("number")).where(perhaps).group_by(state, running)


def count_backups(connection: Connection, *, now: datetime) -> dict[str, int]:
    """Return how many backups are in which state, and how many are ``running``."""
    states, running = Counter[str](), 0
    for row in connection.execute(_noteworthy(read_suspended(connection)), {"now": now}):
        states[row.state] += row.number
        running += row.number if row.running else 0
    states["protected"] += connection.execute(_EVERYTHING).scalar_one() - states.total()
    states["running"] = running
    return states


def read_whole(
    connection: Connection, rows: Sequence[Any], *, suspended: frozenset[str], now: datetime
) -> tuple[BackupStatus, ...]:
    """Return the backups of these rows, with what else is known of each."""
    seen = _evidence(connection, [(row["client"], row["backup"]) for row in rows])
    last = read_several(connection, [row["last_run"] for row in rows])
    retention = _retention(connection, {row["backup"] for row in rows})
    return tuple(
        _backup(
            row,
            evidence=seen[row["client"], row["backup"]],
            last=last.get(row["last_run"]),
            retention=retention.get(row["backup"], {}),
            suspended=suspended,
            now=now,
        )
        for row in rows
    )


def _backup(
    row: Any,
    *,
    evidence: list[Evidence],
    last: Any,
    retention: dict[str, int | str],
    suspended: frozenset[str],
    now: datetime,
) -> BackupStatus:
    client, backup = row["client"], row["backup"]
    by_command = {f"client/{client}", f"backup/{client}/{backup}"} & suspended
    is_suspended = bool(row["suspended"] or by_command)
    condition = assessment.protected(
        rpo=row["rpo"], evidence=evidence, first_seen=row["first_seen"], suspended=is_suspended, now=now
    )
    # Not validated: a duration is text where people write it, and seconds here.
    return BackupStatus.model_construct(
        client=client,
        backup=backup,
        origin=row["origin"],
        cron=row["cron"],
        time_zone=row["time_zone"],
        rpo=row["rpo"],
        suspended=is_suspended,
        next_due=row["next_due"],
        running=row["running"],
        # A run id is a client's word: only a run of this client is shown here.
        last_run=last if last is not None and last.client == client else None,
        evidence=tuple(evidence),
        retention=retention,
        conditions=(condition,),
    )


_pair = func.json_each(bindparam("keys")).table_valued("value", name="pair")
_PAIR: Final = (func.json_extract(_pair.c.value, "$[0]"), func.json_extract(_pair.c.value, "$[1]"))
"""Client and backup, to be joined: SQLite looks up a list of pairs in no index, and walks through all."""
_KEYED: Final = select(backups).select_from(
    _pair.join(backups, (backups.c.client == _PAIR[0]) & (backups.c.backup == _PAIR[1]))
)


def _pairs(keys: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {"keys": json.dumps(list(keys))}


def read_keyed(connection: Connection, keys: Sequence[tuple[str, str]]) -> list[RowMapping]:
    """Return the rows of backups by client and name, in their order; each must be there."""
    found = connection.execute(_KEYED, _pairs(keys)).mappings() if keys else ()
    rows = {(row["client"], row["backup"]): row for row in found}
    return [rows[key] for key in keys]


_RETENTION: Final = select(definitions.c.backup, definitions.c.retention).where(
    definitions.c.backup.in_(bindparam("names", expanding=True))
)


def _retention(connection: Connection, names: set[str]) -> dict[str, dict[str, int | str]]:
    kept = connection.execute(_RETENTION, {"names": list(names)}) if names else ()
    return {row.backup: row.retention for row in kept}


_SEEN: Final = (
    select(*_KEY_OF_EVIDENCE, *_EVIDENCE)
    .select_from(_pair.join(evidence, (evidence.c.client == _PAIR[0]) & (evidence.c.backup == _PAIR[1])))
    .order_by(evidence.c.repository)
)


def _evidence(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Evidence]]:
    found: dict[tuple[str, str], list[Evidence]] = defaultdict(list)
    for client, backup, *values in connection.execute(_SEEN, _pairs(set(keys))) if keys else ():
        found[client, backup].append(Evidence(**dict(zip(_EVIDENCE_NAMES, values, strict=True))))
    return found


# --- Repositories and archives ----------------------------------------------------------------------------------------

_PLACE: Final = (evidence.c.repository, evidence.c.url)


def read_repositories(connection: Connection, *, name: str, url: str, limit: int, after: str) -> Page[RepositoryStatus]:
    """Return Borg repositories (one url each) by name and url."""
    query = (
        select(
            *_PLACE,
            func.max(evidence.c.encryption).label("encryption"),
            func.max(evidence.c.repository_size).label("size"),
            func.min(func.total(evidence.c.archives), 2**62).label("archives"),
            func.max(evidence.c.newest, type_=UtcText).label("newest"),
            func.json_group_array(evidence.c.client + "/" + evidence.c.backup, type_=JSON).label("users"),
        )
        .group_by(*_PLACE)
        .order_by(*_PLACE)
        .limit(bounded(limit) + 1)
    )
    if name:
        query = query.where(evidence.c.repository == name)
    if url:
        query = query.where(evidence.c.url == url)
    if after:
        here, there = beyond(_PLACE, decode(after, str, str))
        query = query.where(here > there)
    rows = connection.execute(query).mappings().all()
    looks = _looks(connection, [(row["repository"], row["url"]) for row in rows[:limit]])
    items = tuple(_repository(row, looks.get((row["repository"], row["url"]))) for row in rows[:limit])
    return Page(items=items, next=encode([items[-1].name, items[-1].url]) if len(rows) > limit else "")


def read_repository_names(connection: Connection, *, limit: int = 200) -> tuple[str, ...]:
    """Return the names of repositories in order, each found by a jump in the index: however many backups use it."""
    names: list[str] = []
    while len(names) < limit:
        after = select(func.min(evidence.c.repository)).where(evidence.c.repository > (names[-1] if names else ""))
        name = connection.execute(after).scalar()
        if name is None:
            break
        names.append(name)
    return tuple(names)


class _Look(NamedTuple):
    """The last time that somebody looked into a repository."""

    seen: datetime
    available: bool | None
    message: str


def _looks(connection: Connection, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], _Look]:
    """Return the last look into each of these places, which stand one after the other in the index."""
    if not places:
        return {}
    first, last = beyond(_PLACE, places[0]), beyond(_PLACE, places[-1])
    # With max() SQLite gives the other columns of the row that has it.
    query = select(*_PLACE, func.max(evidence.c.seen, type_=UtcText).label("seen"), evidence.c.available)
    query = query.where(first[0] >= first[1], last[0] <= last[1]).group_by(*_PLACE)
    return {
        (row.repository, row.url): _Look(row.seen, row.available, _message(connection, row))
        for row in connection.execute(query)
        if row.seen is not None
    }


def _message(connection: Connection, look: Any) -> str:
    """Return why a repository could not be read; the index tells whether it could, and the rows why not."""
    if look.available is not False:
        return ""
    here = (evidence.c.repository == look.repository) & (evidence.c.url == look.url) & (evidence.c.seen == look.seen)
    query = select(evidence.c.message).where(here, evidence.c.available.is_(False)).limit(1)
    return connection.execute(query).scalar() or ""


def _repository(row: Any, look: _Look | None) -> RepositoryStatus:
    return RepositoryStatus(
        name=row["repository"],
        url=row["url"],
        encryption=row["encryption"],
        size=row["size"],
        archives=int(row["archives"]),
        available=look.available if look else None,
        message=look.message if look else "",
        seen=look.seen if look else None,
        newest=row["newest"],
        users=tuple(sorted(row["users"])[:MAX_USERS]),
    )


_ARCHIVE_KEY: Final = (archives.c.start, archives.c.client, archives.c.backup, archives.c.repository, archives.c.id)
_ARRANGED: Final = (archives.c.start, archives.c.repository)


def read_archives(
    connection: Connection, *, client: str, backup: str, repository: str, limit: int, before: str
) -> Page[ArchiveStatus]:
    """Return archives, newest first."""
    # One client's archives are few, whatever else is asked of them: they are found first and put in order then.
    start, kept_in = map(unindexed, _ARRANGED) if client else _ARRANGED
    order = (start.desc(), *(column.desc() for column in _ARCHIVE_KEY[1:]))
    query = select(archives).order_by(*order).limit(bounded(limit) + 1)
    if client:
        query = query.where(archives.c.client == client)
    if backup:
        query = query.where(archives.c.backup == backup)
    if repository:
        query = query.where(kept_in == repository)
    if before:
        key = decode(before, datetime, str, str, str, str)
        here, there = beyond(_ARCHIVE_KEY, key)
        query = query.where(start <= key[0], here < there)
    rows = connection.execute(query).mappings().all()
    items = tuple(ArchiveStatus(**row) for row in rows[:limit])
    last = [rows[limit - 1][column.name] for column in _ARCHIVE_KEY] if len(rows) > limit else []
    return Page(items=items, next=encode(last) if last else "")


def read_archive(
    connection: Connection, *, client: str, backup: str, repository: str, archive: str
) -> ArchiveStatus | None:
    """Return one archive by id or name, or None."""
    here = (archives.c.client == client) & (archives.c.backup == backup) & (archives.c.repository == repository)
    named = or_(archives.c.id == archive, archives.c.name == archive)
    row = connection.execute(select(archives).where(here, named).limit(1)).mappings().first()
    return None if row is None else ArchiveStatus(**row)
