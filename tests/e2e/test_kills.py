"""Either side killed at any moment, while backups run and reports flow: nothing is lost, doubled or half-written.

The director is the real program; the client is the real agent under a clock that runs twenty times as fast, so that
every backup is due every three seconds. ``test_kills_between_steps`` chooses the moments; here chance does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.e2e.fleet import until
from tests.e2e.killed_fleet import KilledFleet
from tests.e2e.stepped_fleet import SEED, rounds

# Each kill is followed by two starts, and by all that has to be done after them.
pytestmark = pytest.mark.timeout(180 + 60 * rounds(6))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[KilledFleet]:
    with KilledFleet(tmp_path) as fleet:
        fleet.begin()
        yield fleet


def has_begun_since(fleet: KilledFleet, runs: int) -> bool:
    return len(fleet.recorded("atlas")) > runs


def test_a_client_that_is_killed_again_and_again_loses_and_doubles_nothing(fleet, record_property):
    random = Random(SEED)
    for number in range(rounds(6)):
        started = len(fleet.recorded("atlas"))
        until("a run begins", partial(has_begun_since, fleet, started))
        time.sleep(random.uniform(0.0, 2.5))  # the moment is what is tried, not something that is waited for
        if number % 3 == 0:
            fleet.change()
            until("it is published", fleet.is_published)
            time.sleep(random.uniform(0.0, 1.0))
        fleet.kill("atlas")
        fleet.check_now()
        if number % 2 == 1:
            fleet.cut()
        fleet.start_client("atlas")

    fleet.settle()

    outcomes = fleet.check_runs()
    record_property("outcomes", dict(outcomes))
    assert outcomes["lost"] > 0
    fleet.check_events()
    fleet.check_nothing_is_left()


def test_a_director_that_is_killed_again_and_again_loses_and_doubles_nothing(fleet, record_property):
    random = Random(SEED + 1)
    for number in range(rounds(3)):
        if number % 3 == 0:
            fleet.change()
        time.sleep(random.uniform(0.0, 1.5))
        fleet.kill("director")
        fleet.check_now()
        fleet.start_director(wait=number % 2 == 0)

    until("the director answers", fleet.director_answers)
    fleet.settle()

    fleet.kills = 0  # of the client, whose word all is held against
    outcomes = fleet.check_runs()
    record_property("outcomes", dict(outcomes))
    assert set(outcomes) <= {"succeeded", "cancelled"}
    fleet.check_events()
    fleet.check_nothing_is_left()
