"""The client on a machine: what it takes while nothing happens, and what it adds to a backup.

At rest is the real ``director-client run``, connected over TLS to a real director and following five backups, when its
first work is done. A backup is the real borgmatic and Borg both times: by hand, and as the service runs it, from the
moment that it is due until its end is durable in the outbox. The two take turns, each has a repository of its own,
and the least of several is what each of them costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from client.build import build_parts
from client.clock import SystemClock
from client.outbox import Outbox
from client.runs import Recorder, Runs
from client.settings import ClientSettings
from schema.desired import DesiredRepository, Job
from schema.observed import Outcome, Trigger
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import Options, Row
from tests.e2e.fleet import Fleet, program, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BACKUPS: Final = 5
"""What the client at rest follows."""
QUIET_SECONDS: Final = 10.0
"""How long it must have cost next to nothing before it counts as being at rest."""
LONGEST_SECONDS: Final = 120.0
BARE: Final = "import aiohttp, time; time.sleep(600)"
FILES: Final = 3_000
FILE_BYTES: Final = 60_000
ROUNDS: Final = 4
UNCHANGED: Final = 5
"""Backups of unchanged files after each first one."""
_CONFIG: Final = """\
source_directories: [{source}]
repositories: [{{path: {repository}, label: nas}}]
encryption_passphrase: correct-horse-battery-staple
"""


def measure(options: Options) -> Iterable[Row]:
    """Return what the client takes at rest, and what a backup costs through it."""
    with TemporaryDirectory(prefix="bd") as name:  # short: a Unix socket's path has at most 107 characters
        yield from _at_rest(Path(name), seconds=10.0 if options.quick else 60.0)
    with TemporaryDirectory(dir=options.folder) as name, _at_home(Path(name)) as folder:
        yield from _backups(folder.resolve(), rounds=1 if options.quick else ROUNDS)


# --- At rest ----------------------------------------------------------------------------------------------------------


def _at_rest(folder: Path, *, seconds: float) -> list[Row]:
    # It ends with the last lines of all logs, which are for tests that fail.
    with contextlib.redirect_stdout(io.StringIO()), Fleet(folder) as fleet:
        fleet.start("bare", sys.executable, "-c", BARE)
        fleet.start_director()
        fleet.add_machine("atlas")
        fleet.enrol("atlas")
        fleet.approve_in_source("atlas")
        for number in range(BACKUPS):
            fleet.write_backup(f"backup-{number}", "atlas", cron="0 2 1 1 *")
        fleet.push("Back it up")
        until("the client follows", lambda: fleet.follows("atlas"))
        client, bare = Program(fleet.processes["atlas"]), Program(fleet.processes["bare"])
        _come_to_rest(client)
        until("all is reported", lambda: fleet.outbox("atlas", "SELECT count(*) = 0 FROM reports")[0][0])
        before = client.cpu_seconds()
        time.sleep(seconds)
        spent = 100 * (client.cpu_seconds() - before) / seconds
        if not fleet.follows("atlas"):
            raise RuntimeError(f"the client is gone, not at rest:\n{fleet.log('atlas')}")
        memory = [one.resident_bytes() / 2**20 for one in (client, bare)]
    return [
        Row(
            what="client: memory at rest (floor: aiohttp imported)",
            ours=memory[0],
            unit="MiB",
            floor=memory[1],
            most_ratio=1.3,
        ),
        Row(what=f"client: processor at rest, over {seconds:.0f} s", ours=spent, unit="%", most=0.2),
    ]


def _come_to_rest(client: Program) -> None:
    """Wait until what the client does after its start is done."""
    deadline = time.monotonic() + LONGEST_SECONDS
    spent, quiet = client.cpu_seconds(), time.monotonic() + QUIET_SECONDS
    while time.monotonic() < quiet:
        time.sleep(0.5)
        if client.cpu_seconds() - spent > QUIET_SECONDS / 100:
            spent, quiet = client.cpu_seconds(), time.monotonic() + QUIET_SECONDS
        if time.monotonic() > deadline:
            raise TimeoutError("the client never comes to rest")


# --- A backup ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _at_home(folder: Path) -> Iterator[Path]:
    """Let Borg keep its cache and its keys below ``folder``."""
    before = os.environ["HOME"]
    os.environ["HOME"] = str(folder)
    try:
        yield folder
    finally:
        os.environ["HOME"] = before


def _backups(folder: Path, *, rounds: int) -> list[Row]:
    _write_files(folder / "source")
    seconds: dict[tuple[str, str], list[float]] = {}
    client = _Client(folder)
    for number in range(rounds):
        for kind, times in (("first", 1), ("unchanged", UNCHANGED)):
            for turn in range(times):
                # Who goes first finds colder caches.
                order = ("hand", "client") if (number + turn) % 2 else ("client", "hand")
                for who in order:
                    if kind == "first":
                        _make_repository(folder, who)
                    began = time.perf_counter()
                    client.run() if who == "client" else _by_hand(folder)
                    seconds.setdefault((kind, who), []).append(time.perf_counter() - began)
    client.close()
    return [
        Row(
            what=f"client: a backup, {kind} (floor: by hand)",
            ours=1_000 * min(seconds[kind, "client"]),
            floor=1_000 * min(seconds[kind, "hand"]),
            most_ratio=1.05,
        )
        for kind in ("first", "unchanged")
    ]


def _write_files(folder: Path) -> None:
    """Write files of which half can be compressed, the same each time."""
    chance = random.Random(1)
    for number in range(FILES):
        path = folder / str(number % 50) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(FILE_BYTES // 2) + b"words that compress well\n" * (FILE_BYTES // 50))


def _make_repository(folder: Path, who: str) -> None:
    """Make the repository of one side anew, with its configuration."""
    repository, configuration = folder / "repositories" / who, folder / "etc" / f"{who}.yaml"
    shutil.rmtree(repository, ignore_errors=True)
    for path in (repository, configuration):
        path.parent.mkdir(exist_ok=True)
    configuration.write_text(_CONFIG.format(source=folder / "source", repository=repository))
    _borgmatic("--config", str(configuration), "repo-create", "--encryption", "repokey-blake2")


def _by_hand(folder: Path) -> None:
    _borgmatic("--config", str(folder / "etc/hand.yaml"), "--verbosity", "1", "create", "--stats")


def _borgmatic(*words: str) -> None:
    subprocess.run([program("borgmatic"), *words], check=True, capture_output=True)


class _Client:
    """The parts of the service that run a backup and keep its reports."""

    def __init__(self, folder: Path) -> None:
        settings = ClientSettings(
            config_directory=str(folder / "etc"), state_directory=str(folder / "var"), borgmatic=program("borgmatic")
        )
        clock = SystemClock()
        parts = build_parts(settings, clock=clock)
        self._runner = asyncio.Runner()
        self._outbox = Outbox(parts.directory.outbox, now=clock.now)
        self._runs = Runs(runner=parts.machine.runner, recorder=Recorder(self._outbox), clock=clock)
        self._clock = clock
        repository = DesiredRepository(
            name="nas", url=str(folder / "repositories/client"), encryption="repokey-blake2", create=True
        )
        self._job = Job(
            backup="client", file="client.yaml", schedule=None, actions=("create",), repositories=(repository,)
        )

    def run(self) -> None:
        """Back up once; an error when that fails."""
        run = self._runs.execute(
            self._job, trigger=Trigger.SCHEDULE, due=self._clock.now(), revision="", progress=lambda _: None
        )
        finished = self._runner.run(run)
        if finished.outcome is not Outcome.SUCCEEDED or not finished.statistics:
            raise RuntimeError(f"the backup {finished.outcome}: {finished.error}")

    def close(self) -> None:
        self._outbox.close()
        self._runner.close()
