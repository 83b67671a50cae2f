"""The client's one WebSocket: whatever breaks in it ends the connection, and nothing else."""

from __future__ import annotations

from typing import Any

from client.dial import _WebSocket


class Gone:
    """aiohttp's connection when a ping has to be answered and nobody is there any more."""

    def get_extra_info(self, name: str) -> None:
        return None

    async def receive(self) -> Any:
        raise ConnectionResetError("Cannot write to closing transport")


async def test_a_ping_that_cannot_be_answered_is_the_end_of_the_connection():
    session: Any = None
    socket: Any = Gone()

    assert await _WebSocket(session, socket).receive() is None
