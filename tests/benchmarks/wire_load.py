"""A fleet of clients in a program of its own, told on its standard input what to do.

``python -m tests.benchmarks.wire_load --clients=NUMBER --port=NUMBER [--channel=FINGERPRINT]``
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.load import quantile
from tests.benchmarks.wire_clients import LONGEST, connect_all, kind_of, load_clients
from tests.benchmarks.wire_fleet import members
from tests.benchmarks.wire_programs import obey, run
from tests.benchmarks.wire_return import Return

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.wire_clients import LoadClient
    from tests.benchmarks.wire_programs import Words

_REPORT: Final = (
    b'{"type":"reports","epoch":"%032x","items":[{"sequence":%d,"report":{"type":"state","at":"2026-11-24T00:00:00Z",'
    b'"generation":%d,"digest":"sha256:%064x","revision":"%s","expires":"2027-02-22T00:00:00Z","stale":false,"drift":[],'
    b'"jobs":[{"backup":"files","next_due":"2026-11-25T02:00:00Z"}],"versions":{"client":"1.0.0","borgmatic":"2.0.9",'
    b'"borg":"1.4.1","python":"3.11.7","platform":"Linux"},"dropped_events":0}}]}'
)


class Load:
    """The fleet, and how it follows."""

    def __init__(self, clients: int, *, port: int, channel: str) -> None:
        self._clients = load_clients(members(clients), channel=channel)
        self._port = port
        self._tls = _believing() if channel else None
        self._generation = 0
        self._expected = clients
        self._sequence = 0
        self._received: list[float] = []
        self._acknowledged: list[float] = []
        self._all = asyncio.Event()
        self._return: Return | None = None
        for client in self._clients:
            client.hear = self._hear

    async def connect(self, start: str, end: str) -> Mapping[str, Any]:
        """Connect some of them; return how long it took."""
        started = time.perf_counter()
        await connect_all(self._clients[int(start) : int(end)], self._port, tls=self._tls)
        return {"seconds": time.perf_counter() - started}

    async def follow(self, generation: str, count: str = "") -> Mapping[str, Any]:
        """From now on, report a newer state when it comes, as a client does; return once all are acknowledged.

        ``count`` is how many clients are to have one, if not all.
        """
        started = time.perf_counter()
        self._generation = int(generation)
        self._expected = int(count or len(self._clients))
        self._sequence += 1
        self._received.clear()
        self._acknowledged.clear()
        self._all.clear()
        async with asyncio.timeout(LONGEST):
            await self._all.wait()
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "received": quantile(self._received, 0.99) - started,
            "acknowledged": quantile(self._acknowledged, 0.99) - started,
        }

    async def stay(self) -> Mapping[str, Any]:
        """From now on, come back whenever the director is lost."""
        self._return = Return(self._clients, port=self._port)
        return {}

    async def returned(self) -> Mapping[str, Any]:
        """Return how that went, once all are back."""
        assert self._return is not None
        return await self._return.done()

    def _hear(self, client: LoadClient, message: bytes) -> None:
        match kind_of(message):
            case b"desired":
                self._received.append(time.perf_counter())
                words = client.number + 1, self._sequence, self._generation, self._generation, b"c" * 40
                client.send(_REPORT % words)
            case b"acknowledged":
                self._acknowledged.append(time.perf_counter())
                if len(self._acknowledged) == self._expected:
                    self._all.set()


def _believing() -> ssl.SSLContext:
    """The load believes any certificate: its fingerprint is in what it signs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _main(clients: int, *, port: int, channel: str) -> None:
    load = Load(clients, port=port, channel=channel)
    words: Words = {"connect": load.connect, "follow": load.follow, "stay": load.stay, "returned": load.returned}
    await obey({}, words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--channel", default="")
    asked = parser.parse_args()
    run(_main(asked.clients, port=asked.port, channel=asked.channel))
