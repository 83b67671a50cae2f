"""An open-loop load: requests go out at fixed times, however long the ones before take, so that waiting in line counts.

Latency is from the time that a request was due to its last byte. The load's own lateness is in it, and told.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADERS: Final = {"Accept-Encoding": "gzip", "Accept": "text/html,application/json"}
LONGEST: Final = 30.0


@dataclass(slots=True)
class Answered:
    """How each request went, in the order of the plan."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """How long after its time each request left."""


async def ask(base: str, targets: Sequence[str], *, rate: float, seed: int = 1) -> Answered:
    """Send each target at its time: one in each slot of ``1/rate`` seconds, somewhere in it."""
    # What looks for garbage here would be counted as a slow answer there.
    gc.collect()
    gc.freeze()
    chance = random.Random(seed)
    answered = Answered(seconds=[math.nan] * len(targets), late=[math.nan] * len(targets))
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=LONGEST)
    async with aiohttp.ClientSession(
        base, headers=HEADERS, timeout=timeout, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        start = loop.time() + 0.1

        async def one(place: int, due: float) -> None:
            await asyncio.sleep(max(0.0, due - loop.time()))
            answered.late[place] = loop.time() - due
            try:
                async with session.get(targets[place]) as response:
                    await response.read()
                    if response.status != 200:
                        answered.failed.append(f"{response.status} {targets[place]}")
            except (aiohttp.ClientError, TimeoutError) as error:
                answered.failed.append(f"{type(error).__name__} {targets[place]}")
            answered.seconds[place] = loop.time() - due

        async with asyncio.TaskGroup() as tasks:
            for place in range(len(targets)):
                tasks.create_task(one(place, start + (place + chance.random()) / rate))
    return answered


async def fetch(base: str, targets: Sequence[str]) -> dict[str, bytes]:
    """Return the body of each target that can be answered, one asked after the other."""
    bodies = {}
    timeout = aiohttp.ClientTimeout(total=LONGEST)
    async with aiohttp.ClientSession(base, headers=HEADERS, timeout=timeout) as session:
        for target in targets:
            async with session.get(target) as response:
                body = await response.read()
                if response.status == 200:
                    bodies[target] = body
    return bodies


async def transferred(base: str, target: str) -> tuple[int, bytes]:
    """Return how many bytes a body is on the wire, compressed, and what it is."""
    async with (
        aiohttp.ClientSession(base, headers=HEADERS, auto_decompress=False) as session,
        session.get(target) as packed,
    ):
        size = len(await packed.read())
    return size, (await fetch(base, [target]))[target]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values is not above (the nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
