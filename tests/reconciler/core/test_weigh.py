"""When a revision is held because so much would be gone."""

from __future__ import annotations

import pytest

from reconciler.core import weigh
from tests.reconciler.core.written import backup, built, client, key_of, small

REVISION = "0123456789abcdef"


def shape(clients: int, *, backups: int = 1, key: str = "k") -> weigh.Shape:
    names = tuple(f"b-{number}" for number in range(backups))
    return weigh.Shape(
        backups={f"c-{number}": names for number in range(clients)},
        keys={f"c-{number}": key for number in range(clients)},
    )


def held(before: weigh.Shape | None, after: weigh.Shape, **settings: float) -> bool:
    return weigh.weigh(before, after, revision=REVISION, **settings) is not None


def test_a_shape_says_who_runs_what_under_which_key():
    result = weigh.shape(built(small(client("idle"), backup("more"))))

    assert result == weigh.Shape(
        backups={"idle": (), "web-1": ("files", "more")},
        keys={"idle": key_of("idle").text, "web-1": key_of("web-1").text},
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (shape(10), shape(10), False),
        (shape(10), shape(8), False),
        (shape(10), shape(7), True),
        (shape(10), shape(0), True),
        (shape(1), shape(0), True),
        (shape(2), shape(1), False),
        (shape(3), shape(1), True),
        (shape(0), shape(0), False),
        (shape(0), shape(9), False),
        (shape(2, backups=5), shape(2, backups=3), True),
        (None, shape(0), False),
    ],
)
def test_more_than_a_fifth_gone_is_held_and_everything_gone_always(
    before: weigh.Shape | None,
    after: weigh.Shape,
    expected: bool,  # noqa: FBT001 - a parameter of the table
):
    assert held(before, after) == expected


def test_the_share_can_be_set():
    assert held(shape(10), shape(8), share=0.1)
    assert not held(shape(10), shape(4), share=0.7)


def test_backups_that_moved_elsewhere_are_gone_where_they_were():
    renamed = weigh.Shape(backups={f"d-{number}": ("b-0",) for number in range(9)}, keys={})

    assert held(shape(9), renamed)


def test_many_keys_changed_at_once_are_held_and_one_is_not():
    assert held(shape(10), shape(10, key="other"))
    assert held(shape(10), weigh.Shape(backups=shape(10).backups, keys={}))
    assert not held(shape(10), weigh.Shape(backups=shape(10).backups, keys={**shape(10).keys, "c-3": "other"}))


def test_the_message_has_the_numbers_and_the_hint_both_ways_through():
    hold = weigh.weigh(shape(10), shape(6), revision=REVISION)

    assert hold == weigh.Hold(
        reason="MassChangeHeld",
        message="4 of 10 backups (40%) would be gone, more than the 20% that pass unasked",
        hint=(
            "if this is meant, run `director acknowledge 0123456789ab`, or push a commit whose message ends with "
            "the trailer `Director-Acknowledge: mass-change`"
        ),
    )
