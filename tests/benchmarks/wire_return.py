"""How a fleet comes back to a director that it lost: each client when the real client's ``Backoff`` lets it.

Used by ``wire_load``. A client that had no session for long begins with another delay, so all are told that theirs was
a good one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final

from client.connection import Backoff
from schema.wire import HANDSHAKE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.wire_clients import LoadClient

LONGEST: Final = 300.0


class Return:
    """From the first loss until everybody is back."""

    def __init__(self, clients: Sequence[LoadClient], *, port: int) -> None:
        self._clients = clients
        self._port = port
        self._attempts = [0] * len(clients)
        self._refused: Counter[str] = Counter()
        self._lost = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        for client in clients:
            client.ended = self._lose

    def _lose(self, client: LoadClient) -> None:
        self._lost = self._lost or time.perf_counter()
        client.ended = _nothing
        self._tasks.add(asyncio.get_running_loop().create_task(self._come_back(client)))

    async def _come_back(self, client: LoadClient) -> None:
        backoff = Backoff(Random(client.number))
        backoff.succeeded()
        came = False
        while not came:
            await asyncio.sleep(backoff.delay(retry_after=float(client.refusal.get("retry_after") or 0.0)))
            self._attempts[client.number] += 1
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    came = await client.open("127.0.0.1", self._port)
            except (OSError, TimeoutError) as error:
                client.abort()
                self._refused[type(error).__name__] += 1
            else:
                self._refused.update([] if came else [str(client.refusal.get("code", "closed"))])

    async def done(self) -> Mapping[str, Any]:
        """Return how it went, once all are back."""
        async with asyncio.timeout(LONGEST):
            while len(self._tasks) < len(self._clients):
                await asyncio.sleep(0.1)
            await asyncio.gather(*self._tasks)
        return {
            "seconds": time.perf_counter() - self._lost,
            "attempts": sum(self._attempts) / len(self._clients),
            "most": max(self._attempts),
            "refused": dict(self._refused),
            "back": sum(client.is_open for client in self._clients),
        }


def _nothing(_: LoadClient) -> None:
    pass
