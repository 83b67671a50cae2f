"""The schedule: every due time once, none lost, whatever clocks and downtimes do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import scheduler
from client.scheduler import Plan
from schema import cron
from schema.desired import Job
from schema.observed import Trigger
from tests.client import machine

BERLIN = "Europe/Berlin"
NIGHT = datetime(2026, 6, 1, 2, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def job(expression: str = "30 2 * * *", **changes: object) -> Job:
    return machine.job(schedule=machine.schedule(expression, **changes))


class Life:
    """A client that looks at its schedule at given moments and runs what is due at once."""

    def __init__(self, one: Job, start: datetime) -> None:
        self.job = one
        self.handled: dict[str, datetime] = {}
        self.runs: list[tuple[datetime, Trigger]] = []
        self.look(start)

    def look(self, now: datetime) -> Plan:
        plan = scheduler.plan([self.job], client="web-1", now=now, handled=self.handled)
        self.handled = plan.handled
        self.runs += [(due.due, due.trigger) for due in plan.due]
        return plan

    def live(self, start: datetime, end: datetime) -> None:
        """Wake exactly when the plan says so."""
        now = start
        while True:
            plan = self.look(now)
            if plan.wake is None or plan.wake > end:
                return
            now = plan.wake

    @property
    def dues(self) -> list[datetime]:
        return [due for due, _ in self.runs]


def test_a_job_runs_at_its_due_times_and_once_for_each():
    life = Life(job(), NIGHT - DAY / 2)

    life.live(NIGHT - DAY / 2, NIGHT + 3 * DAY)

    assert life.runs == [(NIGHT + n * DAY, Trigger.SCHEDULE) for n in range(4)]


def test_a_job_seen_for_the_first_time_owes_nothing():
    life = Life(job(), NIGHT + timedelta(minutes=1))

    assert life.runs == []
    assert life.look(NIGHT + timedelta(minutes=1)).wake == NIGHT + DAY


def test_looking_again_in_the_same_moment_starts_nothing_twice():
    life = Life(job(), NIGHT - DAY)

    for _ in range(3):
        life.look(NIGHT)

    assert life.dues == [NIGHT]


def test_a_long_downtime_is_caught_up_by_one_run_for_the_latest_due_time():
    life = Life(job(), NIGHT - DAY)

    life.look(NIGHT + 30 * DAY + timedelta(hours=5))

    assert life.runs == [(NIGHT + 30 * DAY, Trigger.CATCH_UP)]


def test_without_catch_up_a_downtime_is_passed_over():
    life = Life(job(catch_up=False), NIGHT - DAY)

    plan = life.look(NIGHT + timedelta(hours=5))

    assert life.runs == []
    assert plan.wake == NIGHT + DAY


def test_a_start_that_is_a_little_late_is_no_catch_up():
    life = Life(job(catch_up=False), NIGHT - DAY)

    life.look(NIGHT + timedelta(minutes=9))

    assert life.runs == [(NIGHT, Trigger.SCHEDULE)]


def test_ten_years_of_downtime_under_a_cron_of_every_minute_cost_little():
    life = Life(job("* * * * *"), NIGHT)

    life.look(NIGHT + 3650 * DAY)

    assert life.dues == [NIGHT + 3650 * DAY]


@pytest.mark.parametrize("whole_client", [True, False])
def test_what_is_suspended_neither_runs_nor_owes_anything_afterwards(whole_client):
    one = job().model_copy(update={"suspend": not whole_client})
    handled = {"web": NIGHT - DAY}

    paused = scheduler.plan([one], client="c", now=NIGHT + DAY, handled=handled, suspended=whole_client)
    resumed = scheduler.plan(
        [one.model_copy(update={"suspend": False})], client="c", now=NIGHT + DAY * 1.5, handled=paused.handled
    )

    assert paused.due == ()
    assert paused.starts == {}
    assert resumed.due == ()
    assert resumed.wake == NIGHT + 2 * DAY


def test_a_job_without_schedule_is_never_due():
    assert scheduler.plan([machine.job()], client="c", now=NIGHT, handled={}) == Plan()


def test_a_running_backup_is_due_once_it_has_ended():
    handled = {"web": NIGHT}
    late = NIGHT + DAY + timedelta(hours=3)

    during = scheduler.plan([job()], client="c", now=late, handled=handled, running=frozenset({"web"}))
    after = scheduler.plan([job()], client="c", now=late, handled=during.handled)

    assert during.due == ()
    assert [due.due for due in after.due] == [NIGHT + DAY]


def test_jitter_is_stable_within_its_bound_and_different_for_different_clients():
    one = job(jitter=3600)

    offsets = {client: scheduler.jitter(client, one) for client in map(str, range(100))}

    assert offsets == {client: scheduler.jitter(client, one) for client in map(str, range(100))}
    assert len(set(offsets.values())) > 90
    assert all(timedelta() <= offset <= timedelta(hours=1) for offset in offsets.values())


def test_jitter_shifts_the_start_and_not_the_due_time():
    one = job(jitter=3600)
    offset = scheduler.jitter("web-1", one)
    life = Life(one, NIGHT - DAY / 2)

    assert life.look(NIGHT - DAY / 2).wake == NIGHT + offset
    life.look(NIGHT + offset)
    assert life.dues == [NIGHT]


# --- Clocks -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_back_repeats_nothing():
    life = Life(job(), NIGHT - DAY)
    life.look(NIGHT)

    life.live(NIGHT - timedelta(hours=3), NIGHT + 2 * DAY)

    assert life.dues == [NIGHT, NIGHT + DAY, NIGHT + 2 * DAY]


def test_a_clock_that_was_years_ahead_does_not_stop_backups_for_years():
    life = Life(job(), NIGHT - DAY)
    life.look(NIGHT + 3650 * DAY)

    life.live(NIGHT + DAY / 2, NIGHT + 2 * DAY)

    assert life.dues[1:] == [NIGHT + DAY, NIGHT + 2 * DAY]


@pytest.mark.parametrize(
    "start, expression, expected",
    [
        # 29 March 2026: 02:00 becomes 03:00, so that 02:30 does not exist.
        (datetime(2026, 3, 28, 12, tzinfo=UTC), "30 2 * * *", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        # 25 October 2026: 03:00 becomes 02:00, so that 02:30 comes twice.
        (datetime(2026, 10, 24, 12, tzinfo=UTC), "30 2 * * *", ["2026-10-25T00:30", "2026-10-26T01:30"]),
    ],
)
def test_a_day_of_changing_clocks_has_one_run(start, expression, expected):
    life = Life(job(expression, time_zone=BERLIN), start)

    life.live(start, start + 2 * DAY - timedelta(hours=8))

    assert [f"{due:%Y-%m-%dT%H:%M}" for due in life.dues] == expected


moments = st.integers(1_735_689_600, 1_830_211_200).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
expressions = st.sampled_from(["30 2 * * *", "0 * * * *", "15 1,2,3 * * *", "0 3 * * 0", "*/20 * * * *", "0 0 1 * *"])
zones = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
steps = st.lists(st.integers(1, 3 * 86_400), min_size=1, max_size=30)


@given(start=moments, expression=expressions, zone=zones, gaps=steps, jitter=st.sampled_from([0, 900, 7200]))
def test_no_due_time_runs_twice_and_the_latest_is_never_lost(start, expression, zone, gaps, jitter):
    one = job(expression, time_zone=zone, jitter=jitter)
    offset = scheduler.jitter("web-1", one)
    life = Life(one, start)
    now = start
    for gap in gaps:
        before, now = now, now + timedelta(seconds=gap)
        count = len(life.runs)
        plan = life.look(now)
        owed = cron.due_between(expression, time_zone=zone, after=before - offset, until=now - offset, limit=100_000)
        owed = [due for due in owed if due > start]
        assert life.dues[count:] == owed[-1:]
        assert plan.wake is not None
        assert plan.wake > now

    assert life.dues == sorted(set(life.dues))


@given(start=moments, expression=expressions, zone=zones, jumps=st.lists(st.integers(-7200, 7200), max_size=20))
def test_small_jumps_of_the_clock_never_double_a_run(start, expression, zone, jumps):
    life = Life(job(expression, time_zone=zone), start)
    now = start
    for jump in jumps:
        plan = life.look(now)
        now = max(now, plan.wake or now) + timedelta(seconds=jump)
        # A schedule that comes round within the jump may well run again: its own hours came again.
        if plan.wake is not None and cron.next_due(expression, time_zone=zone, after=plan.wake) - plan.wake < DAY / 8:
            return

    assert life.dues == sorted(set(life.dues))


@given(start=moments, zone=zones)
def test_a_year_of_days_has_a_run_for_each(start, zone):
    life = Life(job(time_zone=zone), start)

    life.live(start, start + 30 * DAY)

    assert life.dues == cron.due_between("30 2 * * *", time_zone=zone, after=start, until=start + 30 * DAY)
    assert 29 <= len(life.dues) <= 31


# --- Across restarts --------------------------------------------------------------------------------------------------


def test_a_restart_repeats_nothing_and_owes_what_was_missed():
    life = Life(job(), NIGHT - DAY)
    life.look(NIGHT)

    soon = scheduler.plan([job()], client="web-1", now=NIGHT + DAY / 2, handled=dict(life.handled))
    late = scheduler.plan([job()], client="web-1", now=NIGHT + 2.5 * DAY, handled=dict(life.handled))

    assert soon.due == ()
    assert [(due.due, due.trigger) for due in late.due] == [(NIGHT + 2 * DAY, Trigger.CATCH_UP)]
