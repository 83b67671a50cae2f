"""A client that tells of times and numbers at the end of all there are breaks no page, its own neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.issue import BackupRow, ClientRow, DefinitionRow
from reconciler.store import Store
from schema.observed import (
    Archive,
    ArchiveContents,
    ArchivesSeen,
    ClientEvent,
    DirectoryContents,
    Drift,
    DriftKind,
    JobState,
    LogLine,
    Outcome,
    Report,
    RepositoryStatistics,
    RunFinished,
    RunLog,
    RunProgress,
    RunStarted,
    StateReport,
    Trigger,
)
from tests.web_readonly.seeded import DAY, NOW
from tests.web_readonly.visitor import visiting
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from pathlib import Path

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
MOST = 2**63 - 1
RUNNING, ENDED = "a" * 32, "b" * 32
PARTS = {"client": "web-1", "backup": "web", "repository": "nas", "archive": "ab" * 8, "revision": "c" * 40}
BACKUPS: dict[str, dict[str, int | str]] = {"web": {"keep_daily": 7}, "within": {"keep_within": "999999y"}}


async def seed(path: Path, at: datetime, *, zone: str) -> None:
    """Write what a rogue client reports with the real store."""
    repositories = ({"name": "nas", "url": "/nas", "encryption": "none"},)
    async with await Store.open(path) as store:
        await store.publish(
            clients=[ClientRow("web-1", "key", {}, "origin", suspended=False)],
            backups=[
                BackupRow("web-1", backup, "origin", "*/9 * * * *", zone, 60, False, repositories) for backup in BACKUPS
            ],
            definitions=[DefinitionRow(backup, dict(keeps), ()) for backup, keeps in BACKUPS.items()],
            issued=[],
            removed_clients=[],
            removed_backups=[],
            at=NOW - DAY,
        )
        items = list(enumerate([report for backup in BACKUPS for report in _reports(at, backup)], 1))
        await store.ingest(client="web-1", public_key="key", epoch="e", items=items, through=len(items), received=NOW)
        progress = RunProgress(
            at=at,
            run=RUNNING,
            backup="web",
            phase="create",
            original_size=MOST,
            files=MOST,
            percent=1e-300,
            since=FIRST,
        )
        await store.progress(client="web-1", progress=progress)


def _reports(at: datetime, backup: str) -> list[Report]:
    archive = Archive(id="ab" * 8, name="one", start=at)
    statistics = RepositoryStatistics(
        repository="nas",
        archive="one",
        archive_id=archive.id,
        files=MOST,
        original_size=MOST,
        compressed_size=MOST,
        deduplicated_size=MOST,
        duration=1e308,
        repository_size=MOST,
    )
    return [
        RunStarted(at=at, run=RUNNING, backup=backup, trigger=Trigger.PERSON, due=at),
        RunStarted(at=at, run=ENDED, backup=backup, trigger=Trigger.PERSON, due=at),
        RunLog(run=ENDED, first=0, lines=(LogLine(at=at, level="error", message="x"),)),
        RunFinished(at=NOW, run=ENDED, backup=backup, outcome=Outcome.SUCCEEDED, statistics=(statistics,) * 2),
        ArchivesSeen(
            at=at,
            backup=backup,
            repository="nas",
            url="/nas",
            available=True,
            count=MOST,
            archives=(archive, Archive(id="cd" * 8, name="two", start=at)),
            unique_size=MOST,
        ),
        ArchiveContents(
            at=at,
            backup=backup,
            repository="nas",
            archive=archive,
            listed=True,
            files=MOST,
            size=MOST,
            oldest=at,
            newest=at,
            directories=(DirectoryContents(path="a", files=MOST, size=MOST),) * 2,
        ),
        StateReport(
            at=at,
            expires=at,
            jobs=(JobState(backup="web", next_due=at), JobState(backup="within", next_due=at, running=RUNNING)),
            drift=(Drift(kind=DriftKind.OVERDUE, subject="s", backup=backup, message="m", detected=at),),
            dropped_events=10**300,
        ),
        ClientEvent(at=at, reason="Healed", message="x"),
    ]


def every_path() -> list[str]:
    """Return each page and its twin, by each name."""
    found = ["/metrics", "/badge/web.svg"]
    for view in VIEWS:
        for path in [view.path] * bool(view.template) + [view.api_path] * bool(view.api):
            found += [
                path.format(**{**PARTS, "backup": one, "run": run}) for one in BACKUPS for run in (RUNNING, ENDED)
            ]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("at", [FIRST, LAST, NOW])
async def test_extreme_times_and_numbers_of_a_client_break_no_page(tmp_path: Path, at: datetime, zone: str):
    path = tmp_path / "store.db"
    await seed(path, at, zone=zone)
    async with visiting(path) as client:
        for one in every_path():
            response = await client.get(one)
            text = await response.text()

            assert response.status in {200, 404}, (one, text)
            if response.content_type == "application/json":
                json.loads(text, parse_constant=pytest.fail)


async def test_what_runs_late_by_a_thousand_years_is_on_the_timeline_of_nobody_else(tmp_path: Path):
    path = tmp_path / "store.db"
    await seed(path, NOW + timedelta(days=365_000), zone="UTC")
    async with visiting(path) as client:
        page = await (await client.get("/api/v1/timeline")).json()

    assert all(due["at"] < "2100" for row in page["rows"] for due in row["due"])


async def test_a_frame_full_of_differences_makes_no_page_that_cannot_be_shown(tmp_path: Path):
    path = tmp_path / "store.db"
    await seed(path, NOW, zone="UTC")
    drift = Drift(
        kind=DriftKind.CHANGED, subject="s", backup="web", message="\u202e" * 100, diff="+\n" * 400, detected=NOW
    )
    said: list[Report] = [StateReport(at=NOW, generation=1, drift=(drift,) * 500)]
    said += [ClientEvent(at=NOW, reason="Healed", message="m", detail="+\n" * 4_000) for _ in range(60)]
    async with await Store.open(path) as store:
        items = list(enumerate(said, 1_000))
        await store.ingest(client="web-1", public_key="key", epoch="e", items=items, through=1_100, received=NOW)
    async with visiting(path) as client:
        page = await (await client.get("/clients/web-1")).text()
        events = await (await client.get("/events")).text()

    assert page.count('class="added"') < 20_000
    assert "450 more differences, not shown here" in page
    assert "3,701 more lines" in events
    assert max(len(page), len(events)) < 1_000_000
