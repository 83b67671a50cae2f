"""What an idle client takes of the director's memory, plain and with TLS; a bare server is beside it to compare.

Resident memory of the whole process before and after its clients came, everything that it keeps of them included.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tests.benchmarks.rows import Options, Row
from tests.benchmarks.wire_sides import both_sides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.benchmarks.wire_sides import Side

CLIENTS: Final = 10_000
FIRST: Final = 100
"""Clients that are there before, so that what every server has once is not counted."""
SETTLED: Final = 2.0
MOST: Final = {"plain": 28, "TLS": 64}
"""KiB."""


def measure(options: Options) -> Iterable[Row]:
    """Return a row for each."""
    for name, most in MOST.items():
        # What is measured is each client's own, and TLS makes connecting slow.
        count = CLIENTS // (10 if options.quick else 3 if name == "TLS" else 1)
        with both_sides(count, folder=options.folder, tls=name == "TLS") as sides:
            ours, floor = (_each(side, count) for side in sides)
        yield Row(
            what=f"wire: director's memory for an idle client, {name}",
            ours=ours,
            unit="KiB",
            floor=floor,
            most=most,
            note=f"of {count:,}",
        )


def _each(side: Side, count: int) -> float:
    side.load.ask("connect", 0, FIRST)
    time.sleep(SETTLED)
    before = side.server.resident_bytes()
    side.load.ask("connect", FIRST, count)
    time.sleep(SETTLED)
    return (side.server.resident_bytes() - before) / 1024 / (count - FIRST)
