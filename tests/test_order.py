"""The order of tests that run side by side."""

from __future__ import annotations

from pathlib import Path

from tests.order import dealt

ITEMS = [f"{file}::{number}" for file in "aBcDeF" for number in range(4)]


def order(items: list[str], *, workers: int) -> list[str]:
    return dealt(items, file=lambda item: Path(item[0]), is_long=lambda path: str(path).isupper(), workers=workers)


def test_each_worker_begins_with_its_part_of_the_long_files() -> None:
    two = order(ITEMS, workers=2)

    assert [item[0] for item in two[:12:4]] == ["B", "F", "a"]
    assert [item[0] for item in two[12::4]] == ["D", "c", "e"]


def test_no_test_is_lost_or_doubled_and_files_keep_their_order() -> None:
    for workers in (1, 2, 3, 5, 40):
        for number in (0, 1, 7, len(ITEMS)):
            found = order(ITEMS[:number], workers=workers)
            assert sorted(found) == sorted(ITEMS[:number])
            for file in "aBcDeF":
                theirs = [item for item in found if item[0] == file]
                assert theirs == sorted(theirs)


def test_more_long_tests_than_a_stretch_holds_come_before_all_short_ones() -> None:
    assert [item[0] for item in order([*ITEMS[4:12], *ITEMS[:2]], workers=1)] == [*"BBBBccccaa"]
