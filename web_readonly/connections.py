"""The connections of the dashboard: how many there may be, and how long one may leave its answer unread.

``web_readonly.app`` listens with it. aiohttp itself ends a connection whose request does not come (``IDLE_SECONDS``)
or is too large; it does not count connections, and waits for readers for ever.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

import structlog

from schema.addresses import UNIX, is_loopback, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from schema.addresses import Proxies

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 1_500
"""Never more than half of the files that the process may open: the director's clients need theirs."""
MAX_OF_ONE_SOURCE: Final = 150
"""This machine and believed proxies bring many people: for them the total counts alone."""
STALLED_SECONDS: Final = 30.0
"""An answer of which nothing is read for so long is given up."""
LOOK_SECONDS: Final = 5.0


class Connections:
    """Makes a protocol for each connection, as an event loop's listener asks for it."""

    def __init__(self, server: Callable[[], asyncio.Protocol], *, proxies: Proxies) -> None:
        self._server = server
        self._proxies = proxies
        self._limit = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._open: set[_Connection] = set()
        self._of_source: Counter[str] = Counter()
        self._looking: asyncio.TimerHandle | None = None
        self._was_full = False

    def __call__(self) -> asyncio.Protocol:
        """Return a new connection."""
        return _Connection(self, self._server())

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Look after them no longer."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def admit(self, connection: _Connection) -> bool:
        """Say whether there is room for one more, and count it."""
        source = connection.source
        many = source == UNIX or is_loopback(connection.address) or self._proxies.trusts(connection.address)
        full = len(self._open) >= self._limit
        if full or (not many and self._of_source[source] >= MAX_OF_ONE_SOURCE):
            if full and not self._was_full:
                _log.warning("web.full", connections=len(self._open), address=source)
            self._was_full = full
            return False
        self._was_full = False
        self._open.add(connection)
        self._of_source[source] += 1
        if self._looking is None:
            self._look_later()
        return True

    def leave(self, connection: _Connection) -> None:
        """Forget one that is over."""
        self._open.discard(connection)
        self._of_source[connection.source] -= 1
        if not self._of_source[connection.source]:
            del self._of_source[connection.source]

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            connection.look(now)
        self._looking = None
        if self._open:
            self._look_later()


class _Connection(asyncio.Protocol):
    """aiohttp's protocol, counted and watched."""

    def __init__(self, owner: Connections, inner: asyncio.Protocol) -> None:
        self._owner = owner
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._unread = 0
        self._unread_since = 0.0
        self.address = self.source = UNIX

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = peer[0]
            self.source = source_of(self.address)
        stream = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        if not self._owner.admit(self):
            stream.abort()
            return
        self._transport = stream
        self._inner.connection_made(stream)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._owner.leave(self)
            self._transport = None
            self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def look(self, now: float) -> None:
        """End it when nothing of what waits to be read was read for too long."""
        transport = self._transport
        if transport is None:
            return
        unread = transport.get_write_buffer_size()
        if not unread or unread < self._unread or not self._unread:
            self._unread_since = now
        self._unread = unread
        if unread and now - self._unread_since >= STALLED_SECONDS:
            _log.info("web.stalled", address=self.source, unread=unread)
            transport.abort()
