"""What machines ask about the director over plain HTTP: ``/livez``, ``/readyz`` and ``/metrics``. Only GET.

``reconciler.gateway`` hands over every request that is not a client's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from reconciler.metrics import CONTENT_TYPE
from schema.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reconciler.issued import IssuedStates

HEADERS: Final = {"Server": "borgmatic-director"}


class Probes:
    """The answers. ``readiness`` returns why the director is not ready, or nothing."""

    def __init__(
        self,
        *,
        store: IssuedStates,
        readiness: Callable[[], Awaitable[str]] | None,
        numbers: Callable[[], bytes],
        metrics_beside: bool,
    ) -> None:
        """``metrics_beside`` says whether ``/metrics`` stands beside the others, or only where it has its own place."""
        self._store = store
        self._readiness = readiness
        self._numbers = numbers
        self._metrics_beside = metrics_beside
        self.stopping = False
        self.all_numbers: Callable[[], Awaitable[bytes]] | None = None
        """Gives what ``/metrics`` answers when the store is read as well."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at the clients' address."""
        match request.path:
            case "/livez":
                return text("ok")
            case "/readyz":
                return await self._ready()
            case "/metrics" if self._metrics_beside:
                return await self._answer_numbers()
        return text("not found", status=404)

    async def answer_metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at the address of the metrics."""
        if request.method in {"GET", "HEAD"} and request.path == "/metrics":
            return await self._answer_numbers()
        return text("not found", status=404)

    async def _answer_numbers(self) -> web.Response:
        body = await self.all_numbers() if self.all_numbers is not None else self._numbers()
        return web.Response(body=body, headers={**HEADERS, "Content-Type": CONTENT_TYPE})

    async def _ready(self) -> web.Response:
        reason = "shutting down" if self.stopping else ""
        try:
            if not reason and self._readiness is not None:
                reason = await self._readiness()
            if not reason:
                await self._store.issued(())  # whether the store answers
        except Exception as error:  # noqa: BLE001 - whatever it is, the director is not ready
            reason = error.message if isinstance(error, DirectorError) else f"the store does not answer: {error}"
        return text(reason or "ok", status=503 if reason else 200)


def text(words: str, *, status: int = 200) -> web.Response:
    """Return one line as an answer."""
    return web.Response(text=f"{words}\n", status=status, headers=HEADERS)
