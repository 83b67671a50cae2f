"""The source as the loop judged it: revisions, status, conditions, what is suspended, events.

Functions of a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, case, delete, or_, select
from sqlalchemy.dialects.sqlite import insert

from schema.status import Condition, RevisionStatus, SourceStatus
from schema.tables import conditions, events, meta, revisions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from schema.errors import Problem

SOURCE: Final = "source"
"""The source's name among objects with conditions, and in notices."""

_new_value = insert(meta)
_PUT_VALUE = _new_value.on_conflict_do_update(index_elements=["key"], set_={"value": _new_value.excluded.value})

_new_revision = insert(revisions)
_JUDGED = ("outcome", "reason", "message", "changed_clients", "summary", "changes", "problems")
_PUT_REVISION = _new_revision.on_conflict_do_update(
    index_elements=["revision"], set_={name: _new_revision.excluded[name] for name in _JUDGED}
)

_new_condition = insert(conditions)
_SAID = ("status", "reason", "message", "observed_generation")
_PUT_CONDITION = _new_condition.on_conflict_do_update(
    index_elements=["object", "type"],
    set_={
        **{name: _new_condition.excluded[name] for name in _SAID},
        "last_transition_time": case(
            (conditions.c.status == _new_condition.excluded.status, conditions.c.last_transition_time),
            else_=_new_condition.excluded.last_transition_time,
        ),
    },
    where=or_(*(conditions.c[name] != _new_condition.excluded[name] for name in _SAID)),
)


def value(connection: Connection, key: str) -> Any:
    """Return a single value, or None."""
    return connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()


def put_value(connection: Connection, key: str, new: Any) -> None:
    """Keep a single value."""
    connection.execute(_PUT_VALUE, {"key": key, "value": new})


def record_revision(connection: Connection, revision: RevisionStatus, problems: Sequence[Problem]) -> None:
    """Keep how a revision was judged; one that was seen before keeps its place and the time it was first seen."""
    connection.execute(_PUT_REVISION, {**dict(revision), "problems": tuple(problems)})


def read_source(connection: Connection) -> SourceStatus:
    """Return the status with its conditions; an empty one before the first pass."""
    kept = value(connection, SOURCE) or {}
    return SourceStatus.model_validate(kept | {"conditions": read_conditions(connection, SOURCE)})


def put_source(connection: Connection, status: SourceStatus) -> None:
    """Keep the status; conditions have their own table."""
    put_value(connection, SOURCE, status.model_copy(update={"conditions": ()}))


def read_conditions(connection: Connection, subject: str) -> list[Condition]:
    """Return an object's conditions by type."""
    found = connection.execute(select(conditions).where(conditions.c.object == subject).order_by(conditions.c.type))
    return [Condition.model_validate(row._mapping, by_name=True) for row in found]  # noqa: SLF001 - SQLAlchemy's public name


def put_conditions(connection: Connection, subject: str, new: Sequence[Condition]) -> bool:
    """Replace an object's conditions and return whether that changed anything.

    ``last_transition_time`` of a type that is there already moves only when its status does.
    """
    kept = [condition.type for condition in new]
    gone = delete(conditions).where(and_(conditions.c.object == subject, conditions.c.type.not_in(kept)))
    changed = connection.execute(gone).rowcount > 0
    for condition in new:
        changed |= connection.execute(_PUT_CONDITION, {"object": subject, **dict(condition)}).rowcount > 0
    return changed


def read_suspended(connection: Connection) -> dict[str, str]:
    """Return what a person suspended by command: object → who did it."""
    return dict(value(connection, "suspended") or {})


def put_suspended(connection: Connection, subject: str, actor: str | None) -> None:
    """Suspend an object in the name of ``actor``, or resume it (None)."""
    kept = {name: by for name, by in read_suspended(connection).items() if name != subject}
    put_value(connection, "suspended", kept | ({subject: actor} if actor is not None else {}))


def add_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append to the audit trail."""
    if rows:
        connection.execute(insert(events), rows)


def event_row(
    *, reason: str, message: str, at: datetime, actor: str = "", client: str = "", backup: str = "", detail: str = ""
) -> dict[str, Any]:
    """Return one row of the audit trail."""
    of = {"actor": actor, "client": client, "backup": backup}
    return {"reason": reason, "message": message, "at": at, "detail": detail, **of}
