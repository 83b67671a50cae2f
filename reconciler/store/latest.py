"""Facts of the moment (heartbeats, progress) gathered in memory: of each key only the newest, written now and then.

Nobody waits for such a write, and what is lost when it fails is replaced by the next. Time is the event loop's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from schema.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

V = TypeVar("V")

MAX_KEYS: Final = 50_000
"""Beyond, new keys wait for the next round."""


class Latest(Generic[V]):
    """Newest value by key; ``write`` gets them at most once ``every`` seconds.

    A write of more than ``many`` is followed by a rest that is as many times longer: ten times as many keys are then
    written a tenth as often, and the store writes no more than it does for ``many``.
    """

    def __init__(
        self, write: Callable[[Mapping[str, V]], Awaitable[None]], *, every: float, many: int = MAX_KEYS
    ) -> None:
        self._write = write
        self._every = every
        self._many = many
        self._rest = every
        self._values: dict[str, V] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._written = float("-inf")

    def put(self, key: str, value: V) -> None:
        """Keep the newest value of ``key``."""
        if key in self._values or len(self._values) < MAX_KEYS:
            self._values[key] = value
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._written + self._rest), self._start)

    def pop(self, key: str) -> None:
        """Forget a key that something newer replaces."""
        self._values.pop(key, None)

    async def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._writing)
        await self._flush()

    def _start(self) -> None:
        self._timer = None
        self._written = asyncio.get_running_loop().time()
        task = asyncio.ensure_future(self._flush())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _flush(self) -> None:
        values, self._values = self._values, {}
        self._rest = self._every * max(1, len(values) / self._many)
        if values:
            with contextlib.suppress(DirectorError):
                await self._write(values)
