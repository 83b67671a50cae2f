"""Both sides of a comparison on the wire: the director and the floor, each with a fleet of its own, on equal cores."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.benchmarks.processes import split_cores
from tests.benchmarks.wire_fleet import members, write_keys
from tests.benchmarks.wire_programs import DIRECTOR, FLOOR, LOAD, Told, allow_sockets, preferred, told

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Side:
    """A server and the fleet that connects to it."""

    server: Told
    load: Told


@contextlib.contextmanager
def both_sides(clients: int, *, folder: Path, tls: bool = False) -> Iterator[tuple[Side, Side]]:
    """Run the director and the floor for fleets of so many clients, and yield them. Nobody is connected yet."""
    fleet = members(clients)
    with TemporaryDirectory(dir=folder) as name, preferred(), allow_sockets(clients), contextlib.ExitStack() as stack:
        home = Path(name)
        write_keys(fleet, home / "keys.json")
        yield _side(stack, DIRECTOR, home, clients, tls=tls), _side(stack, FLOOR, home, clients, tls=tls)


def _side(stack: contextlib.ExitStack, module: str, home: Path, clients: int, *, tls: bool) -> Side:
    mine, others = split_cores()
    encrypted = home if tls else ""
    server = stack.enter_context(told(module, cores=mine, keys=home / "keys.json", folder=home, tls=encrypted))
    found = server.first
    load = stack.enter_context(
        told(LOAD, cores=others, clients=clients, port=found["port"], channel=found["fingerprint"])
    )
    return Side(server, load)
