from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import reconciler.migrations
from reconciler.store import Store
from reconciler.store.engine import migrate, open_engine
from schema.errors import TerminalError, TransientError
from schema.tables import SCHEMA_VERSION, metadata
from tests.reconciler.facts import NOW

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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_file_that_cannot_be_written_is_said_to_be_so(tmp_path):
    path = tmp_path / "director.db"
    await (await Store.open(path)).close()
    path.chmod(0o400)

    with pytest.raises(TerminalError, match="it cannot be written"):
        await Store.open(path)


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
