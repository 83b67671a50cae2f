from __future__ import annotations

from tests.benchmarks.rows import Row, table


def test_a_row_is_held_against_its_bound():
    assert Row(what="a page", ours=50.0, most=50).reached
    assert not Row(what="a page", ours=50.1, most=50).reached


def test_a_row_is_held_against_a_multiple_of_its_floor():
    assert Row(what="rendering", ours=8, floor=2, most_ratio=4).reached
    assert not Row(what="rendering", ours=8.1, floor=2, most_ratio=4).reached
    assert Row(what="validating", ours=200, floor=2, least_ratio=100, unit="files/s").reached
    assert not Row(what="validating", ours=199, floor=2, least_ratio=100, unit="files/s").reached


def test_a_bound_on_the_ratio_without_a_floor_is_missed():
    assert not Row(what="rendering", ours=1, most_ratio=4).reached
    assert not Row(what="rendering", ours=1, floor=0, most_ratio=4).reached


def test_a_row_without_a_bound_is_only_told():
    row = Row(what="processor time", ours=3.21)

    assert row.reached
    assert row.bound == ""


def test_the_table_says_what_was_reached_and_what_was_missed():
    text = table(
        [
            Row(what="/", ours=12.34, floor=2, most=50, note="p50 9.0"),
            Row(what="memory", ours=1_234, unit="MiB", most=256),
            Row(what="processor time", ours=0.0123),
        ]
    )

    assert text == (
        "what                 ours  floor   ratio  must reach\n"
        "/                 12.3 ms   2 ms  6.17 ×     ≤ 50 ms  ok      p50 9.0\n"
        "memory          1,234 MiB                  ≤ 256 MiB  MISSED\n"
        "processor time   0.012 ms\n"
    )
