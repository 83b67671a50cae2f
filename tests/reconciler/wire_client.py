"""A bare client of the gateway: TCP, the HTTP upgrade and WebSocket frames by hand, so that a test can send any byte.

Nothing here is shared with ``client``: what it understands of the protocol it reads from ``schema`` alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import ssl
import struct
from dataclasses import dataclass, field
from typing import Any, Self

from reconciler.listen import Address
from schema import envelope, wire
from schema.envelope import ClientIdentity

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


_WRITERS: list[asyncio.StreamWriter] = []


class Closed(Exception):
    """The server closed the connection; ``code`` is the WebSocket close code, 0 for none."""

    def __init__(self, code: int = 0) -> None:
        super().__init__(f"closed ({code})")
        self.code = code


def frame(payload: bytes, *, opcode: int = TEXT, fin: bool = True, reserved: int = 0, mask: bool = True) -> bytes:
    """Return the bytes of one frame; every rule of RFC 6455 may be broken by the arguments."""
    first = (0x80 if fin else 0) | reserved | opcode
    flag = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, flag | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    # A mask of zeros is a mask.
    return head + (b"\0\0\0\0" if mask else b"") + payload


@dataclass
class WireClient:
    """One connection, after the upgrade."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    channel: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    async def dial(
        cls, address: Address, *, tls: ssl.SSLContext | None = None, headers: dict[str, str] | None = None
    ) -> Self:
        """Connect and upgrade."""
        reader, writer = await open_stream(address, tls=tls)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {wire.PATH} HTTP/1.1",
            "Host: director",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = await reader.readline()
        if b" 101 " not in status:
            raise Closed
        while (await reader.readline()).strip():
            pass
        channel = ""
        tls_object = writer.get_extra_info("ssl_object")
        if tls_object is not None:
            channel = hashlib.sha256(tls_object.getpeercert(binary_form=True)).hexdigest()
        return cls(reader, writer, channel)

    # --- Frames -------------------------------------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        """Write raw bytes."""
        self.writer.write(data)

    def send(self, message: wire.FromClient | str | bytes | dict[str, Any]) -> None:
        """Send one text frame."""
        if isinstance(message, dict):
            message = json.dumps(message)
        if isinstance(message, str):
            message = message.encode()
        if not isinstance(message, bytes):
            message = wire.encode(message).encode()
        self.send_bytes(frame(message))

    async def receive(self) -> dict[str, Any]:
        """Return the next message, answering pings; ``Closed`` at the end."""
        while True:
            opcode, payload = await self._frame()
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                self.heard.append(message)
                return message
            if opcode == PING:
                self.send_bytes(frame(payload, opcode=PONG))
            elif opcode == CLOSE:
                self.send_bytes(frame(payload[:2], opcode=CLOSE))
                raise Closed(struct.unpack("!H", payload[:2])[0] if payload else 0)

    async def _frame(self) -> tuple[int, bytes]:
        try:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Closed from None

    async def closed(self) -> Closed:
        """Wait until the server has closed, and return how; other messages are an error."""
        try:
            message = await self.receive()
        except Closed as closed:
            return closed
        raise AssertionError(f"expected the end, not {message}")

    async def hang_up(self) -> None:
        """Close the connection as a killed process does."""
        self.writer.transport.abort()

    # --- The protocol -------------------------------------------------------------------------------------------------

    async def challenge(
        self, identity: ClientIdentity, *, name: str = "web-1", versions: tuple[int, ...] = (1,)
    ) -> tuple[dict[str, Any], bytes]:
        """Say hello; return the challenge and the transcript that both sides sign."""
        nonce = envelope.random_nonce()
        hello = {
            "type": "hello",
            "versions": versions,
            "name": name,
            "key": identity.public.text,
            "nonce": envelope.encode_bytes(nonce),
        }
        self.send(hello)
        answer = await self.receive()
        if answer["type"] != "challenge":
            return answer, b""
        said = envelope.transcript(
            offered=versions,
            chosen=answer["version"],
            name=name,
            client_key=identity.public.text,
            director_key=answer["key"],
            client_nonce=nonce,
            director_nonce=envelope.decode_bytes(answer["nonce"]),
            channel=self.channel,
        )
        envelope.parse_director_key(answer["key"]).verify(
            envelope.decode_bytes(answer["signature"]), purpose=envelope.CHALLENGE_PURPOSE, data=said
        )
        return answer, said

    async def prove(self, identity: ClientIdentity, said: bytes, *, token: str | None = None) -> dict[str, Any]:
        """Sign the transcript, and return what the director answers."""
        signature = envelope.encode_bytes(identity.sign(purpose=envelope.PROOF_PURPOSE, data=said))
        self.send({"type": "proof", "signature": signature, "token": token})
        return await self.receive()

    async def shake_hands(
        self, identity: ClientIdentity, *, name: str = "web-1", token: str | None = None
    ) -> dict[str, Any]:
        """Do the whole handshake, and return the last answer."""
        answer, said = await self.challenge(identity, name=name)
        return await self.prove(identity, said, token=token) if said else answer


async def open_stream(
    address: Address, *, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a bare connection."""
    if address.path:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
    _WRITERS.append(writer)
    return reader, writer


async def hang_up_all() -> None:
    """End every connection that a test has opened, as its end would."""
    while _WRITERS:
        writer = _WRITERS.pop()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def get(address: Address, path: str, *, method: str = "GET") -> tuple[int, str]:
    """Return status and body of one HTTP request."""
    reader, writer = await open_stream(address)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: director\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body
