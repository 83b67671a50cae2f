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
            gc.enable()
