"""A director killed in its first start, while it makes its key, its certificate and its store: the next one works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import NotInTime, until
from tests.e2e.stepped_fleet import SteppedFleet, rounds, spread

pytestmark = pytest.mark.timeout(120 + 30 * rounds(2))

SECONDS = 10.0
"""In which a step has to come that came before; one that does not come is not killed before."""
_OF_A_SOURCE = "reconciler/git_"
"""Where the steps are that every start has."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SteppedFleet]:
    with SteppedFleet(tmp_path) as fleet:
        fleet.source.write("README.md", "nobody is backed up yet\n")
        fleet.push("Begin")
        yield fleet


def check_state(fleet: SteppedFleet) -> None:
    """One key and one certificate, for the director alone, and a whole store; nothing unfinished beside them."""
    folder = fleet.director_folder
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert {path.name for path in folder.iterdir()} >= {"identity", "tls.crt", "tls.key", "store.sqlite"}
    for name in ("identity", "tls.key"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert fleet.store("PRAGMA integrity_check") == [("ok",)]


def test_a_director_killed_in_its_first_start_starts_with_the_same_command(fleet, record_property):
    steps: list[str] = []
    with fleet.recording("director", into=steps):
        fleet.start_director()
        fleet.stop("director")
    check_state(fleet)
    steps = [step for step in steps if _OF_A_SOURCE not in step]

    reached = 0
    for step, count in spread(steps, count=rounds(2)):
        shutil.rmtree(fleet.director_folder)
        with fleet.before("director", step, count=count):
            fleet.start_director(wait=False)
            try:
                until("it is killed", lambda: fleet.has_died("director"), seconds=SECONDS)
                reached += 1
            except NotInTime:
                pass
            fleet.kill("director")
        fleet.start_director()
        token = fleet.director("token", "create").stdout
        assert token.startswith("bd1-enroll.")
        assert fleet.stop("director") == 0
        check_state(fleet)

    record_property("steps", f"{reached} of {len(steps)}")
    assert reached > 0
