"""What clients tell of the contents of archives: kept exactly once, for the newest few, as long as the archive is."""

from __future__ import annotations

import sqlite3
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.store import Store
from reconciler.store.statements import KEPT_CONTENTS
from schema.observed import Archive, ArchiveContents, DirectoryContents
from tests.reconciler import facts
from tests.reconciler.facts import NOW, later

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "director.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with await Store.open(path) as one:
        await facts.publish(one, clients=[facts.client_row()], backups=[facts.backup_row()])
        yield one


def contents(start: datetime, *, repository: str = "nas", backup: str = "files", files: int = 1) -> ArchiveContents:
    (archive,) = facts.archives(start).archives
    return ArchiveContents(
        at=NOW,
        backup=backup,
        repository=repository,
        archive=archive,
        listed=True,
        files=files,
        directories=(DirectoryContents(path="etc", files=files, size=7),),
    )


def kept(path: Path) -> list[ArchiveContents]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT report FROM contents ORDER BY client, backup, repository, start").fetchall()
    connection.close()
    return [ArchiveContents.model_validate_json(zlib.decompress(report)) for (report,) in found]


async def test_contents_are_kept_as_they_were_told(store, path):
    told = contents(NOW)

    await facts.ingest(store, facts.archives(NOW), told)

    assert kept(path) == [told]


async def test_the_same_report_sent_again_changes_nothing_and_a_later_one_replaces_it(store, path):
    await facts.ingest(store, facts.archives(NOW), contents(NOW))
    await facts.ingest(store, facts.archives(NOW), contents(NOW, files=9))
    assert [one.files for one in kept(path)] == [1]

    await facts.ingest(store, contents(NOW, files=9), first=3)
    assert [one.files for one in kept(path)] == [9]


async def test_contents_go_with_their_archive(store, path):
    older = later(days=-1)
    await facts.ingest(store, facts.archives(NOW, older), contents(older), contents(NOW))

    await facts.ingest(store, facts.archives(NOW), first=4)

    assert [one.archive.start for one in kept(path)] == [NOW]


async def test_of_one_place_the_newest_few_are_kept(store, path):
    days = [later(days=-number) for number in range(KEPT_CONTENTS + 3)]

    await facts.ingest(store, facts.archives(*days), *(contents(day) for day in reversed(days)))

    assert [one.archive.start for one in kept(path)] == sorted(days[:KEPT_CONTENTS])


@pytest.mark.parametrize(
    "told",
    [contents(later(days=-9)), contents(NOW, repository="elsewhere"), contents(NOW, backup="gone")],
    ids=["archive", "repository", "backup"],
)
async def test_contents_of_what_is_not_there_are_passed_over(store, path, told):
    await facts.ingest(store, facts.archives(NOW), told)

    assert kept(path) == []


async def test_contents_of_an_archive_from_the_future_do_not_push_out_the_others_for_ever(store, path):
    future = NOW + timedelta(days=3650)
    seen = facts.archives(future, NOW)

    await facts.ingest(store, seen, contents(future), contents(NOW))

    connection = sqlite3.connect(path)
    assert connection.execute("SELECT max(start) FROM contents").fetchone() == ("2026-11-23T18:00:00.000000Z",)
    connection.close()


async def test_nobody_tells_of_another_client_s_archives(store, path):
    await facts.publish(store, clients=[facts.client_row("web-2")], backups=[facts.backup_row("web-2")])
    await facts.ingest(store, facts.archives(NOW), contents(NOW))

    await facts.ingest(store, contents(NOW, files=99), client="web-2")

    assert [one.files for one in kept(path)] == [1]


@pytest.mark.parametrize("what", ["client", "backup", "repository"])
async def test_what_is_no_longer_published_takes_its_contents_along(store, path, what):
    await facts.ingest(store, facts.archives(NOW), contents(NOW))

    if what == "client":
        await facts.publish(store, removed_clients=["web-1"])
    elif what == "backup":
        await facts.publish(store, removed_backups=[("web-1", "files")])
    else:
        await facts.publish(store, backups=[facts.backup_row(repositories=(facts.repository("other", "/other"),))])

    assert kept(path) == []


def test_an_archive_s_id_is_an_id():
    with pytest.raises(ValueError, match="id"):
        Archive(id="../etc", name="x", start=NOW)
