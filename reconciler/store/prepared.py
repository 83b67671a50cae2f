"""Statements of the hot path, compiled once: SQLAlchemy says what they are, the driver runs them.

SQLAlchemy's way to the driver costs several times what SQLite needs for a small statement, and a report is twenty of
them. Values go through their column's type as always; rows come back as the driver gives them: tuples, times as text.
So do errors (``engine.explain`` knows both).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from reconciler.store.engine import to_json_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Table
    from sqlalchemy.sql import ClauseElement

_DIALECT = sqlite_dialect(json_serializer=to_json_text)


class Prepared:
    """One statement, to be run often."""

    def __init__(self, statement: ClauseElement, *, into: Table | None = None) -> None:
        """Compile. ``into`` is an insert's table: all its columns are written, missing ones by their default."""
        columns = [column.key for column in into.columns] if into is not None else None
        compiled: Any = statement.compile(dialect=_DIALECT, column_keys=columns)
        self._sql = str(compiled)
        known: dict[str, Any] = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        if into is not None:
            known |= {column.key: getattr(column.default, "arg", None) for column in into.columns}
        self._parameters = []
        for name in compiled.positiontup or ():
            convert = compiled.binds[name].type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
            self._parameters.append((name, known.get(name), convert))

    def run(self, connection: Connection, **values: Any) -> sqlite3.Cursor:
        """Run it once, and return the rows, or how many were changed (``rowcount``)."""
        return driver_of(connection).execute(self._sql, self._row(values))

    def value(self, connection: Connection, **values: Any) -> Any:
        """Return the first column of the first row; None without one."""
        row = self.run(connection, **values).fetchone()
        return row[0] if row else None

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run it for each row."""
        driver_of(connection).executemany(self._sql, [self._row(row) for row in rows])

    def _row(self, values: Mapping[str, Any]) -> list[Any]:
        get = values.get
        return [
            get(name, known) if convert is None else convert(get(name, known))
            for name, known, convert in self._parameters
        ]


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's own connection, in the transaction that is open on this one."""
    found: Any = connection.connection.driver_connection
    return found  # type: ignore[no-any-return]
