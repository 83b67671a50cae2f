"""Time that moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class VirtualClock:
    """A ``Clock``: ``advance`` moves both clocks and wakes sleepers in order; ``jump`` moves the wall clock alone."""

    def __init__(self, start: datetime = START) -> None:
        self._wall = start
        self._monotonic = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = asyncio.Event()

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        self._slept.set()
        await future

    def jump(self, seconds: float) -> None:
        self._wall += timedelta(seconds=seconds)

    def sleeping(self) -> list[float]:
        """Return the seconds that each sleeper still has to go, soonest first."""
        return sorted(until - self._monotonic for until, _, future in self._sleepers if not future.done())

    async def until_somebody_sleeps(self, seconds: float) -> None:
        """Return when somebody sleeps for at least that long (``seconds`` from now)."""
        while not any(left >= seconds for left in self.sleeping()):
            self._slept.clear()
            await self._slept.wait()

    async def wake_next(self) -> None:
        """Move to the moment when the next sleeper is due, once there is one."""
        await self.until_somebody_sleeps(0)
        await self.advance(self.sleeping()[0])

    async def advance(self, seconds: float) -> None:
        """Move on, waking whoever is due on the way, each at its time."""
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            until, _, future = heapq.heappop(self._sleepers)
            self._wall += timedelta(seconds=until - self._monotonic)
            self._monotonic = until
            if not future.done():
                future.set_result(None)
                for _ in range(5):
                    await asyncio.sleep(0)
        self._wall += timedelta(seconds=end - self._monotonic)
        self._monotonic = end
        for _ in range(5):
            await asyncio.sleep(0)
