"""The timeline: what ran and what is due, whoever matters first, bounded whatever the fleet."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.issue import BackupRow, ClientRow
from reconciler.store import Store
from schema.observed import JobState, Outcome, RunFinished, RunStarted, StateReport, Trigger
from tests.web_readonly import seeded
from tests.web_readonly.seeded import DAY, HOUR, NOW
from tests.web_readonly.visitor import visiting
from web_readonly.reader import Reader
from web_readonly.reader.timeline import TimelineFilter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schema.timeline import Timeline

MINUTE = timedelta(minutes=1)


@pytest.fixture
def reader(store: Path) -> Iterator[Reader]:
    found = Reader(store)
    yield found
    found.close()


def ask(reader: Reader, **filters: Any) -> Timeline:
    rows = filters.pop("rows", 12)
    return reader.timeline(TimelineFilter(**filters), since=NOW - DAY, until=NOW + DAY, rows=rows, now=NOW)


def names(timeline: Timeline) -> list[str]:
    return [row.client for row in timeline.rows]


async def seed_fleet(path: Path, *runs: tuple[str, float, Outcome | None], due: dict[str, float] | None = None) -> None:
    """Clients that ran so many hours ago, and whose next start is in so many hours."""
    clients = dict.fromkeys([*(client for client, _, _ in runs), *(due or {})])
    async with await Store.open(path) as store:
        await store.publish(
            clients=[
                ClientRow(name, f"key of {name}", {"role": name[0]}, "c.yaml", suspended=False) for name in clients
            ],
            backups=[BackupRow(name, "web", "b.yaml", "0 * * * *", "UTC", 3600, False, ()) for name in clients],
            issued=[],
            removed_clients=[],
            removed_backups=[],
            at=NOW - 9 * DAY,
        )
        for client in clients:
            reports: list[Any] = []
            for number, (of, ago, outcome) in enumerate(runs):
                if of != client:
                    continue
                run, started = seeded.run_id(client, number), NOW - ago * HOUR
                reports.append(RunStarted(at=started, run=run, backup="web", trigger=Trigger.SCHEDULE))
                if outcome is not None:
                    reports.append(RunFinished(at=started + 5 * MINUTE, run=run, backup="web", outcome=outcome))
            if client in (due or {}):
                start = NOW + (due or {})[client] * HOUR
                reports.append(StateReport(at=NOW, jobs=(JobState(backup="web", next_due=start),)))
            await store.ingest(
                client=client,
                public_key=f"key of {client}",
                epoch="e",
                items=list(enumerate(reports, 1)),
                through=len(reports),
                received=NOW,
            )


async def test_failed_comes_before_late_before_running_before_warned_before_the_busiest(tmp_path):
    path = tmp_path / "store.db"
    fine, bad = Outcome.SUCCEEDED, Outcome.FAILED
    await seed_fleet(
        path,
        ("quiet", 1, fine),
        *(("busy", ago, fine) for ago in range(2, 6)),
        ("warned", 3, Outcome.WARNED),
        ("running", 20, None),
        ("lost", 4, Outcome.LOST),
        ("failed", 9, bad),
        ("long-ago", 40, bad),
        due={"late": -1, "soon": 3},
    )

    with_all = Reader(path)
    shown = ask(with_all)
    few = ask(with_all, rows=2)
    with_all.close()

    assert names(shown) == ["failed", "lost", "late", "running", "warned", "busy", "quiet", "soon"]
    assert [mark.late for mark in shown.rows[2].due][:2] == [True, False]
    assert (names(few), few.more, shown.more) == (["failed", "lost"], True, False)


async def test_a_run_that_began_before_the_window_and_ended_in_it_is_shown(tmp_path):
    path = tmp_path / "store.db"
    await seed_fleet(path, ("web-1", 24.05, Outcome.SUCCEEDED), ("web-1", 30, Outcome.SUCCEEDED), due={"web-1": 1})

    reader = Reader(path)
    (row,) = ask(reader, client="web-1").rows
    reader.close()

    assert len(row.runs) == 1


async def test_starts_follow_the_schedule_after_the_one_that_the_client_told(tmp_path):
    path = tmp_path / "store.db"
    # Every hour on the hour; told 11 minutes later than that: these are its jitter.
    await seed_fleet(path, due={"web-1": (60 + 11 - 42 - 10 / 60) / 60})

    reader = Reader(path)
    (row,) = ask(reader).rows
    reader.close()

    assert [f"{mark.at:%H:%M}" for mark in row.due[:3]] == ["08:11", "09:11", "10:11"]
    assert len(row.due) == 24


def test_the_crowd_counts_all_runs_and_starts_even_when_rows_are_narrowed(reader):
    whole, narrow = ask(reader), ask(reader, client="web-3")

    assert whole.crowd == narrow.crowd
    started = sum(sum(one.started.values()) for one in whole.crowd)
    assert started == 38
    assert sum(one.due for one in whole.crowd) == 36


def test_rows_are_narrowed_by_client_label_and_outcome(reader):
    assert names(ask(reader, client="web-3")) == ["web-3"]
    assert set(names(ask(reader, labels={"role": "db"}))) == {f"db-{number}" for number in range(1, 5)}
    assert names(ask(reader, labels={"role": "db", "site": "nowhere"})) == []
    assert names(ask(reader, outcome=Outcome.FAILED)) == ["web-3"]
    assert names(ask(reader, outcome="running")) == ["db-2"]
    (row,) = ask(reader, outcome=Outcome.FAILED).rows
    assert {span.outcome for span in row.runs} == {Outcome.FAILED}


def test_what_is_suspended_is_not_due(reader):
    rows = {row.client: row for row in ask(reader, rows=40).rows}

    assert rows["build-1"].due == ()
    assert rows["web-1"].due != ()


async def test_the_page_shows_each_row_with_links_that_lead_on(store):
    async with visiting(store) as client:
        html = await (await client.get("/timeline")).text()
        day = await (await client.get("/timeline?day=2026-11-22")).text()

    assert html.index("web-3</a></th>") < html.index("db-2</a></th>") < html.index("app-4</a></th>")
    assert f'/runs/{seeded.run_id("web-3", "web", 0)}" tabindex="-1"' in html
    assert "1 failed" in html
    assert 'href="?day=2026-11-22"' in html
    assert "Sunday, 2026-11-22, in UTC" in day
    assert 'href="?day=2026-11-21"' in day


async def test_the_runs_of_one_client_are_a_list_too(store):
    async with visiting(store) as client:
        html = await (await client.get("/timeline?client=web-3")).text()

    listed = html[html.index("Runs of ") :]
    for backup in ("web", "system"):
        assert f'<a href="/runs/{seeded.run_id("web-3", backup, 0)}"><time' in listed


async def test_a_day_that_makes_no_sense_is_said_and_an_empty_one_leads_back(store):
    async with visiting(store) as client:
        wrong = await client.get("/timeline?day=yesterday")
        far = await client.get("/timeline?day=0001-01-01")
        empty = await (await client.get("/timeline?day=2025-01-01")).text()

    assert (wrong.status, far.status) == (400, 400)
    assert "Nothing ran on that day" in empty


async def test_what_starts_next_goes_on_where_it_stopped(store):
    async with visiting(store) as client:
        found, path = [], "/api/v1/starts"
        while path:
            page = await (await client.get(path)).json()
            found += [(one["at"], one["client"], one["backup"]) for one in page["items"]]
            path = f"/api/v1/starts?after={page['next']}" if page["next"] else ""
        cold = await (await client.get("/api/v1/starts?repository=cold")).json()

    assert found == sorted(found)
    assert len(set(found)) == len(found) == 36
    assert {one["backup"] for one in cold["items"]} == {"postgresql"}
