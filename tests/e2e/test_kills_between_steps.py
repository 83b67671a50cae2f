"""Killed before each step of apply, run and report, of fetch, publish and ingest: nothing is lost or half-written.

First a life is watched, and its steps are written down (``steps``); then each kill chooses one. ``make test`` tries
some, ``make kills ROUNDS=…`` as many as one likes: all of them, and then the second time that each comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.fleet import NotInTime, until
from tests.e2e.killed_fleet import KilledFleet
from tests.e2e.stepped_fleet import rounds, spread

# Each kill is followed by two starts, and by all that has to be done after them.
pytestmark = pytest.mark.timeout(180 + 60 * rounds(4))

SECONDS = 15.0
"""In which a step has to come that came before; one that does not come is not killed before."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[KilledFleet]:
    with KilledFleet(tmp_path) as fleet:
        fleet.begin()
        yield fleet


def die(fleet: KilledFleet, name: str) -> bool:
    """Wait until the step has come; whether it has."""
    try:
        until(f"{name} is killed", lambda: fleet.has_died(name), seconds=SECONDS)
    except NotInTime:
        fleet.kill(name)
        return False
    fleet.kill(name)
    return True


def done_since(fleet: KilledFleet, runs: int) -> bool:
    return len(fleet.recorded("atlas")) > runs + 2 and fleet.follows("atlas", revision=fleet.source.head())


def published(fleet: KilledFleet) -> None:
    fleet.change()
    until("it is published", fleet.is_published)


def test_a_client_loses_and_doubles_nothing_before_whichever_step_it_is_killed(fleet, record_property):
    fleet.stop("atlas")
    published(fleet)
    steps: list[str] = []
    with fleet.recording("atlas", into=steps):
        fleet.start_client("atlas")
        runs = len(fleet.recorded("atlas"))
        until("it applies, runs and reports", partial(done_since, fleet, runs), seconds=60)
        fleet.stop("atlas")

    reached = 0
    for number, (step, count) in enumerate(spread(steps, count=rounds(4))):
        published(fleet)
        with fleet.before("atlas", step, count=count):
            fleet.start_client("atlas")
            reached += die(fleet, "atlas")
        fleet.check_now()
        if number % 2 == 1:
            fleet.cut()
    fleet.start_client("atlas")
    fleet.settle()

    record_property("steps", f"{reached} of {len(steps)}")
    record_property("outcomes", dict(fleet.check_runs()))
    fleet.check_events()
    fleet.check_nothing_is_left()
    assert reached > 0


def test_a_director_loses_and_doubles_nothing_before_whichever_step_it_is_killed(fleet, record_property):
    fleet.stop("director")
    fleet.change()
    steps: list[str] = []
    with fleet.recording("director", into=steps):
        fleet.start_director()
        runs = len(fleet.recorded("atlas"))
        until("it fetches, publishes and ingests", partial(done_since, fleet, runs), seconds=60)
        fleet.stop("director")

    reached = 0
    for step, count in spread(steps, count=rounds(4)):
        fleet.change()
        with fleet.before("director", step, count=count):
            fleet.start_director(wait=False)
            reached += die(fleet, "director")
        fleet.check_now()
    fleet.start_director()
    fleet.settle()

    record_property("steps", f"{reached} of {len(steps)}")
    fleet.kills = 0  # of the client, whose word all is held against
    outcomes = fleet.check_runs()
    record_property("outcomes", dict(outcomes))
    assert set(outcomes) <= {"succeeded", "cancelled"}
    fleet.check_events()
    fleet.check_nothing_is_left()
    assert reached > 0
