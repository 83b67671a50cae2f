"""The session with the director: opened for ever again, and carrying frames in both directions while it lasts.

The order of messages is ``schema.wire``'s tables; ``open_session`` is the handshake, ``Connection.run`` the loop
around it. Nothing is revealed, and the token least of all, before the director has proved the pinned key. No message
of the director is waited for in a receiving loop: a ``Listener`` returns at once and works elsewhere, so that
heartbeats are always answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from client.clock import Clock, within
from client.dial import Dial, Socket
from client.log import get_logger
from schema.envelope import (
    CHALLENGE_PURPOSE,
    PROOF_PURPOSE,
    ClientIdentity,
    VerifyKey,
    decode_bytes,
    encode_bytes,
    parse_director_key,
    random_nonce,
    transcript,
)
from schema.errors import DirectorError, TransientError, TrustError
from schema.observed import RunProgress
from schema.wire import (
    HANDSHAKE_SECONDS,
    SUPPORTED_VERSIONS,
    Accepted,
    Acknowledged,
    Challenge,
    Current,
    Desired,
    FromDirector,
    Hello,
    Pending,
    Progress,
    Proof,
    Pull,
    RefusalCode,
    Refused,
    Reports,
    State,
    decode_from_director,
    encode,
)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
SLOW_DELAYS = (150.0, 300.0)
"""Between attempts that only a person can make succeed."""
LASTING_SESSION = 60.0
"""A session this long was a good one: the delays start anew."""
DELAYS_AFTER_LOSS = 4
"""After a good session the first delay is drawn from 16 s: ten thousand clients come back at a pace that a director can
bear with TLS too, and most of them find it there at once although it was away for some seconds."""
MAX_RETRY_AFTER = 86_400.0
MAX_UNPROVED_RETRY_AFTER = 3_600.0
"""What somebody may ask of us who has not proved to be the director."""
_PERSON_NEEDED = frozenset(
    {
        RefusalCode.VERSION,
        RefusalCode.BAD_KEY,
        RefusalCode.BAD_SIGNATURE,
        RefusalCode.TOKEN_REQUIRED,
        RefusalCode.TOKEN_INVALID,
        RefusalCode.KEY_CONFLICT,
        RefusalCode.REVOKED,
        "bad-certificate",
        "wrong-director",
    }
)

log = get_logger()


class Ended(DirectorError):
    """A session is over, or did not come about. ``code`` is a ``RefusalCode`` or alike; empty for a broken line."""

    def __init__(self, message: str, *, code: str = "", hint: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are, and whom we accept as our director. ``token`` only on first contact."""

    identity: ClientIdentity
    name: str
    director: VerifyKey
    token: str | None = field(default=None, repr=False)
    client_version: str = ""
    config_directory: str | None = None
    state_directory: str | None = None
    behind_proxy: bool = False


class Listener(Protocol):
    """Who hears what the director says. ``desired`` and ``acknowledged`` return at once."""

    def held(self) -> Pull:
        """Return what to ask for: anything newer than what we hold."""

    async def opened(self, accepted: Accepted) -> None:
        """A session is open."""

    def desired(self, envelope: bytes) -> None:
        """A desired state came, unverified."""

    def acknowledged(self, message: Acknowledged) -> None:
        """The director has stored reports; ``TrustError`` when it cannot have."""

    def changed(self, status: Status) -> None:
        """The connection's status is another one."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where the connection stands, for people."""

    phase: str
    """``connecting``, ``pending``, ``connected`` or ``waiting``."""
    reason: str = ""
    hint: str = ""
    code: str = ""


def bounded(value: float, lowest: float, highest: float) -> float:
    """Return a number that a peer named within bounds; what is not a number is the lowest."""
    return max(lowest, min(value, highest))


# --- The handshake --------------------------------------------------------------------------------------------------


async def open_session(socket: Socket, credentials: Credentials) -> Accepted | Pending:
    """Prove each other's keys; ``Ended`` when the director refuses, ``TrustError`` when it is not the pinned one."""
    nonce = random_nonce()
    hello = Hello(
        versions=SUPPORTED_VERSIONS,
        name=credentials.name,
        key=credentials.identity.public.text,
        nonce=encode_bytes(nonce),
        client_version=credentials.client_version,
        config_directory=credentials.config_directory,
        state_directory=credentials.state_directory,
    )
    await socket.send(encode(hello))
    challenge = await _receive(socket, State.START)
    if not isinstance(challenge, Challenge):
        raise _refused(challenge, proved=False)
    signed = _check_challenge(challenge, hello=hello, nonce=nonce, channel=socket.channel, credentials=credentials)
    signature = encode_bytes(credentials.identity.sign(purpose=PROOF_PURPOSE, data=signed))
    await socket.send(encode(Proof(signature=signature, token=credentials.token)))
    answer = await _receive(socket, State.CHALLENGED)
    if isinstance(answer, (Accepted, Pending)):
        return answer
    raise _refused(answer, proved=True)


def _check_challenge(
    challenge: Challenge, *, hello: Hello, nonce: bytes, channel: str, credentials: Credentials
) -> bytes:
    """Return the transcript to sign when the challenge comes from the pinned director, over this very connection."""
    pinned = credentials.director
    if challenge.key != pinned.text:
        parse_director_key(challenge.key)
        raise TrustError(
            "the director has another key than the pinned one",
            code="wrong-director",
            hint="somebody may be in the middle; when the key was replaced on purpose, enroll again with a new string",
        )
    if challenge.version not in hello.versions:
        raise TrustError(
            f"the director chose protocol version {challenge.version}, which was not offered", code=RefusalCode.VERSION
        )

    def said(channel: str) -> bytes:
        return transcript(
            offered=hello.versions,
            chosen=challenge.version,
            name=hello.name,
            client_key=hello.key,
            director_key=pinned.text,
            client_nonce=nonce,
            director_nonce=decode_bytes(challenge.nonce, what="nonce"),
            channel=channel,
        )

    signature = decode_bytes(challenge.signature, what="signature")
    signed = said("" if credentials.behind_proxy else channel)
    try:
        pinned.verify(signature, purpose=CHALLENGE_PURPOSE, data=signed)
    except TrustError:
        hint = "somebody may be in the middle"
        with contextlib.suppress(TrustError):
            pinned.verify(signature, purpose=CHALLENGE_PURPOSE, data=said(""))
            hint = "a proxy ends TLS in front of the director: if that is meant, set behind_proxy = true in client.toml"
        raise TrustError(
            "the director's signature is not right for this connection", code="wrong-director", hint=hint
        ) from None
    return signed


async def _receive(socket: Socket, state: State) -> FromDirector:
    frame = await socket.receive()
    if frame is None:
        raise Ended("the director closed the connection")
    return decode_from_director(frame, state=state)


def _refused(message: FromDirector, *, proved: bool) -> Ended:
    if not isinstance(message, Refused):
        return Ended(f"the director sent an unexpected '{message.type}'", code=RefusalCode.MALFORMED)
    limit = MAX_RETRY_AFTER if proved else MAX_UNPROVED_RETRY_AFTER
    retry_after = bounded(message.retry_after or 0.0, 0.0, limit)
    return Ended(
        f"the director refused: {message.message}", code=message.code, hint=message.hint, retry_after=retry_after
    )


# --- The loop -------------------------------------------------------------------------------------------------------


class Backoff:
    """Delays between attempts: exponential, with full jitter, so that no two clients keep step."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0

    def succeeded(self) -> None:
        """A session lasted."""
        self._failures = DELAYS_AFTER_LOSS

    def delay(self, *, retry_after: float = 0.0, person_needed: bool = False) -> float:
        """Return seconds until the next attempt, never less than ``retry_after``."""
        if person_needed:
            return retry_after + self._random.uniform(*SLOW_DELAYS)
        window = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._failures, 16))
        self._failures += 1
        return retry_after + self._random.uniform(0.0, window)


class Connection:
    """Keeps a session open. ``run`` never returns; ``send_reports`` and ``send_progress`` work while one is."""

    def __init__(
        self, *, dial: Dial, credentials: Credentials, listener: Listener, clock: Clock, random: Random
    ) -> None:
        self._dial = dial
        self._credentials = credentials
        self._listener = listener
        self._clock = clock
        self._random = random
        self._backoff = Backoff(random)
        self._socket: Socket | None = None
        self._progress: dict[str, RunProgress] = {}
        self._progress_waits = asyncio.Event()
        self._drop: asyncio.Future[None] | None = None
        self._dropped_for = ""
        self.status = Status("connecting")
        self.is_busy = False
        """Whether a session is open or being opened, and not waited for."""

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._socket is not None

    async def run(self) -> None:
        """Connect for ever."""
        while True:
            started = self._clock.monotonic()
            self.is_busy = True
            ended = await self._attempt()
            self.is_busy = False
            if self._clock.monotonic() - started >= LASTING_SESSION:
                self._backoff.succeeded()
            delay = self._backoff.delay(retry_after=ended.retry_after, person_needed=ended.code in _PERSON_NEEDED)
            self._change(Status("waiting", ended.message, ended.hint, ended.code))
            await self._clock.sleep(delay)

    async def send_reports(self, reports: Reports) -> None:
        """Send numbered reports; ``TransientError`` when no session is open."""
        if self._socket is None:
            raise TransientError("the director is not connected")
        await self._socket.send(encode(reports))

    def send_progress(self, progress: RunProgress) -> None:
        """Send where a run stands, if there is a session. An unsent one is replaced by the next of its run."""
        if self._socket is not None:
            self._progress[progress.run] = progress
            self._progress_waits.set()

    def drop(self, reason: str) -> None:
        """End the session, if one is open, and come back."""
        self._dropped_for = reason
        if self._drop is not None and not self._drop.done():
            self._drop.set_result(None)

    def _change(self, status: Status) -> None:
        """Log each reason once, not each attempt."""
        if status.phase == "connecting" or status == self.status:
            return
        self.status = status
        write = log.error if status.code in _PERSON_NEEDED else log.warning if status.reason else log.info
        write(
            f"director {status.phase}",
            **{key: value for key in ("reason", "hint", "code") if (value := getattr(status, key))},
        )
        self._listener.changed(status)

    async def _attempt(self) -> Ended:
        """Dial, prove, and carry frames until it ends; return why it ended."""
        dialled: list[Socket] = []

        async def dial() -> None:
            dialled.append(await self._dial())

        try:
            await within(self._clock, 2 * HANDSHAKE_SECONDS, dial())
            (socket,) = dialled
            answer = await within(self._clock, HANDSHAKE_SECONDS, open_session(socket, self._credentials))
            if isinstance(answer, Pending):
                answer = await self._approval(socket, answer)
            await self._carry(socket, answer)
        except TimeoutError:
            return Ended("the director did not answer in time", code=RefusalCode.TIMEOUT)
        except DirectorError as error:
            return _as_ended(error)
        finally:
            self._socket = None
            self._progress.clear()
            for one in dialled:
                with contextlib.suppress(TimeoutError):
                    await within(self._clock, HANDSHAKE_SECONDS, one.close())
        return Ended("the connection ended")

    async def _approval(self, socket: Socket, pending: Pending) -> Accepted:
        """Wait, as long as the director keeps the session, for a person to approve our key."""
        hint = f"approve {pending.fingerprint} at the director (director clients pending)"
        self._change(Status("pending", pending.message or "a person has to approve this client's key", hint))
        frame = await socket.receive()
        retry_after = bounded(pending.retry_after, 0.0, LONGEST_DELAY)
        if frame is None:
            raise Ended("this client's key is not approved yet", code="pending", hint=hint, retry_after=retry_after)
        answer = decode_from_director(frame, state=State.PENDING)
        if isinstance(answer, Accepted):
            return answer
        raise _refused(answer, proved=True)

    async def _carry(self, socket: Socket, accepted: Accepted) -> None:
        """Until the first of them ends: receive, ask again now and then, and send progress."""
        self._drop = asyncio.get_running_loop().create_future()
        self._socket = socket
        self._change(Status("connected"))
        await self._listener.opened(accepted)
        resync = bounded(accepted.resync, 10.0, MAX_RETRY_AFTER)
        await _until_first(
            self._hear(socket), self._ask(socket, resync), self._pump(socket), self._wait_for_drop(self._drop)
        )

    async def _hear(self, socket: Socket) -> None:
        while True:
            message = await _receive(socket, State.OPEN)
            match message:
                case Desired():
                    self._listener.desired(message.envelope.encode())
                case Acknowledged():
                    self._listener.acknowledged(message)
                case Current():
                    pass
                case _:
                    raise _refused(message, proved=True)

    async def _ask(self, socket: Socket, resync: float) -> None:
        while True:
            await socket.send(encode(self._listener.held()))
            await self._clock.sleep(resync * self._random.uniform(0.5, 1.5))

    async def _pump(self, socket: Socket) -> None:
        while True:
            await self._progress_waits.wait()
            self._progress_waits.clear()
            waiting, self._progress = self._progress, {}
            for progress in waiting.values():
                await socket.send(encode(Progress(progress=progress)))

    async def _wait_for_drop(self, drop: asyncio.Future[None]) -> None:
        await drop
        raise Ended(self._dropped_for)


def _as_ended(error: DirectorError) -> Ended:
    if isinstance(error, Ended):
        return error
    return Ended(error.message, code=getattr(error, "code", ""), hint=error.hint)


async def _until_first(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, cancel the others, and raise what the first raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:  # in their order: of several that end in one instant it is always the same that counts
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
