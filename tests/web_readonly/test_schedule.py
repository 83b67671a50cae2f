"""The week to come: counted by schedules, true across clock changes, and said where runs meet."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from schema.tables import moment_text
from tests.web_readonly.seeded import HOUR, NOW
from tests.web_readonly.visitor import visiting
from web_readonly import starts
from web_readonly.reader import Reader, schedule
from web_readonly.starts import Bunch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SINCE = NOW.replace(minute=0, second=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def reader(store: Path) -> Iterator[Reader]:
    found = Reader(store)
    yield found
    found.close()


def count(*bunches: Bunch, since: datetime = SINCE) -> list[int]:
    return [hour.total() for hour in starts.by_hour(bunches, since=since)]


# --- Pure -------------------------------------------------------------------------------------------------------------


def test_a_nightly_backup_starts_seven_times_a_week_in_its_own_zone():
    hours = count(Bunch("30 1 * * *", "Europe/Berlin", None, 4))

    assert sum(hours) == 28
    assert {at for at, number in enumerate(hours) if number} == {17 + 24 * day for day in range(7)}


def test_a_jitter_moves_the_start_into_the_next_hour():
    told = datetime(2026, 11, 24, 3, 10, tzinfo=UTC)
    hours = count(Bunch("50 2 * * *", "UTC", told, 1), Bunch("50 2 * * *", "UTC", None, 1))

    assert [at for at, number in enumerate(hours) if number][:2] == [19, 20]
    assert starts.shift("50 2 * * *", "UTC", told) == 20 * MINUTE


def test_clocks_that_change_neither_lose_nor_double_a_start():
    before = datetime(2026, 10, 23, 0, 0, tzinfo=UTC)

    assert sum(count(Bunch("30 2 * * *", "Europe/Berlin", None, 1), since=before)) == 7


@pytest.mark.parametrize(("cron", "zone"), [("", "UTC"), ("<script>", "UTC"), ("0 1 * * *", "Mars/Base"), ("* *", "")])
def test_what_is_no_schedule_starts_never(cron, zone):
    assert starts.starts_after(cron, zone, NOW, until=NOW + 99 * HOUR) == ()
    assert sum(count(Bunch(cron, zone, NOW, 5))) == 0


def test_a_schedule_that_is_due_every_minute_costs_a_bounded_number_of_moments():
    assert len(starts.due_around("* * * * *", "UTC", NOW.date())) == 3_000


# --- Of a store -------------------------------------------------------------------------------------------------------


def test_every_backup_with_a_schedule_is_counted_once_a_night(reader):
    week = reader.schedule(now=NOW)

    assert (week.scheduled, week.suspended, week.by_hand) == (37, 1, 0)
    assert week.starts == 37 * 7
    assert len(week.hours) == 168
    assert week.since == SINCE


def test_what_is_the_same_every_night_is_one_busy_hour(reader):
    (busiest,) = reader.schedule(now=NOW).busiest

    assert (busiest.starts, len(busiest.alike), busiest.schedules) == (37, 6, ("0 1 * * *",))
    assert len(busiest.names) == 6


def test_runs_that_meet_in_one_repository_are_added_up(reader):
    meetings = reader.schedule(now=NOW).meetings

    cold = next(one for one in meetings if one.repository == "cold")
    assert (cold.users, cold.starts, cold.measured) == (4, 4, 4)
    # Four runs of one to twenty-six minutes each.
    assert 4 * 60 < cold.work < 4 * 26 * 60
    assert all(one.users > 1 for one in meetings)


def test_a_repository_narrows_the_week_to_its_backups(reader):
    week = reader.schedule(repository="cold", now=NOW)

    assert (week.scheduled, week.starts) == (4, 28)
    assert {one.repository for one in week.meetings} == {"cold"}
    assert {one.backup for one in week.next} == {"postgresql"}


def test_backups_are_counted_by_schedule_and_ten_minutes_whatever_else_they_are(store):
    with closing(sqlite3.connect(store)) as connection:
        rows = connection.execute("SELECT client, backup FROM backups ORDER BY client, backup").fetchall()
        for place, key in enumerate(rows):
            due = moment_text(NOW + place % 7 * 4 * MINUTE) if place % 5 else None
            told = ("" if place % 11 == 0 else f"{place % 3} 1 * * *", ("", "UTC")[place % 2], due, place % 4 == 0)
            columns = "cron = ?, time_zone = ?, next_due = ?, suspended = ?"
            connection.execute(f"UPDATE backups SET {columns} WHERE client = ? AND backup = ?", (*told, *key))
        connection.commit()
        rows = connection.execute("SELECT cron, time_zone, next_due, suspended FROM backups").fetchall()
    reader = Reader(store)
    with reader._database.read() as connection:
        bunches, by_hand, suspended, left_out = schedule._bunches(connection)
        first, *_, beyond = schedule._bunches(connection, most=3)
    reader.close()
    starts_of = defaultdict(list)
    for cron, time_zone, due, stopped in rows:
        if cron and not stopped:
            starts_of[cron, time_zone, (due or "")[: len("2026-11-23T07:4")]].append(due)
    expected = [
        Bunch(cron, time_zone, datetime.fromisoformat(min(dues)) if bucket else None, len(dues))
        for (cron, time_zone, bucket), dues in sorted(starts_of.items())
    ]

    assert bunches == expected
    assert len({one.start for one in bunches}) > 3
    assert suspended == sum(stopped for *_, stopped in rows)
    assert by_hand == sum(not cron and not stopped for cron, _, _, stopped in rows)
    assert left_out == 0
    assert len(first) == 3
    assert beyond == sum(one.number for one in bunches) - sum(one.number for one in first)


async def test_the_page_says_when_and_where_runs_pile_up(store):
    async with visiting(store) as client:
        html = await (await client.get("/schedule")).text()
        narrow = await (await client.get("/schedule?repository=nowhere")).text()
        json = await (await client.get("/api/v1/schedule")).json()

    assert "every day 00:00" in html
    assert "Tue 00:00 UTC: 37 starts" in html
    assert "<option>cold</option>" in html
    assert "No backup with a schedule uses this repository" in narrow
    assert json["hours"][17] == 37


# --- Schedules that mean harm -----------------------------------------------------------------------------------------


def test_many_schedules_that_are_due_all_the_time_are_counted_in_part():
    bunches = [Bunch(f"{number}-59,0-59 * * * *", "UTC", None, 1) for number in range(55)]

    fine, beyond = starts.affordable(bunches, since=SINCE)

    assert len(fine) == -(-starts.WORK // 3_000)
    assert len(fine) + len(beyond) == 55


def test_more_schedules_than_are_kept_are_counted_in_part():
    bunches = [Bunch(f"{number % 60} {number // 60} * * *", "UTC", None, 1) for number in range(600)]

    fine, beyond = starts.affordable(bunches, since=SINCE)

    assert (len(fine), len(beyond)) == (512, 88)


def test_a_start_that_is_told_for_a_thousand_years_from_now_costs_nothing():
    far = [Bunch("* * * * *", "UTC", NOW + timedelta(days=365 * number), 1) for number in range(1, 1_000)]

    starts.affordable(far[:1], since=SINCE)
    before = starts._due_around.cache_info().misses
    starts.by_hour(far[:10], since=SINCE)

    assert starts._due_around.cache_info().misses == before


def test_what_follows_known_starts_is_looked_for_within_bounds():
    work = starts.Work()
    found = [work.starts_after(f"{number % 60},0-59 * * * *", "UTC", NOW, until=NOW + 9 * HOUR) for number in range(60)]

    assert sum(map(bool, found)) == -(-starts.Work().left // 3_000)
