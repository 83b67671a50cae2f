"""Who is let in: the handshake on a new connection, and what the director knows about keys, tokens and failures.

``reconciler.gateway`` hands over each new session and asks again about live ones whenever approvals change. The
decisions are pure (``core.enrolment``, ``core.lockout``); here they get frames, signatures, the store and the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, TypedDict

import structlog

from reconciler.core import enrolment, lockout, refusals
from reconciler.core.enrolment import Accepted, Approval, Pending, Registry, TokenState
from reconciler.core.refusals import Refused
from schema import envelope, wire
from schema.addresses import source_of
from schema.errors import DirectorError, TrustError
from schema.wire import RefusalCode, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from random import Random

    from reconciler.audit import Audit
    from reconciler.clock import Clock
    from reconciler.core.lockout import LockoutRow
    from reconciler.deadlines import Deadlines
    from reconciler.metrics import Metrics
    from reconciler.session import Session

_log = structlog.get_logger(__name__)

RETURNS_A_SECOND: Final = 500
"""So many clients come back in a second when they are sent away together."""
_STORE_REFUSES: Final = "the director cannot keep anything at the moment"


class Keyed(Protocol):
    """Whatever names a public key."""

    @property
    def public_key(self) -> str: ...


class Remembered(Protocol):
    """What the store remembers over a restart."""

    async def approvals(self) -> Sequence[Approval]: ...
    async def revocations(self) -> Sequence[Keyed]: ...
    async def pending(self) -> Sequence[Keyed]: ...
    async def lockouts(self) -> Sequence[LockoutRow]: ...


class Strangers(Protocol):
    """What the store keeps of those who are not approved."""

    async def consume_token(self, token_hash: str, public_key: str, now: datetime) -> bool:
        """Use a token up by one, and say whether it was good."""

    async def enrol(
        self,
        token_hash: str,
        *,
        public_key: str,
        name: str,
        address: str,
        config_directory: str,
        state_directory: str,
        now: datetime,
    ) -> bool:
        """Use a token up by one and keep the key that waits, both or neither; say whether the token was good."""

    async def upsert_pending(
        self, *, public_key: str, name: str, address: str, config_directory: str, state_directory: str, now: datetime
    ) -> None:
        """Keep a key that waits for approval."""

    async def save_lockouts(self, rows: Collection[LockoutRow], *, removed: Collection[str] = ()) -> None:
        """Keep the rows, and forget the removed addresses."""


class Trust(Remembered, Strangers, Protocol):
    """All of the store that the door needs."""


class _Waiting(TypedDict):
    """What is kept of a key that waits for approval."""

    public_key: str
    name: str
    address: str
    config_directory: str
    state_directory: str
    now: datetime


class Doorkeeper:
    """Lets sessions in, or not. Used on one event loop."""

    def __init__(
        self,
        *,
        identity: envelope.DirectorIdentity,
        channel: str,
        store: Trust,
        clock: Clock,
        metrics: Metrics,
        audit: Audit,
        deadlines: Deadlines,
        max_handshakes: int,
        random: Random,
    ) -> None:
        self._identity = identity
        self._channel = channel
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._audit = audit
        self._deadlines = deadlines
        self._max = max_handshakes
        self._random = random
        self._committed: dict[str, str] = {}
        self._commanded: tuple[Approval, ...] = ()
        self._revoked: frozenset[str] = frozenset()
        self._awaits_source = False
        self._pending: set[str] = set()
        # Keys that showed a good token, but asked for a taken name: each has cost a use of a token, so they are few.
        self._shown: set[str] = set()
        self._lockouts = lockout.Lockouts()
        self._unsaved: dict[str, None] = {}
        self._saving: asyncio.Task[None] | None = None
        self._per_source: dict[str, int] = {}
        self.handshakes = 0
        self.registry = Registry.build()

    # --- What is known ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything from the store, at the start."""
        self._lockouts.load(await self._store.lockouts(), at=self._clock.monotonic(), wall=self._clock.now())
        self.set_decisions(
            approvals=await self._store.approvals(),
            revoked=[one.public_key for one in await self._store.revocations()],
            pending=[one.public_key for one in await self._store.pending()],
        )

    def set_decisions(
        self, *, approvals: Iterable[Approval], revoked: Iterable[str], pending: Iterable[str] | None = None
    ) -> None:
        """Take over approvals by command, oldest first, revoked keys, and those that wait."""
        self._commanded = tuple(approvals)
        self._revoked = frozenset(revoked)
        self._pending = self._pending if pending is None else set(pending)
        self._rebuild()

    def await_source(self) -> None:
        """Until it is known who stands in Git, a key that nobody knows is asked to come back, and not sent away."""
        self._awaits_source = True

    def set_source_clients(self, keys: Mapping[str, str]) -> None:
        """Take over the keys (by client name) of the published revision."""
        self._awaits_source = False
        self._committed = dict(keys)
        self._rebuild()

    def _rebuild(self) -> None:
        self.registry = Registry.build(committed=self._committed, commanded=self._commanded, revoked=self._revoked)
        self._pending.difference_update(self.registry.approvals, self.registry.revoked)
        for approval in self.registry.conflicting:
            message = f"an approval of '{approval.name}' has no effect: the name or the key is taken"
            self._audit.tell("KeyConflict", message, about=approval.public_key, client=approval.name)

    def judge(self, session: Session) -> enrolment.Admission:
        """Decide again about a session whose key was proved and let in before."""
        key = session.public_key
        waits = session.state is State.OPEN or key in self._pending
        return enrolment.admit(self.registry, public_key=key, name=session.name, pending=waits, token=TokenState.ABSENT)

    @property
    def locked(self) -> list[str]:
        """The sources that are locked out now."""
        return self._lockouts.locked(at=self._clock.monotonic())

    def unlock(self, address: str) -> bool:
        """Forget the failures of an address (or of its /64); False when there were none."""
        known = [name for name in {address, source_of(address)} if self._lockouts.unlock(name)]
        self._keep(*known)
        return bool(known)

    # --- The handshake ------------------------------------------------------------------------------------------------

    async def receive(self, session: Session) -> Accepted | Pending | Refused | None:
        """Carry out the handshake. None when the client went, or was sent away while we waited for it."""
        self.handshakes += 1
        self._per_source[session.source] = self._per_source.get(session.source, 0) + 1
        deadline = self._deadlines.add(session.expire)
        try:
            admission = self._refused_at_the_door(session) or await self._converse(session)
        except TrustError as error:
            admission = refusals.unreadable(error)
        except DirectorError as error:
            _log.warning("the store refuses", error=str(error))
            admission = self.busy(_STORE_REFUSES)
        finally:
            deadline.met()
            self._left(session.source)
        if isinstance(admission, Refused):
            self._metrics.handshakes.labels(admission.code).inc()
        if session.ended is RefusalCode.TOO_LARGE or (isinstance(admission, Refused) and admission.failed):
            self._failed(session.source)
        return admission

    def _left(self, source: str) -> None:
        self.handshakes -= 1
        rest = self._per_source.pop(source) - 1
        if rest:
            self._per_source[source] = rest

    def _refused_at_the_door(self, session: Session) -> Refused | None:
        if self.handshakes > self._max:
            return self.busy("too many clients connect at the same time")
        if self._per_source[session.source] > max(1, self._max // 2):
            return self.busy("too many clients connect from the same address at the same time")
        return None

    async def _converse(self, session: Session) -> enrolment.Admission | None:
        hello = await session.receive()
        if not isinstance(hello, wire.Hello):
            return None
        at = self._clock.monotonic()
        locked = self._lockouts.remaining(session.source, at=at)
        version = enrolment.greet(self.registry, hello, locked=locked)
        if isinstance(version, Refused):
            return version
        if locked and not self._lockouts.spare(session.source, at=at):
            return self.busy("too many attempts from this address")
        key = envelope.parse_client_key(hello.key)
        nonce = envelope.random_nonce()
        said = envelope.transcript(
            offered=hello.versions,
            chosen=version,
            name=hello.name,
            client_key=hello.key,
            director_key=self._identity.public.text,
            client_nonce=envelope.decode_bytes(hello.nonce, what="nonce"),
            director_nonce=nonce,
            channel=self._channel,
        )
        signature = self._identity.sign(purpose=envelope.CHALLENGE_PURPOSE, data=said)
        challenge = wire.Challenge(
            version=version,
            nonce=envelope.encode_bytes(nonce),
            key=self._identity.public.text,
            signature=envelope.encode_bytes(signature),
        )
        await session.send(challenge)
        session.state = State.CHALLENGED
        proof = await session.receive()
        if not isinstance(proof, wire.Proof):
            return None
        try:
            signature = envelope.decode_bytes(proof.signature, what="signature")
            key.verify_key.verify(signature, purpose=envelope.PROOF_PURPOSE, data=said)
        except TrustError:
            return refusals.bad_signature()
        session.public_key = key.text
        return await self._admit(session, hello, token=proof.token)

    async def _admit(self, session: Session, hello: wire.Hello, *, token: str | None) -> enrolment.Admission:
        """Decide about a client whose key is proved."""
        key = session.public_key
        waiting = _Waiting(
            public_key=key,
            name=hello.name,
            address=session.source,
            config_directory=hello.config_directory or "",
            state_directory=hello.state_directory or "",
            now=self._clock.now(),
        )
        state, is_kept = TokenState.ABSENT, False
        if token is not None and enrolment.needs_token(self.registry, key, pending=self._is_known(key)):
            digest = envelope.hash_token(token)
            if isinstance(self._decide(key, hello.name, TokenState.GOOD), Pending):
                good = is_kept = await self._store.enrol(digest, **waiting)
            else:
                good = await self._store.consume_token(digest, key, waiting["now"])
            state = TokenState.GOOD if good else TokenState.BAD
            if good:
                self._shown.add(key)
        admission = self._decide(key, hello.name, state)
        if isinstance(admission, Pending):
            self._pending.add(key)
            self._shown.discard(key)
            if not is_kept:
                await self._store.upsert_pending(**waiting)
            if state is TokenState.GOOD:
                message = f"'{hello.name}' asks to be let in with the key {envelope.fingerprint(key)}"
                self._audit.tell("ClientPending", message, about=key, client=hello.name)
            # The store took a moment, in which a person may have approved or revoked this key.
            admission = self._decide(key, hello.name, state)
        if isinstance(admission, Refused) and admission.code is RefusalCode.KEY_CONFLICT:
            self._audit.tell("KeyConflict", f"another key asks to be '{hello.name}'", about=key, client=hello.name)
        return admission

    def _decide(self, key: str, name: str, token: TokenState) -> enrolment.Admission:
        known = self._is_known(key)
        admission = enrolment.admit(self.registry, public_key=key, name=name, pending=known, token=token)
        if self._awaits_source and isinstance(admission, Refused) and admission.code is RefusalCode.TOKEN_REQUIRED:
            return self.busy("the director has not read its source yet, and cannot know this key", least=5.0)
        return admission

    def _is_known(self, key: str) -> bool:
        return key in self._pending or key in self._shown

    # --- Failures -----------------------------------------------------------------------------------------------------

    def _failed(self, source: str) -> None:
        """Count a failed attempt."""
        name, locked = self._lockouts.failed(source, at=self._clock.monotonic())
        self._keep(name)
        if locked:
            self._metrics.lockouts.inc()
            _log.warning("address locked out", address=name, seconds=lockout.DURATION)
            message = f"{name} failed {lockout.ATTEMPTS} times and is locked out for an hour"
            self._audit.tell("LockedOut", message, about=name)

    def _keep(self, *names: str) -> None:
        self._unsaved.update(dict.fromkeys(names))
        if names and (self._saving is None or self._saving.done()):
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def _save(self) -> None:
        """Keep what changed; what changes meanwhile goes with the next write, so that a flood costs few writes."""
        while self._unsaved:
            names, self._unsaved = self._unsaved, {}
            rows = self._lockouts.rows(names, at=self._clock.monotonic(), wall=self._clock.now())
            kept = {row.address for row in rows}
            try:
                await self._store.save_lockouts(rows, removed=[name for name in names if name not in kept])
            except DirectorError as error:
                _log.warning("cannot keep the lockouts", error=str(error))
                return

    async def close(self) -> None:
        """Finish what is being saved."""
        if self._saving is not None:
            await self._saving

    # --- Come back later ----------------------------------------------------------------------------------------------

    def busy(self, message: str, *, least: float = 2.0) -> Refused:
        """Return a refusal for now, spread so that the clients do not come back together."""
        return refusals.busy(message, retry_after=self.spread(max(least, self.handshakes / RETURNS_A_SECOND)))

    def spread(self, seconds: float) -> float:
        """Return a time between ``seconds`` and twice that."""
        return round(self._random.uniform(seconds, 2 * seconds), 1)
