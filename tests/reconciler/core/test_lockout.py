"""Lockouts: when a source is locked, for how long, and what an attacker can do about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.lockout import ATTEMPTS, DURATION, OTHERS, WINDOW, LockoutRow, Lockouts

WALL = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def fail(table: Lockouts, name: str, *, times: int = ATTEMPTS, at: float = 0.0) -> list[bool]:
    return [table.failed(name, at=at)[1] for _ in range(times)]


def restarted(table: Lockouts, names: list[str], *, at: float, slept: float = 0.0, jumped: float = 0.0) -> Lockouts:
    """Return the table of a new process that was started ``slept`` seconds later; its monotonic clock starts at 5."""
    new = Lockouts()
    later = WALL + timedelta(seconds=slept + jumped)
    new.load(table.rows(names, at=at, wall=WALL), at=5.0, wall=later)
    return new


# --- When ---


def test_the_tenth_failure_within_an_hour_locks_for_an_hour():
    table = Lockouts()

    assert fail(table, "a") == [False] * 9 + [True]
    assert table.remaining("a", at=1.0) == DURATION - 1
    assert table.remaining("a", at=DURATION) == 0
    assert table.remaining("b", at=1.0) == 0
    assert table.locked(at=1.0) == ["a"]


def test_failures_are_counted_over_any_hour_not_over_hours_of_the_clock():
    table = Lockouts()
    fail(table, "a", times=5, at=0.0)
    fail(table, "a", times=4, at=WINDOW - 1)

    assert fail(table, "a", times=1, at=WINDOW + 1) == [False]
    assert fail(table, "a", times=5, at=WINDOW + 2) == [False] * 4 + [True]


def test_nine_failures_an_hour_never_lock():
    table = Lockouts()

    assert not any(table.failed("a", at=number * WINDOW / 9)[1] for number in range(200))


def test_failures_while_locked_lengthen_nothing_but_are_remembered():
    table = Lockouts()
    fail(table, "a")
    fail(table, "a", at=DURATION - 60)

    assert table.remaining("a", at=DURATION) == 0
    assert fail(table, "a", times=1, at=DURATION + 1) == [True]


def test_unlocking_forgets_everything():
    table = Lockouts()
    fail(table, "a")

    assert table.unlock("a")
    assert not table.unlock("a")
    assert table.remaining("a", at=1.0) == 0
    assert fail(table, "a", times=9, at=2.0) == [False] * 9


def test_a_locked_source_may_begin_few_handshakes_with_approved_keys():
    table = Lockouts()
    fail(table, "a")

    assert sum(table.spare("a", at=1.0) for _ in range(100)) == 20
    assert sum(table.spare("a", at=2.0) for _ in range(100)) == 10
    assert all(table.spare("b", at=1.0) for _ in range(100))


# --- Over a restart ---


def test_a_lock_survives_a_restart():
    table = Lockouts()
    fail(table, "a", at=100.0)

    assert restarted(table, ["a"], at=160.0, slept=40.0).remaining("a", at=5.0) == DURATION - 100


def test_failures_survive_a_restart():
    table = Lockouts()
    fail(table, "a", times=9, at=100.0)

    assert fail(restarted(table, ["a"], at=160.0), "a", times=1, at=6.0) == [True]


def test_what_is_over_is_not_taken_back_from_the_store():
    table = Lockouts()
    fail(table, "a")

    assert len(restarted(table, ["a"], at=1.0, slept=2 * WINDOW)) == 0


@pytest.mark.parametrize("jump", [-86_400.0 * 365, -10.0, 0.0])
def test_a_clock_that_jumps_back_over_a_restart_locks_for_no_more_than_an_hour(jump):
    table = Lockouts()
    fail(table, "a")

    assert 0 < restarted(table, ["a"], at=1.0, jumped=jump).remaining("a", at=5.0) <= DURATION


def test_rows_of_a_store_full_of_nonsense_are_bounded():
    table = Lockouts(limit=3)
    rows = [LockoutRow(str(number), 10**6, WALL, WALL + timedelta(days=900)) for number in range(10)]

    table.load(rows, at=0.0, wall=WALL)

    assert len(table) == 3
    assert table.remaining("0", at=0.0) == DURATION


# --- Attackers ---


def test_the_table_is_bounded():
    table = Lockouts(limit=100)

    for number in range(1000):
        table.failed(f"source-{number}", at=float(number))

    assert len(table) == 100


def test_an_attacker_cannot_push_his_own_failures_out_with_other_addresses():
    table = Lockouts(limit=100)
    fail(table, "attacker", times=9)

    for number in range(10_000):
        table.failed(f"other-{number}", at=1.0)

    assert fail(table, "attacker", times=1, at=2.0) == [True]


def test_an_attacker_cannot_push_a_lock_out_with_other_locks():
    table = Lockouts(limit=100)
    fail(table, "attacker")

    for number in range(300):
        fail(table, f"other-{number}")

    assert table.remaining("attacker", at=1.0) > 0
    assert len(table) <= 101


def test_sources_without_a_place_share_one_entry():
    table = Lockouts(limit=2)
    for name in ("a", "b"):
        fail(table, name)

    assert [table.failed(f"c{number}", at=1.0) for number in range(10)] == [(OTHERS, False)] * 9 + [(OTHERS, True)]
    assert table.remaining("d", at=2.0) > 0


def test_the_shared_entry_is_over_when_its_hour_is():
    table = Lockouts(limit=2)
    for name in ("a", "b"):
        fail(table, name)
    for number in range(10):
        table.failed(f"c{number}", at=1.0)

    assert table.remaining("d", at=DURATION + 2) == 0


def test_what_is_over_makes_room_first():
    table = Lockouts(limit=2)
    fail(table, "old", times=9, at=0.0)
    fail(table, "new", times=1, at=WINDOW + 1)

    table.failed("next", at=WINDOW + 2)

    assert fail(table, "new", times=9, at=WINDOW + 3)[-1]


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 600)), max_size=200))
def test_no_history_breaks_the_bookkeeping(history):
    table, at = Lockouts(limit=3), 0.0
    for number, pause in history:
        at += pause
        name, locked = table.failed(str(number), at=at)
        assert locked <= (table.remaining(name, at=at) == DURATION)
        assert len(table) <= 4
        assert sum(len(level) for level in table._levels) == len(table)
