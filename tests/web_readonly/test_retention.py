"""Which rule keeps which archive is what ``borg prune`` would say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from web_readonly import retention

NOW = datetime(2026, 11, 23, 7, 40, tzinfo=UTC)
DAY = timedelta(days=1)


def daily(number: int) -> list[datetime]:
    return [NOW - place * DAY for place in range(number)]


def judge(starts: list[datetime], time_zone: str = "UTC", **rules: int | str) -> retention.Retained:
    return retention.judge(starts, rules, time_zone=time_zone, now=NOW)


def kept(of: retention.Retained) -> dict[str, int]:
    return {rule.name: len(rule.kept) for rule in of.rules}


def test_each_rule_keeps_what_no_former_rule_keeps():
    of = judge(daily(60), keep_daily=7, keep_weekly=4, keep_monthly=2)

    assert kept(of) == {"daily": 7, "weekly": 4, "monthly": 2}
    assert len(of.leaving) == 60 - 13
    assert of.most == 13


def test_a_rule_that_is_not_full_keeps_the_oldest_archive_too():
    of = judge(daily(10), keep_daily=3, keep_yearly=5)

    assert kept(of) == {"daily": 3, "yearly": 1}
    assert of.rules[1].kept == (NOW - 9 * DAY,)


def test_of_several_archives_in_a_period_the_newest_stays():
    of = judge([NOW, NOW - timedelta(hours=2), NOW - DAY], keep_daily=2)

    assert of.rules[0].kept == (NOW, NOW - DAY)
    assert of.leaving == (NOW - timedelta(hours=2),)


def test_days_end_at_midnight_where_the_machine_is():
    late, early = datetime(2026, 11, 22, 23, 30, tzinfo=UTC), datetime(2026, 11, 22, 22, 30, tzinfo=UTC)

    assert len(judge([late, early], keep_daily=2).leaving) == 0
    assert kept(judge([late, early], "Europe/Berlin", keep_daily=2)) == {"daily": 2}
    assert judge([late, early], "nowhere/at all", keep_daily=1).leaving == (early,)


def test_keep_within_has_no_number_and_comes_first():
    of = judge(daily(20), keep_within="10d", keep_daily=2)

    assert kept(of) == {"within 10d": 10, "daily": 2}
    assert of.most == retention.UNLIMITED


@pytest.mark.parametrize("rules", [{}, {"keep_daily": 0}, {"keep_within": "soon"}, {"keep_daily": "many"}])
def test_without_a_rule_nothing_is_judged(rules):
    of = judge(daily(3), **rules)

    assert (of.rules, of.leaving, of.most) == ((), (), retention.UNLIMITED)


def test_an_endless_rule_keeps_all():
    of = judge(daily(30), keep_daily=-1)

    assert kept(of) == {"daily": 30}
    assert of.most == retention.UNLIMITED


def test_several_backups_want_the_sum_and_one_without_end_makes_it_endless():
    assert retention.wanted([{"keep_daily": 7}, {"keep_daily": 3, "keep_weekly": 2}]) == 12
    assert retention.wanted([{"keep_daily": 7}, {}]) == retention.UNLIMITED
