"""What a benchmark found: one row of the table, and the table. Pure.

A floor is the least that the same work could cost, measured in the same run on the same data, so that a ratio holds on
any machine. A row that must reach nothing is there to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEADS: Final = ("what", "ours", "floor", "ratio", "must reach", "", "")
_RIGHT: Final = (False, True, True, True, True, False, False)


@dataclass(frozen=True, slots=True)
class Options:
    """What a benchmark is told."""

    quick: bool
    """A tenth of the size and the time: to see that it works, not to believe the numbers."""
    folder: Path
    """Where it may keep what is expensive to make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number and what it is held against: a bound in its own unit, a multiple of the floor, or both."""

    what: str
    ours: float
    unit: str = "ms"
    floor: float | None = None
    most: float | None = None
    most_ratio: float | None = None
    least_ratio: float | None = None
    """For rates, and for "so many times faster"."""
    note: str = ""
    """What helps to read it; in no verdict."""

    @property
    def ratio(self) -> float | None:
        """How many times the floor ours is."""
        return self.ours / self.floor if self.floor else None

    @property
    def reached(self) -> bool:
        """Whether it is as good as it must be. A bound on the ratio without a floor is not reached."""
        ratio = self.ratio
        return (
            (self.most is None or self.ours <= self.most)
            and (self.most_ratio is None or (ratio is not None and ratio <= self.most_ratio))
            and (self.least_ratio is None or (ratio is not None and ratio >= self.least_ratio))
        )

    @property
    def bound(self) -> str:
        """What it must reach, in words."""
        parts = []
        if self.most is not None:
            parts.append(f"≤ {_number(self.most)} {self.unit}".rstrip())
        if self.most_ratio is not None:
            parts.append(f"≤ {_number(self.most_ratio)} ×")
        if self.least_ratio is not None:
            parts.append(f"≥ {_number(self.least_ratio)} ×")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return it for the file."""
        names = ("what", "ours", "unit", "floor", "ratio", "most", "most_ratio", "least_ratio", "reached", "note")
        return {name: getattr(self, name) for name in names}


def table(rows: Iterable[Row]) -> str:
    """Return the rows as one aligned table."""
    lines: list[Sequence[str]] = [_HEADS, *map(_cells, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEADS))]
    text = "\n".join("  ".join(map(_aligned, line, widths, _RIGHT)).rstrip() for line in lines)
    return text + "\n"


def _cells(row: Row) -> Sequence[str]:
    verdict = ("ok" if row.reached else "MISSED") if row.bound else ""
    floor = "" if row.floor is None else f"{_number(row.floor)} {row.unit}"
    ratio = "" if row.ratio is None else f"{_number(row.ratio)} ×"
    return row.what, f"{_number(row.ours)} {row.unit}".rstrip(), floor, ratio, row.bound, verdict, row.note


def _aligned(text: str, width: int, right: bool) -> str:  # noqa: FBT001 - mapped over three columns of values
    return text.rjust(width) if right else text.ljust(width)


def _number(value: float) -> str:
    """Return three digits that say something: ``0.0412``, ``4.12``, ``41.2``, ``4,120``."""
    if value == 0 or abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
