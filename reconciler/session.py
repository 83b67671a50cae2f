"""One connection's conversation: frames in and out in the order that ``schema.wire`` allows, and its end.

``reconciler.gateway`` decides what to say; this is how it is said. A session that has ended sends nothing and hears
nothing any more, whoever still holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from reconciler.core import refusals
from schema import wire
from schema.errors import TrustError
from schema.wire import RefusalCode, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.refusals import Refused
    from reconciler.deadlines import Deadlines
    from reconciler.listen import Connection

CLOSE_SECONDS: Final = 5.0
SEND_SECONDS: Final = 30.0

_ROOM: Final = 32 * 1024
_BURST: Final = 400.0
_UNITS_A_SECOND: Final = 100.0
_REPORT_COST: Final = 0.25
_UNIT_BYTES: Final = 16 * 1024
"""A frame costs one unit, each report in it a quarter, each 16 KiB another: lastingly some 400 reports or 1.5 MiB a
second from one client, far above what a machine has to say and far below what fills a disk unseen."""
_DATA = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})


class Session:
    """One WebSocket. ``public_key`` and ``name`` are set once, by the handshake; no message changes them."""

    __slots__ = (
        "_allowance",
        "_allowance_at",
        "_closing",
        "_connection",
        "_size",
        "_stalls",
        "_websocket",
        "delivering",
        "ended",
        "name",
        "newer",
        "part",
        "public_key",
        "sent",
        "source",
        "state",
        "welcomed",
    )

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        connection: Connection,
        *,
        source: str,
        now: float,
        stalls: Deadlines,
        closing: Deadlines,
    ) -> None:
        self._websocket = websocket
        self._connection = connection
        self._stalls = stalls
        self._closing = closing
        self._allowance = _BURST
        self._allowance_at = now
        self._size = 0
        self.source = source
        self.state = State.START
        self.name = ""
        self.public_key = ""
        self.ended: RefusalCode | None = None
        """Why we ended it; None while it lives or when the peer went."""
        self.sent = 0
        """The newest generation that was sent, or that the client said it holds."""
        self.welcomed = False
        """Whether it was told that it is accepted: nothing else is sent before."""
        self.newer = False
        self.delivering = False
        self.part: Callable[[Session, Refused], None] | None = None
        """How it is ended by a clock or a bound."""
        connection.excess = self._exceed

    @property
    def is_open(self) -> bool:
        """Whether frames still matter."""
        return self.ended is None and not self._websocket.closed

    async def receive(self) -> wire.FromClient | None:
        """Return the next message that is in order; None when the connection is over.

        Raises:
            TrustError: what came is malformed, too large or out of order.
        """
        frame = await self.receive_frame()
        return None if frame is None else self.read(frame)

    async def receive_frame(self) -> str | bytes | None:
        """Return the next frame, unread; None when the connection is over. Heartbeats are answered only meanwhile.

        Raises:
            TrustError: what came is no frame, or too large.
        """
        while True:
            try:
                message = await self._websocket.receive()
            except (ConnectionError, RuntimeError):  # it answers pings, for which the connection may be gone
                return None
            if self.ended is not None:
                return None
            if message.type in _DATA:
                found: str | bytes = message.data
                return found
            if isinstance(message.data, WebSocketError):
                large = message.data.code == WSCloseCode.MESSAGE_TOO_BIG
                code = RefusalCode.TOO_LARGE if large else RefusalCode.MALFORMED
                raise TrustError(f"this is no frame: {message.data}", code=code)
            if message.type not in {WSMsgType.PING, WSMsgType.PONG}:
                return None

    def read(self, frame: str | bytes) -> wire.FromClient:
        """Return the message in a frame.

        Raises:
            TrustError: it is malformed, too large here, or out of order.
        """
        self._size = len(frame)
        return wire.decode_from_client(frame, state=self.state)

    def pace(self, *, now: float, reports: int = 0) -> float:
        """Count the frame just read, and return for how many seconds to take no more: a pace, never an error."""
        cost = 1 + _REPORT_COST * reports + self._size // _UNIT_BYTES
        self._allowance = min(_BURST, self._allowance + max(0.0, now - self._allowance_at) * _UNITS_A_SECOND) - cost
        self._allowance_at = now
        return max(0.0, -self._allowance / _UNITS_A_SECOND)

    async def send(self, message: wire.FromDirector) -> bool:
        """Send one message; False when the session is over. A peer that does not take it in time is dropped."""
        return await self.send_frame(wire.encode(message))

    async def send_frame(self, frame: str) -> bool:
        """Send a frame that is encoded already."""
        if not self.is_open:
            return False
        stall = None if self.takes(len(frame)) else self._stalls.add(self.abort)
        try:
            await self._websocket.send_str(frame)
        except (ConnectionError, RuntimeError):
            return False
        finally:
            if stall is not None:
                stall.met()
        return True

    def takes(self, size: int) -> bool:
        """Whether so much can be sent without waiting for the peer: as long as it fits the transport's buffer."""
        transport = self._connection.transport
        return transport is None or transport.get_write_buffer_size() + size <= _ROOM

    def proved(self) -> None:
        """The peer's key is approved."""
        self._connection.proved()

    def expire(self) -> None:
        """The handshake took too long."""
        if self.part is not None:
            self.part(self, refusals.too_slow())

    def _exceed(self) -> None:
        if self.part is not None:
            self.part(self, refusals.too_much())

    async def end(self, refused: Refused) -> bool:
        """Say why, and close. The first reason counts: False when the session was ended before."""
        if self.ended is not None:
            return False
        farewell = wire.encode(
            wire.Refused(code=refused.code, message=refused.message, hint=refused.hint, retry_after=refused.retry_after)
        )
        self.ended = refused.code
        # A peer that neither reads nor answers must not keep the connection.
        self._closing.add(self.abort)
        if self._websocket.closed:
            return True
        try:
            await self._websocket.send_str(farewell)
            await self._websocket.close(drain=False)
        except (ConnectionError, RuntimeError):
            self.abort()
        return True

    def abort(self) -> None:
        """Cut the connection off at once."""
        transport = self._connection.transport
        if transport is not None:
            transport.abort()
