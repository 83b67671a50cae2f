"""Time on this machine: the one place where the client asks for it. Tests move a virtual one.

``now`` may jump (a person sets the clock, a laptop wakes up); ``monotonic`` may not. Whatever waits, waits by the
latter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Clock(Protocol):
    """What the client wants of time."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that only rise, from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of ``work``; ``TimeoutError`` and ``work`` cancelled when it takes longer than ``seconds``."""
    task = asyncio.ensure_future(work)
    alarm = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((task, alarm), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        pending = [one for one in (task, alarm) if not one.done()]
        for one in pending:
            one.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def woken(clock: Clock, event: asyncio.Event, seconds: float) -> bool:
    """Wait for ``event`` for at most ``seconds``, clear it, and return whether it came."""
    try:
        await within(clock, seconds, event.wait())
    except TimeoutError:
        return False
    event.clear()
    return True
