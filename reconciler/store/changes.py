"""Small notices of what changed in the store, for whoever waits in this process. Bounded, lossy and coalescing.

A notice names an object (``source``, ``client/NAME``, ``run/ID``); who gets one reads the object anew. A reader that is
too slow gets ``EVERYTHING`` once instead of what was missed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

EVERYTHING: Final = "*"
"""More changed than was kept: read all you care for."""

MAX_NOTICES: Final = 1_024


class Changes:
    """One reader's notices: ``with store.changes() as changes: async for notice in changes: …``."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._waiting: dict[str, None] = {}
        self._news = asyncio.Event()
        self._closed = False

    def __enter__(self) -> Self:
        self._broadcast.readers.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._broadcast.readers.discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        notice = next(iter(self._waiting))
        del self._waiting[notice]
        return notice

    def put(self, notices: Iterable[str]) -> None:
        """Add notices; equal ones that wait already are one."""
        self._waiting.update(dict.fromkeys(notices))
        if len(self._waiting) > MAX_NOTICES or EVERYTHING in self._waiting:
            self._waiting = {EVERYTHING: None}
        self._news.set()

    def close(self) -> None:
        """End the iteration after what waits."""
        self._closed = True
        self._news.set()


class Broadcast:
    """Hands every notice to every reader. Used on the event loop only."""

    def __init__(self) -> None:
        self.readers: set[Changes] = set()
        self._closed = False

    def publish(self, notices: Iterable[str]) -> None:
        """Tell all readers."""
        if self.readers and (kept := tuple(notices)):
            for reader in self.readers:
                reader.put(kept)

    def changes(self) -> Changes:
        """Return a reader, to be entered."""
        reader = Changes(self)
        if self._closed:
            reader.close()
        return reader

    def close(self) -> None:
        """End all readers."""
        self._closed = True
        for reader in self.readers:
            reader.close()
