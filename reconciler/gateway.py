"""Where clients meet the director: WebSockets at ``/v1/connect``, with ``reconciler.probes`` beside it.

``reconciler.doorkeeper`` decides who may come in, ``reconciler.session`` carries the frames, ``reconciler.hearing``
does what a client asks for, ``reconciler.publishing`` sends it what is newest; here they meet, and every session stands
in one of the tables. The loop says what is approved (``set_source_clients``) and what is newer (``publish``); commands
say that people decided (``registry_changed``). All of it takes effect on live sessions at once.

Identity is the session's key from the moment it was proved, never a field of a message. Nothing waits for a slow client
but that client: reports are taken one frame at a time per session and acknowledged after their commit; a desired state
is read when its session is free to be sent one, so that only the newest ever is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from reconciler import probes
from reconciler.audit import Audit
from reconciler.background import Background
from reconciler.core import refusals
from reconciler.core.enrolment import Accepted, Approval, Pending
from reconciler.core.refusals import Refused
from reconciler.deadlines import Deadlines
from reconciler.doorkeeper import RETURNS_A_SECOND, Doorkeeper
from reconciler.hearing import Hearing
from reconciler.listen import Address, Connection, Listeners, check_plain
from reconciler.metrics import Metrics, metrics_text
from reconciler.probes import Probes
from reconciler.publishing import Publishing
from reconciler.session import CLOSE_SECONDS, SEND_SECONDS, Session
from schema import envelope, wire
from schema.addresses import UNIX, Proxies, source_of
from schema.errors import DirectorError, TrustError
from schema.wire import RefusalCode, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from reconciler.clock import Clock
    from reconciler.core.issue import Issued
    from reconciler.gateway_store import Store
    from reconciler.tls import ServerCertificate

_log = structlog.get_logger(__name__)

_CHUNK: Final = 1024
"""So many are sent their desired state before others have their turn: some 30 ms."""
_AHEAD_SECONDS: Final = 60.0
"""How often one client can be the reason of a pass: whoever lies about what it holds could keep the loop at work."""
_LARGE: Final = 4096
"""Characters of a frame that is heard in its turn."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What a person may choose, and the bounds."""

    listen: tuple[Address, ...] = (Address(host="127.0.0.1", port=8440),)
    proxies: Proxies = field(default_factory=Proxies)
    metrics_listen: Address | None = None
    """Where ``/metrics`` is, when not beside the others: there it only is where nobody else can reach it."""
    resync: float = 300.0
    max_handshakes: int = 16_384
    max_pending: int = 2_000


class Gateway:
    """Owns every session of one director. Used on one event loop."""

    def __init__(
        self,
        *,
        identity: envelope.DirectorIdentity,
        store: Store,
        clock: Clock,
        settings: GatewaySettings,
        metrics: Metrics,
        certificate: ServerCertificate | None = None,
        readiness: Callable[[], Awaitable[str]] | None = None,
        on_ahead: Callable[[str, int], None] | None = None,
        random: Random | None = None,
    ) -> None:
        """``readiness`` returns why the director is not ready, or nothing.

        ``on_ahead`` is told a client's name and generation when the client holds something newer than, or other than,
        what was issued: after the store was lost or restored, the loop has to issue a still newer generation.
        ``random`` is for jitter.

        Raises:
            TerminalError: the addresses may not be listened on without TLS.
        """
        if certificate is None:
            check_plain(settings.listen, settings.proxies)
        self._store = store
        self._clock = clock
        self._settings = settings
        self._random = random or Random()
        self._metrics = metrics
        self._certificate = certificate
        self._background = Background()
        self._watch = Background()
        self._audit = Audit(store, clock=clock, background=self._background)
        self._handshakes = Deadlines(clock, float(wire.HANDSHAKE_SECONDS))
        self._stalls = Deadlines(clock, SEND_SECONDS)
        self._closing = Deadlines(clock, CLOSE_SECONDS)
        self._door = Doorkeeper(
            identity=identity,
            channel=certificate.fingerprint if certificate else "",
            store=store,
            clock=clock,
            metrics=metrics,
            audit=self._audit,
            deadlines=self._handshakes,
            max_handshakes=settings.max_handshakes,
            random=self._random,
        )
        self._on_ahead = on_ahead
        self._told_ahead: dict[str, float] = {}
        self._publishing = Publishing(
            store=store, clock=clock, metrics=metrics, background=self._background, on_ahead=self._tell_ahead
        )
        self._hearing = Hearing(
            store=store, clock=clock, metrics=metrics, audit=self._audit, publishing=self._publishing
        )
        alone = all(address.is_local for address in settings.listen) and not settings.proxies
        self.probes = Probes(
            store=store,
            readiness=readiness,
            numbers=self.numbers,
            metrics_beside=settings.metrics_listen is None and alone,
        )
        self._listeners = Listeners(self._serve)
        self._metrics_listeners = Listeners(self.probes.answer_metrics)
        self._reading = asyncio.Lock()
        self._open: dict[str, Session] = {}
        self._waiting: dict[str, Session] = {}
        self._sessions: set[Session] = set()
        self.addresses: tuple[Address, ...] = ()
        """Where it listens, once started."""

    # --- What the loop and the commands say ---------------------------------------------------------------------------

    def audience(self, client: str) -> str | None:
        """Return the approved public key of a client, or None."""
        return self._door.registry.holders.get(client)

    def await_source(self) -> None:
        """Say that nothing was published yet: who stands in Git is not known before ``set_source_clients``."""
        self._door.await_source()

    def set_source_clients(self, keys: Mapping[str, str]) -> None:
        """Approve the keys (by client name) of the published revision; live sessions follow at once."""
        self._door.set_source_clients(keys)
        self._judge_all()

    def registry_changed(
        self, *, approvals: Iterable[Approval], revoked: Iterable[str], pending: Iterable[str] | None = None
    ) -> None:
        """Take over the store's approvals (oldest first), revoked and pending keys; live sessions follow at once."""
        self._door.set_decisions(approvals=approvals, revoked=revoked, pending=pending)
        self._judge_all()

    def unlock(self, address: str) -> bool:
        """Forget the failures of an address (or of its /64); False when there were none."""
        return self._door.unlock(address)

    @property
    def locked(self) -> list[str]:
        """The source addresses that are locked out now."""
        return self._door.locked

    @property
    def connected(self) -> frozenset[str]:
        """The names of the clients with an open session."""
        return frozenset(session.name for session in self._open.values())

    async def publish(self, issued: Iterable[Issued]) -> None:
        """Send connected clients what the store keeps now. Returns before they have it, and waits for no slow one."""
        now = self._clock.monotonic()
        for number, one in enumerate(issued, start=1):
            session = self._open.get(self._door.registry.holders.get(one.client, ""))
            if session is not None:
                await self._publishing.publish(session, one, at=now)
            if number % _CHUNK == 0:
                await asyncio.sleep(0)

    def _judge_all(self) -> None:
        for session in [*self._open.values(), *self._waiting.values()]:
            match self._door.judge(session):
                case Refused() as refused:
                    self._part(session, refused)
                case Accepted(name) if session.state is State.PENDING:
                    del self._waiting[session.public_key]
                    session.name = name
                    self._background.spawn(self._let_in(session))
                case Accepted(name) if name != session.name:
                    self._part(session, refusals.renamed(name))
                case Pending() if session.state is State.OPEN:
                    self._part(session, refusals.withdrawn())
                case _:
                    pass

    def _tell_ahead(self, client: str, generation: int) -> None:
        now = self._clock.monotonic()
        if self._on_ahead is None or now - self._told_ahead.get(client, -_AHEAD_SECONDS) < _AHEAD_SECONDS:
            return
        self._told_ahead[client] = now
        self._on_ahead(client, generation)

    # --- Life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read what the store remembers, and listen.

        Raises:
            TransientError: an address is in use, or the store cannot be read.
        """
        await self._store.disconnect_all()
        await self._door.load()
        tls = self._certificate.context() if self._certificate else None
        self.addresses = tuple(await self._listeners.start(self._settings.listen, tls=tls))
        if self._settings.metrics_listen is not None:
            try:
                await self._metrics_listeners.start([self._settings.metrics_listen], tls=None)
            except DirectorError:
                await self._listeners.close()
                raise
        for deadlines in (self._handshakes, self._stalls, self._closing):
            self._watch.spawn(deadlines.run())
        _log.info("listening for clients", addresses=[str(one) for one in self.addresses], tls=tls is not None)

    async def stop(self) -> None:
        """Take no one in any more, send everybody away at a pace at which they can come back, and finish what runs."""
        self.probes.stopping = True
        self._listeners.refuse_new()
        self._metrics_listeners.refuse_new()
        sessions = [session for session in self._sessions if session.ended is None]
        for session in self._sessions.difference(sessions):
            session.abort()
        await asyncio.gather(*(self._end(session, self._shutting_down(len(sessions))) for session in sessions))
        await self._listeners.close()
        await self._metrics_listeners.close()
        await self._door.close()
        await self._background.finish()
        await self._watch.cancel()

    def _shutting_down(self, count: int) -> Refused:
        return refusals.shutting_down(retry_after=round(self._random.uniform(1.0, 3.0 + count / RETURNS_A_SECOND), 1))

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD"}:
            return probes.text("only GET", status=405)
        if request.path == wire.PATH:
            return await self._connect(request)
        return await self.probes.answer(request)

    def numbers(self) -> bytes:
        """Return the numbers of this process in Prometheus' text format."""
        self._metrics.connections.labels("open").set(len(self._open))
        self._metrics.connections.labels("pending").set(len(self._waiting))
        self._metrics.connections.labels("handshake").set(self._door.handshakes)
        self._metrics.locked.set(len(self._door.locked))
        return metrics_text(self._metrics)

    # --- A session, from its first to its last frame ------------------------------------------------------------------

    async def _connect(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, Connection):
            raise TypeError("the gateway serves its own listeners only")
        websocket = web.WebSocketResponse(
            timeout=CLOSE_SECONDS,
            heartbeat=float(wire.HEARTBEAT_SECONDS),
            compress=False,
            max_msg_size=wire.MAX_CLIENT_FRAME,
        )
        websocket.headers.update(probes.HEADERS)
        session = Session(
            websocket,
            connection,
            source=self._source(request),
            now=self._clock.monotonic(),
            stalls=self._stalls,
            closing=self._closing,
        )
        await websocket.prepare(request)
        session.part = self._part
        self._sessions.add(session)
        try:
            if await self._greet(session):
                await self._converse(session)
        finally:
            self._sessions.discard(session)
        return websocket

    def _source(self, request: web.BaseRequest) -> str:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        address = peer[0] if isinstance(peer, tuple) else UNIX
        return source_of(self._settings.proxies.source(address, request.headers.getall("X-Forwarded-For", [])))

    async def _greet(self, session: Session) -> bool:
        """Return whether the client was let in, to stay or to wait."""
        if self.probes.stopping:
            await self._end(session, self._shutting_down(len(self._sessions)))
            return False
        admission = await self._door.receive(session)
        match admission:
            case None:
                return False
            case Refused():
                await self._end(session, admission)
                return False
            case _:
                pass
        if not self._goes_on(session):
            return False
        session.name = admission.name
        session.proved()
        if isinstance(admission, Pending):
            return await self._let_wait(session)
        self._metrics.handshakes.labels("accepted").inc()
        await self._let_in(session)
        return True

    def _goes_on(self, session: Session) -> bool:
        return session.is_open and not self.probes.stopping

    async def _let_wait(self, session: Session) -> bool:
        if len(self._waiting) >= self._settings.max_pending and session.public_key not in self._waiting:
            self._metrics.handshakes.labels(RefusalCode.BUSY).inc()
            await self._end(session, self._door.busy("too many clients wait for approval", least=300.0))
            return False
        self._metrics.handshakes.labels("pending").inc()
        self._replace(session)
        self._waiting[session.public_key] = session
        session.state = State.PENDING
        return await session.send(
            wire.Pending(
                fingerprint=envelope.fingerprint(session.public_key),
                retry_after=self._door.spread(refusals.SOON),
                message=f"'{session.name}' waits for approval: commit its key, or run `director clients approve`",
            )
        )

    def _let_in(self, session: Session) -> Coroutine[Any, Any, None]:
        """Make the session the one of its key, and return how it is told."""
        self._replace(session)
        self._open[session.public_key] = session
        session.state = State.OPEN
        return self._welcome(session)

    async def _welcome(self, session: Session) -> None:
        """Say that it is accepted once the store has it, and then whatever is newer."""
        try:
            known = await self._store.connected(
                client=session.name, public_key=session.public_key, address=session.source, now=self._clock.now()
            )
        except DirectorError as error:
            await self._end(session, self._store_refuses(session, error))
            return
        accepted = wire.Accepted(
            name=session.name, time=self._clock.now(), resync=self._settings.resync, resend=not known
        )
        if await session.send(accepted):
            self._publishing.welcome(session)

    def _replace(self, session: Session) -> None:
        """End the session that this key has already."""
        former = self._open.get(session.public_key) or self._waiting.get(session.public_key)
        if former is None or former is session:
            return
        if former.source != session.source:
            message = f"'{session.name}' connected from {session.source} while connected from {former.source}"
            self._audit.tell("SessionReplaced", message, about=session.public_key, client=session.name)
        self._part(former, refusals.replaced(retry_after=self._door.spread(refusals.SOON)))

    async def _converse(self, session: Session) -> None:
        """Hear one frame after the other. A large one takes its time, and heartbeats are answered meanwhile."""
        large: asyncio.Task[None] | None = None
        try:
            while (frame := await session.receive_frame()) is not None:
                if large is not None:
                    await large
                    large = None
                if len(frame) > _LARGE:
                    large = asyncio.create_task(self._hear_in_turn(session, frame))
                elif session.is_open:
                    await self._hearing.hear(session, session.read(frame))
        except DirectorError as error:
            await self._refuse(session, error)
        finally:
            if large is not None:
                await large
            await self._left(session)

    async def _hear_in_turn(self, session: Session, frame: str | bytes) -> None:
        """Hear a large frame. One is read at a time, and others have the word in between: to read costs a moment."""
        try:
            async with self._reading:
                message = session.read(frame)
                await asyncio.sleep(0)
            if session.is_open:
                await self._hearing.hear(session, message)
        except DirectorError as error:
            await self._refuse(session, error)

    async def _refuse(self, session: Session, error: DirectorError) -> None:
        if isinstance(error, TrustError):
            await self._end(session, refusals.unreadable(error))
        else:
            await self._end(session, self._store_refuses(session, error))

    async def _left(self, session: Session) -> None:
        self._forget(session)
        self._publishing.forget(session)
        if session.state is not State.OPEN or session.public_key in self._open:
            return
        try:
            await self._store.disconnected(client=session.name, public_key=session.public_key, now=self._clock.now())
        except DirectorError as error:
            _log.warning("cannot keep that a client went", client=session.name, error=str(error))

    def _store_refuses(self, session: Session, error: DirectorError) -> Refused:
        _log.warning("the store refuses", client=session.name, error=str(error))
        return self._door.busy("the director cannot keep anything at the moment", least=15.0)

    def _part(self, session: Session, refused: Refused) -> None:
        """End a session from outside of its own task. From this moment it is nobody's."""
        self._forget(session)
        self._background.spawn(self._end(session, refused))

    async def _end(self, session: Session, refused: Refused) -> None:
        if await session.end(refused):
            self._metrics.ended.labels(refused.code).inc()

    def _forget(self, session: Session) -> None:
        for table in (self._open, self._waiting):
            if table.get(session.public_key) is session:
                del table[session.public_key]
