"""Clients as the pages show them: desired, applied, observed. Functions of a read connection.

``FOLLOWING`` says in SQL what ``schema.assessment.following`` says in Python, so that five thousand clients are counted
and filtered by the database; a test compares the two.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)

from schema import assessment
from schema.desired import Content
from schema.observed import StateReport, Versions
from schema.status import ClientStatus, EnvelopeStatus, Following, Page, PendingClient, Phase, RevisionHeld
from schema.tables import UtcText, approvals, backups, clients, issued, observed, pending, revocations
from web_readonly.reader.database import InvalidQuery
from web_readonly.reader.paging import bounded, contains, decode, encode
from web_readonly.reader.source import read_conditions, read_suspended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, FromClause, Select

_LABEL_KEY = re.compile(r"[A-Za-z0-9./_-]{1,317}", re.ASCII)

_other = approvals.alias("other")
_PUBLISHED: Final = select(
    clients.c.name,
    clients.c.public_key,
    clients.c.labels,
    clients.c.origin,
    clients.c.suspended,
    literal_column("1").label("in_source"),
)
_UNPUBLISHED: Final = select(
    _other.c.name,
    literal("", String).label("public_key"),
    literal_column("'{}'", clients.c.labels.type).label("labels"),
    literal("", String).label("origin"),
    literal_column("0", clients.c.suspended.type).label("suspended"),
    literal_column("0").label("in_source"),
).where(~select(clients.c.name).where(clients.c.name == _other.c.name).exists())
NAMES: Final = union_all(_PUBLISHED, _UNPUBLISHED).subquery("names")
"""Published clients, and those that only a command approved."""
_HALVES: Final = (_PUBLISHED.subquery("published"), _UNPUBLISHED.subquery("unpublished"))
"""The same apart: what asks for all of them is answered in half the time when they are not put together first."""

_NOW: Final = bindparam("now", type_=UtcText)
KEY: Final = func.coalesce(func.nullif(NAMES.c.public_key, ""), approvals.c.public_key, "")
FOLLOWING: Final[ColumnElement[str]] = case(
    (
        or_(
            issued.c.digest.is_(None),
            and_(func.coalesce(observed.c.digest, "") == "", func.coalesce(observed.c.refused, 0) == 0),
        ),
        Following.UNKNOWN.value,
    ),
    (observed.c.refused >= issued.c.generation, Following.REFUSED.value),
    (observed.c.digest != issued.c.digest, Following.BEHIND.value),
    (or_(observed.c.stale.is_(True), observed.c.expires < _NOW), Following.STALE.value),
    else_=Following.CURRENT.value,
)
_PHASE: Final[ColumnElement[str]] = case(
    (revocations.c.public_key.is_not(None), Phase.REVOKED.value),
    (KEY != "", Phase.APPROVED.value),
    else_=Phase.PENDING.value,
)
_SOURCES: Final = (
    NAMES.outerjoin(approvals, approvals.c.name == NAMES.c.name)
    .outerjoin(revocations, revocations.c.public_key == KEY)
    .outerjoin(issued, issued.c.client == NAMES.c.name)
    .outerjoin(observed, observed.c.client == NAMES.c.name)
)
_STANDINGS: Final = tuple(
    half.outerjoin(issued, issued.c.client == half.c.name).outerjoin(observed, observed.c.client == half.c.name)
    for half in _HALVES
)
"""Without who approved them."""
_COUNT: Final = (
    select(func.count()).select_from(backups).where(backups.c.client == NAMES.c.name).correlate(NAMES).scalar_subquery()
)
_COLUMNS: Final = (
    *NAMES.c,
    KEY.label("key"),
    approvals.c.approved_by,
    _PHASE.label("phase"),
    FOLLOWING.label("following"),
    issued.c.generation.label("desired_generation"),
    issued.c.revision.label("desired_revision"),
    issued.c.digest.label("desired_digest"),
    issued.c.expires.label("desired_expires"),
    observed.c.generation.label("applied_generation"),
    observed.c.revision.label("applied_revision"),
    observed.c.digest.label("applied_digest"),
    observed.c.connected,
    observed.c.last_seen,
    observed.c.address,
    observed.c.reported,
    observed.c.state,
    _COUNT.label("backups"),
)


@dataclass(frozen=True, slots=True)
class ClientFilter:
    """Which clients; empty fields select all."""

    text: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    phase: Phase | None = None
    following: Following | None = None
    connected: bool | None = None
    drifted: bool | None = None

    def sources(self) -> FromClause:
        """Return what the filter needs: most ask for names and labels alone."""
        asked = (self.phase, self.following, self.connected, self.drifted)
        return NAMES if all(one is None for one in asked) else _SOURCES

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.text:
            found.append(NAMES.c.name.like(contains(self.text), escape="\\"))
        found += has_labels(NAMES.c.labels, self.labels)
        if self.phase is not None:
            found.append(_PHASE.in_([self.phase.value]))
        if self.following is not None:
            found.append(FOLLOWING.in_([self.following.value]))
        if self.connected is not None:
            found.append(func.coalesce(observed.c.connected, 0) == int(self.connected))
        if self.drifted is not None:
            found.append((func.coalesce(observed.c.drifted, 0) > 0) == self.drifted)
        return found


def has_labels(column: ColumnElement[Any], labels: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return that the labels in a column are at least these, in SQL."""
    for key in labels:
        if not _LABEL_KEY.fullmatch(key):
            raise InvalidQuery(f"'{key[:80]}' is not the key of a label")
    return [func.json_extract(column, f'$."{key}"') == value for key, value in labels.items()]


def read_clients(
    connection: Connection, wanted: ClientFilter, *, limit: int, after: str, now: datetime
) -> Page[ClientStatus]:
    """Return clients by name."""
    query = select(NAMES.c.name).select_from(wanted.sources()).where(*wanted.conditions()).order_by(NAMES.c.name)
    if after:
        query = query.where(NAMES.c.name > decode(after, str)[0])
    names = connection.execute(by_heads(query).limit(bounded(limit) + 1), {"now": now}).scalars().all()
    items = tuple(read_named(connection, names[:limit], now=now))
    return Page(items=items, next=encode([items[-1].name]) if len(names) > limit else "")


def by_heads(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Return a query over all clients that reads indexes instead of rows with envelopes and reports in them."""
    return query.with_hint(issued, "INDEXED BY ix_issued_heads").with_hint(observed, "INDEXED BY ix_observed_heads")


_WHOLE: Final = select(*_COLUMNS).select_from(_SOURCES)
_NAMED: Final = _WHOLE.where(NAMES.c.name.in_(bindparam("names", expanding=True)))
_ONE: Final = _WHOLE.where(NAMES.c.name == bindparam("client"))


def read_named(connection: Connection, names: Sequence[str], *, now: datetime) -> list[ClientStatus]:
    """Return the clients of these names, in their order; each must be there."""
    if not names:
        return []
    suspended = read_suspended(connection)
    found = connection.execute(_NAMED, {"names": names, "now": now})
    rows = {row["name"]: row for row in found.mappings()}
    return [_client(rows[name], suspended=suspended, now=now) for name in names]


def read_client(connection: Connection, name: str, *, now: datetime) -> ClientStatus | None:
    """Return one client with all its conditions."""
    row = connection.execute(_ONE, {"client": name, "now": now}).mappings().first()
    if row is None:
        return None
    shown = _client(row, suspended=read_suspended(connection), now=now)
    computed = {condition.type for condition in shown.conditions}
    kept = [one for one in read_conditions(connection, f"client/{name}") if one.type not in computed]
    return shown.model_copy(update={"conditions": (*shown.conditions, *kept), **_envelope(connection, name)})


_KEY_ID = re.compile(rb'"keyid":"(SHA256:[A-Za-z0-9+/]{43})"')


def _envelope(connection: Connection, name: str) -> dict[str, Any]:
    """Return what is to be known of a signed desired state; the signature stands at its end."""
    size, end = func.length(issued.c.envelope).label("size"), func.substr(issued.c.envelope, -512).label("end")
    query = select(issued.c.issued, issued.c.audience, size, end).where(issued.c.client == name)
    row = connection.execute(query).first()
    if row is None:
        return {}
    signer = _KEY_ID.search(bytes(row.end or b""))
    envelope = EnvelopeStatus(
        audience=fingerprint(row.audience), signer=signer[1].decode() if signer else "", size=row.size
    )
    return {"issued": row.issued, "envelope": envelope}


def read_content(connection: Connection, client: str) -> Content | None:
    """Return what the newest issued desired state asks of a client."""
    kept = connection.execute(select(issued.c.content).where(issued.c.client == client)).scalar()
    return _content(kept)


def read_former(connection: Connection, client: str, *, digest: str) -> Content | None:
    """Return the content that a client had applied when the newest was issued, if it has this digest."""
    query = select(issued.c.former).where(issued.c.client == client, issued.c.former_digest == digest)
    return _content(connection.execute(query).scalar() if digest else None)


def read_state(connection: Connection, client: str) -> StateReport | None:
    """Return the client's newest report of its state."""
    kept = connection.execute(select(observed.c.state).where(observed.c.client == client)).scalar()
    return _state(kept)


@dataclass(frozen=True, slots=True)
class ClientCounts:
    """How many clients there are, and how they stand."""

    clients: int
    connected: int
    drifted: int
    following: dict[str, int]
    revisions: tuple[RevisionHeld, ...] = ()
    """Every revision that a client has applied, that of most clients first."""


_REVISION: Final = func.coalesce(observed.c.revision, "").label("revision")
_COUNTED: Final = select(
    FOLLOWING.label("following"),
    _REVISION,
    func.count().label("clients"),
    func.sum(case((observed.c.connected.is_(True), 1), else_=0)).label("connected"),
    func.sum(case((observed.c.drifted > 0, 1), else_=0)).label("drifted"),
).group_by(FOLLOWING, _REVISION)
_COUNTS: Final = tuple(by_heads(_COUNTED.select_from(standing)) for standing in _STANDINGS)


def count_clients(connection: Connection, *, now: datetime) -> ClientCounts:
    """Return the counts of all clients."""
    rows = [row for query in _COUNTS for row in connection.execute(query, {"now": now})]
    following, held = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for row in rows:
        following[row.following] += row.clients
        held[row.revision][row.following] += row.clients
    return ClientCounts(
        clients=sum(row.clients for row in rows),
        connected=sum(row.connected for row in rows),
        drifted=sum(row.drifted for row in rows),
        following=dict(following),
        revisions=tuple(
            RevisionHeld(revision=name, clients=each.total(), following=dict(each))
            for name, each in sorted(held.items(), key=lambda one: (-one[1].total(), one[0]))
        ),
    )


_WAITING: Final = select(func.count()).select_from(pending)


def count_pending(connection: Connection) -> int:
    """Return how many keys wait for approval."""
    return connection.execute(_WAITING).scalar_one()


_PENDING: Final = select(pending).order_by(pending.c.first_seen)
_HOLDERS: Final = (
    select(NAMES.c.name, KEY.label("key"))
    .select_from(NAMES.outerjoin(approvals, approvals.c.name == NAMES.c.name))
    .where(NAMES.c.name.in_(bindparam("names", expanding=True)))
)


def read_pending(connection: Connection) -> tuple[PendingClient, ...]:
    """Return the keys that wait for approval, the longest waiting first."""
    waiting = connection.execute(_PENDING).mappings().all()
    named = {"names": list({row["name"] for row in waiting})}
    holders = {row.name: row.key for row in connection.execute(_HOLDERS, named)} if waiting else {}
    return tuple(
        PendingClient(
            **{name: row[name] for name in PendingClient.model_fields if name in row},
            fingerprint=fingerprint(row["public_key"]),
            conflict=holders.get(row["name"], "") not in {"", row["public_key"]},
        )
        for row in waiting
    )


def fingerprint(key: str) -> str:
    """Return what ``schema.envelope.fingerprint`` does, which the pages may not load: it comes with the keys."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.encode()).digest()).rstrip(b"=").decode() if key else ""


def _content(kept: Any) -> Content | None:
    """Return the kept content; None for one of another version that cannot be read any more."""
    try:
        return None if kept is None else Content.model_validate(kept)
    except ValidationError:
        return None


def _state(kept: Any) -> StateReport | None:
    """Return the kept report; None for one of another version that cannot be read any more."""
    try:
        return None if kept is None else StateReport.model_validate(kept)
    except ValidationError:
        return None


def _client(row: Any, *, suspended: frozenset[str], now: datetime) -> ClientStatus:
    state = _state(row["state"])
    drift = state.drift if state else ()
    is_connected = bool(row["connected"])
    approved = row["phase"] == Phase.APPROVED.value
    return ClientStatus(
        name=row["name"],
        phase=Phase(row["phase"]),
        fingerprint=fingerprint(row["key"]),
        approved_by=("commit" if row["public_key"] else row["approved_by"] or "") if approved else "",
        labels=row["labels"],
        in_source=bool(row["in_source"]),
        origin=row["origin"],
        suspended=bool(row["suspended"]) or f"client/{row['name']}" in suspended,
        connected=is_connected,
        last_seen=row["last_seen"],
        address=row["address"] or "",
        following=Following(row["following"]),
        desired_generation=row["desired_generation"] or 0,
        desired_revision=row["desired_revision"] or "",
        desired_digest=row["desired_digest"] or "",
        expires=row["desired_expires"],
        applied_generation=row["applied_generation"] or 0,
        applied_revision=row["applied_revision"] or "",
        applied_digest=row["applied_digest"] or "",
        refusal=state.refusal if state else None,
        drift=drift,
        versions=state.versions if state else Versions(),
        backups=row["backups"],
        conditions=(
            assessment.connected(is_connected=is_connected, last_seen=row["last_seen"], now=now),
            assessment.drifted(drift, reported=row["reported"], now=now),
        ),
    )
