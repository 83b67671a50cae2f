"""Where the director listens: addresses, what may go over them unencrypted, and who a connection really comes from.

Called by ``reconciler.gateway``. Plain listening is for loopback, Unix sockets and declared proxies; everything else
needs TLS, and the director does not start without.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from schema import wire
from schema.addresses import is_loopback
from schema.errors import TerminalError, TransientError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable

    from schema.addresses import Proxies

BACKLOG: Final = 4096
MAX_UNPROVED_BYTES: Final = 64 * 1024
"""What a connection may send before its handshake is over: request head and two small frames."""


MAX_CONNECTIONS: Final = 1_048_576


def allow_connections() -> None:
    """Let this process hold as many connections as the system allows: with the usual limit, a thousand are too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, MAX_CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen at: host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address of ``127.0.0.1:8440``, ``[::1]:8440``, ``:8440`` or ``unix:/run/director.sock``."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/"):
                raise TerminalError(f"cannot listen on '{text}': the path of a Unix socket is absolute")
            return cls(path=path)
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise TerminalError(
                f"cannot listen on '{text}': it is not an address", hint="write for example 0.0.0.0:8440 or [::]:8440"
            )
        return cls(host=host, port=int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or is_loopback(self.host)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_plain(addresses: Iterable[Address], proxies: Proxies) -> None:
    """Refuse to speak without TLS where somebody could listen.

    Raises:
        TerminalError: an address can be reached from elsewhere, and no proxy is declared.
    """
    for address in addresses:
        if not address.is_local and not proxies:
            raise TerminalError(
                f"cannot listen on {address} without TLS: other machines can reach it",
                hint="set tls, listen on 127.0.0.1, or declare the proxy that ends TLS in trusted_proxies",
            )


class Connection(web.RequestHandler):
    """aiohttp's connection, with a bound on what a stranger may make us hold in memory."""

    __slots__ = ("excess", "unproved")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unproved = MAX_UNPROVED_BYTES
        self.excess: Callable[[], None] | None = None

    def proved(self) -> None:
        """The peer is known: from now on the bound of each frame is enough."""
        self.unproved = -1
        self.excess = None

    def data_received(self, data: bytes) -> None:
        """Count, and hand over."""
        if self.unproved >= 0:
            self.unproved -= len(data)
            if self.unproved < 0:
                self.unproved = 0
                if self.excess is not None:
                    self.excess()
                elif self.transport is not None:
                    self.transport.abort()
                return
        super().data_received(data)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


@dataclass(slots=True)
class Listeners:
    """The open listeners of one gateway."""

    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    _server: _Server | None = None
    _open: list[asyncio.AbstractServer] = field(default_factory=list)
    _paths: list[Path] = field(default_factory=list)

    async def start(self, addresses: Iterable[Address], *, tls: ssl.SSLContext | None) -> list[Address]:
        """Listen, and return the addresses with their real ports.

        Raises:
            TransientError: an address is in use, or is not ours.
        """
        allow_connections()
        # The timeout is also the only limit on a connection that never finishes its request head.
        self._server = _Server(
            self.handler,
            access_log=None,
            keepalive_timeout=float(wire.HANDSHAKE_SECONDS),
            lingering_time=2.0,
            max_line_size=4096,
            max_field_size=4096,
            max_headers=64,
        )
        bound: list[Address] = []
        for address in addresses:
            try:
                bound += await self._listen(address, self._server, tls)
            except OSError as error:
                await self.close()
                raise TransientError(
                    f"cannot listen on {address}: {error.strerror or error}", hint="is another director running?"
                ) from None
        return bound

    async def _listen(self, address: Address, server: _Server, tls: ssl.SSLContext | None) -> list[Address]:
        loop = asyncio.get_running_loop()
        if address.path:
            path = Path(address.path)
            _remove_dead_socket(path)
            before = os.umask(0o177)
            try:
                listener: asyncio.AbstractServer = await loop.create_unix_server(
                    server, path=str(path), backlog=BACKLOG
                )
            finally:
                os.umask(before)
            self._paths.append(path)
            self._open.append(listener)
            return [address]
        timeout = float(wire.HANDSHAKE_SECONDS) if tls else None
        opened = await loop.create_server(
            server, address.host or None, address.port, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=timeout
        )
        self._open.append(opened)
        return [Address(host=one.getsockname()[0], port=one.getsockname()[1]) for one in opened.sockets]

    def refuse_new(self) -> None:
        """Accept no further connection."""
        for listener in self._open:
            listener.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    async def close(self) -> None:
        """End everything."""
        self.refuse_new()
        self._open.clear()
        if self._server is not None:
            await self._server.shutdown(timeout=1.0)


def _remove_dead_socket(path: Path) -> None:
    """Remove the socket that a killed director left behind; never anything else, never one that still answers."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise TerminalError(f"cannot listen on unix:{path}: there is something else at that path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise TransientError(f"cannot listen on unix:{path}: somebody already does", hint="is another director running?")
