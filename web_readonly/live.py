"""Tells open pages that the store changed: ``GET /live``, a stream of server-sent events. ``static/live.js`` reads it.

An event says no more than "changed": its id is the version of the store. Which parts of a page that concerns is seen
by asking for the page again, so that there is one way to make a page, and one place that decides who may see it.

One task looks at the store for all viewers, once a second, and only while there are any. Nothing waits in a queue: a
viewer who was slow is told of the newest version only.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS: Final = 1.0
HEARTBEAT_SECONDS: Final = 20.0
"""So that a proxy does not take a quiet stream for a dead one, and a dead viewer is found."""
SLOW_SECONDS: Final = 10.0
"""Who has not read so few bytes for so long is not there any more."""
LIFE_SECONDS: Final = 900.0
"""Then the viewer has to come again, and is asked again who it is."""
MAX_VIEWERS: Final = 1_000
RETRY_SECONDS: Final = (2.0, 6.0)
"""Between these a viewer waits before it comes again: not all at once when a director starts."""
FULL_SECONDS: Final = 60
_BUFFER: Final = 4_096
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    # nginx would keep events until there are enough of them.
    "X-Accel-Buffering": "no",
}


class Live:
    """The viewers of one process."""

    def __init__(self, version: Callable[[], str]) -> None:
        self._read = version
        self._version: str | None = None
        """None before the first look."""
        self._viewers: list[web.Request] = []
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._viewers)

    @property
    def looks(self) -> bool:
        """Whether the store is being looked at."""
        return self._looking is not None

    async def close(self, _: web.Application) -> None:
        """End all streams at once: a director that stops does not wait for people to close their pages."""
        self._closing = True
        self._wake()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /live``."""
        if self._closing or len(self._viewers) >= MAX_VIEWERS:
            return _full()
        response = web.StreamResponse(headers=_HEADERS)
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        self._viewers.append(request)
        try:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            await response.prepare(request)
            await self._tell(request, response)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._viewers.remove(request)
            if not self._viewers and self._looking is not None:
                self._looking.cancel()
                self._looking = self._version = None
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        _keep_little(request.transport)
        loop = asyncio.get_running_loop()
        until = loop.time() + LIFE_SECONDS * _between(0.8, 1.0)
        await _write(response, f"retry: {_between(*RETRY_SECONDS) * 1000:.0f}\n\n")
        told = None
        while not (self._closing or _is_gone(request) or loop.time() > until):
            version, changed = self._version, self._changed
            if version is not None and version != told:
                await _write(response, f"id: {version}\nevent: changed\ndata: {version or 'unreadable'}\n\n")
                told = version
                continue
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                await _write(response, ":\n\n")

    async def _look(self) -> None:
        while True:
            version = await asyncio.to_thread(self._read)
            if version != self._version or any(map(_is_gone, self._viewers)):
                self._version = version
                self._wake()
            await asyncio.sleep(LOOK_SECONDS)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _full() -> web.Response:
    """Pages go on by their own slow timer."""
    return web.Response(
        status=503,
        text="too many pages are open: this one is renewed by a timer\n",
        headers={"Retry-After": str(FULL_SECONDS), "Cache-Control": "no-store"},
    )


def _is_gone(viewer: web.Request) -> bool:
    """Whether somebody closed the page; nobody else tells a handler that has nothing to write."""
    return viewer.transport is None or viewer.transport.is_closing()


def _keep_little(transport: asyncio.Transport | None) -> None:
    """Let next to nothing wait for a viewer who does not read, here and in the system."""
    if transport is None:
        raise ConnectionResetError
    transport.set_write_buffer_limits(high=0)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(SLOW_SECONDS):
        await response.write(text.encode())


def _between(least: float, most: float) -> float:
    return least + (most - least) * secrets.randbelow(1000) / 1000
