"""Opening the store: the SQLite file, its settings, its migrations, and what its errors mean to people.

Called by ``Store.open``. Two settings carry the promise that nothing acknowledged is lost: WAL with
``synchronous=FULL`` makes every commit survive a power cut; many calls share one commit, so that it stays cheap.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util.exc import CommandError
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from schema.errors import DirectorError, TerminalError, TransientError
from schema.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from sqlalchemy import Connection

BUSY_SECONDS = 10.0
_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def database_path(location: str | Path) -> Path:
    """Return the file of a path or of a ``sqlite:///…`` url."""
    if isinstance(location, Path):
        return location
    scheme, separator, rest = location.partition("://")
    if not separator:
        return Path(location)
    if scheme != "sqlite":
        raise TerminalError(
            f"cannot open a store of kind '{scheme}': only SQLite is supported", hint="give the path of a file"
        )
    return Path(rest.removeprefix("/"))


_SETTINGS: Final = ("foreign_keys = ON", "cache_size = -32768")
_READ_ONLY: Final = ("query_only = ON",)
_WRITING: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 67108864",
    "wal_autocheckpoint = 4000",
)


def open_engine(path: Path, *, read_only: bool = False) -> Engine:
    """Return an engine whose connections have our settings; the file is made when it is missing (not read-only)."""
    mode = "ro" if read_only else "rwc"
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        # isolation_level None: we say BEGIN ourselves, Python's own guessing would break reads up.
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for setting in (*_SETTINGS, *(_READ_ONLY if read_only else _WRITING)):
                connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=1, json_serializer=to_json_text
    )
    event.listen(engine, "begin", _begin_deferred if read_only else _begin_immediate)
    return engine


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def to_json_text(value: Any) -> str:
    """Return the text of a JSON column; models keep their own words, and inside of tuples the names of their fields."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return to_json(value, by_alias=False, inf_nan_mode="null").decode()


def migrate(engine: Engine, *, path: Path) -> None:
    """Bring the store to ``SCHEMA_VERSION``; all of it or nothing."""
    with engine.begin() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        if found == SCHEMA_VERSION:
            # Changes nothing, and fails where nothing may be changed: there SQLite begins transactions all the same.
            connection.exec_driver_sql("UPDATE meta SET value = value WHERE false")
            return
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise TerminalError(
                f"cannot open the store {path}: it was written by a newer program (its schema is '{found}',"
                f" this program knows '{SCHEMA_VERSION}')",
                hint="install the newer program again, or move the file away: Git and the clients fill a new one",
            ) from None


def is_locked(error: BaseException) -> bool:
    """Whether another program kept the file locked longer than we wait."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorname", "").startswith("SQLITE_BUSY")


_CAUSES: tuple[tuple[frozenset[str], type[DirectorError], str, str], ...] = (
    (
        frozenset({"SQLITE_FULL"}),
        TransientError,
        "the disk is full",
        "free some space; clients keep their reports until the store takes them",
    ),
    (
        frozenset({"SQLITE_BUSY", "SQLITE_LOCKED"}),
        TransientError,
        "another program holds it locked",
        "is a second director or a maintenance program using the same file?",
    ),
    (
        frozenset({"SQLITE_READONLY", "SQLITE_PERM"}),
        TerminalError,
        "it cannot be written",
        "the file and its folder must belong to the director's user, on a disk that is not mounted read-only",
    ),
    (
        frozenset({"SQLITE_CANTOPEN"}),
        TerminalError,
        "it cannot be opened",
        "does the folder exist, and may the director's user write there?",
    ),
    (
        frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"}),
        TerminalError,
        "it is damaged or no store at all",
        "move the file away: a new store is filled again from Git and from the clients",
    ),
    (frozenset({"SQLITE_IOERR"}), TransientError, "the disk reports errors", "look at the disk: dmesg"),
)


def explain(error: BaseException, *, path: Path, doing: str) -> BaseException:
    """Return our error for one of SQLite's, with what a person can do; anything else as it is."""
    if not isinstance(error, (sqlite3.Error, SQLAlchemyError)):
        return error
    cause = error.orig if isinstance(error, DBAPIError) else error
    # Extended codes have longer names: SQLITE_READONLY_DIRECTORY, SQLITE_IOERR_WRITE.
    name = "_".join(getattr(cause, "sqlite_errorname", "").split("_")[:2])
    for names, kind, reason, hint in _CAUSES:
        if name in names:
            return kind(f"cannot {doing} the store {path}: {reason}", hint=hint)
    # No parameters here, they may be long and belong to nobody's screen.
    return TerminalError(f"cannot {doing} the store {path}: {type(cause).__name__}: {str(cause)[:200]}")
