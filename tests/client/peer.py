"""Peers that the client dials and that are no director: they say what bytes they like. For its tests and attacks."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from websockets.utils import accept_key

from client.dial import WebSocketDialer

Peer = Callable[["Caller"], Awaitable[None]]
TEXT, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x0, 0x8, 0x9, 0xA


class Caller:
    """The client, as its peer sees it: bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.request = b""

    async def hear_request(self) -> None:
        self.request = await self.reader.readuntil(b"\r\n\r\n")

    async def accept(self, *headers: str) -> None:
        await self.hear_request()
        key = next(one for one in self.request.decode().splitlines() if one.startswith("Sec-WebSocket-Key: "))
        accepted = accept_key(key.removeprefix("Sec-WebSocket-Key: "))
        upgrade = ("Upgrade: websocket", f"Sec-WebSocket-Accept: {accepted}")
        self.say("HTTP/1.1 101 Switching Protocols", *upgrade, *headers)

    def say(self, status: str, *headers: str) -> None:
        lines = "".join(f"{one}\r\n" for one in (status, *headers, "Connection: Upgrade"))
        self.writer.write(f"{lines}\r\n".encode())

    def send(self, kind: int, data: bytes = b"", *, size: int | None = None, last: bool = True) -> None:
        """Send a frame that says it has ``size`` bytes."""
        first, length = kind | (0x80 if last else 0), len(data) if size is None else size
        self.writer.write((bytes([first, length]) if kind >= CLOSE else struct.pack("!BBQ", first, 127, length)) + data)

    async def receive(self) -> tuple[int, bytes]:
        """Return kind and content of the client's next frame, of at most 125 bytes."""
        kind, length = await self.reader.readexactly(2)
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(length & 0x7F)
        return kind & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))

    async def until_gone(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


@contextlib.asynccontextmanager
async def listening(folder: Path, peer: Peer) -> AsyncIterator[WebSocketDialer]:
    """Let ``peer`` deal with whoever comes; gives who dials it."""

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await peer(Caller(reader, writer))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    path = folder / "peer.sock"
    async with asyncio.timeout(30), await asyncio.start_unix_server(serve, path):
        yield WebSocketDialer(f"unix://{path}")
        await ended.wait()
