"""Lists in parts, by key: the cursor is the key of the last row, so that no part costs more than another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import UnaryExpression, literal, tuple_
from sqlalchemy.sql.operators import custom_op

from schema.tables import moment_text
from web_readonly.reader.database import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

MAX_LIMIT: Final = 500
_SEPARATOR: Final = "~"
_MAX_CURSOR: Final = 4_096


def bounded(limit: int) -> int:
    """Return the limit, or ``InvalidQuery``."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(f"cannot show {limit} at once", hint=f"limit is 1 to {MAX_LIMIT}")
    return limit


def encode(parts: Sequence[Any]) -> str:
    """Return the cursor of a row's key. No part but the last may hold the separator."""
    return _SEPARATOR.join(moment_text(part) if isinstance(part, datetime) else str(part) for part in parts)


def decode(cursor: str, *kinds: type) -> list[Any]:
    """Return the key in a cursor, each part as its kind."""
    texts = cursor[:_MAX_CURSOR].split(_SEPARATOR, len(kinds) - 1)
    try:
        return [_value(text, kind) for text, kind in zip(texts, kinds, strict=True)]
    except (ValueError, OverflowError):
        raise InvalidQuery("the cursor makes no sense", hint="start at the first page") from None


def _value(text: str, kind: type) -> Any:
    if kind is datetime:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    if kind is int:
        number = int(text)
        if abs(number) >= 2**63:
            raise ValueError
        return number
    return text


def beyond(columns: Sequence[ColumnElement[Any]], key: Sequence[Any]) -> tuple[Any, Any]:
    """Return both sides of a comparison of keys; each value is bound as its column's type."""
    return tuple_(*columns), tuple_(*(literal(one, column.type) for one, column in zip(key, columns, strict=True)))


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column for a condition that no index shall be chosen for.

    SQLite guesses that any value of an index leaves ten rows. Where one of two conditions leaves few rows for certain,
    the other is written like this.
    """
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def contains(text: str) -> str:
    """Return the LIKE pattern, with the backslash as escape, for "has this text in it"."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
