"""A client killed in the first run of a backup, between Borg's making of the repository and the note that it is known.

Each kill has a backup, and so a repository, of its own. What Borg was doing goes on and ends in good order: the next
run waits for it, uses the repository, and notes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.known_repositories import KnownRepositories
from tests.e2e.fleet import NotInTime, until
from tests.e2e.killed_fleet import EVERY_MINUTE, KilledFleet
from tests.e2e.stepped_fleet import rounds, spread

pytestmark = pytest.mark.timeout(180 + 60 * rounds(1))

SECONDS = 15.0
"""In which a step has to come that came before; one that does not come is not killed before."""
_OF_A_RUN = ("client/runner.py", "client/known_repositories.py")
"""Where the steps are between which a repository comes to be."""


class NewFleet(KilledFleet):
    """``atlas`` follows, and backs up nothing yet."""

    def begin(self) -> None:
        self.start_director()
        self.add_machine("atlas")
        self.enrol("atlas")
        self.approve_in_source("atlas")
        self.push("Let it in")
        until("atlas follows", lambda: self.follows("atlas"))

    def add(self, backup: str) -> None:
        """Push a backup that has never run, while the client is away."""
        self.write_backup(backup, "atlas", cron=EVERY_MINUTE)
        self.push(f"Add {backup}")
        until("it is published", self.is_published)

    def retire(self, backup: str) -> None:
        """Have no more runs of it by itself. The next push says so."""
        self.write_backup(backup, "atlas")

    def has_succeeded(self, backup: str) -> bool:
        return bool(self.store(f"SELECT 1 FROM runs WHERE backup = '{backup}' AND outcome = 'succeeded'"))

    def known(self) -> set[str]:
        """Return the repositories that the machine knows, by the names of their folders."""
        return {Path(one.url).name for one in KnownRepositories(self.folder / "atlas/var").all()}

    def check_first_backup(self, backup: str) -> None:
        """It has succeeded in spite of the kill, what was reported is there, and its repository is known."""
        until(f"{backup} succeeds", lambda: self.has_succeeded(backup), seconds=60)
        until(f"{backup} is known", lambda: f"atlas-{backup}" in self.known())
        wrong = self.store("SELECT backup, outcome, error FROM runs WHERE outcome IN ('failed', 'warned')")
        assert wrong == [], "what a kill left behind made a later run fail"
        assert not list((self.folder / "atlas/var").rglob("repositories/.*"))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[NewFleet]:
    with NewFleet(tmp_path) as fleet:
        fleet.begin()
        yield fleet


def test_a_client_killed_in_the_first_run_of_a_backup_uses_what_was_made_and_knows_it(fleet, record_property):
    fleet.kill("atlas")
    fleet.add("first")
    steps: list[str] = []
    with fleet.recording("atlas", into=steps):
        fleet.start_client("atlas")
        fleet.check_first_backup("first")
        fleet.kill("atlas")
    steps = [step for step in steps if any(place in step for place in _OF_A_RUN)]

    reached, before = 0, "first"
    for number, (step, count) in enumerate(spread(steps, count=rounds(1))):
        fleet.retire(before)
        before = f"backup-{number}"
        fleet.add(before)
        with fleet.before("atlas", step, count=count):
            fleet.start_client("atlas")
            try:
                until("it is killed", lambda: fleet.has_died("atlas"), seconds=SECONDS)
                reached += 1
            except NotInTime:
                pass
            fleet.kill("atlas")
        fleet.start_client("atlas")
        fleet.check_first_backup(before)
        fleet.kill("atlas")

    record_property("steps", f"{reached} of {len(steps)}")
    assert reached > 0
    assert fleet.known() == {"atlas-first", *(f"atlas-backup-{number}" for number in range(rounds(1)))}
