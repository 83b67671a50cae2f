"""One program at a time on each repository of this machine: in this process by locks, between processes by file locks.

``runner`` and ``inventory`` share one ``Turns``; ``director-client once`` beside the service meets it in the files,
which the kernel lets go of when a process dies. borgmatic inherits the locks: when the client alone dies, what it
started goes on, and whoever comes next waits for its end.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from client.managed import failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from client.clock import Clock

LOOK_AGAIN_SECONDS = 1.0


class Turns:
    """Hands out turns at repositories, by url."""

    def __init__(self, *, state_directory: Path, clock: Clock) -> None:
        self._folder = state_directory / "locks"
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, urls: Iterable[str], *, waiting: Callable[[str], None]) -> AsyncIterator[tuple[int, ...]]:
        """Hold all ``urls``, taken in one order by everybody. ``waiting`` hears for whom we wait.

        Yields the descriptors of the file locks, for borgmatic to inherit.
        """
        async with AsyncExitStack() as stack:
            held = []
            for url in sorted(set(urls)):
                lock = self._locks.setdefault(url, asyncio.Lock())
                if lock.locked():
                    waiting("another run on the same repository")
                await stack.enter_async_context(lock)
                held.append(await stack.enter_async_context(self._file_lock(url, waiting)))
            yield tuple(held)

    @asynccontextmanager
    async def _file_lock(self, url: str, waiting: Callable[[str], None]) -> AsyncIterator[int]:
        path = self._folder / hashlib.sha256(url.encode()).hexdigest()[:32]
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed(error, doing=f"lock repository {url}") from error
        try:
            while not _try(descriptor):
                waiting("another program on the same repository")
                await self._clock.sleep(LOOK_AGAIN_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
