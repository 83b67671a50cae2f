"""Empty, silent, broken: every state of store and director has a page that says what it is, and what to do."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.store import Store
from schema import assessment
from schema.status import SourceStatus
from schema.tables import SCHEMA_VERSION
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly.reader import database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web_readonly.visitor import Visitor

NOW = seeded.NOW


async def said(client: Visitor, path: str, *, status: int) -> str:
    """Return the page, and check that its twin says the same."""
    response = await client.get(path)
    text = await response.text()
    assert response.status == status, text
    if status != 200:
        twin = await client.get("/api/v1" + ("/overview" if path == "/" else path))
        error = (await twin.json())["error"]
        assert (twin.status, error["status"]) == (status, status)
        assert error["message"]
    return text


# --- The store cannot be read -----------------------------------------------------------------------------------------


async def test_a_missing_store(tmp_path):
    async with visiting(tmp_path / "store.db") as client:
        text = await said(client, "/", status=503)

    assert "the director makes it at its first start" in text
    assert "Backups are not concerned" in text
    assert '<meta http-equiv="refresh" content="30">' in text


async def test_an_empty_file(tmp_path):
    path = tmp_path / "store.db"
    path.touch()

    async with visiting(path) as client:
        text = await said(client, "/clients", status=503)

    assert "it is empty" in text
    assert "the director fills it at its first start" in text


async def test_a_folder_in_its_place(tmp_path):
    path = tmp_path / "store.db"
    path.mkdir()

    async with visiting(path) as client:
        assert "cannot read the store" in await said(client, "/runs", status=503)


async def test_a_file_that_is_no_store(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"no database at all, whatever its name" * 100)

    async with visiting(path) as client:
        assert "damaged or no store at all" in await said(client, "/", status=503)


async def test_a_store_whose_pages_are_damaged(store):
    content = bytearray(store.read_bytes())
    content[4_096:] = b"\xa5" * (len(content) - 4_096)
    store.write_bytes(bytes(content))

    async with visiting(store) as client:
        assert "cannot read the store" in await said(client, "/", status=503)


@pytest.mark.parametrize(("version", "whose"), [("0001", "older"), ("9999", "newer")])
async def test_a_store_of_another_version_says_which_is_older(store, version, whose):
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()

    async with visiting(store) as client:
        text = await said(client, "/", status=503)

    assert f"&#39;{version}&#39;" in text
    assert SCHEMA_VERSION in text
    assert whose in text


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("PRAGMA journal_mode = DELETE")
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    """Hold the store's file so that nobody else may read it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.communicate(timeout=30)


async def test_a_store_that_another_process_holds_is_locked_and_then_read(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)

    async with visiting(store) as client:
        with held_by_another_process(store):
            text = await said(client, "/", status=503)
        after = await client.get("/clients")

    assert "it is locked" in text
    assert "this passes" in text
    assert after.status == 200


# --- The first visit --------------------------------------------------------------------------------------------------


@pytest.fixture
async def empty(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    async with await Store.open(path):
        pass
    return path


@pytest.mark.parametrize(
    ("path", "next_step"),
    [
        ("/", "director init my-backups"),
        ("/clients", "director token create"),
        ("/source", "director init my-backups"),
        ("/runs", "director-client once BACKUP"),
        ("/about", "director token create"),
        ("/archives", "Clients look into their repositories"),
        ("/events", "will stand here"),
        ("/backups", "Backup"),
        ("/repositories", "Repository"),
    ],
)
async def test_a_first_visit_is_told_what_comes_next(empty, path, next_step):
    async with visiting(empty) as client:
        assert next_step in await said(client, path, status=200)


# --- A director that is silent ----------------------------------------------------------------------------------------


def test_a_director_is_silent_when_it_has_missed_its_own_time_and_then_some():
    source = SourceStatus(passed=NOW, expected=NOW + timedelta(minutes=5))

    assert assessment.silent_since(source, now=NOW + timedelta(minutes=5)) is None
    assert assessment.silent_since(source, now=NOW + timedelta(minutes=5) + assessment.SLACK) is None
    assert assessment.silent_since(source, now=NOW + timedelta(hours=1)) == NOW
    assert assessment.silent_since(SourceStatus(), now=NOW) is None


async def test_a_silent_director_is_said_with_the_time_and_what_to_do(store):
    then = NOW - timedelta(hours=3)
    async with await Store.open(store) as written:
        await written.set_source(
            SourceStatus(url="/srv/git/b.git", revision="a" * 40, passed=then, expected=then + timedelta(minutes=5))
        )

    async with visiting(store) as client:
        texts = [await said(client, path, status=200) for path in ("/", "/source", "/clients", "/about")]

    for text in texts:
        assert "The director has not written since 2026-11-23 04:42:10 UTC" in text
        assert "director status" in text


# --- Wrong addresses and wrong filters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/clients/web-11", "did you mean &#39;web-1&#39;?"),
        ("/backups/postgresq", "did you mean &#39;postgresql&#39;?"),
        ("/repositories/valt", "did you mean &#39;vault&#39;?"),
        ("/client", "did you mean /clients?"),
        ("/sources/x", "did you mean /source?"),
    ],
)
async def test_a_wrong_name_is_told_what_may_have_been_meant(store, path, meant):
    async with visiting(store) as client:
        assert meant in await said(client, path, status=404)


async def test_a_name_like_no_other_is_told_where_to_look(store):
    async with visiting(store) as client:
        text = await said(client, "/clients/zzzzzzzzzzzz", status=404)

    assert "did you mean" not in text
    assert "see /clients for all of them" in text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/clients?state=sleepy", "connected, away, drifted"),
        ("/runs?outcome=sad", "running, succeeded"),
        ("/events?since=yesterday", "a day or a time in UTC"),
        ("/events?until=2026-13-45", "a day or a time in UTC"),
        ("/events?colour=red", "its filters are: client, reason, actor, since, until"),
    ],
)
async def test_a_wrong_filter_is_told_what_is_allowed(store, path, allowed):
    async with visiting(store) as client:
        assert allowed in await said(client, path, status=400)


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/clients?q=zz&label=role%3Dweb&state=drifted", "No client matches"),
        ("/events?client=nobody&since=2026-11-01&until=2026-11-02", "No event matches"),
        ("/archives?client=nobody&repository=vault", "No archive matches"),
    ],
)
async def test_a_filter_that_matches_nothing_offers_to_take_each_part_away(store, path, title):
    async with visiting(store) as client:
        text = await said(client, path, status=200)

    assert title in text
    assert text.count('aria-hidden="true">×</b>') == len(path.partition("?")[2].split("&"))


async def test_the_end_of_a_list_that_has_shrunk_leads_back_to_its_start(store):
    async with visiting(store) as client:
        assert "First page" in await said(client, "/clients?after=zzz", status=200)
        assert "The newest" in await said(client, "/events?after=2001-01-01T00:00:00Z~1", status=200)


async def test_nothing_of_this_needs_a_script(empty, store):
    async with visiting(store) as client:
        pages = await asyncio.gather(*(said(client, path, status=200) for path in ("/clients", "/events", "/source")))

    assert all("<noscript" in text or "<script>" not in text for text in pages)
