"""Every connected client is sent another signed desired state of 4 KiB, follows it and reports so; all is acknowledged.

The floor is a bare server that signs and sends the same bytes, and answers the same reports without keeping them.
Publications of the two take turns. What Git and rendering cost before is measured elsewhere.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from tests.benchmarks.rows import Options, Row
from tests.benchmarks.wire_sides import both_sides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.benchmarks.wire_sides import Side

CLIENTS: Final = 10_000
TURNS: Final = 5
MOST: Final = 2.0
MOST_MILLISECONDS: Final = 2_000


def measure(options: Options) -> Iterable[Row]:
    """Return how long it takes until all is acknowledged, of both, and until almost every client has its own."""
    count = CLIENTS // 10 if options.quick else CLIENTS
    with both_sides(count, folder=options.folder) as sides:
        for side in sides:
            side.load.ask("connect", 0, count)
        turns = [tuple(_published(side) for side in sides) for _ in range(TURNS)]
    ours, floor = zip(*turns, strict=True)
    seconds = [median(one["seconds"] for one in side) for side in (ours, floor)]
    spent = " and ".join(f"{1e6 * median(one['spent'] for one in side) / count:.0f}" for side in (ours, floor))
    yield Row(
        what=f"wire: a new state to {count:,} clients, all acknowledged",
        ours=1_000 * seconds[0],
        floor=1_000 * seconds[1],
        most_ratio=MOST,
        note=f"processor time of the servers {spent} µs each",
    )
    received = [1_000 * median(one["received"] for one in side) for side in (ours, floor)]
    yield Row(
        what="wire: the same, until 99 of 100 have it", ours=received[0], floor=received[1], most=MOST_MILLISECONDS
    )


def _published(side: Side) -> dict[str, float]:
    """Publish once, and return how long it took."""
    generation = side.server.ask("prepare")["generation"]
    before = side.server.cpu_seconds()
    side.load.tell("follow", generation)
    side.server.ask("publish")
    found: dict[str, float] = side.load.wait()
    return {**found, "spent": side.server.cpu_seconds() - before}
