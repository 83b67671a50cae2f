"""Failed logins, counted for each source address: after ten different guesses in a quarter of an hour, no more.

``web_readonly.gate`` asks and tells. In memory, bounded, deterministic; ``at`` is a monotonic clock.

What cannot be guessed is not limited: a token (256 bits), a cookie, a trusted proxy's word still get in from a locked
address, so that one who guesses behind a NAT does not shut out the others. A password can be guessed, so while its
address is locked no password gets in, the right one neither: else the lock would be no hindrance to guessing on.

The same wrong guess again tells nobody anything new: it is not counted twice (a program with an old password that asks
every 15 seconds locks nobody out), and costs no second computation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

ATTEMPTS: Final = 10
WINDOW: Final = 900.0
MAX_SOURCES: Final = 10_000
OTHERS: Final = "*"
"""The entry of all sources that found no place in the table."""


@dataclass(slots=True)
class _Source:
    since: float
    guesses: set[bytes] = field(default_factory=set)


class Attempts:
    """The table. Owned by one event loop."""

    def __init__(self, *, key: bytes, limit: int = MAX_SOURCES) -> None:
        self._key = key
        self._limit = limit
        self._sources: dict[str, _Source] = {}  # in the order of their windows, which are all as long

    def __len__(self) -> int:
        return len(self._sources)

    def remaining(self, source: str, *, at: float) -> float:
        """Return for how many seconds ``source`` is still locked; 0 when it is not."""
        found = self._find(source, at=at)
        locked = found is not None and len(found.guesses) >= ATTEMPTS
        return found.since + WINDOW - at if found is not None and locked else 0.0

    def is_known(self, source: str, guess: bytes, *, at: float) -> bool:
        """Whether this guess has already been wrong from there."""
        found = self._find(source, at=at)
        return found is not None and self._digest(guess) in found.guesses

    def failed(self, source: str, guess: bytes, *, at: float) -> bool:
        """Count a wrong guess. Return whether it locked its source just now."""
        found = self._find(source, at=at)
        if found is None:
            name = source if len(self._sources) < self._limit else OTHERS
            found = self._sources.setdefault(name, _Source(since=at))
        if len(found.guesses) >= ATTEMPTS:
            return False
        found.guesses.add(self._digest(guess))
        return len(found.guesses) == ATTEMPTS

    def _find(self, source: str, *, at: float) -> _Source | None:
        while self._sources:
            oldest = next(iter(self._sources))
            if at - self._sources[oldest].since < WINDOW:
                break
            del self._sources[oldest]
        if source in self._sources or len(self._sources) < self._limit:
            return self._sources.get(source)
        return self._sources.get(OTHERS)

    def _digest(self, guess: bytes) -> bytes:
        """Keyed: the memory of the process holds no password that somebody nearly got right."""
        return hashlib.blake2b(guess, key=self._key, digest_size=16).digest()
