"""Which desired state this machine follows: offered by the connection, verified, applied, and kept. Used by ``agent``.

An envelope is verified the moment it comes, and only then takes the place of one that still waits: nothing unverified
can push aside what is good. What is refused changes nothing: the former state goes on, and the refusal is reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from client.clock import Clock, woken
from client.log import get_logger
from client.state import Enrolment, StateDirectory
from client.trust import TrustedState, Verified, is_stale, open_verified
from schema.desired import DesiredState
from schema.errors import DirectorError, TransientError, TrustError
from schema.observed import Refusal
from schema.wire import Pull

RETRY_SECONDS = 60.0
"""Until a state that only a full disk or alike kept from being applied is tried again."""

log = get_logger()


class Applies(Protocol):
    """Puts a desired state into place (``client.apply.Applier``)."""

    async def apply(self, state: DesiredState, *, persist: Callable[[], None]) -> None:
        """Make the machine look like ``state``, or raise with nothing changed. ``persist`` notes its acceptance."""

    def check(self, state: DesiredState) -> object:
        """Raise when this machine's own policy forbids ``state``."""

    def recover(self) -> bool:
        """Finish what a crash interrupted."""


class Follower:
    """Holds the current desired state."""

    def __init__(
        self,
        *,
        directory: StateDirectory,
        own_key: str,
        enrolment: Enrolment | None,
        applier: Applies,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._own_key = own_key
        self._enrolment = enrolment
        self._applier = applier
        self._clock = clock
        self._changed: Callable[[str], None] = lambda _: None
        self.quiet = asyncio.Lock()
        """Held while files change; who compares them with what they should be holds it, too."""
        self._offer: Verified | None = None
        self._offered = asyncio.Event()
        self._trusted: TrustedState | None = None
        self._current: Verified | None = None
        self._applied = ""
        self.refusal: Refusal | None = None

    @property
    def current(self) -> DesiredState | None:
        """The state that this machine follows."""
        return self._current.state if self._current else None

    @property
    def is_stale(self) -> bool:
        """Whether nobody has confirmed the current state for too long."""
        return self._current is not None and is_stale(self._current.state, self._clock.now())

    def on_change(self, changed: Callable[[str], None]) -> None:
        """Call ``changed`` with a sentence when the state is a new one, with none when a refusal is."""
        self._changed = changed

    def recover(self) -> None:
        """Finish a change that a crash interrupted. Only the agent may, for it holds the lock."""
        try:
            self._applier.recover()
        except DirectorError as error:
            self._refuse(error)

    def load(self) -> None:
        """Take up where the former process ended: the last good state, verified again."""
        if self._enrolment is None:
            return
        key = self._enrolment.key
        self._trusted = TrustedState(key, self._own_key, self._directory.high_water(key.text))
        envelope = self._directory.current()
        if envelope is None:
            return
        try:
            verified = self._verify_own(envelope)
            self._applier.check(verified.state)
        except DirectorError as error:
            self._refuse(error)
            return
        self._current = verified
        self._applied = self._directory.applied()
        if self._applied != verified.payload:
            self._offer = verified
            self._offered.set()

    def _verify_own(self, envelope: bytes) -> Verified:
        """Verify the envelope on our disk, by the key of today or by that of the enrolment before."""
        assert self._enrolment is not None  # noqa: S101 - for the type checker; load() has looked
        failure: TrustError | None = None
        for key in self._enrolment.known_keys:
            try:
                verified = open_verified(envelope, director=key, own_key=self._own_key)
            except TrustError as error:
                failure = failure or error
                continue
            trusted = self._trusted
            mark = trusted.high_water if trusted else None
            if trusted and key == trusted.director and (mark is None or mark.generation < verified.state.generation):
                self._trusted = trusted.advanced(verified)
            return verified
        raise failure or TrustError("the desired state on disk is not signed by our director", code="bad-signature")

    def held(self) -> Pull:
        """Return what to ask for. Without a digest, the newest one that we saw is sent to us again."""
        mark = self._trusted.high_water if self._trusted else None
        if mark is None:
            return Pull()
        current = self._current
        has_newest = current is not None and current.payload == mark.payload == self._applied
        return Pull(generation=mark.generation, digest=current.state.digest if current and has_newest else None)

    def offer(self, envelope: bytes, *, name: str | None) -> None:
        """Take an envelope that came in; ``TrustError`` when it is not to be believed."""
        if self._trusted is None:
            raise TrustError("this client follows nobody", code="not-enrolled")
        try:
            verified = self._trusted.accept(envelope, now=self._clock.now(), name=name)
        except TrustError as error:
            self._refuse(error)
            raise
        self._trusted = self._trusted.advanced(verified)
        if self._current is not None and verified.payload == self._current.payload == self._applied:
            self._settle()
            return
        if self._offer is not None and self._offer.payload == verified.payload:
            return  # it is being applied: a push and the answer to a question may cross
        self._offer = verified
        self._offered.set()

    async def run(self) -> None:
        """Apply what was offered, the newest only, for ever."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            while (verified := self._offer) is not None and not await self._follow(verified):
                await woken(self._clock, self._offered, RETRY_SECONDS)

    async def _follow(self, verified: Verified) -> bool:
        """Apply one state; False when it is worth another try later."""
        try:
            async with self.quiet:
                await self._applier.apply(verified.state, persist=lambda: self._persist(verified))
                self._directory.save_applied(verified.payload)
        except DirectorError as error:
            self._refuse(error, verified.state)
            if isinstance(error, TransientError):
                return False
            self._done(verified)
            self._remember()
            return True
        self._current = verified
        self._applied = verified.payload
        self._done(verified)
        self.refusal = None
        log.info("following", revision=verified.state.revision[:12], generation=verified.state.generation)
        self._changed(f"following revision {verified.state.revision[:12]} (generation {verified.state.generation})")
        return True

    def _done(self, verified: Verified) -> None:
        if self._offer is verified:
            self._offer = None

    def _persist(self, verified: Verified) -> None:
        """Called by ``apply`` when everything is on disk and nothing is in place yet."""
        self._save_mark()
        self._directory.save_current(verified.envelope)

    def _save_mark(self) -> None:
        mark = self._trusted.high_water if self._trusted else None
        if mark is not None:
            self._directory.save_high_water(mark)

    def _remember(self) -> None:
        """Keep the mark of a state that is not followed: an older one must not come after it."""
        try:
            self._save_mark()
        except TransientError as error:
            log.warning("cannot keep the high-water mark", reason=error.message)

    def _refuse(self, error: DirectorError, state: DesiredState | None = None) -> None:
        code = getattr(error, "code", "") or type(error).__name__
        refusal = Refusal(
            code=code,
            message=error.message[:8_000],
            hint=error.hint[:8_000],
            generation=state.generation if state else 0,
            revision=state.revision if state else "",
        )
        if refusal != self.refusal:
            log.warning("a desired state is not followed", reason=error.message, hint=error.hint, code=code)
            self.refusal = refusal
            self._changed("")

    def _settle(self) -> None:
        """What we follow was confirmed as the newest: former refusals are history."""
        self._offer = None
        if self.refusal is not None:
            self.refusal = None
            self._changed("")
