"""The store's file, opened so that nothing can be written: read-only to the system, and ``query_only`` to SQLite."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import DBAPIError

from schema.errors import TerminalError, TransientError
from schema.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import FromClause

BUSY_SECONDS = 2.0
_CONNECTIONS = 4


class StoreUnavailable(TransientError):
    """The store cannot be read now: missing, locked, damaged, or of another version. Pages answer 503."""


class InvalidQuery(TerminalError):
    """A filter or cursor makes no sense. Pages answer 400."""


class Database:
    """Hands out read transactions. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = self._open()
        self._file: tuple[int, int] | None = None
        self._reading = threading.local()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def size(self) -> int:
        """Return the bytes of the store on disk, with what is not written back into its file yet."""
        names = (self._path.name, f"{self._path.name}-wal")
        return sum(one.stat().st_size for name in names if (one := self._path.with_name(name)).is_file())

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection whose statements all see the same moment; inside another ``read``, that one's."""
        around: Connection | None = getattr(self._reading, "connection", None)
        if around is not None:
            yield around
            return
        self._follow_file()
        try:
            with self._engine.begin() as connection:
                self._check_version(connection)
                self._reading.connection = connection
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise self._explain(error) from error
        finally:
            self._reading.connection = None

    def _open(self) -> Engine:
        address = f"file:{quote(str(self._path.absolute()))}?mode=ro"

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("PRAGMA cache_size = -16384")
            except BaseException:
                connection.close()
                raise
            return connection

        engine = create_engine(
            "sqlite://",
            creator=connect,
            poolclass=QueuePool,
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            # A write of others empties the caches of all connections: the one used last is filled again the most.
            pool_use_lifo=True,
        )
        engine.dialect.statement_compiler = _WithHints
        event.listen(engine, "begin", _begin)
        return engine

    def _follow_file(self) -> None:
        """Open anew when another file took the path: a director that lost its store made a new one."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreUnavailable(
                f"cannot read the store {self._path}: {error.strerror or error}",
                hint="the director makes it at its first start: is it running, and is this its path?",
            ) from None
        file = (found.st_dev, found.st_ino)
        if file != self._file:
            self._engine.dispose()
            self._file = file

    def _check_version(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        if found != SCHEMA_VERSION:
            age, hint = (
                ("older", "start the director of this dashboard's version: it migrates the store")
                if str(found or "") < SCHEMA_VERSION
                else ("newer", "restart the dashboard in the version of the director that wrote it")
            )
            raise StoreUnavailable(
                f"cannot read the store {self._path}: it is {age} than this program: its schema is '{found}', "
                f"and '{SCHEMA_VERSION}' is read",
                hint=hint,
            )

    def _explain(self, error: DBAPIError | sqlite3.Error) -> StoreUnavailable:
        cause = error.orig if isinstance(error, DBAPIError) else error
        name = getattr(cause, "sqlite_errorname", "")
        reason, hint = str(cause)[:200], "see the director's log"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            reason, hint = "it is locked", "another program holds it; this passes"
        elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            reason, hint = "it is damaged or no store at all", "stop the director, move the file away, start it again"
        elif "no such table: alembic_version" in reason:
            reason, hint = "it is empty", "the director fills it at its first start"
        elif name.startswith("SQLITE_CANTOPEN"):
            reason, hint = "it cannot be opened", "may this user read the file and write its folder?"
        return StoreUnavailable(f"cannot read the store {self._path}: {reason}", hint=hint)


class _WithHints(SQLiteCompiler):
    """Lets a statement say which index it wants: ``query.with_hint(table, "INDEXED BY …")``.

    SQLite takes a table's key wherever it fits, although another index that begins with the key holds all that is
    asked for and spares five thousand walks past long rows.
    """

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:  # noqa: ARG002
        """Return the hint as it is."""
        return text


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
