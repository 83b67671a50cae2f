"""One WebSocket to the director: the client's only door to aiohttp.

``client.connection`` speaks over what ``WebSocketDialer`` returns; the simulator puts its own in that place. TLS is
checked against the system's authorities, a given file, or one pinned certificate. Proxies of the environment are not
used, and redirects are not followed.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from schema.errors import DirectorError, TerminalError, TransientError, TrustError
from schema.wire import HANDSHAKE_SECONDS, HEARTBEAT_SECONDS, MAX_DIRECTOR_FRAME, PATH

if TYPE_CHECKING:
    import aiohttp


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
        import aiohttp  # noqa: PLC0415 - only the service needs it: a quarter of its memory and half of its start

        session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=HANDSHAKE_SECONDS),
            trace_configs=[_no_redirects()],
        )
        try:
            socket = await session.ws_connect(
                self._address(),
                max_msg_size=MAX_DIRECTOR_FRAME,
                heartbeat=HEARTBEAT_SECONDS,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
        except BaseException as error:
            await session.close()
            if isinstance(error, aiohttp.ServerFingerprintMismatch):
                raise TrustError(
                    f"the director at {self.url} shows another certificate than the pinned one ({error.got.hex()})",
                    code="bad-certificate",
                    hint="when it was renewed on purpose, enroll again with a new string",
                ) from None
            if isinstance(error, (aiohttp.ClientError, OSError, TimeoutError, ValueError)):
                raise TransientError(f"cannot reach the director at {self.url}: {_reason(error)}") from None
            if isinstance(error, AssertionError):
                # aiohttp asserts that the connection outlives the answer to its upgrade; who is on the way may end it.
                raise TransientError(f"cannot reach the director at {self.url}: it hung up at once") from None
            raise
        return _WebSocket(session, socket)

    def _address(self) -> str:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"ws://director{PATH}"
        path = parts.path.rstrip("/")
        return parts._replace(path=path if path.endswith(PATH) else path + PATH, fragment="").geturl()

    def _connector(self) -> aiohttp.BaseConnector:
        import aiohttp  # noqa: PLC0415

        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return aiohttp.UnixConnector(path=parts.path, force_close=True)
        return aiohttp.TCPConnector(ssl=self._verification(), force_close=True, use_dns_cache=False)

    def _verification(self) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
        if self.ca_file is not None:
            try:
                return ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                raise TransientError(f"cannot read the authorities in {self.ca_file}: {error}") from None
        if self.certificate:
            import aiohttp  # noqa: PLC0415

            return aiohttp.Fingerprint(_sha256(self.certificate))
        return True


def _sha256(text: str) -> bytes:
    try:
        return bytes.fromhex(text).ljust(32, b"\0")[:32]
    except ValueError:
        raise TerminalError("the pinned certificate is not a SHA-256 in hex", hint="enroll again") from None


def _no_redirects() -> aiohttp.TraceConfig:
    import aiohttp  # noqa: PLC0415

    async def refuse(*_: Any) -> None:
        raise TransientError(
            "the director's address answers with a redirect", hint="enroll with the address it redirects to"
        )

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {HANDSHAKE_SECONDS} seconds"
    status = getattr(error, "status", None)
    if status:
        return f"it answered {status}, and not as a WebSocket"
    return str(error) or type(error).__name__


class _WebSocket:
    """aiohttp's connection as a ``Socket``."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._socket = socket
        tls = socket.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.channel = hashlib.sha256(certificate).hexdigest() if certificate else ""

    async def send(self, frame: str) -> None:
        try:
            await self._socket.send_str(frame)
        except (OSError, RuntimeError) as error:  # ClientError is an OSError where a socket broke
            raise TransientError(f"the connection broke: {_reason(error)}") from None

    async def receive(self) -> str | bytes | None:
        try:
            message = await self._socket.receive()
        except (OSError, RuntimeError):  # it answers pings, for which the connection may be gone
            return None
        if isinstance(message.data, (str, bytes)) and message.type.name in {"TEXT", "BINARY"}:
            return message.data
        return None

    async def close(self) -> None:
        try:
            await self._socket.close()
        except (OSError, RuntimeError, DirectorError):  # it is gone already
            pass
        finally:
            await self._session.close()
