"""Events of the gateway for the audit trail, at a pace that strangers cannot drive.

Each key or address is told of once in ten minutes for each reason.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from schema.errors import DirectorError

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.background import Background
    from reconciler.clock import Clock

_log = structlog.get_logger(__name__)

QUIET_SECONDS: Final = 600.0
_MAX_REMEMBERED: Final = 10_000


class Events(Protocol):
    """The audit trail."""

    async def event(
        self, *, reason: str, message: str, at: datetime, actor: str = "", client: str = "", backup: str = ""
    ) -> None: ...


class Audit:
    """Records events without letting anybody wait for it."""

    def __init__(self, events: Events, *, clock: Clock, background: Background) -> None:
        self._events = events
        self._clock = clock
        self._background = background
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def tell(self, reason: str, message: str, *, about: str, client: str = "") -> None:
        """Record an event, unless the same was told ``about`` the same key or address a moment ago."""
        now = self._clock.monotonic()
        last = self._told.get((reason, about))
        if last is not None and now - last < QUIET_SECONDS:
            return
        self._told[reason, about] = now
        self._told.move_to_end((reason, about))
        if len(self._told) > _MAX_REMEMBERED:
            self._told.popitem(last=False)
        self._background.spawn(self._record(reason, message, client=client))

    async def _record(self, reason: str, message: str, *, client: str) -> None:
        try:
            await self._events.event(reason=reason, message=message, client=client, at=self._clock.now())
        except DirectorError as error:
            _log.warning("cannot record an event", reason=reason, message=message, error=str(error))
