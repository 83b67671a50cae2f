"""When the loop passes: when it is asked to, on a jittered timer, and after a failure with growing pauses.

Made by ``loop``, which hands in the pass. Asking is cheap and never waits; who wants to know how a pass ended holds a
future, and no future is left behind when the director stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from schema.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from reconciler.clock import Clock
    from reconciler.outcome import Result

_FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 300.0


class Rhythm:
    """Runs passes, one at a time, until ``stop``."""

    def __init__(
        self, make_pass: Callable[[], Awaitable[Result]], *, clock: Clock, interval: float, random: Random
    ) -> None:
        """``make_pass`` never raises for what is wrong outside of it; ``interval`` is in seconds."""
        self._make_pass = make_pass
        self._clock = clock
        self._interval = interval
        self._random = random
        self._asked = asyncio.Event()
        self._waiters: list[asyncio.Future[Result]] = []
        self._onlookers: list[asyncio.Future[Result]] = []
        self._stopping = False
        self._failures = 0

    def trigger(self) -> None:
        """Ask for a pass soon; asking twice is asking once."""
        self._asked.set()

    def next(self) -> asyncio.Future[Result]:
        """Ask for a pass that begins after now, and return a future of how it will have ended.

        Raises:
            TransientError: the director stops.
        """
        if self._stopping:
            raise _stopped()
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.trigger()
        return waiter

    def passed(self) -> asyncio.Future[Result]:
        """Return a future of how the next pass to end will have ended. Asks for none."""
        onlooker: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._onlookers.append(onlooker)
        return onlooker

    async def run(self) -> None:
        """Run passes for ever: when asked, and on a jittered timer."""
        waiters: list[asyncio.Future[Result]] = []
        try:
            while not self._stopping:
                self._asked.clear()
                waiters, self._waiters = self._waiters, []
                result = await self._make_pass()
                onlookers, self._onlookers = self._onlookers, []
                for waiter in (*waiters, *onlookers):
                    if not waiter.done():
                        waiter.set_result(result)
                if not self._waiters:
                    await self._pause(result)
        finally:
            self._stopping = True
            for waiter in (*waiters, *self._waiters, *self._onlookers):
                if not waiter.done():
                    waiter.set_exception(_stopped())
                    waiter.exception()  # nobody may be waiting any more, which is no news

    def stop(self) -> None:
        """End ``run`` after the current pass."""
        self._stopping = True
        self.trigger()

    async def _pause(self, result: Result) -> None:
        self._failures = self._failures + 1 if result.outcome == "failed" else 0
        if self._failures:
            # Full jitter: directors and servers that failed together do not come back together.
            ceiling = min(LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** (self._failures - 1))
            seconds = self._random.uniform(0.1, ceiling)
        else:
            seconds = self._interval * self._random.uniform(0.9, 1.1)
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({timer, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (timer, asked):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def _stopped() -> TransientError:
    return TransientError("the director is stopping", hint="ask again when it runs")
