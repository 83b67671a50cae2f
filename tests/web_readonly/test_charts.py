"""Numbers become shapes that are true, stay inside their picture, and say the same in words."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.observed import Outcome
from schema.status import Growth
from schema.timeline import Crowd, DueMark, RunSpan, TimelineRow
from web_readonly import charts

NOW = datetime(2026, 11, 23, 7, 40, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
WINDOW = {"since": NOW - DAY, "until": NOW + DAY}


def run(started: datetime, minutes: float | None = 30, outcome: Outcome | None = Outcome.SUCCEEDED) -> RunSpan:
    finished = None if minutes is None else started + minutes * MINUTE
    return RunSpan(id="a" * 32, client="web-1", backup="web", started=started, finished=finished, outcome=outcome)


def lane(*runs: RunSpan, due: tuple[DueMark, ...] = ()) -> charts.Lane:
    return charts.lane(TimelineRow(client="web-1", runs=runs, due=due), now=NOW, **WINDOW)


def number(text: str) -> float:
    return float(text.removesuffix("%"))


# --- Lanes ------------------------------------------------------------------------------------------------------------


def test_a_run_lies_where_it_was_and_is_as_long_as_it_took():
    (bar,) = lane(run(NOW - 12 * HOUR, minutes=288)).bars

    assert (bar.x, bar.width) == ("25.00%", "10.00%")


def test_a_failed_run_is_taller_than_a_warned_and_that_than_a_succeeded():
    kinds = (Outcome.FAILED, Outcome.WARNED, Outcome.SUCCEEDED, Outcome.CANCELLED)
    heights = [lane(run(NOW - HOUR, outcome=kind)).bars[0].height for kind in kinds]

    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == len(heights)


def test_a_run_that_goes_on_ends_now():
    (bar,) = lane(run(NOW - 2 * HOUR, minutes=None, outcome=None)).bars

    assert number(bar.x) + number(bar.width) == pytest.approx(50, abs=0.02)
    assert bar.tone == "busy"


def test_a_run_of_a_second_can_still_be_seen():
    (bar,) = lane(run(NOW - HOUR, minutes=1 / 60)).bars

    assert number(bar.width) >= 0.3


def test_runs_that_overlap_lie_below_each_other_and_others_do_not():
    apart = lane(run(NOW - 9 * HOUR), run(NOW - 5 * HOUR))
    both = lane(run(NOW - 9 * HOUR, minutes=90), run(NOW - 8 * HOUR))

    assert len({bar.y for bar in apart.bars}) == 1
    assert len({bar.y for bar in both.bars}) == 2
    assert both.height < 2 * apart.height


@given(
    st.lists(st.tuples(st.integers(-4000, 4000), st.one_of(st.none(), st.integers(0, 9000))), max_size=30),
)
def test_whatever_ran_stays_inside_the_picture(times):
    drawn = lane(*(run(NOW + start * MINUTE, minutes=length) for start, length in times))

    assert all(number(bar.x) >= 0 and number(bar.x) + number(bar.width) <= 100.31 for bar in drawn.bars)
    assert all(bar.y >= 0 and bar.y + bar.height <= drawn.height for bar in drawn.bars)
    assert drawn.height < 60


def test_a_lane_says_in_words_what_it_shows():
    marks = (DueMark(backup="web", at=NOW - HOUR, late=True), DueMark(backup="web", at=NOW + HOUR))
    drawn = lane(run(NOW - 9 * HOUR), run(NOW - 8 * HOUR), run(NOW - 5 * HOUR, outcome=Outcome.FAILED), due=marks)

    assert drawn.words == "2 succeeded, 1 failed, web late, was due 2026-11-23 06:40:00 UTC, 1 h ago"
    assert [mark.late for mark in drawn.marks] == [True, False]
    assert lane().words == "no run"


def test_hours_are_whole_hours_and_midnight_has_the_name_of_its_day():
    two_days = charts.hours(WINDOW["since"], WINDOW["until"])
    one_day = charts.hours(NOW.replace(hour=0, minute=0), NOW.replace(hour=0, minute=0) + DAY)
    assert [hour.edge for hour in one_day] == ["start", *[""] * 7]

    assert [hour.label for hour in two_days] == [
        "12:00", "18:00", "Mon 23", "06:00", "12:00", "18:00", "Tue 24", "06:00",
    ]  # fmt: skip
    assert [hour.label for hour in one_day][:3] == ["Mon 23", "03:00", "06:00"]
    assert one_day[0].x == "0.00%"


# --- The crowd --------------------------------------------------------------------------------------------------------


def test_one_failure_among_a_thousand_runs_can_be_seen_at_the_ground():
    crowd = [Crowd(at=NOW - HOUR, started={"succeeded": 1000, "failed": 1})]

    heaps = {heap.tone: heap.path for heap in charts.heaps(crowd, **WINDOW)}

    assert set(heaps) == {"bad", "good"}
    assert " 100v-6h" in heaps["bad"]


def test_no_column_is_higher_than_the_picture():
    crowd = [
        Crowd(at=NOW - HOUR, started=dict.fromkeys(("failed", "lost", "warned", "running", "succeeded"), 1)),
        Crowd(at=NOW - 2 * HOUR, started={"succeeded": 10_000}),
        Crowd(at=NOW + HOUR, due=500),
    ]

    for heap in charts.heaps(crowd, **WINDOW):
        for level, tall in re.findall(r"M[\d.]+ (\d+)v-(\d+)h", heap.path):
            assert 0 <= int(level) - int(tall) <= int(level) <= charts.TALL


def test_totals_count_every_outcome_and_what_is_due():
    crowd = [Crowd(at=NOW, started={"succeeded": 2, "failed": 1}, due=3), Crowd(at=NOW, started={"succeeded": 1})]

    assert charts.totals(crowd) == {"succeeded": 3, "failed": 1, "due": 3}


# --- Lines ------------------------------------------------------------------------------------------------------------


def days(*sizes: int) -> list[Growth]:
    return [Growth(day=date(2026, 11, 1) + place * DAY, original_size=size) for place, size in enumerate(sizes)]


def test_a_line_starts_at_the_first_known_day_and_its_scale_at_nothing():
    chart = charts.growth(days(0, 0, 1_000_000, 4_000_000), ("original", "compressed"))

    (line,) = chart.lines
    assert line.points == "0.0,75.0 1000.0,0.0"
    assert (line.first, line.last) == (1_000_000, 4_000_000)
    assert [tick.label for tick in chart.scale] == ["0", "1.00 MB", "2.00 MB", "3.00 MB", "4.00 MB"]
    assert [day.title for day in chart.days] == ["2026-11-03: original 1.00 MB", "2026-11-04: original 4.00 MB"]


@pytest.mark.parametrize("largest", [1, 3, 4, 5, 7, 10, 99, 1234, 5001, 10**6, 3 * 10**12, 10**18 + 1])
def test_the_scale_has_round_numbers_and_holds_the_largest(largest):
    scale, top = charts._scale(largest, sizes=False)

    assert 2 <= len(scale) <= 6
    assert largest <= top <= max(2.5 * largest, largest + 1)
    assert scale[0].at == "100.00%"
    assert scale[-1].at == "0.00%"


@pytest.mark.parametrize("number", [1, 2, 5, 30, 90, 400])
def test_dates_do_not_crowd_each_other(number):
    ticks = charts.growth(days(*range(1, number + 1)), ("original",)).dates

    assert 1 <= len(ticks) <= 8


def test_nothing_known_is_no_line_and_no_failure():
    assert charts.growth([], ("original",)).lines == ()
    assert charts.growth(days(0, 0), ("original",)).lines == ()
    assert len(charts.growth(days(5), ("original",)).lines) == 1


# --- The heat map -----------------------------------------------------------------------------------------------------


def test_the_heat_map_has_a_row_for_each_day_and_knows_what_is_outside():
    since = NOW.replace(hour=22, minute=0)
    rows = charts.heat([5, 0, 1, 10], since=since)

    assert [len(row) for row in rows] == [24, 24]
    assert [cell.level for cell in rows[0]][-3:] == [-1, 3, 0]
    assert [cell.level for cell in rows[1]][:3] == [1, 5, -1]
    assert rows[0][22].at == since
