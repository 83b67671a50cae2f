"""When a schedule is due, across both changes of the clock, in zones that change by an hour, by half of it, or not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.cron import check_cron, check_time_zone, due_between, next_due

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")


def local_times(cron: str, zone: str, after: str, until: str) -> list[str]:
    """Return when ``cron`` is due between two local times, as local times with offset."""
    tz = ZoneInfo(zone)
    start, end = (datetime.fromisoformat(text).replace(tzinfo=tz) for text in (after, until))
    due = due_between(cron, time_zone=zone, after=start.astimezone(UTC), until=end.astimezone(UTC))
    return [moment.astimezone(tz).strftime("%d %H:%M%z") for moment in due]


# --- The expression -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0 0 * * *",
        "*/15 * * * *",
        "5/15 0-6,22-23 1,15 jan-mar MON-fri",
        "0  2 * * 7",
        "0 0 29 2 *",
        "0 0 L * *",
        "0 0 ? * 5#2",
        "0 0 * * L5",
        "@daily",
        "@hourly",
        "@yearly",
    ],
)
def test_a_cron_expression_is_kept_as_it_was_written(text: str):
    assert check_cron(text) == text


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "write five fields"),
        ("0 0 * *", "write five fields"),
        ("0 0 * * * *", "write five fields"),
        ("0 0 * * *\n", "write five fields (minute hour day month weekday) and nothing around them"),
        (" 0 0 * * *", "and nothing around them"),
        ("0 0 * *\t*", "write five fields"),
        ("@daily ", "write five fields"),
        ("@reboot", "or an alias such as @daily"),
        ("60 * * * *", "'60' in the minute field: allowed are *, 0 to 59"),
        ("0 24 * * *", "'24' in the hour field: allowed are *, 0 to 23"),
        ("0 0 0 * *", "'0' in the day field: allowed are *, 1 to 31"),
        ("0 0 1-40 * *", "'1-40' in the day field: allowed are *, 1 to 31"),
        ("0 0 * 13 *", "'13' in the month field: allowed are *, 1 to 12, or jan to dec"),
        ("0 0 * * 8", "'8' in the weekday field: allowed are *, 0 to 7, or sun to sat"),
        ("0 0 * * xyz", "'xyz' in the weekday field"),
        ("1,,2 * * * *", "'' in the minute field"),
        ("*/0 * * * *", "'*/0' in the minute field: a step is a number from 1 to 59"),
        ("*/99999999999999 * * * *", "a step is a number from 1 to 59"),
        ("٣ * * * *", "'٣' in the minute field"),
        ("-5 * * * *", "'-5' in the minute field"),
        ("0 23-23 * * *", "'23-23' in the hour field: the range begins where it ends; write 23"),
        ("0 0 * * mon-1", "'mon-1' in the weekday field: the range begins where it ends; write mon"),
        ("15-9/2 * * * *", "'15-9/2' in the minute field: a step needs a range that rises; write 15-59/2,0-9/2"),
        ("5 4 2 * 5#1", "beside '5#1' as the weekday, the day can only be *"),
        ("5 4 */2 * l5", "beside 'l5' as the weekday, the day can only be *"),
        ("0 0 * * fri-mon/2", "a step needs a range that rises; write fri-7/2,0-mon/2"),
        ("H * * * *", "for a time of its own on each client use jitter"),
        ("R(0-5) * * * *", "for a time of its own on each client use jitter"),
        ("0 0 31 2 *", "does not fire within nine years"),
        ("0 0 31 feb,apr,jun *", "does not fire within nine years"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_its_reason(text: str, reason: str):
    with pytest.raises(ValueError, match="cron expression|does not fire") as caught:
        check_cron(text)

    assert reason in str(caught.value)


@given(st.text(st.sampled_from("0123456789*/,-#?LlHhRrWw@ \tjanmon"), max_size=20))
def test_whatever_is_accepted_can_be_due(text: str):
    try:
        check_cron(text)
    except ValueError:
        return

    assert next_due(text, time_zone="UTC", after=datetime(2024, 1, 1, tzinfo=UTC)).tzinfo is UTC


@pytest.mark.parametrize("text", ["Mars", "", "Europe", "../etc/passwd", "/etc/localtime", "Europe/Berlin\n", "a\x00b"])
def test_what_is_no_time_zone_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a time zone: write for example UTC or Europe/Berlin"):
        check_time_zone(text)


# --- The clock goes forward -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "zone, day, skipped, after_the_gap",
    [
        ("Europe/Berlin", "2026-03-29", "30 2 * * *", "29 03:00+0200"),
        ("America/New_York", "2026-03-08", "30 2 * * *", "08 03:00-0400"),
        ("Australia/Lord_Howe", "2026-10-04", "15 2 * * *", "04 02:30+1100"),
    ],
)
def test_a_skipped_time_is_due_once_at_the_first_moment_after_the_gap(
    zone: str, day: str, skipped: str, after_the_gap: str
):
    assert local_times(skipped, zone, f"{day}T00:00", f"{day}T23:59") == [after_the_gap]


def test_several_skipped_times_are_due_once_together():
    due = local_times("*/20 * * * *", "Europe/Berlin", "2026-03-29T01:30", "2026-03-29T03:30")

    assert due == ["29 01:40+0100", "29 03:00+0200", "29 03:20+0200"]


def test_a_skipped_whole_day_is_due_at_the_first_moment_after_it():
    # Samoa went from 29 December 2011 to the 31st, across the date line.
    due = local_times("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00", "2011-12-31T23:59")

    assert due == ["29 12:00-1000", "31 00:00+1400", "31 12:00+1400"]


# --- The clock goes back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "zone, day, repeated, first",
    [
        ("Europe/Berlin", "2026-10-25", "30 2 * * *", "25 02:30+0200"),
        ("America/New_York", "2026-11-01", "30 1 * * *", "01 01:30-0400"),
        ("Australia/Lord_Howe", "2026-04-05", "45 1 * * *", "05 01:45+1100"),
    ],
)
def test_a_repeated_time_is_due_once_at_its_first_occurrence(zone: str, day: str, repeated: str, first: str):
    assert local_times(repeated, zone, f"{day}T00:00", f"{day}T23:59") == [first]


def test_an_hourly_schedule_does_not_run_twice_within_the_repeated_hour():
    due = local_times("0 * * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T04:30")

    assert due == ["25 01:00+0200", "25 02:00+0200", "25 03:00+0100", "25 04:00+0100"]


def test_asking_within_the_repeated_hour_gives_what_comes_after_it():
    second_half_past_two = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)

    due = next_due("45 2 * * *", time_zone="Europe/Berlin", after=second_half_past_two)

    assert due == datetime(2026, 10, 26, 1, 45, tzinfo=UTC)


def test_utc_has_no_policy_to_need():
    assert local_times("30 2 * * *", "UTC", "2026-03-29T00:00", "2026-03-30T23:00") == [
        "29 02:30+0000",
        "30 02:30+0000",
    ]


# --- Properties -----------------------------------------------------------------------------------------------------

# Around the changes of the clock, where everything interesting happens.
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
]
MOMENTS = st.builds(
    lambda change, seconds: change + timedelta(seconds=seconds),
    st.sampled_from(CHANGES),
    st.integers(-100_000, 100_000),
)
CRONS = st.builds(
    "{} {} * * {}".format,
    st.sampled_from(["0", "30", "*/7", "15,45", "*"]),
    st.sampled_from(["*", "1", "2", "1-3", "*/2"]),
    st.sampled_from(["*", "sun", "0-6"]),
)


@given(CRONS, st.sampled_from(ZONES), MOMENTS)
def test_due_moments_rise_strictly(cron: str, zone: str, after: datetime):
    due = due_between(cron, time_zone=zone, after=after, until=after + timedelta(days=2), limit=40)

    assert all(earlier < later for earlier, later in pairwise([after, *due]))


@given(CRONS, st.sampled_from(ZONES), MOMENTS)
def test_no_wall_clock_time_is_due_twice(cron: str, zone: str, after: datetime):
    due = due_between(cron, time_zone=zone, after=after, until=after + timedelta(hours=8), limit=40)
    shown = Counter(moment.astimezone(ZoneInfo(zone)).strftime("%d %H:%M") for moment in due)

    assert [time for time, count in shown.items() if count > 1] == []


@given(CRONS, st.sampled_from(ZONES), MOMENTS, st.integers(0, 7_200))
def test_asking_again_before_it_is_due_gives_the_same_moment(cron: str, zone: str, after: datetime, later: int):
    due = next_due(cron, time_zone=zone, after=after)
    asked = min(after + timedelta(seconds=later), due - timedelta(seconds=1))

    assert next_due(cron, time_zone=zone, after=asked) == due


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 2 3 * mon", [2, 3, 9, 16, 23, 30]),  # 2 November 2026 is a Monday
        ("0 2 */2 * mon", [9, 23]),
        ("0 2 3,9 * */3", []),  # Sunday, Wednesday, Saturday
        ("0 2 3,8 * */3", [8]),
        ("0 2 * * mon", [2, 9, 16, 23, 30]),
    ],
)
def test_a_day_and_a_weekday_are_as_crontab_has_them(cron: str, days: list[int]):
    begin = datetime(2026, 11, 1, tzinfo=UTC)

    found = due_between(cron, time_zone="UTC", after=begin, until=datetime(2026, 12, 1, tzinfo=UTC))

    assert [moment.day for moment in found] == days


def test_the_number_of_moments_given_at_once_is_limited():
    start = datetime(2026, 1, 1, tzinfo=UTC)

    assert len(due_between("* * * * *", time_zone="UTC", after=start, until=start + timedelta(days=30), limit=7)) == 7
