"""A fleet whose programs can be killed right before a chosen step of theirs (``steps``).

::

    with fleet.recording("director", into=found):     # what does it do, from its next start on?
        fleet.start_director(); …; fleet.stop("director")
    with fleet.before("director", found[3]):          # and now let it die there
        fleet.start_director(wait=False); until("it is killed", lambda: fleet.has_died("director"))
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from subprocess import Popen
from typing import Final

from tests.e2e import steps
from tests.e2e.fleet import Fleet

SEED: Final = int(os.environ.get("KILLS_SEED", "20261124"))
_PROGRAMS: Final = frozenset({"director", "director-client"})


def rounds(usual: int) -> int:
    """Return how many kills a test makes: a few in ``make test``, as many as one likes in ``make kills``."""
    return int(os.environ.get("KILLS_ROUNDS", usual))


def spread(found: list[str], *, count: int) -> list[tuple[str, int]]:
    """Choose ``count`` steps, all of them before any a second time; with each, at which time it is to come."""
    random = Random(SEED)
    chosen: list[tuple[str, int]] = []
    while len(chosen) < count:
        time = 1 + len(chosen) // len(found)
        chosen += [(step, time) for step in random.sample(found, min(len(found), count - len(chosen)))]
    return chosen


class SteppedFleet(Fleet):
    """A fleet whose steps are seen."""

    def __init__(self, folder: Path, *, speed: float = 1) -> None:
        super().__init__(folder, speed=speed)
        self._steps: dict[str, dict[str, str]] = {}

    def start(
        self, name: str, *command: str, wrapper: Iterable[str] = (), also: Mapping[str, str] | None = None
    ) -> Popen[bytes]:
        """Start a program, under ``steps`` when that was asked for."""
        told = self._steps.get(name, {})
        if told and Path(command[0]).name in _PROGRAMS:
            command = (sys.executable, str(steps.ROOT / "tests/e2e/steps.py"), Path(command[0]).name, *command[1:])
            told = {"PYTHONPATH": str(steps.ROOT), **told}
        return super().start(name, *command, wrapper=wrapper, also={**(also or {}), **told})

    @contextlib.contextmanager
    def recording(self, name: str, *, into: list[str], when_armed: bool = False) -> Iterator[None]:
        """Have what ``name`` does from its next start on written down, each kind of step once, in order."""
        file = self.folder / f"{name}.steps"
        file.unlink(missing_ok=True)
        self._steps[name] = {"STEPS_RECORD": str(file), **self._disarmed(name, when_armed=when_armed)}
        yield
        del self._steps[name]
        into += dict.fromkeys(file.read_text().splitlines())

    @contextlib.contextmanager
    def before(self, name: str, step: str, *, count: int = 1, when_armed: bool = False) -> Iterator[None]:
        """Have ``name`` die before ``step`` when it comes for the ``count``-th time after the next start."""
        told = {"STEPS_KILL": step, "STEPS_COUNT": str(count)}
        self._steps[name] = told | self._disarmed(name, when_armed=when_armed)
        yield
        del self._steps[name]

    def _disarmed(self, name: str, *, when_armed: bool) -> dict[str, str]:
        self.disarm(name)
        return {"STEPS_WHILE": str(self._armed(name))} if when_armed else {}

    def arm(self, name: str) -> None:
        """From now on steps count, of what was started with ``when_armed``."""
        self._armed(name).touch()

    def disarm(self, name: str) -> None:
        """From now on they count no more."""
        self._armed(name).unlink(missing_ok=True)

    def _armed(self, name: str) -> Path:
        return self.folder / f"{name}.armed"

    def has_died(self, name: str) -> bool:
        """Whether it has ended, by a kill and by nothing else."""
        code = self.processes[name].poll()
        assert code in {None, -signal.SIGKILL}, f"{name} ended with {code}"
        return code is not None
