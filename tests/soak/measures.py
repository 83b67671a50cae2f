"""What is measured during a soak, its lines, and the verdict: did anything grow? Pure.

The first third of the time warms caches up. After it nothing may rise: the mean of the last third is held against that
of the middle third. Write-ahead logs fill up to their bound and stay there: that bound is what they are held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final

MEBIBYTE: Final = 1 << 20

ALLOWED: Final = {
    "memory": (0.05, 8 * MEBIBYTE),
    "handles": (0.02, 10),
    "threads": (0.02, 10),
    "tasks": (0.02, 50),
}
"""By measure: the share, and beside it the number, by which the last third may be above the middle one."""


LONGEST_WAL: Final = {"director": 64 * MEBIBYTE, "clients": 5 * MEBIBYTE}
"""Of one store: where SQLite cuts it off, and what one transaction may add to where a client's is written back."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment; sizes in bytes."""

    memory: int
    handles: int
    threads: int
    tasks: int
    store: int
    wal: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Both processes, ``seconds`` after the start."""

    seconds: float
    director: Sample
    clients: Sample


@dataclass(frozen=True, slots=True)
class Trend:
    """One measure of one process over the whole time."""

    process: str
    measure: str
    middle: float
    last: float

    @property
    def is_flat(self) -> bool:
        """Whether the last third is not above the middle one by more than is allowed."""
        share, number = ALLOWED[self.measure]
        return self.last <= self.middle * (1 + share) + number

    def __str__(self) -> str:
        unit, name = (MEBIBYTE, " MiB") if self.measure == "memory" else (1, "")
        change = self.last - self.middle
        return (
            f"{self.process} {self.measure}: {self.middle / unit:,.1f}{name} in the middle third, "
            f"{self.last / unit:,.1f}{name} in the last ({change / unit:+,.1f}): {'flat' if self.is_flat else 'GROWS'}"
        )


_COLUMNS: Final = "memory handles threads tasks   store     wal"
HEAD: Final = f"      time | director: {_COLUMNS} | clients: {_COLUMNS}"


def line(moment: Moment) -> str:
    """Return one line of the table under ``HEAD``."""
    minutes, seconds = divmod(round(moment.seconds), 60)
    parts = [f"{minutes:4}m {seconds:02}s ".rjust(11)]
    for width, one in ((16, moment.director), (15, moment.clients)):
        parts.append(
            f"{_size(one.memory).rjust(width)} {one.handles:7} {one.threads:7} {one.tasks:5} {_size(one.store):>7} "
            f"{_size(one.wal):>7} "
        )
    return "|".join(parts).rstrip()


def trends(moments: Sequence[Moment]) -> Iterable[Trend]:
    """Yield every measure of both processes that is held flat."""
    third = len(moments) // 3
    if third < 2:
        raise ValueError(f"{len(moments)} moments are too few to tell a trend")
    middle, last = moments[third:-third], moments[-third:]
    for process in ("director", "clients"):
        for measure in ALLOWED:
            yield Trend(process, measure, _mean(middle, process, measure), _mean(last, process, measure))


def too_long(moments: Sequence[Moment], *, clients: int) -> Iterable[str]:
    """Yield the write-ahead logs that were ever longer than they may be."""
    for process, stores in (("director", 1), ("clients", clients)):
        longest = max(getattr(one, process).wal for one in moments)
        if longest > stores * LONGEST_WAL[process]:
            yield f"{process}: write-ahead logs of {_size(longest)}"


def _mean(moments: Sequence[Moment], process: str, measure: str) -> float:
    return mean(float(getattr(getattr(one, process), measure)) for one in moments)


def _size(size: int) -> str:
    return f"{size / MEBIBYTE:.1f}M"
