"""How often Python looks for garbage that stands in circles: seldom, in all that a director does.

With ten thousand sessions a director holds a million objects that are none, and one look at all of them stops it for
half a second: Python's own measure would look three times while a revision is published. What stands in no circle,
which is almost everything, is freed at once all the same.
"""

from __future__ import annotations

import atexit
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS: Final = 50_000
"""So many new objects that stay are worth a look at them."""
GROWTH: Final = 1.25
"""So many times the objects of the last look at all of them are worth another: Python's own measure for old ones."""


class _Looked:
    """Of this process, as the collector itself is."""

    objects = 0
    """How many there were at the last look at all of them."""


_looked = _Looked()


def look_seldom() -> None:
    """Called at the start of every command.

    Nor is any looked for at its end, when everything goes at once: that is a sixth of the time of a short command.
    Whatever must be closed has been closed by then, by whoever opened it.
    """
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)


@contextmanager
def left_alone() -> Iterator[None]:
    """Look for none: while a revision is built and published, for seconds, all that is made is made to stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_count()[0] > OBJECTS:
                _grow_old()
            gc.enable()


@contextmanager
def never_looked_through() -> Iterator[None]:
    """Look for none, and take what is there afterwards for old: for what a command does before it ends."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _grow_old() -> None:
    """Take all that is there for old, unseen, unless there is much more than at the last look.

    Else Python would look at all that was made as soon as it may, just when clients answer to what was published.
    Garbage in circles shows as growth: what was made in place of something else is as much as that was.
    """
    count = _age()
    if count > GROWTH * _looked.objects:
        gc.collect()
        # As many as before it: a look also takes out of sight what can stand in no circle, which is new each time.
        _looked.objects = count


def _age() -> int:
    """Make all objects old ones, and return how many there are."""
    gc.freeze()
    try:
        return gc.get_freeze_count()
    finally:
        gc.unfreeze()
