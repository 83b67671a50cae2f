"""What the loop needs of others: Git, the store, and whoever carries desired states.

Implemented by ``source``, ``store`` and ``gateway``, and by the simulator of the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.issue import BackupRow, ClientRow, DefinitionRow, Issued
    from reconciler.source import Commit, Files
    from schema.errors import Problem
    from schema.status import Condition, RevisionStatus, SourceStatus


class SourcePort(Protocol):
    """Git, as the loop needs it."""

    async def fetch(self) -> str:
        """Return the newest revision of the branch."""

    def files(self, revision: str) -> Files:
        """Return its resource files."""

    def commit(self, revision: str) -> Commit:
        """Return the commit."""

    def log(self, old: str | None, new: str, *, limit: int = 100) -> list[Commit]:
        """Return the commits between."""

    def is_descendant(self, revision: str, *, of: str) -> bool:
        """Whether history was only added to."""


class Records(Protocol):
    """The store, as the loop writes it."""

    async def record_revision(self, revision: RevisionStatus, *, problems: Sequence[Problem]) -> None:
        """Keep how a revision was judged."""

    async def set_source(self, status: SourceStatus) -> None:
        """Keep how the source stands."""

    async def set_conditions(self, subject: str, conditions: Sequence[Condition]) -> None:
        """Keep conditions; a transition time only moves when the status does."""

    async def publish(
        self,
        *,
        clients: Sequence[ClientRow],
        backups: Sequence[BackupRow],
        issued: Sequence[Issued],
        removed_clients: Sequence[str],
        removed_backups: Sequence[tuple[str, str]],
        at: datetime,
        definitions: Sequence[DefinitionRow] = (),
        removed_definitions: Sequence[str] = (),
    ) -> None:
        """Keep what was published, in one transaction."""

    async def event(
        self, *, reason: str, message: str, at: datetime, actor: str = "", client: str = "", backup: str = ""
    ) -> None: ...


class Gateway(Protocol):
    """Whoever carries desired states to clients."""

    def audience(self, client: str) -> str | None:
        """Return the approved public key of a client, or None."""

    def set_source_clients(self, keys: Mapping[str, str]) -> None:
        """Approve the keys that stand in the published revision; revoke those that no longer do."""

    async def publish(self, issued: Iterable[Issued]) -> None:
        """Send connected clients what is newest, once it is kept."""
