"""What an open session says, heard one frame at a time: reports are acknowledged after their commit.

Used by ``reconciler.gateway``; what is pulled is answered by ``reconciler.publishing``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from schema import wire
from schema.errors import TrustError
from schema.wire import RefusalCode

if TYPE_CHECKING:
    from reconciler.audit import Audit
    from reconciler.clock import Clock
    from reconciler.gateway_store import Store
    from reconciler.metrics import Metrics
    from reconciler.publishing import Publishing
    from reconciler.session import Session
    from schema.observed import Report


AT_ONCE: Final = 256
"""Sessions whose reports are on their way into the store: enough to fill its commits. More wait, unread."""


class Hearing:
    """Hears the sessions of one gateway."""

    def __init__(self, *, store: Store, clock: Clock, metrics: Metrics, audit: Audit, publishing: Publishing) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._audit = audit
        self._publishing = publishing
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def hear(self, session: Session, message: wire.FromClient) -> None:
        """Do what one message asks for.

        Raises:
            TrustError: it is not sound.
            DirectorError: the store refuses.
        """
        reports = len(message.items) if isinstance(message, wire.Reports) else 0
        if (wait := session.pace(now=self._clock.monotonic(), reports=reports)) > 0:
            await self._clock.sleep(wait)
        await self._store.seen(client=session.name, now=self._clock.now())
        match message:
            case wire.Pull():
                await self._publishing.answer(session, message)
            case wire.Reports():
                await self._take(session, message)
            case wire.Progress():
                await self._store.progress(client=session.name, progress=message.progress)

    async def _take(self, session: Session, message: wire.Reports) -> None:
        """Store reports in order, and acknowledge them once they are committed."""
        async with self._turns:
            items = self._read(session, message)
            started = self._clock.monotonic()
            stored = await self._store.ingest(
                client=session.name,
                public_key=session.public_key,
                epoch=message.epoch,
                items=items,
                through=message.items[-1].sequence,
                received=self._clock.now(),
            )
        self._metrics.ingest.observe(self._clock.monotonic() - started)
        for _, report in items:
            self._metrics.reports.labels(report.type).inc()
        await session.send(wire.Acknowledged(epoch=message.epoch, sequence=stored))

    def _read(self, session: Session, message: wire.Reports) -> list[tuple[int, Report]]:
        """Return the reports that can be read: one that cannot does not hold up those behind it.

        Raises:
            TrustError: the numbers do not rise.
        """
        items: list[tuple[int, Report]] = []
        refused: list[str] = []
        last = 0
        for item in message.items:
            if item.sequence <= last:
                raise TrustError("the reports are out of order", code=RefusalCode.MALFORMED)
            last = item.sequence
            try:
                items.append((last, wire.parse_report(item.report)))
            except TrustError as error:
                refused.append(f"number {last}: {error.message}")
        if refused:
            self._metrics.reports_refused.inc(len(refused))
            message_text = f"{len(refused)} reports could not be read; {refused[0]}"[:1000]
            self._audit.tell("ReportRefused", message_text, about=session.public_key, client=session.name)
        return items
