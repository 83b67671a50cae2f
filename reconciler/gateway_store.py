"""What the gateway asks of the store, as ports: who is connected, where reports go, and what its parts need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from reconciler.audit import Events
from reconciler.doorkeeper import Trust
from reconciler.issued import IssuedStates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schema.observed import Report, RunProgress


class Presence(Protocol):
    """Who is connected."""

    async def connected(self, *, client: str, public_key: str, address: str, now: datetime) -> bool:
        """Keep that a session began, and say whether anything of this key's outbox was ever stored."""

    async def disconnected(self, *, client: str, public_key: str, now: datetime) -> None:
        """Keep that it ended."""

    async def disconnect_all(self) -> None: ...
    async def seen(self, *, client: str, now: datetime) -> None: ...


class ReportsStore(Protocol):
    """Where reports go."""

    async def ingest(
        self,
        *,
        client: str,
        public_key: str,
        epoch: str,
        items: Sequence[tuple[int, Report]],
        through: int,
        received: datetime,
    ) -> int:
        """Store reports once each, in order, and return up to where this outbox is stored.

        ``through`` is the last number of the frame: what is missing up to it could not be read, and counts as stored.
        """

    async def progress(self, *, client: str, progress: RunProgress) -> None:
        """Keep where a run stands."""


class Store(Trust, Presence, ReportsStore, Events, IssuedStates, Protocol):
    """All of the store that the gateway uses."""
