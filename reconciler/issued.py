"""Reading desired states for many sessions at once: whoever asks while a read is under way shares the next one.

Used by ``reconciler.gateway`` for ``pull`` and for publishing. Nothing is cached, so nothing can be stale: an answer
was read after it was asked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from schema.errors import DirectorError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reconciler.core.issue import Issued

MAX_READ: Final = 200


class IssuedStates(Protocol):
    """The newest signed desired states."""

    async def issued(self, clients: Sequence[str]) -> Mapping[str, Issued]:
        """Return them by client, with their envelopes; clients without one are left out."""


class IssuedReader:
    """Gathers single questions into few reads."""

    def __init__(self, store: IssuedStates) -> None:
        self._store = store
        self._asked: dict[str, list[asyncio.Future[Issued | None]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, client: str) -> Issued | None:
        """Return the newest desired state of ``client``; None when none was issued."""
        answer: asyncio.Future[Issued | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(client, []).append(answer)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())
        return await answer

    async def _read(self) -> None:
        while self._asked:
            batch = [(name, self._asked.pop(name)) for name in list(self._asked)[:MAX_READ]]
            try:
                found = await self._store.issued([name for name, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, those who asked must hear of it
                problem = (
                    error if isinstance(error, DirectorError) else TransientError(f"cannot read the store: {error}")
                )
                _answer(batch, {}, problem)
            else:
                _answer(batch, found, None)


def _answer(
    batch: list[tuple[str, list[asyncio.Future[Issued | None]]]],
    found: Mapping[str, Issued],
    error: DirectorError | None,
) -> None:
    for name, waiting in batch:
        for answer in waiting:
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found.get(name))
