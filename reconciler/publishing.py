"""How an open session is sent what is newest: unasked after a publication, and when it pulls.

Used by ``reconciler.gateway``. Whoever can take a new desired state at once is sent it while it is at hand. For whom
that must wait, it is read when that client can take it: only the newest ever is sent, nothing is kept in memory for
slow clients, and nobody waits for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from reconciler.issued import IssuedReader
from schema import wire
from schema.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.background import Background
    from reconciler.clock import Clock
    from reconciler.core.issue import Issued
    from reconciler.issued import IssuedStates
    from reconciler.metrics import Metrics
    from reconciler.session import Session

_log = structlog.get_logger(__name__)


class Publishing:
    """Sends desired states to the sessions of one gateway."""

    def __init__(
        self,
        *,
        store: IssuedStates,
        clock: Clock,
        metrics: Metrics,
        background: Background,
        on_ahead: Callable[[str, int], None] | None,
    ) -> None:
        """``on_ahead`` is told a client's name and generation that holds something newer or other than ours."""
        self._issued = IssuedReader(store)
        self._clock = clock
        self._metrics = metrics
        self._background = background
        self._on_ahead = on_ahead
        self._published: dict[str, float] = {}

    async def publish(self, session: Session, issued: Issued, *, at: float) -> None:
        """This was published for the session at ``at`` (monotonic). Waits for nobody."""
        self._published.setdefault(session.name, at)
        if session.welcomed and not session.delivering and session.takes(len(issued.envelope)):
            await self._offer(session, issued)
        else:
            self._wake(session)

    def welcome(self, session: Session) -> None:
        """From now on it may be sent things: whatever was published while it came in."""
        session.welcomed = True
        if session.newer:
            self._wake(session)

    def forget(self, session: Session) -> None:
        """It is over."""
        self._published.pop(session.name, None)

    async def answer(self, session: Session, pull: wire.Pull) -> None:
        """Send the desired state when the client has not got it, otherwise say so."""
        issued = await self._issued.get(session.name)
        if issued is None or issued.audience != session.public_key:
            await session.send(wire.Current())
        elif issued.generation < session.sent:
            # What was read is overtaken: a newer one was published and sent meanwhile.
            await session.send(wire.Current(generation=session.sent))
        elif issued.generation > pull.generation or (issued.generation == pull.generation and pull.digest is None):
            session.sent = issued.generation
            await self._send(session, issued.envelope)
        else:
            session.sent = max(session.sent, issued.generation)
            ahead = pull.generation > issued.generation or pull.digest != issued.digest
            if ahead and self._on_ahead is not None:
                self._on_ahead(session.name, pull.generation)
            await session.send(wire.Current(generation=issued.generation))

    def _wake(self, session: Session) -> None:
        """See to it that the session is sent what is newest, unless somebody does already."""
        session.newer = True
        if session.welcomed and not session.delivering:
            session.delivering = True
            self._background.spawn(self._deliver(session))

    async def _deliver(self, session: Session) -> None:
        try:
            while session.newer and session.is_open:
                session.newer = False
                issued = await self._issued.get(session.name)
                if issued is not None:
                    await self._offer(session, issued)
        except DirectorError as error:
            # Not lost: the client asks again on its own timer.
            _log.warning("cannot read what was issued", client=session.name, error=str(error))
        finally:
            session.delivering = False
            self._published.pop(session.name, None)

    async def _offer(self, session: Session, issued: Issued) -> None:
        """Send it, if it is this session's and newer than what it was sent."""
        if issued.audience == session.public_key and issued.generation > session.sent:
            session.sent = issued.generation
            await self._send(session, issued.envelope)
        self._published.pop(session.name, None)

    async def _send(self, session: Session, sealed: bytes) -> None:
        if await session.send(wire.Desired(envelope=sealed.decode())):
            self._metrics.sent.inc()
            if (since := self._published.pop(session.name, None)) is not None:
                self._metrics.publish.observe(self._clock.monotonic() - since)
