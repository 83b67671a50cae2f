"""Clients as cheap as they can be, so that ten thousand of them keep one director busy and not the other way round.

TCP, the HTTP upgrade and WebSocket frames by hand on one event loop: no message is parsed whose kind is enough. What
they say is what a real client says, and every signature that they make is a real one; the director's are believed.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from typing import TYPE_CHECKING, Any, Final, cast

from schema import wire
from schema.envelope import PROOF_PURPOSE, decode_bytes, encode_bytes, transcript
from tests.benchmarks.wire_fleet import DIRECTOR

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from tests.benchmarks.wire_fleet import Member

SOURCES: Final = tuple(f"127.0.0.{number}" for number in range(2, 10))
"""Clients come from several addresses, as they do in life: each has ports of its own, and bounds of its own."""
AT_ONCE: Final = 256
LONGEST: Final = 180.0
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A

_UPGRADE: Final = (
    f"GET {wire.PATH} HTTP/1.1\r\nHost: director\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
_NONCE: Final = bytes(32)
_KIND = re.compile(rb'"type": ?"([a-z]+)"')


class LoadClient(asyncio.Protocol):
    """One client. ``hear`` gets every frame of an open session, as bytes; it answers with ``send``."""

    __slots__ = ("_channel", "_hello", "_member", "_rest", "_transport", "ended", "hear", "number", "opened", "refusal")

    def __init__(self, member: Member, *, number: int = 0, channel: str = "") -> None:
        self._member = member
        self._channel = channel
        hello = wire.Hello(
            versions=wire.SUPPORTED_VERSIONS,
            name=member.name,
            key=member.public_key,
            nonce=encode_bytes(_NONCE),
            client_version="1.0.0",
        )
        self._hello = frame(TEXT, wire.encode(hello).encode())
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self.number = number
        self.hear: Callable[[LoadClient, bytes], None] = _ignore
        self.ended: Callable[[LoadClient], None] = _gone
        self.opened: asyncio.Future[bool] | None = None
        """Done when the handshake is: whether the client was let in."""
        self.refusal: dict[str, Any] = {}
        """What the director said when it ended the session."""

    async def open(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> bool:
        """Connect and shake hands; return whether the client was let in.

        Raises:
            OSError: nobody listens.
        """
        loop = asyncio.get_running_loop()
        self._rest, self.refusal, self.opened = b"", {}, loop.create_future()
        source = SOURCES[self.number % len(SOURCES)]
        await loop.create_connection(lambda: self, host, port, ssl=tls, local_addr=(source, 0))
        return await self.opened

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None

    @property
    def name(self) -> str:
        """What the director calls it."""
        return self._member.name

    def send(self, text: bytes) -> None:
        """Send one message."""
        if self._transport is not None:
            self._transport.write(frame(TEXT, text))

    def abort(self) -> None:
        """Cut the connection off."""
        if self._transport is not None:
            self._transport.abort()

    # --- The wire -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_UPGRADE)

    def connection_lost(self, _: Exception | None) -> None:
        """Whoever waits learns of it."""
        self._transport = None
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(False)
        self.ended(self)

    def data_received(self, data: bytes) -> None:
        """Take apart what came."""
        data = self._rest + data if self._rest else data
        place = 0
        if data.startswith(b"HTTP/1.1 "):
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101 "):
                self.abort()
                return
            place = end + 4
            assert self._transport is not None
            self._transport.write(self._hello)
        while (found := _payload(data, place)) is not None:
            kind, start, place = found
            self._take(kind, data[start:place])
        self._rest = data[place:]

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == PING and self._transport is not None:
            self._transport.write(frame(PONG, payload))
        elif kind == CLOSE and self._transport is not None:
            self._transport.write(frame(CLOSE, payload[:2]))
            self._transport.close()
        elif kind == TEXT:
            if self.opened is not None and not self.opened.done():
                self._shake_hands(payload)
            elif payload.startswith(b'{"type":"refused"'):
                self.refusal = json.loads(payload)
            else:
                self.hear(self, payload)

    def _shake_hands(self, payload: bytes) -> None:
        match kind_of(payload):
            case b"challenge":
                self.send(self._proof(json.loads(payload)))
            case b"accepted":
                assert self.opened is not None
                self.opened.set_result(True)
            case _:
                self.refusal = json.loads(payload)

    def _proof(self, challenge: dict[str, str]) -> bytes:
        said = transcript(
            offered=wire.SUPPORTED_VERSIONS,
            chosen=1,
            name=self._member.name,
            client_key=self._member.public_key,
            director_key=DIRECTOR.public.text,
            client_nonce=_NONCE,
            director_nonce=decode_bytes(challenge["nonce"]),
            channel=self._channel,
        )
        signature = encode_bytes(self._member.identity.sign(purpose=PROOF_PURPOSE, data=said))
        return b'{"type":"proof","signature":"%s"}' % signature.encode()


def kind_of(payload: bytes) -> bytes:
    """Return the type of a message."""
    found = _KIND.search(payload, 0, 64)
    return found[1] if found else b""


def frame(kind: int, payload: bytes) -> bytes:
    """Return the bytes of a client's frame. A mask of zeros is a mask."""
    size = len(payload)
    if size < 126:
        return b"%c%c\0\0\0\0%s" % (kind, 0x80 | size, payload)
    if size < 65_536:
        return struct.pack("!BBHI", kind, 0x80 | 126, size, 0) + payload
    return struct.pack("!BBQI", kind, 0x80 | 127, size, 0) + payload


def _payload(data: bytes, place: int) -> tuple[int, int, int] | None:
    """Return kind, start and end of the frame at ``place``, when all of it is there."""
    have = len(data) - place
    if have < 2:
        return None
    kind, size, start = data[place], data[place + 1], place + 2
    if size == 126:
        if have < 4:
            return None
        size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
    elif size == 127:
        if have < 10:
            return None
        size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
    return (kind, start, start + size) if len(data) >= start + size else None


def _ignore(_: LoadClient, __: bytes) -> None:
    pass


def _gone(_: LoadClient) -> None:
    pass


# --- All of them ------------------------------------------------------------------------------------------------------


def load_clients(fleet: Iterable[Member], *, channel: str = "") -> Sequence[LoadClient]:
    """Return a client for each member, not connected yet."""
    return [LoadClient(member, number=number, channel=channel) for number, member in enumerate(fleet)]


async def connect_all(
    clients: Sequence[LoadClient], port: int, *, at_once: int = AT_ONCE, tls: ssl.SSLContext | None = None
) -> None:
    """Let all of them in, so many at a time.

    Raises:
        RuntimeError: one was not let in.
    """
    waiting = iter(clients)

    async def connect() -> None:
        for client in waiting:
            if not await client.open("127.0.0.1", port, tls=tls):
                raise RuntimeError(f"{client.name} was not let in: {client.refusal}")

    async with asyncio.timeout(LONGEST), asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(connect())


def disconnect_all(clients: Iterable[LoadClient]) -> None:
    """Cut all of them off."""
    for client in clients:
        client.abort()
