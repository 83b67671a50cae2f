"""Lockouts of source addresses that failed too often: ten failures within an hour lock for an hour.

``reconciler.gateway`` asks and tells; ``at`` is its monotonic clock, so that no jump of the wall clock shortens or
lengthens a lock. Only the rows that are kept over a restart (``rows``, ``load``) speak of wall time.

The table is bounded. When it is full, the source with the fewest failures goes first, so that whoever wants to get
rid of nine failures of his own must come from as many addresses as the table has places, with as many failures each.
A lock is never evicted: when nothing but locks is left, all further sources share one entry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

ATTEMPTS: Final = 10
WINDOW: Final = 3600.0
DURATION: Final = 3600.0
MAX_SOURCES: Final = 10_000
OTHERS: Final = "*"
"""The entry of all sources that found no place in the table."""

_SPARED_BURST: Final = 20.0
_SPARED_RATE: Final = 10.0


@dataclass(frozen=True, slots=True)
class LockoutRow:
    """One source as it is kept over a restart."""

    address: str
    failures: int
    window_start: datetime
    locked_until: datetime | None


@dataclass(slots=True)
class _Source:
    failures: list[float] = field(default_factory=list)
    """When the newest failures happened, oldest first, at most ``ATTEMPTS``."""
    locked_until: float = 0.0
    spared: float = _SPARED_BURST
    """Handshakes of approved keys that this source may still begin while it is locked."""
    spared_at: float = 0.0


class Lockouts:
    """The table. Owned by one event loop; deterministic."""

    def __init__(self, *, limit: int = MAX_SOURCES) -> None:
        self._limit = limit
        self._sources: dict[str, _Source] = {}
        # By number of failures: the sources that have as many, the one that failed longest ago first.
        self._levels: list[OrderedDict[str, None]] = [OrderedDict() for _ in range(ATTEMPTS + 1)]

    def __len__(self) -> int:
        return len(self._sources)

    def locked(self, *, at: float) -> list[str]:
        """Return the sources that are locked now."""
        return sorted(name for name, source in self._sources.items() if source.locked_until > at)

    def remaining(self, name: str, *, at: float) -> float:
        """Return for how many seconds ``name`` is still locked; 0 when it is not."""
        source = self._sources.get(name) or self._sources.get(OTHERS)
        return max(0.0, source.locked_until - at) if source else 0.0

    def spare(self, name: str, *, at: float) -> bool:
        """Say whether a locked source may begin one more handshake with an approved key, and count it."""
        source = self._sources.get(name) or self._sources.get(OTHERS)
        if source is None:
            return True
        source.spared = min(_SPARED_BURST, source.spared + max(0.0, at - source.spared_at) * _SPARED_RATE)
        source.spared_at = at
        if source.spared < 1:
            return False
        source.spared -= 1
        return True

    def failed(self, name: str, *, at: float) -> tuple[str, bool]:
        """Count a failure. Return the entry that it was counted on, and whether it locked that entry just now."""
        if name not in self._sources and len(self._sources) >= self._limit and not self._evict(at=at):
            name = OTHERS
        source = self._sources.setdefault(name, _Source())
        self._unlist(name, source)
        source.failures = [*(when for when in source.failures if at - when < WINDOW), at][-ATTEMPTS:]
        self._levels[len(source.failures)][name] = None
        if len(source.failures) < ATTEMPTS or source.locked_until > at:
            return name, False
        source.locked_until = at + DURATION
        return name, True

    def unlock(self, name: str) -> bool:
        """Forget a source; False when nothing was known of it."""
        source = self._sources.pop(name, None)
        if source is None:
            return False
        self._unlist(name, source)
        return True

    def load(self, rows: Iterable[LockoutRow], *, at: float, wall: datetime) -> None:
        """Take over kept rows. A clock that jumped in between lengthens no lock beyond its full duration."""
        kept = sorted(rows, key=lambda row: (row.locked_until is not None, row.failures), reverse=True)
        for row in kept[: self._limit]:
            age = min(max((wall - row.window_start).total_seconds(), 0.0), WINDOW)
            rest = 0.0
            if row.locked_until is not None:
                rest = min(max((row.locked_until - wall).total_seconds(), 0.0), DURATION)
            if age >= WINDOW and rest == 0.0:
                continue
            source = _Source([at - age] * min(max(row.failures, 1), ATTEMPTS), at + rest if rest else 0.0)
            self._sources[row.address] = source
            self._levels[len(source.failures)][row.address] = None

    def rows(self, names: Iterable[str], *, at: float, wall: datetime) -> list[LockoutRow]:
        """Return what is to be kept of ``names``; those no longer known are left out."""
        known = ((name, self._sources[name]) for name in names if name in self._sources)
        return [
            LockoutRow(
                name,
                len(source.failures),
                wall - timedelta(seconds=at - source.failures[0]),
                wall + timedelta(seconds=source.locked_until - at) if source.locked_until > at else None,
            )
            for name, source in known
        ]

    def _unlist(self, name: str, source: _Source) -> None:
        self._levels[len(source.failures)].pop(name, None)

    def _evict(self, *, at: float) -> bool:
        """Make room for one source; False when only locks are left."""
        oldest = [next(iter(level)) for level in self._levels if level]
        expired = (name for name in oldest if self._is_over(self._sources[name], at=at))
        spendable = (name for name in oldest if self._sources[name].locked_until <= at and name != OTHERS)
        name = next(expired, None) or next(spendable, None)
        return name is not None and self.unlock(name)

    @staticmethod
    def _is_over(source: _Source, *, at: float) -> bool:
        return source.locked_until <= at and at - source.failures[-1] >= WINDOW
