"""One answer after the other, as long as each takes a moment: what ``web_readonly.answering`` makes answers in.

On one processor two answers that are made side by side both take as long as both together; in turn, the first does not.
One that takes longer, because the store is locked or far too large, keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_SECONDS: Final = 0.05


class Turns:
    """The line before the answers. For one event loop."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def mine(self) -> AsyncIterator[None]:
        """Wait until all who came before are done, or for as long as patience lasts."""
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            self._turn.release()
