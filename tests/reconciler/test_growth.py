"""How large repositories are, day by day: kept from what clients report, once a minute at most."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from reconciler.store import Store
from schema.status import Growth
from tests.reconciler import facts
from tests.reconciler.facts import NOW, later
from web_readonly.reader import Reader

DAY = timedelta(days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "director.db"


async def publish(path: Path, *places: tuple[str, str, str], at: datetime = NOW) -> None:
    """Publish one backup for each (client, repository, url)."""
    async with await Store.open(path) as store:
        backups = [
            facts.backup_row(client, repositories=(facts.repository(name, url),)) for client, name, url in places
        ]
        await facts.publish(store, clients=[facts.client_row(row.client) for row in backups], backups=backups, at=at)


async def report(path: Path, client: str, repository: str, *, at: datetime, first: int = 1, **sizes: int) -> None:
    """Report a run that left these sizes. Closing the store writes what waits to be counted."""
    run = f"{int(at.timestamp()):024x}{client.encode().hex()[-8:]}"
    ended = facts.finished(run, at=at, statistics=(facts.statistics(repository, **sizes),))
    async with await Store.open(path) as store:
        await facts.ingest(store, ended, client=client, first=first, at=at)


def growth(path: Path, repository: str = "", url: str = "", *, days: int = 30) -> list[tuple[str, int, int]]:
    reader = Reader(path)
    found = reader.growth(repository=repository, url=url, since=NOW - days * DAY, until=NOW + days * DAY)
    reader.close()
    return [(str(one.day), one.original_size, one.repository_size) for one in found]


async def test_each_day_keeps_the_newest_sizes_of_a_repository(path):
    await publish(path, ("web-1", "nas", "/mnt/a"), at=NOW)
    await report(path, "web-1", "nas", at=later(hours=1), original_size=10, repository_size=100)
    await report(path, "web-1", "nas", at=later(hours=2), original_size=11, repository_size=110, first=2)
    await report(path, "web-1", "nas", at=later(days=1), original_size=12, repository_size=120, first=3)

    assert growth(path, "nas", "/mnt/a") == [("2026-11-23", 11, 110), ("2026-11-24", 12, 120)]


async def test_who_did_not_report_that_day_is_in_the_sum_as_last_known(path):
    await publish(path, ("web-1", "nas", "/mnt/a"), ("web-2", "nas", "/mnt/b"), ("web-3", "cold", "/cold"))
    for client, name in (("web-1", "nas"), ("web-2", "nas"), ("web-3", "cold")):
        await report(path, client, name, at=NOW, original_size=10, repository_size=100)
    await report(path, "web-1", "nas", at=NOW + DAY, original_size=15, repository_size=150, first=2)

    assert growth(path, "nas") == [("2026-11-23", 20, 200), ("2026-11-24", 25, 250)]
    assert growth(path) == [("2026-11-23", 30, 300), ("2026-11-24", 35, 350)]


async def test_a_repository_that_many_use_has_one_size_and_the_sum_of_their_archives(path):
    await publish(path, ("web-1", "nas", "/mnt/a"), ("web-2", "nas", "/mnt/a"))
    await report(path, "web-1", "nas", at=NOW, original_size=10, repository_size=100)
    await report(path, "web-2", "nas", at=NOW, original_size=20, repository_size=130)

    assert growth(path, "nas", "/mnt/a") == [("2026-11-23", 30, 130)]


async def test_what_is_no_longer_declared_is_in_no_sum(path):
    await publish(path, ("web-1", "nas", "/mnt/a"), ("web-2", "nas", "/mnt/b"))
    for client in ("web-1", "web-2"):
        await report(path, client, "nas", at=NOW, original_size=10, repository_size=100)
    async with await Store.open(path) as store:
        await facts.publish(store, removed_clients=["web-2"], at=NOW + DAY)

    assert growth(path) == [("2026-11-23", 20, 200), ("2026-11-24", 10, 100)]


async def test_the_number_of_archives_is_kept_too(path):
    await publish(path, ("web-1", "nas", "/mnt/nas"))
    async with await Store.open(path) as store:
        await facts.ingest(store, facts.archives(NOW - DAY, NOW))

    reader = Reader(path)
    assert reader.growth(since=NOW, until=NOW) == (Growth(day=NOW.date(), archives=2),)
    reader.close()


async def test_sizes_that_no_disk_has_add_up_to_something_that_can_be_kept(path):
    await publish(path, ("web-1", "nas", "/mnt/a"), ("web-2", "nas", "/mnt/b"))
    for client in ("web-1", "web-2"):
        await report(path, client, "nas", at=NOW, original_size=2**63 - 1)

    assert growth(path) == [("2026-11-23", 2**62, 0)]
