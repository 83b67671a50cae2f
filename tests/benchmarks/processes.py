"""Programs under measurement: started on one core, with what they cost; what measures them uses the other cores."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0


class Program:
    """A running program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def cpu_seconds(self) -> float:
        """Return what it has cost so far, in user and system time."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """Return the most memory that it ever had."""
        return self._status("VmHWM") * 1024

    def resident_bytes(self) -> int:
        """Return the memory that it has now, with what it shares (what ``ps`` calls RSS)."""
        return self._status("VmRSS") * 1024

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])

    def check(self) -> None:
        """Raise when it has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}")


@contextlib.contextmanager
def running(
    command: Sequence[str], *, cores: set[int], environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Run a program on these cores, and stop it afterwards."""
    with staying_on(cores):
        process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL)
    try:
        yield Program(process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def dashboard(store: Path, *, cores: set[int]) -> Iterator[tuple[Program, str]]:
    """Run the dashboard of a store, and yield it with its url when it answers."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.dashboard", "web", "--web", f"127.0.0.1:{port}"]
    settings = {"BORGMATIC_DIRECTOR_STORE__URL": str(store), "BORGMATIC_DIRECTOR_STATE_DIRECTORY": str(store.parent)}
    with running(command, cores=cores, environment=settings) as program:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/livez", program)
        yield program, url


def split_cores() -> tuple[set[int], set[int]]:
    """Return one core for what is measured, and the others for what measures; on a single core both are that one."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, set(cores[1:]) or {cores[0]}


@contextlib.contextmanager
def staying_on(cores: set[int]) -> Iterator[None]:
    """Keep this program, and what it starts meanwhile, to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def undisturbed() -> Iterator[bool]:
    """Go before everything else on this machine, where that is allowed, with what is started meanwhile; yield whether.

    Else what another program takes of the processor would be counted as ours.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def wait_for(url: str, program: Program) -> None:
    """Return when an url answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        program.check()
        try:
            with urlopen(url, timeout=1):  # our own program, on loopback
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise TimeoutError(f"{url} did not answer within {START_SECONDS:.0f} seconds")


def free_port() -> int:
    """Return a port that nobody uses at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
