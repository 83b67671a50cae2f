"""Ten thousand clients lose their director and come back: killed as by a power cut, and restarted by a person.

In real time: each client tries again when the real client's backoff lets it, and a new director listens at the same
port as soon as one can be started. The floor is one attempt for each.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tests.benchmarks.processes import split_cores
from tests.benchmarks.rows import Options, Row
from tests.benchmarks.wire_fleet import members, write_keys
from tests.benchmarks.wire_programs import DIRECTOR, LOAD, Told, allow_sockets, preferred, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CLIENTS: Final = 10_000
MOST: Final = 1.5


def measure(options: Options) -> Iterable[Row]:
    """Return the attempts of one client, for each way to lose a director."""
    count = CLIENTS // 10 if options.quick else CLIENTS
    ways: dict[str, Callable[[Told], None]] = {"killed": Told.kill, "restarted": Told.stop}
    for way, lose in ways.items():
        with TemporaryDirectory(dir=options.folder) as name, preferred(), allow_sockets(count):
            yield _lost(way, lose, count=count, home=Path(name))


def _lost(way: str, lose: Callable[[Told], None], *, count: int, home: Path) -> Row:
    mine, others = split_cores()
    write_keys(members(count), home / "keys.json")
    with ExitStack() as stack:
        director = stack.enter_context(told(DIRECTOR, cores=mine, keys=home / "keys.json", folder=home))
        port = director.first["port"]
        load = stack.enter_context(told(LOAD, cores=others, clients=count, port=port))
        load.ask("connect", 0, count)
        load.ask("stay")
        lose(director)
        gone = time.perf_counter()
        stack.enter_context(told(DIRECTOR, cores=mine, keys=home / "keys.json", folder=home, port=port))
        away = time.perf_counter() - gone
        found = load.ask("returned")
    if found["back"] != count:
        raise RuntimeError(f"{count - found['back']} clients did not come back")
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(found["refused"].items()))
    note = f"all after {found['seconds']:.0f} s, {away:.1f} s of them away; at most {found['most']} attempts; "
    return Row(
        what=f"wire: {count:,} clients come back to a director that was {way}",
        ours=found["attempts"],
        floor=1.0,
        unit="attempts",
        most_ratio=MOST,
        note=f"{note}failed: {reasons or 'none'}",
    )
