"""The whole way: a commit is pushed, and the connected clients that it concerns follow it; all is acknowledged.

The real ``director run`` with a real Git repository, told of the push as the hook tells it. The floor is a bare script
that fetches, asks Git what changed, parses, signs and sends; both serve a fleet of ten thousand, on equal cores, and
take turns. The time runs from the moment that the branch is moved.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from reconciler.commands.output import CouldNotRun
from reconciler.commands.remote import Remote
from tests.benchmarks.processes import Program, free_port, running, split_cores
from tests.benchmarks.push_source import PushSource
from tests.benchmarks.rows import Options, Row
from tests.benchmarks.wire_fleet import DIRECTOR, members, write_keys
from tests.benchmarks.wire_programs import LOAD, Told, allow_sockets, preferred, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tests.benchmarks.wire_fleet import Member

CLIENTS: Final = 10_000
TURNS: Final = (("one", 9, 4.0), ("all", 3, 2.5))
"""What a commit changes, how often, and how many times the floor it may take."""
FIRST_SECONDS: Final = 90.0
QUIET_SECONDS: Final = 1.0
_SETTINGS: Final = """\
state_directory = "{state}"
[source]
url = "{source}"
interval = "1h"
[listen]
address = "127.0.0.1:{port}"
tls = "off"
[web]
enabled = false
"""


def measure(options: Options) -> Iterable[Row]:
    """Return how long it takes from a commit until all is acknowledged, of one client and of all."""
    count = CLIENTS // 10 if options.quick else CLIENTS
    fleet = members(count)
    mine, others = split_cores()
    # In the system's own place: a Unix socket's path has at most 107 characters.
    with TemporaryDirectory(prefix="bd") as name, preferred(), allow_sockets(count), contextlib.ExitStack() as stack:
        folder = Path(name)
        write_keys(fleet, folder / "keys.json")
        sources = [PushSource(folder / f"{name}.git", fleet) for name in ("source", "other")]
        port, remote = stack.enter_context(_director(folder, cores=mine))
        floor = stack.enter_context(
            told(
                "tests.benchmarks.push_floor",
                cores=mine,
                keys=folder / "keys.json",
                folder=folder,
                source=folder / "other.git",
            )
        )
        loads = [
            stack.enter_context(told(LOAD, cores=others, clients=count, port=one))
            for one in (port, floor.first["port"])
        ]
        for load in loads:
            load.ask("connect", 0, count)
        tell: list[Callable[[], object]] = [lambda: remote.operate("nudge"), lambda: floor.ask("push")]
        for kind, turns, most in TURNS:
            changed = fleet[count // 2 :][:1] if kind == "one" else fleet
            found = [_pushed(sources, changed, loads, tell) for _ in range(turns + 1)][1:]
            ours, least = (1_000 * median(side) for side in zip(*found, strict=True))
            yield Row(
                what=f"push: a commit that changes {kind} of {count:,} clients, until acknowledged",
                ours=ours,
                floor=least,
                most_ratio=most,
            )


def _pushed(
    sources: Sequence[PushSource],
    changed: Sequence[Member],
    loads: Sequence[Told],
    tell: Sequence[Callable[[], object]],
) -> tuple[float, float]:
    """Push one commit to each side, the one after the other is done, and return the seconds of both."""
    seconds = []
    for source, load, told_of in zip(sources, loads, tell, strict=True):
        source.change(changed)
        time.sleep(QUIET_SECONDS)  # The director sees that something was written, and looks.
        load.tell("follow", int(time.time() * 1000), len(changed))
        started = time.perf_counter()
        source.push()
        told_of()
        load.wait()
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


@contextlib.contextmanager
def _director(folder: Path, *, cores: set[int]) -> Iterator[tuple[int, Remote]]:
    """Run the director until it has published the source."""
    state, port = folder / "state", free_port()
    state.mkdir(mode=0o700)
    key = state / "identity"
    key.touch(mode=0o600)
    key.write_text(DIRECTOR.to_text(), encoding="ascii")
    settings = folder / "director.toml"
    settings.write_text(_SETTINGS.format(state=state, source=folder / "source.git", port=port), encoding="utf-8")
    environment = {"BORGMATIC_DIRECTOR_CONFIG": str(settings)}
    command = [str(Path(sys.executable).with_name("director")), "run"]
    with running(command, cores=cores, environment=environment) as program:
        remote = Remote(state / "director.sock")
        _wait_for_publication(remote, program)
        yield port, remote


def _wait_for_publication(remote: Remote, program: Program) -> None:
    deadline = time.monotonic() + FIRST_SECONDS
    while time.monotonic() < deadline:
        program.check()
        with contextlib.suppress(CouldNotRun):
            if remote.read("source")["revision"]:
                return
        time.sleep(0.1)
    raise TimeoutError("the director publishes nothing")
