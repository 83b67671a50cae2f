"""A director whose source is behind ssh, killed while it fetches: the next start publishes, and nothing is left.

Git inherits the lock of the clone, so that whatever holds it is a process that fetches.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e.fleet import SCHEDULE, NotInTime, until
from tests.e2e.sshd import SSHServer, sshd
from tests.e2e.stepped_fleet import SEED, SteppedFleet, rounds, spread

pytestmark = pytest.mark.timeout(180 + 30 * rounds(4))

SECONDS = 8.0
"""In which a step has to come that came before; one that does not come is not killed before."""

_GATE = """\
touch "{folder}/arrived"
while test -e "{folder}/closed"; do sleep 0.05; done
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


class FarFleet(SteppedFleet):
    """A director that fetches over ssh, from a server that lets it wait while ``closed`` is there."""

    def __init__(self, folder: Path, server: SSHServer) -> None:
        super().__init__(folder)
        settings = folder / "director.toml"
        far = (
            f'url = "{server.url(folder / "source.git")}"\nssh_key = "{server.client_key_path}"\n'
            f'known_hosts = "{server.known_hosts}"\nfetch_timeout = "4s"\ninterval = "1s"\n'
        )
        near = f'url = "{folder}/source.git"\ninterval = "5s"\n'
        assert near in settings.read_text()
        settings.write_text(settings.read_text().replace(near, far))
        self.changes = 0

    def change(self) -> str:
        """Push something new."""
        self.changes += 1
        self.source.write("schedule.yaml", SCHEDULE.format(cron=f"{self.changes % 60} * * * *"))
        return self.push(f"Change {self.changes}")

    def is_published(self) -> bool:
        newest = self.store("SELECT revision FROM revisions WHERE outcome = 'published' ORDER BY id DESC LIMIT 1")
        return newest == [(self.source.head(),)]

    @property
    def clone(self) -> Path:
        (clone,) = (self.director_folder / "source").glob("*.git")
        return clone

    def fetching(self) -> list[int]:
        """Return the processes that hold the lock of a clone."""
        return [int(place.name) for place in Path("/proc").glob("[0-9]*") if self._holds_the_lock(place)]

    def _holds_the_lock(self, process: Path) -> bool:
        found = []
        with contextlib.suppress(OSError):
            found = [str(one.readlink()) for one in (process / "fd").iterdir()]
        beginning = f"{self.director_folder}/source/"
        return any(one.startswith(beginning) and one.endswith(".lock") for one in found)

    def cut(self) -> None:
        """Kill what a director that is dead has left running."""
        for process in self.fetching():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def forget_the_clone(self) -> None:
        shutil.rmtree(self.director_folder / "source", ignore_errors=True)

    def die(self) -> bool:
        """Wait until the director has died of its step; whether it has."""
        try:
            until("it is killed", lambda: self.has_died("director"), seconds=SECONDS)
        except NotInTime:
            self.kill("director")
            return False
        self.kill("director")
        return True

    def settle(self) -> None:
        """Start a director, and see that it publishes the newest and that nothing is left."""
        self.start_director()
        until("the newest is published", self.is_published, seconds=60)
        self.stop("director")
        until("nobody fetches", lambda: not self.fetching())
        assert list(self.clone.rglob("*.lock")) == []
        fsck = subprocess.run(
            ["git", f"--git-dir={self.clone}", "fsck", "--strict"], capture_output=True, check=False, timeout=60
        )
        assert fsck.returncode == 0, fsck.stderr


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FarFleet]:
    gate = tmp_path / "gate"
    gate.write_text(_GATE.format(folder=tmp_path / "f"))
    with sshd(tmp_path, command=f"sh {gate}") as server, FarFleet(tmp_path / "f", server) as fleet:
        fleet.change()
        yield fleet
        (fleet.folder / "closed").unlink(missing_ok=True)


def test_a_director_killed_while_the_server_keeps_silent_leaves_no_git_that_waits_for_ever(fleet):
    (fleet.folder / "closed").touch()
    fleet.start_director(wait=False)
    until("it fetches", (fleet.folder / "arrived").exists)
    fleet.kill("director")

    assert fleet.fetching() != []
    until("they have ended", lambda: not fleet.fetching())
    (fleet.folder / "closed").unlink()
    fleet.settle()


def test_a_director_killed_before_any_step_of_a_fetch_publishes_after_its_next_start(fleet, record_property):
    steps: list[str] = []
    with fleet.recording("director", into=steps):
        fleet.start_director()
        until("it is published", fleet.is_published)
        fleet.stop("director")
    steps = [step for step in steps if "reconciler/source.py" in step or "reconciler/git_" in step]

    reached = 0
    for number, (step, count) in enumerate(spread(steps, count=rounds(3))):
        fleet.change()
        if number % 2 == 0:
            fleet.forget_the_clone()
        with fleet.before("director", step, count=count):
            fleet.start_director(wait=False)
            reached += fleet.die()
        if number % 3 == 1:
            fleet.cut()
    fleet.settle()

    record_property("steps", f"{reached} of {len(steps)}")
    assert reached > 0


def test_a_director_cut_off_at_any_moment_of_a_fetch_publishes_after_its_next_start(fleet):
    random = Random(SEED)
    for number in range(rounds(3)):
        fleet.change()
        if number % 2 == 0:
            fleet.forget_the_clone()
        (fleet.folder / "arrived").unlink(missing_ok=True)
        fleet.start_director(wait=False)
        until("it fetches", (fleet.folder / "arrived").exists)
        time.sleep(random.uniform(0.0, 0.2))  # the moment is what is tried, not something that is waited for
        fleet.kill("director")
        if number % 3:
            fleet.cut()
    fleet.settle()
