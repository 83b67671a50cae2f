"""Many days of a fleet's life: nightly backups, some pushes and faults a day, and nothing that grows with the days."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.simulator import faults
from tests.simulator.durable import open_descriptors
from tests.simulator.oracle import Violation
from tests.simulator.simulation import Outcome, Story, simulate
from tests.simulator.world import World

DAY = 86_400.0
KEEP_DAYS = 8
"""Runs are kept that long: a month then shows whether trimming keeps the store small."""
WARM_DAYS = KEEP_DAYS + 4
"""After so many days the store and the process are as large as they get."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Numbers:
    """How much there is at the end of a day."""

    day: int
    memory: int
    """Resident bytes of the whole simulation."""
    objects: int
    descriptors: int
    tasks: int
    timers: int
    rows: int
    executions: int

    def __str__(self) -> str:
        return (
            f"day {self.day:3}  {self.memory / MEBIBYTE:7.1f} MiB  {self.objects:7} objects"
            f"  {self.descriptors:4} descriptors  {self.tasks:4} tasks  {self.timers:6} timers"
            f"  {self.rows:6} rows  {self.executions:5} executions"
        )


def simulate_days(days: int, *, seed: int, show: Callable[[str], None]) -> Outcome:
    """Live for so many days; ``show`` is told the numbers of each."""

    async def story(world: World) -> None:
        await _live(world, days, show)

    return simulate(seed, story, clients=2, nightly=True, keep_days=KEEP_DAYS)


async def _live(world: World, days: int, show: Callable[[str], None]) -> None:
    dice, story, numbers = world.dice("days"), Story(world), list[Numbers]()
    world.begin()
    for day in range(1, days + 1):
        begin = world.loop.time()
        drawn = faults.draw(world, dice, begin=3_600.0, end=20 * 3_600.0, count=dice.randint(2, 4), lasting=False)
        for fault in drawn:
            await story.until(begin + fault.at)
            fault.happen()
        await story.until(begin + 20 * 3_600.0)
        await story.recover()
        await story.until(begin + DAY)
        numbers.append(_measure(world, day))
        show(str(numbers[-1]))
        world.timeline.lines.clear()
        world.forget()
    _judge(numbers)


def _measure(world: World, day: int) -> Numbers:
    gc.collect()
    with closing(sqlite3.connect(world.store)) as sql:
        tables = [name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counted = [name for name in tables if name != "ever_issued" and not name.startswith("sqlite_")]
        rows = sum(sql.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in counted)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Numbers(
        day=day,
        memory=pages * os.sysconf("SC_PAGESIZE"),
        objects=len(gc.get_objects()),
        descriptors=open_descriptors(),
        tasks=len(asyncio.all_tasks()),
        timers=world.loop.timers,
        rows=rows,
        executions=len(world.executions),
    )


def _judge(numbers: list[Numbers]) -> None:
    """Compare the last days with those when everything had its size."""
    if len(numbers) < WARM_DAYS + 4:
        return
    before, after = numbers[WARM_DAYS - 4 : WARM_DAYS], numbers[-4:]
    for name, more in (
        ("memory", 16 * MEBIBYTE),
        ("descriptors", 10),
        ("tasks", 60),
        ("timers", 500),
        ("objects", 40_000),
    ):
        first, last = (max(getattr(one, name) for one in some) for some in (before, after))
        if last > 1.2 * first + more:
            raise Violation(f"{name} grew from {first} to {last}")
    first, last = (max(one.rows for one in some) for some in (before, after))
    if last > 1.6 * first + 1_000:
        raise Violation(f"rows of the store grew from {first} to {last}")
