"""A connection without a socket: bytes go straight into aiohttp's own parser and our handlers, and come back.

For targets of HTTP: no port, no waiting for the kernel, and the same steps every time.
"""

from __future__ import annotations

import asyncio
from typing import Any

_TURNS = 60
_PAUSE = 0.005
"""How long an answer that needs a thread is waited for, again and again: `_TURNS` times without a new byte."""


class MemoryTransport(asyncio.Transport):
    """What a server's protocol writes to."""

    def __init__(self, protocol: asyncio.Protocol, *, peer: tuple[str, int] = ("127.0.0.1", 4)) -> None:
        super().__init__({"peername": peer})
        self._protocol = protocol
        self._closing = False
        self.said = bytearray()
        self.reader: asyncio.StreamReader | None = None
        """Who reads along, if anybody."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._closing:
            self.said += data
            if self.reader is not None:
                self.reader.feed_data(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.lose()

    def abort(self) -> None:
        self.lose()

    def lose(self) -> None:
        """End the connection, once."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)
            if self.reader is not None:
                self.reader.feed_eof()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def pause_reading(self) -> None:
        """Nobody sends on by himself here."""

    def resume_reading(self) -> None:
        """As above."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def can_write_eof(self) -> bool:
        return False


def connect(factory: Any, **options: Any) -> tuple[asyncio.Protocol, MemoryTransport]:
    """Return a server's protocol, connected, and what it writes to."""
    protocol: asyncio.Protocol = factory()
    transport = MemoryTransport(protocol, **options)
    protocol.connection_made(transport)
    return protocol, transport


async def settle(transport: MemoryTransport) -> None:
    """Return when nothing more is said for a while, or the connection is over."""
    quiet, heard = 0, -1
    while quiet < _TURNS and not transport.is_closing():
        quiet = quiet + 1 if len(transport.said) == heard else 0
        heard = len(transport.said)
        # What needs no thread is done in a few turns of the loop.
        await asyncio.sleep(0 if quiet < _TURNS // 2 else _PAUSE)
        if heard and quiet > _TURNS // 2 + 1:
            return


async def hang_up(transport: MemoryTransport) -> None:
    """End the connection, and let everything that hung on it end."""
    transport.lose()
    for _ in range(5):
        await asyncio.sleep(0)
