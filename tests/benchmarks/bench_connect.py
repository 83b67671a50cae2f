"""Ten thousand clients connect, each with the whole handshake; the floor is a bare server with the same signatures.

The two take turns, some hundred clients at a time, and a turn in the middle counts: whatever else the machine has to do
meets both alike.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from tests.benchmarks.rows import Options, Row
from tests.benchmarks.wire_sides import both_sides

if TYPE_CHECKING:
    from collections.abc import Iterable

CLIENTS: Final = 10_000
TURNS: Final = 20
MOST: Final = 2.0


def measure(options: Options) -> Iterable[Row]:
    """Return how long it takes until all are connected, of both."""
    count = CLIENTS // 10 if options.quick else CLIENTS
    size = count // TURNS
    with both_sides(count, folder=options.folder) as sides:
        before = [side.server.cpu_seconds() for side in sides]
        seconds = [
            [side.load.ask("connect", start, start + size)["seconds"] for side in sides]
            for start in range(0, count, size)
        ]
        spent = [side.server.cpu_seconds() - one for side, one in zip(sides, before, strict=True)]
    ours, floor = (1_000 * TURNS * median(turns) for turns in zip(*seconds, strict=True))
    each = " and ".join(f"{1e6 * one / count:.0f}" for one in spent)
    note = f"{1_000 * count / ours:,.0f} a second; processor time of the servers {each} µs each"
    yield Row(what=f"wire: {count:,} clients connect", ours=ours, floor=floor, most_ratio=MOST, note=note)
