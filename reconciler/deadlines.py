"""Deadlines of one length for very many: a queue and a single task instead of a timer each.

``reconciler.gateway`` keeps one for handshakes, one for sends that stall and one for connections that do not close.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.clock import Clock


@dataclass(slots=True)
class Deadline:
    """One deadline; ``met`` when what it waits for has happened."""

    when: float
    missed: Callable[[], None] | None

    def met(self) -> None:
        """Nothing will be called any more, and nothing is kept alive."""
        self.missed = None


class Deadlines:
    """Calls back what was not met within ``seconds``. ``run`` is one task for all."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._queue: deque[Deadline] = deque()
        self._news = asyncio.Event()

    def add(self, missed: Callable[[], None]) -> Deadline:
        """Return a deadline that starts now."""
        while self._queue and self._queue[0].missed is None:
            self._queue.popleft()
        deadline = Deadline(self._clock.monotonic() + self._seconds, missed)
        self._queue.append(deadline)
        self._news.set()
        return deadline

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            while not self._queue:
                self._news.clear()
                await self._news.wait()
            first = self._queue[0]
            if first.missed is None:
                self._queue.popleft()
            elif (wait := first.when - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
            else:
                self._queue.popleft().missed, call = None, first.missed
                call()
