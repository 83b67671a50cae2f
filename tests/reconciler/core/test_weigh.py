"""When a revision is held because so much would be gone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from reconciler.core import weigh
from reconciler.core.build import Build
from tests.reconciler.core.written import backup, built, client, key_of, repository

REVISION = "0123456789abcdef"


def fleet(
    clients: int,
    *,
    backups: int = 1,
    key: str = "k",
    names: str = "c",
    keys: Mapping[str, str | None] | None = None,
) -> Build:
    """So many clients with so many backups each, under keys that are ``key``'s own; ``keys`` gives some another."""
    machines, given = [f"{names}-{number}" for number in range(clients)], keys or {}
    return built(
        [
            repository(),
            *(client(name, publicKey=given.get(name, key_of(f"{key}-{name}").text)) for name in machines),
            *(backup(f"b-{number}", clients=machines) for number in range(backups) if machines),
        ]
    )


def held(before: Build | None, after: Build, *, share: float = weigh.DEFAULT_SHARE) -> bool:
    return weigh.weigh(before, after, revision=REVISION, share=share) is not None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (fleet(10), fleet(10), False),
        (fleet(10), fleet(8), False),
        (fleet(10), fleet(7), True),
        (fleet(10), fleet(0), True),
        (fleet(1), fleet(0), True),
        (fleet(2), fleet(1), False),
        (fleet(3), fleet(1), True),
        (fleet(0), fleet(0), False),
        (fleet(0), fleet(9), False),
        (fleet(2, backups=5), fleet(2, backups=3), True),
        (None, fleet(0), False),
    ],
)
def test_more_than_a_fifth_gone_is_held_and_everything_gone_always(
    before: Build | None,
    after: Build,
    expected: bool,  # noqa: FBT001 - a parameter of the table
):
    assert held(before, after) == expected


def test_the_share_can_be_set():
    assert held(fleet(10), fleet(8), share=0.1)
    assert not held(fleet(10), fleet(4), share=0.7)


def test_backups_that_moved_elsewhere_are_gone_where_they_were():
    assert held(fleet(9), fleet(9, names="d"))


def test_many_keys_changed_at_once_are_held_and_one_is_not():
    assert held(fleet(10), fleet(10, key="other"))
    assert held(fleet(10), fleet(10, keys={f"c-{number}": None for number in range(10)}))
    assert not held(fleet(10), fleet(10, keys={"c-3": key_of("other").text}))


def test_the_message_has_the_numbers_and_the_hint_both_ways_through():
    hold = weigh.weigh(fleet(10), fleet(6), revision=REVISION)

    assert hold == weigh.Hold(
        reason="MassChangeHeld",
        message="4 of 10 backups (40%) would be gone, more than the 20% that pass unasked",
        hint=(
            "if this is meant, run `director acknowledge 0123456789ab`, or push a commit whose message ends with "
            "the trailer `Director-Acknowledge: mass-change`"
        ),
    )
