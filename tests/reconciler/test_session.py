"""One connection's conversation: whatever breaks in it ends the session, and nothing else."""

from __future__ import annotations

from typing import Any

from reconciler.deadlines import Deadlines
from reconciler.session import Session
from tests.client.virtual_clock import VirtualClock


class Gone:
    """aiohttp's connection when a ping has to be answered and nobody is there any more."""

    excess = None

    async def receive(self) -> Any:
        raise ConnectionResetError("Cannot write to closing transport")


async def test_a_ping_that_cannot_be_answered_is_the_end_of_the_session():
    gone: Any = Gone()
    deadlines = Deadlines(VirtualClock(), 5.0)
    session = Session(gone, gone, source="127.0.0.1", now=0.0, stalls=deadlines, closing=deadlines)

    assert await session.receive() is None
