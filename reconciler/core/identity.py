"""What differs between two mappings that share what did not change: by identity, and without a look inside.

A build hands on what did not change as the same object, so that this is all it takes to find the few that did. Written
with the iterators of C: with twenty thousand names it is what is left of the cost of all of them. Pure.
"""

from __future__ import annotations

from itertools import compress
from operator import is_not
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

K = TypeVar("K")


def differing(former: Mapping[K, object], latter: Mapping[K, object]) -> list[K]:
    """Return the keys of ``latter`` under which another object stands than in ``former``, or none stood."""
    return list(compress(latter, map(is_not, latter.values(), map(former.get, latter))))


def gone(former: Mapping[K, object], latter: Mapping[K, object], *, differing: Collection[K]) -> set[K]:
    """Return the keys of ``former`` that ``latter`` has not. ``differing`` is what differs in ``latter``."""
    if len(former) == len(latter) and all(key in former for key in differing):
        return set()
    return former.keys() - latter.keys()
