"""Who may come in: tokens, pending keys, approvals and revocations by command, lockouts. Functions of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from reconciler.core.enrolment import Approval
from reconciler.core.lockout import LockoutRow
from schema.errors import TerminalError
from schema.status import TokenStatus
from schema.tables import approvals, lockouts, pending, revocations, tokens

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

MAX_LOCKOUTS: Final = 10_000
MAX_PENDING: Final = 10_000


@dataclass(frozen=True, slots=True)
class PendingKey:
    """A key that showed a good token and waits for approval."""

    public_key: str
    name: str
    address: str
    first_seen: datetime
    last_seen: datetime
    config_directory: str = ""
    state_directory: str = ""


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key that stays out, also when it stands in Git."""

    public_key: str
    name: str
    revoked_by: str
    at: datetime


# --- Tokens -----------------------------------------------------------------------------------------------------------


def add_token(connection: Connection, token: TokenStatus, *, token_hash: str) -> None:
    """Keep a new token's hash."""
    connection.execute(insert(tokens), {**dict(token), "hash": token_hash})


def read_tokens(connection: Connection) -> list[TokenStatus]:
    """Return all tokens, newest first; never their hashes."""
    columns = [tokens.c[name] for name in TokenStatus.model_fields]
    found = connection.execute(select(*columns).order_by(tokens.c.created.desc(), tokens.c.id)).mappings()
    return [TokenStatus.model_validate(dict(row), by_name=True) for row in found]


def revoke_token(connection: Connection, token_id: str) -> bool:
    """Return whether there was such a token; it is worth nothing from now on."""
    return connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked=True)).rowcount > 0


def consume_token(connection: Connection, *, token_hash: str, public_key: str, now: datetime) -> bool:
    """Return whether the token lets this key wait for approval, and take one use of it.

    A key that waits already uses nothing: its first answer may have been lost on the way.
    """
    valid = (tokens.c.hash == token_hash) & tokens.c.revoked.is_(False) & (tokens.c.expires > now)
    if connection.execute(select(pending.c.public_key).where(pending.c.public_key == public_key)).first():
        return connection.execute(select(tokens.c.id).where(valid)).first() is not None
    used = update(tokens).where(valid, tokens.c.uses_left > 0).values(uses_left=tokens.c.uses_left - 1)
    return connection.execute(used).rowcount > 0


def enrol(connection: Connection, *, token_hash: str, key: PendingKey) -> bool:
    """Return whether the token lets this key wait for approval, and keep both, the use and the key.

    In one transaction: a director that is killed has taken a use of the token only when it knows the key.
    """
    good = consume_token(connection, token_hash=token_hash, public_key=key.public_key, now=key.first_seen)
    if good:
        put_pending(connection, key)
    return good


# --- Keys -------------------------------------------------------------------------------------------------------------

_new_pending = insert(pending)
_PUT_PENDING = _new_pending.on_conflict_do_update(
    index_elements=["public_key"],
    set_={
        name: _new_pending.excluded[name]
        for name in ("name", "address", "last_seen", "config_directory", "state_directory")
    },
)


def put_pending(connection: Connection, key: PendingKey) -> None:
    """Keep a waiting key; the time it was first seen stays. Of too many, the oldest go."""
    connection.execute(_PUT_PENDING, _fields(key))
    if connection.execute(select(func.count()).select_from(pending)).scalar_one() > MAX_PENDING:
        oldest = select(pending.c.public_key).order_by(pending.c.last_seen).limit(1)
        connection.execute(delete(pending).where(pending.c.public_key.in_(oldest)))


def read_pending(connection: Connection) -> list[PendingKey]:
    """Return the waiting keys, the longest waiting first."""
    found = connection.execute(select(pending).order_by(pending.c.first_seen, pending.c.public_key)).mappings()
    return [PendingKey(**row) for row in found]


def delete_pending(connection: Connection, public_key: str) -> bool:
    """Return whether the key waited; it no longer does."""
    return connection.execute(delete(pending).where(pending.c.public_key == public_key)).rowcount > 0


def approve(connection: Connection, approval: Approval, *, at: datetime) -> None:
    """Keep an approval by command; ``TerminalError`` when the key is revoked or the name has another key."""
    revoked = select(revocations.c.public_key).where(revocations.c.public_key == approval.public_key)
    if connection.execute(revoked).first():
        raise TerminalError(
            f"cannot approve client '{approval.name}': this key was revoked",
            hint="make a new key on the machine and enrol again",
        )
    other = select(approvals.c.public_key).where(
        approvals.c.name == approval.name, approvals.c.public_key != approval.public_key
    )
    if connection.execute(other).first():
        raise TerminalError(
            f"cannot approve client '{approval.name}': the name is approved with another key",
            hint=f"if the machine was rebuilt, revoke the old key first: director clients revoke {approval.name}",
        )
    statement = insert(approvals)
    names = ("name", "approved_by", "at")
    replaced = {name: statement.excluded[name] for name in names}
    putting = statement.on_conflict_do_update(index_elements=["public_key"], set_=replaced)
    connection.execute(putting, _fields(approval) | {"at": at})
    delete_pending(connection, approval.public_key)


def read_approvals(connection: Connection) -> list[Approval]:
    """Return the approvals by command, oldest first."""
    columns = (approvals.c.public_key, approvals.c.name, approvals.c.approved_by)
    found = connection.execute(select(*columns).order_by(approvals.c.at, approvals.c.public_key)).mappings()
    return [Approval(**row) for row in found]


def revoke(connection: Connection, revocation: Revocation) -> None:
    """Keep a key out; it is neither approved nor waiting from now on. Doing it twice keeps the first."""
    connection.execute(insert(revocations).on_conflict_do_nothing(), _fields(revocation))
    connection.execute(delete(approvals).where(approvals.c.public_key == revocation.public_key))
    delete_pending(connection, revocation.public_key)


def unrevoke(connection: Connection, public_key: str) -> bool:
    """Return whether the key was revoked; it no longer is (and is not approved by that either)."""
    return connection.execute(delete(revocations).where(revocations.c.public_key == public_key)).rowcount > 0


def read_revocations(connection: Connection) -> list[Revocation]:
    """Return the revoked keys, by name."""
    found = connection.execute(select(revocations).order_by(revocations.c.name, revocations.c.at)).mappings()
    return [Revocation(**row) for row in found]


# --- Lockouts ---------------------------------------------------------------------------------------------------------

_new_lockout = insert(lockouts)
_PUT_LOCKOUT = _new_lockout.on_conflict_do_update(
    index_elements=["address"],
    set_={name: _new_lockout.excluded[name] for name in ("failures", "window_start", "locked_until")},
)


def put_lockouts(connection: Connection, rows: Collection[LockoutRow], *, removed: Collection[str]) -> None:
    """Keep failed attempts by address. Of too many the oldest go, those that are not locked first."""
    if removed:
        gone = delete(lockouts).where(lockouts.c.address == bindparam("of_address"))
        connection.execute(gone, [{"of_address": address} for address in removed])
    if rows:
        connection.execute(_PUT_LOCKOUT, [_fields(row) for row in rows])
    surplus = connection.execute(select(func.count()).select_from(lockouts)).scalar_one() - MAX_LOCKOUTS
    if surplus > 0:
        age = (lockouts.c.locked_until.is_not(None), lockouts.c.window_start)
        oldest = select(lockouts.c.address).order_by(*age).limit(surplus)
        connection.execute(delete(lockouts).where(lockouts.c.address.in_(oldest)))


def read_lockouts(connection: Connection) -> list[LockoutRow]:
    """Return what is kept, oldest first."""
    found = connection.execute(select(lockouts).order_by(lockouts.c.window_start, lockouts.c.address)).mappings()
    return [LockoutRow(**row) for row in found]


def _fields(row: PendingKey | Approval | Revocation | LockoutRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
