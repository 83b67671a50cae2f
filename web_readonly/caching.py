"""Answers kept for a moment, so that two hundred viewers of one page cost one rendering and one compression.

``answering`` asks here after it has decided that the viewer may ask. What is kept depends on the question alone: who
asks is no part of any answer.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from web_readonly.asking import Asked

KEPT: Final = timedelta(seconds=1)
"""Pages say how long ago things were, so that an answer does not hold for longer even when nothing was written."""
MAX_KEPT: Final = 64
MAX_BYTES: Final = 1_000_000
"""A larger answer is not kept: 64 of these bound the memory."""
GZIP_LEVEL: Final = 6
"""Of a page of 35 kB it makes 5 kB in 0.13 ms; level 9 takes twice as long for 3 % fewer."""
_LEAST_PACKED: Final = 512
_NEVER: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of one answer, as they are and compressed, with the digest that names them."""

    content: bytes
    packed: bytes
    """Empty when it is too short to be worth it."""
    digest: str
    status: int = 200
    following: str = ""
    """The cursor of the rest, when this is a part of a list."""
    version: str = ""
    """Of the store that it tells of; it may tell of a newer one in part."""


def make_body(content: bytes, *, status: int = 200, following: str = "") -> Body:
    """Return the body of an answer; runs in the thread that made the content."""
    packed = gzip.compress(content, GZIP_LEVEL, mtime=0) if len(content) >= _LEAST_PACKED else b""
    digest = hashlib.sha256(content).hexdigest()[:24]
    return Body(content=content, packed=packed, digest=digest, status=status, following=following)


@dataclass(frozen=True, slots=True)
class _Kept:
    version: str
    at: datetime
    body: Body


@dataclass(slots=True)
class Cache:
    """The newest answers by question. For one event loop."""

    version: Callable[[], str]
    """Of the store; asked in a thread, and empty when nothing can be kept."""
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _making: dict[tuple[str, str], asyncio.Future[Body]] = field(default_factory=dict)

    async def get(self, name: str, asked: Asked, make: Callable[[], Awaitable[Body]]) -> Body:
        """Return the answer to ``asked``: kept, being made for another viewer, or made now.

        An answer that was begun before the store changed is for nobody who comes after: they may come because it did.
        """
        version = await asyncio.to_thread(self.version)
        if not version:
            return await make()
        key = _key(name, asked)
        kept = self._kept.get(key)
        if kept and kept.version == version and timedelta(0) <= asked.now - kept.at <= KEPT:
            return replace(kept.body, version=version)
        making = self._making.get((key, version))
        if making is None:
            making = asyncio.ensure_future(make())
            self._making[key, version] = making
            making.add_done_callback(lambda made: self._keep(key, version, asked.now, made))
        # One viewer who goes away, or whose patience ends, ends it for no other.
        return replace(await asyncio.shield(making), version=version)

    def _keep(self, key: str, version: str, at: datetime, made: asyncio.Future[Body]) -> None:
        self._making.pop((key, version), None)
        if made.cancelled() or made.exception() is not None:
            return
        body = made.result()
        self._kept.pop(key, None)
        for old in [one for one, kept in self._kept.items() if not timedelta(0) <= at - kept.at <= KEPT]:
            del self._kept[old]
        if len(body.content) <= MAX_BYTES:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = _Kept(version=version, at=at, body=body)


def _key(name: str, asked: Asked) -> str:
    """Return all that an answer depends on but the time: whatever ``Asked`` will hold one day is a part of it."""
    return f"{name} {replace(asked, now=_NEVER)!r}"
