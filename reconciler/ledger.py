"""What was issued to whom, and who needs something newer. Made by ``loop``; the store keeps it with the envelopes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core import issue
from reconciler.core.issue import Issued

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from reconciler.core.build import Build
    from schema.envelope import DirectorIdentity

_FARTHEST_MILLISECONDS = 366 * 86_400_000


class Ledger:
    """The newest desired state of every client, without its bulk."""

    def __init__(
        self,
        issued: Mapping[str, Issued],
        *,
        identity: DirectorIdentity,
        audience: Callable[[str], str | None],
        validity: float,
    ) -> None:
        """``issued`` is what the store remembers, ``audience`` knows approved keys, ``validity`` is in seconds."""
        self._issued = dict(issued)
        self._identity = identity
        self._audience = audience
        self._validity = timedelta(seconds=validity)

    def due(self, built: Build, *, revision: str, now: datetime, names: Iterable[str] | None = None) -> list[Issued]:
        """Return new desired states for those of ``names``, or of all clients, whose newest one no longer serves."""
        return issue.issue(
            built,
            revision=revision,
            before=self._issued,
            audience=self._audience,
            identity=self._identity,
            now=now,
            validity=self._validity,
            names=names,
        )

    def enter(self, issued: Iterable[Issued]) -> None:
        """Take note of what the store keeps now."""
        for one in issued:
            self._issued[one.client] = one.without_bulk()

    def ahead(self, client: str, generation: int, *, now: datetime) -> bool:
        """Take note that a client holds a newer generation than was issued; the next one will be still newer.

        False for one from the far future, which is nobody's we issued.
        """
        if generation > int(now.timestamp() * 1000) + _FARTHEST_MILLISECONDS:
            return False
        self._issued[client] = Issued(client, "", generation, "", "", now, now)
        return True
