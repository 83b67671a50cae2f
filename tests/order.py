"""In which order tests run side by side: each worker begins with files that take long, and ends with those that do not.

pytest-xdist gives each worker one stretch of the list, and who has nothing left takes from the end of another's. So
nobody waits at the end for somebody's longest test. Files stay whole: their fixtures are made once.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")


def dealt(items: Sequence[T], *, file: Callable[[T], Path], is_long: Callable[[Path], bool], workers: int) -> list[T]:
    """Return the same items: for each worker a stretch with its part of the long files first."""
    files = [(path, list(theirs)) for path, theirs in groupby(items, key=file)]
    long = [theirs for path, theirs in files if is_long(path)]
    short = [item for path, theirs in files if not is_long(path) for item in theirs]
    order: list[T] = []
    for worker in range(workers):
        mine = [item for theirs in long[worker::workers] for item in theirs]
        room = max(0, len(items) // workers - len(mine)) if worker < workers - 1 else len(short)
        order += [*mine, *short[:room]]
        del short[:room]
    return order
