from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import reconciler.migrations
from reconciler.store import Store
from reconciler.store.engine import migrate, open_engine
from schema.errors import TerminalError, TransientError
from schema.tables import SCHEMA_VERSION, metadata
from tests.reconciler.facts import NOW
from web_readonly.reader import Reader

MIGRATIONS = Path(next(iter(reconciler.migrations.__path__)))


def test_the_migrations_make_exactly_the_tables(tmp_path):
    path = tmp_path / "director.db"
    engine = open_engine(path)
    migrate(engine, path=path)

    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


def test_tables_without_row_ids_are_made_so(tmp_path):
    path = tmp_path / "director.db"
    engine = open_engine(path)
    migrate(engine, path=path)
    engine.dispose()

    connection = sqlite3.connect(path)
    made = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%WITHOUT ROWID%'")}
    connection.close()

    assert made == {
        name for name, table in metadata.tables.items() if not table.dialect_options["sqlite"]["with_rowid"]
    }


def test_the_newest_migration_is_the_version_that_the_reader_knows():
    script = ScriptDirectory(str(MIGRATIONS))

    assert script.get_heads() == [SCHEMA_VERSION]


async def test_opening_twice_changes_nothing(tmp_path):
    for _ in range(2):
        store = await Store.open(tmp_path / "director.db")
        await store.event(reason="Opened", message="", at=NOW)
        await store.close()

    connection = sqlite3.connect(tmp_path / "director.db")
    assert connection.execute("SELECT count(*) FROM events").fetchall() == [(2,)]
    connection.close()


async def test_a_url_names_the_file_too(tmp_path):
    await (await Store.open(f"sqlite:///{tmp_path}/director.db")).close()

    assert (tmp_path / "director.db").is_file()


async def test_another_engine_is_refused_by_name(tmp_path):
    with pytest.raises(TerminalError, match="cannot open a store of kind 'postgresql'"):
        await Store.open("postgresql://localhost/director")


async def test_a_store_of_a_newer_program_is_left_alone(tmp_path):
    path = tmp_path / "director.db"
    await (await Store.open(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()

    with pytest.raises(TerminalError, match="was written by a newer program") as caught:
        await Store.open(path)

    assert "9999" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_a_damaged_file_is_said_to_be_one(tmp_path, content):
    path = tmp_path / "director.db"
    path.write_bytes(content)

    with pytest.raises(TerminalError, match="damaged or no store at all"):
        await Store.open(path)

    assert path.read_bytes() == content


async def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    with pytest.raises(TerminalError, match="it cannot be opened"):
        await Store.open(tmp_path / "nowhere" / "director.db")


_OPEN_IT = """
import asyncio, ctypes, os, sys
from pathlib import Path

CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
if os.geteuid() == 0 and sys.argv[2] == "as somebody":
    # Root may write everywhere; without this one power, which a program that is started anew gets no more, it may not.
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1], "as one without it"])

from reconciler.store import Store
from schema.errors import TerminalError

try:
    asyncio.run(Store.open(Path(sys.argv[1])))
except TerminalError as error:
    print(error.message)
"""


async def test_a_file_that_cannot_be_written_is_said_to_be_so(tmp_path):
    path = tmp_path / "director.db"
    await (await Store.open(path)).close()
    path.chmod(0o400)

    opened = subprocess.run(
        [sys.executable, "-c", _OPEN_IT, str(path), "as somebody"], capture_output=True, text=True, check=True
    )

    assert "it cannot be written" in opened.stdout


async def test_a_store_that_another_program_holds_is_locked(tmp_path, monkeypatch):
    monkeypatch.setattr("reconciler.store.engine.BUSY_SECONDS", 0.01)
    path = tmp_path / "director.db"
    await (await Store.open(path)).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(TransientError, match="another program holds it locked"):
        await Store.open(path)

    other.close()
    await (await Store.open(path)).close()


def _make_first(path: Path) -> sqlite3.Connection:
    """Make a store as the first version did, and return it opened."""
    engine = open_engine(path)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    return sqlite3.connect(path)


async def test_a_store_of_the_first_version_is_migrated_with_what_is_in_it(tmp_path):
    path = tmp_path / "director.db"
    with _make_first(path) as first:
        first.execute(
            "INSERT INTO revisions (revision, author, subject, seen, outcome, reason, message, changed_clients, "
            "summary, problems) VALUES ('abcdefg', 'Ada', '', '2026-11-23T18:00:00.000000Z', 'published', '', '', 1, "
            "'', '[]')"
        )
        first.execute(
            "INSERT INTO events (at, reason, actor, client, backup, message) "
            "VALUES ('2026-11-23T18:00:00.000000Z', 'Healed', '', '', '', '')"
        )
    first.close()

    await (await Store.open(path)).close()

    reader = Reader(path)
    shown, problems = reader.revision("abcdefg") or pytest.fail("the revision is gone")
    assert (shown.author, shown.changes, problems) == ("Ada", (), ())
    assert [(one.reason, one.detail) for one in reader.events().items] == [("Healed", "")]
    reader.close()


async def test_how_repositories_grew_is_counted_from_what_runs_left(tmp_path):
    path = tmp_path / "director.db"
    with _make_first(path) as first:
        evidence = "INSERT INTO evidence VALUES (?, 'files', 'nas', ?, '', NULL, NULL, '', '', '', NULL, '', 0,0,0,0,0)"
        first.executemany(evidence, [("web-1", "/mnt/a"), ("web-2", "/mnt/b")])
        samples = [
            ("web-1", "2026-11-20T01:00:00.000000Z", 10, 100),
            ("web-1", "2026-11-20T09:00:00.000000Z", 11, 110),
            ("web-2", "2026-11-20T01:00:00.000000Z", 20, 200),
            ("gone-1", "2026-11-20T01:00:00.000000Z", 99, 999),
            ("web-2", "2026-11-22T01:00:00.000000Z", 30, 300),
        ]
        first.executemany("INSERT INTO samples VALUES (?, 'files', 'nas', ?, ?, 0, 0, ?, 0)", samples)
    first.close()

    await (await Store.open(path)).close()

    reader = Reader(path)
    since = datetime(2026, 11, 1, tzinfo=UTC)
    total = [(str(one.day), one.original_size, one.repository_size) for one in reader.growth(since=since, until=NOW)]
    of_one = [one.original_size for one in reader.growth(repository="nas", url="/mnt/a", since=since, until=NOW)]
    reader.close()
    assert total == [("2026-11-20", 31, 310), ("2026-11-22", 41, 410)]
    assert of_one == [11, 11]
