"""The director's side of the wire, for the client's tests: a real WebSocket server with real keys.

It keeps every frame it received, and can be told to misbehave in each state.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from aiohttp import WSMsgType, web

from schema.desired import PAYLOAD_TYPE, Content, DesiredState
from schema.directories import Directories
from schema.envelope import (
    CHALLENGE_PURPOSE,
    PROOF_PURPOSE,
    DirectorIdentity,
    decode_bytes,
    encode_bytes,
    parse_client_key,
    random_nonce,
    seal_envelope,
    transcript,
)
from schema.wire import (
    PATH,
    Accepted,
    Acknowledged,
    Challenge,
    Current,
    Desired,
    Hello,
    Pending,
    Progress,
    Proof,
    Pull,
    Refused,
    Reports,
    State,
    decode_from_client,
    encode,
)

ISSUED = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


def desired_state(
    director: DirectorIdentity,
    audience: str,
    *,
    generation: int = 100,
    content: Content | None = None,
    issued: datetime = ISSUED,
    **changes: Any,
) -> bytes:
    """Return a signed envelope; ``changes`` replace fields of the payload after the digest was taken."""
    content = content or Content(client="web-1", directories=Directories())
    state = DesiredState(
        audience=audience,
        generation=generation,
        revision="a" * 40,
        issued=issued,
        expires=issued + timedelta(days=90),
        digest=content.digest(),
        content=content,
    ).model_copy(update=changes)
    return seal_envelope(state.model_dump_json().encode(), payload_type=PAYLOAD_TYPE, identity=director)


class DirectorStub:
    """``async with DirectorStub(...) as director``: ``director.url`` is where it listens."""

    def __init__(
        self,
        *,
        identity: DirectorIdentity | None = None,
        certificate: tuple[Path, Path] | None = None,
        socket_path: Path | None = None,
        name: str = "web-1",
        approved: bool = True,
    ) -> None:
        self.identity = identity or DirectorIdentity.generate()
        self.name = name
        self.approved = asyncio.Event()
        if approved:
            self.approved.set()
        self.refuse: Refused | None = None
        self.envelope: bytes | None = None
        self.resend = False
        self.acknowledges = True
        self.frames: list[str] = []
        """Every frame that any client sent, as text."""
        self.reports: dict[tuple[str, int], dict[str, Any]] = {}
        self.progress: list[Progress] = []
        self.sessions = 0
        self.changed = asyncio.Condition()
        self.instead: dict[State, str | bytes] = {}
        """Frames to send instead of what is right in that state."""
        self.tamper: Callable[[Challenge], Challenge] = lambda challenge: challenge
        self.binding: str | None = None
        """What to sign as channel, when not the truth."""
        self._certificate = certificate
        self._socket_path = socket_path
        self._open: set[web.WebSocketResponse] = set()
        self.url = ""

    # --- the server ---

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(PATH, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        if self._socket_path is not None:
            site: web.BaseSite = web.UnixSite(self._runner, str(self._socket_path))
            self.url = f"unix://{self._socket_path}"
            await site.start()
            return self
        context = None
        if self._certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self._certificate)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'wss' if context else 'ws'}://localhost:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()
        await self._runner.cleanup()

    @property
    def channel(self) -> str:
        if self.binding is not None:
            return self.binding
        if self._certificate is None:
            return ""
        pem = self._certificate[0].read_text()
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    async def hang_up(self) -> None:
        for socket in list(self._open):
            await socket.close()

    async def push(self, frame: str) -> None:
        for socket in list(self._open):
            await socket.send_str(frame)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return when ``condition`` holds; it is looked at whenever something came."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)

    # --- the session ---

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=2**21)
        await socket.prepare(request)
        self._open.add(socket)
        self.sessions += 1
        try:
            await self._session(socket)
        except (_Gone, ConnectionResetError):
            pass
        finally:
            self._open.discard(socket)
            await socket.close()
            await self._notify()
        return socket

    async def _session(self, socket: web.WebSocketResponse) -> None:
        hello = await self._receive(socket, State.START, Hello)
        if await self._misbehave(socket, State.START):
            return
        nonce = random_nonce()
        key = self.identity.public.text
        said = transcript(
            offered=hello.versions,
            chosen=1,
            name=hello.name,
            client_key=hello.key,
            director_key=key,
            client_nonce=decode_bytes(hello.nonce),
            director_nonce=nonce,
            channel=self.channel,
        )
        signature = encode_bytes(self.identity.sign(purpose=CHALLENGE_PURPOSE, data=said))
        challenge = Challenge(version=1, nonce=encode_bytes(nonce), key=key, signature=signature)
        await socket.send_str(encode(self.tamper(challenge)))
        proof = await self._receive(socket, State.CHALLENGED, Proof)
        parse_client_key(hello.key).verify_key.verify(decode_bytes(proof.signature), purpose=PROOF_PURPOSE, data=said)
        if await self._misbehave(socket, State.CHALLENGED):
            return
        if self.refuse is not None:
            await socket.send_str(encode(self.refuse))
            return
        if not self.approved.is_set() or State.PENDING in self.instead:
            await socket.send_str(encode(Pending(fingerprint=parse_client_key(hello.key).fingerprint, retry_after=5)))
            if await self._misbehave(socket, State.PENDING):
                return
            await self._until_approved(socket)
        await socket.send_str(encode(Accepted(name=self.name, time=ISSUED, resend=self.resend)))
        if await self._misbehave(socket, State.OPEN):
            return
        while True:
            await self._answer(socket)

    async def _answer(self, socket: web.WebSocketResponse) -> None:
        message = await self._receive(socket, State.OPEN, object)
        match message:
            case Pull() if self.envelope is not None:
                await socket.send_str(encode(Desired(envelope=self.envelope.decode())))
            case Pull():
                await socket.send_str(encode(Current(generation=message.generation)))
            case Reports():
                for item in message.items:
                    self.reports[message.epoch, item.sequence] = item.report
                if self.acknowledges:
                    await socket.send_str(
                        encode(Acknowledged(epoch=message.epoch, sequence=message.items[-1].sequence))
                    )
            case Progress():
                self.progress.append(message)
        await self._notify()

    async def _until_approved(self, socket: web.WebSocketResponse) -> None:
        waits = asyncio.ensure_future(self.approved.wait()), asyncio.ensure_future(socket.receive())
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not self.approved.is_set():
            raise _Gone
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _misbehave(self, socket: web.WebSocketResponse, state: State) -> bool:
        frame = self.instead.get(state)
        if frame is None:
            return False
        await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
        async for message in socket:  # whatever the client still says is kept
            if message.type is WSMsgType.TEXT:
                self.frames.append(message.data)
        return True

    async def _receive(self, socket: web.WebSocketResponse, state: State, kind: type[Any]) -> Any:
        frame = await socket.receive()
        if frame.type is not WSMsgType.TEXT:
            raise _Gone
        self.frames.append(frame.data)
        message = decode_from_client(frame.data, state=state)
        assert isinstance(message, kind)
        await self._notify()
        return message

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class _Gone(Exception):
    pass
