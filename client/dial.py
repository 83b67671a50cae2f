"""One WebSocket to the director: the client's only door to the ``websockets`` library.

``client.connection`` speaks over what ``WebSocketDialer`` returns. TLS is checked against the system's authorities, a
given file, or one pinned certificate, before anything is said. Proxies of the environment are not used, and redirects
are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, WebSocketException
from websockets.protocol import State

from schema.errors import TerminalError, TransientError, TrustError
from schema.wire import HANDSHAKE_SECONDS, HEARTBEAT_SECONDS, MAX_CLIENT_FRAME, MAX_DIRECTOR_FRAME, PATH

PONG_SECONDS = HEARTBEAT_SECONDS / 2
CLOSING_SECONDS = 2.0
MOST_WAITING_FRAMES = 4
"""Beyond, nothing more is read until they are taken."""
MOST_UNSENT = 4 * MAX_CLIENT_FRAME
"""Bytes that may wait for who takes nothing: a pull, progress and reports, each as large as a frame, fit."""
SECOND_ADDRESS_SECONDS = 0.25
"""How long the first address of a host is tried before the next one is tried as well (RFC 8305)."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Socket(Protocol):
    """An open connection that carries frames."""

    @property
    def channel(self) -> str:
        """SHA-256 (hex) of the certificate that the peer showed; empty without TLS."""

    async def send(self, frame: str) -> None:
        """Return when ``frame`` is on its way; ``TransientError`` when the connection is gone."""

    async def receive(self) -> str | bytes | None:
        """Return the next frame, or None when the connection is over."""

    async def close(self) -> None:
        """End the connection."""


class Dial(Protocol):
    """Opens connections to the director."""

    async def __call__(self) -> Socket:
        """Return an open connection; ``TransientError`` or ``TrustError`` when there is none to have."""


@dataclass(frozen=True, slots=True)
class WebSocketDialer:
    """Dials one director.

    ``certificate``, a pinned SHA-256 (hex), stands in for the authorities, unless the administrator gave a ``ca_file``.
    """

    url: str
    certificate: str = ""
    ca_file: str | None = None

    async def __call__(self) -> Socket:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                line = await _Dialled(
                    self._address(),
                    create_connection=_Line,
                    compression=None,
                    proxy=None,
                    open_timeout=None,
                    ping_interval=None,  # ``_WebSocket`` does it
                    close_timeout=CLOSING_SECONDS,
                    max_size=MAX_DIRECTOR_FRAME,
                    max_queue=MOST_WAITING_FRAMES,
                    **await self._way(),
                )
        except _OtherCertificate as error:
            raise TrustError(
                f"the director at {self.url} shows another certificate than the pinned one ({error.shown})",
                code="bad-certificate",
                hint="when it was renewed on purpose, enroll again with a new string",
            ) from None
        except (WebSocketException, OSError, ValueError) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code in _REDIRECTS:
                raise TransientError(
                    "the director's address answers with a redirect", hint="enroll with the address it redirects to"
                ) from None
            raise TransientError(f"cannot reach the director at {self.url}: {_reason(error)}") from None
        return _WebSocket(line)

    def _address(self) -> str:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"ws://director{PATH}"
        path = parts.path.rstrip("/")
        return parts._replace(path=path if path.endswith(PATH) else path + PATH, fragment="").geturl()

    async def _way(self) -> dict[str, Any]:
        """Return what to tell asyncio about the way there; over TCP, go it as far as the first address that answers."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return {"unix": True, "path": parts.path}
        tls = {"ssl": self._verification()} if parts.scheme == "wss" else {}
        port = parts.port or (443 if tls else 80)
        found = await _addresses(parts.hostname or "", port)
        return {"sock": await start_connection(found, happy_eyeballs_delay=SECOND_ADDRESS_SECONDS), **tls}

    def _verification(self) -> ssl.SSLContext:
        if self.ca_file is not None:
            try:
                context = ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                raise TransientError(f"cannot read the authorities in {self.ca_file}: {error}") from None
        elif self.certificate:
            context = _Pinning(_sha256(self.certificate))
        else:
            context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context


async def _addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    """Return where ``host`` is; what is an address already costs no thread."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _sha256(text: str) -> bytes:
    try:
        return bytes.fromhex(text).ljust(32, b"\0")[:32]
    except ValueError:
        raise TerminalError("the pinned certificate is not a SHA-256 in hex", hint="enroll again") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {HANDSHAKE_SECONDS} seconds"
    if isinstance(error, InvalidStatus):
        return f"it answered {error.response.status_code}, and not as a WebSocket"
    if isinstance(error, ConnectionClosed) or (
        isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError)
    ):
        return "it hung up at once"
    return str(error) or type(error).__name__


class _OtherCertificate(ssl.SSLCertVerificationError):
    """It is not the pinned one. ``shown`` is the SHA-256 (hex) of the one that is."""

    shown = ""


class _Pinning(ssl.SSLContext):
    """Believes no authority: the certificate is the pinned one."""

    pinned: bytes

    def __new__(cls, pinned: bytes) -> Self:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context.pinned = pinned
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.sslobject_class = _Pinned
        return context


class _Pinned(ssl.SSLObject):
    def do_handshake(self) -> None:
        """Fail before anything is said to whoever shows another certificate."""
        super().do_handshake()
        shown = hashlib.sha256(self.getpeercert(binary_form=True) or b"").digest()
        if not isinstance(self.context, _Pinning) or shown != self.context.pinned:
            error = _OtherCertificate("another certificate than the pinned one")
            error.shown = shown.hex()
            raise error


class _Dialled(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none."""
        return exc


class _Line(ClientConnection):
    """The library's connection, and when it last heard something."""

    heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.heard = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Hang up on who is no WebSocket, and on who asks and takes no answer.

        The library would hear the former to the end. It answers every ping of the latter, and keeps what is not taken.
        """
        if self.state is State.OPEN:
            self.heard = self.loop.time()
        super().data_received(data)
        if self.protocol.handshake_exc is not None or self.transport.get_write_buffer_size() > MOST_UNSENT:
            self.transport.abort()


class _WebSocket:
    """The line as a ``Socket``, with a heartbeat."""

    def __init__(self, line: ClientConnection) -> None:
        if not isinstance(line, _Line):
            raise TypeError("``WebSocketDialer`` makes another connection")
        self._line = line
        tls = line.transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.channel = hashlib.sha256(certificate).hexdigest() if certificate else ""
        self._heartbeat = asyncio.ensure_future(self._listen())

    async def send(self, frame: str) -> None:
        try:
            await self._line.send(frame)
        except ConnectionClosed as error:
            raise TransientError(f"the connection broke: {error}") from None

    async def receive(self) -> str | bytes | None:
        try:
            return await self._line.recv()
        except ConnectionClosed:
            return None

    async def close(self) -> None:
        self._heartbeat.cancel()
        try:
            await self._line.close()
        finally:
            self._line.transport.abort()

    async def _listen(self) -> None:
        """Ask who falls silent for a sign of life, and hang up when none comes.

        Whatever comes is one: the library's own heartbeat waits for a pong alone, and that comes late behind a large
        frame on a slow line.
        """
        with contextlib.suppress(ConnectionClosed):
            while True:
                heard = self._line.heard
                await asyncio.sleep(heard + HEARTBEAT_SECONDS - self._line.loop.time())
                if self._line.heard != heard:
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PONG_SECONDS):
                        await (await self._line.ping())
                if self._line.heard == heard:
                    self._line.transport.abort()
                    return
