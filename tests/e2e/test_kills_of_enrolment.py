"""Enrolment killed before each of its steps, on either side: the same command works again, with the same key.

A token of one use for each machine: a use that a kill took without effect, or twice, leaves a machine outside.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.fleet import program, until
from tests.e2e.stepped_fleet import SteppedFleet, rounds, spread

pytestmark = pytest.mark.timeout(120 + 30 * rounds(3))

SECONDS = 30.0
_OF_ENROLMENT = ("store/trust.py", "store/writer.py", "add_events", "session.py")
"""Where the steps of a director are of which a machine can hear while it enrols."""


class StrangersFleet(SteppedFleet):
    """A director with a source, and machines that it does not know yet."""

    def begin(self) -> None:
        self.source.write("README.md", "nobody is backed up yet\n")
        self.push("Begin")
        self.start_director()

    def token(self, *, uses: int) -> str:
        return self.director("token", "create", "--uses", str(uses)).stdout.strip()

    @property
    def uses_left(self) -> int:
        ((left,),) = self.store("SELECT uses_left FROM tokens")
        return int(left)

    def pending(self, name: str) -> list[str]:
        """Return the keys that wait under a name."""
        return [key for key, owner in self.store("SELECT public_key, name FROM pending") if owner == name]

    def enrolling(self, name: str, token: str) -> int:
        """Run ``director-client enroll``, which may die; return its exit code."""
        command = (program("director-client"), "--config", self.settings(name), "enroll", token)
        return self.start(name, *command).wait(SECONDS)

    def start_enrolling(self, name: str, token: str) -> None:
        """Start ``director-client run``, which enrols first."""
        command = (program("director-client"), "--config", self.settings(name), "run")
        self.start(name, *command, also={"BORGMATIC_DIRECTOR_ENROLMENT": token})

    def says_pending(self, name: str) -> bool:
        return '"pending"' in (self.folder / name / "var/status.json").read_text()

    def has_come_far(self, name: str) -> bool:
        """Whether it has died, or the step before which it was to die did not come."""
        return self.has_died(name) or self.says_pending(name)

    def check_private(self, name: str) -> None:
        """Nobody else may read anything of a machine, not even right after a kill."""
        for path in (self.folder / name / "var").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path

    def check_enrolled(self, name: str) -> None:
        """One key, on the machine and at the director, and nothing unfinished beside it."""
        self.check_private(name)
        assert list((self.folder / name / "var").rglob(".*")) == []
        shown = self.client(name, "fingerprint").stdout.split()[-1]
        assert self.pending(name) == [shown]
        self.keys[name] = shown


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[StrangersFleet]:
    with StrangersFleet(tmp_path) as fleet:
        fleet.begin()
        yield fleet


def test_a_machine_killed_while_it_enrols_does_so_with_the_same_command(fleet, record_property):
    kills = rounds(3)
    token = fleet.token(uses=1 + kills)
    fleet.add_machine("first")
    steps: list[str] = []
    with fleet.recording("first", into=steps):
        assert fleet.enrolling("first", token) == 0
    fleet.check_enrolled("first")

    ends = []
    for number, (step, count) in enumerate(spread(steps, count=kills)):
        name = f"machine-{number}"
        fleet.add_machine(name)
        with fleet.before(name, step, count=count):
            ends.append(fleet.enrolling(name, token))
        fleet.check_private(name)
        assert fleet.enrolling(name, token) == 0, fleet.log(name)
        fleet.check_enrolled(name)

    record_property("steps", f"{ends.count(-signal.SIGKILL)} of {len(steps)}")
    assert set(ends) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in ends
    assert fleet.uses_left == 0


def test_a_service_killed_while_it_enrols_does_so_at_its_next_start_and_is_let_in(fleet, record_property):
    kills = rounds(2)
    token = fleet.token(uses=1 + kills)
    fleet.add_machine("first")
    steps: list[str] = []
    with fleet.recording("first", into=steps):
        fleet.start_enrolling("first", token)
        until("it waits", lambda: fleet.says_pending("first"))
        assert fleet.stop("first") == 0
    fleet.check_enrolled("first")

    reached = 0
    names = [f"machine-{number}" for number in range(kills)]
    for name, (step, count) in zip(names, spread(steps, count=kills), strict=True):
        fleet.add_machine(name)
        with fleet.before(name, step, count=count):
            fleet.start_enrolling(name, token)
            until("it is killed", partial(fleet.has_come_far, name))
            reached += fleet.has_died(name)
            fleet.kill(name)
        fleet.check_private(name)
        fleet.start_enrolling(name, token)
        until("it waits", partial(fleet.says_pending, name))
        fleet.check_enrolled(name)

    record_property("steps", f"{reached} of {len(steps)}")
    assert reached > 0
    assert fleet.uses_left == 0
    fleet.approve_in_source(*names)
    revision = fleet.push("Let them in")
    until("they follow", lambda: fleet.follows(*names, revision=revision))


def test_a_director_killed_while_it_enrols_a_machine_takes_one_use_of_the_token_for_it(fleet, record_property):
    kills = rounds(2)
    token = fleet.token(uses=1 + kills)
    fleet.stop("director")
    steps: list[str] = []
    fleet.add_machine("first")
    with fleet.recording("director", into=steps, when_armed=True):
        fleet.start_director()
        fleet.arm("director")
        assert fleet.enrolling("first", token) == 0
        until("it is told", lambda: fleet.store("SELECT 1 FROM events WHERE reason = 'ClientPending'"))
        fleet.disarm("director")
        fleet.stop("director")

    steps = [step for step in steps if any(place in step for place in _OF_ENROLMENT)]
    ends, reached, before = [], 0, "first"
    for number, (step, count) in enumerate(spread(steps, count=kills)):
        with fleet.before("director", step, count=count, when_armed=True):
            fleet.start_director()
        assert fleet.enrolling(before, token) == 0, fleet.log(before)
        fleet.check_enrolled(before)
        assert fleet.uses_left == kills - number
        before = f"machine-{number}"
        fleet.add_machine(before)
        fleet.arm("director")
        ends.append(fleet.enrolling(before, token))
        said = fleet.log(before)
        assert ("closed the connection" in said) == ("hint: run the same command again" in said)
        reached += fleet.has_died("director")
        fleet.kill("director")
        fleet.check_private(before)
    fleet.start_director()
    assert fleet.enrolling(before, token) == 0, fleet.log(before)
    fleet.check_enrolled(before)

    record_property("steps", f"{reached} of {len(steps)}")
    assert set(ends) <= {0, 2}
    assert reached > 0
    assert fleet.uses_left == 0
