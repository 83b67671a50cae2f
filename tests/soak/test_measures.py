"""The verdict of a soak: what grows is found, what only swings is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.measures import MEBIBYTE, Moment, Sample, line, too_long, trends

STEADY = Sample(memory=100 * MEBIBYTE, handles=500, threads=15, tasks=1_000, store=MEBIBYTE, wal=16 * MEBIBYTE)


def moments(**growth: int) -> list[Moment]:
    """Return thirty moments; what is named grows by so much with each, and swings a little beside."""
    found = []
    for number in range(30):
        changes = {name: getattr(STEADY, name) + number % 2 + number * step for name, step in growth.items()}
        found.append(Moment(30.0 * number, replace(STEADY, **changes), STEADY))
    return found


def grown(some: list[Moment]) -> list[str]:
    return [f"{one.process} {one.measure}" for one in trends(some) if not one.is_flat]


def test_what_only_swings_is_flat():
    assert grown(moments(memory=0, handles=0, threads=0, tasks=0)) == []


@pytest.mark.parametrize(("measure", "step"), [("memory", 2 * MEBIBYTE), ("handles", 3), ("threads", 2), ("tasks", 10)])
def test_what_rises_from_third_to_third_grows(measure, step):
    assert grown(moments(**{measure: step})) == [f"director {measure}"]


def test_a_trend_is_not_told_from_too_few_moments():
    with pytest.raises(ValueError, match="5 moments are too few"):
        list(trends(moments()[:5]))


def test_a_write_ahead_log_may_fill_and_not_burst():
    assert list(too_long(moments(wal=0), clients=4)) == []
    assert list(too_long(moments(wal=2 * MEBIBYTE), clients=4)) == ["director: write-ahead logs of 74.0M"]


def test_a_line_shows_both_processes():
    assert line(moments()[3]).count("100.0M") == 2
    assert line(moments()[3]).strip().startswith("1m 30s")
