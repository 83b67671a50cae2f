"""``reconciler.garbage``: what a large pass makes is not looked through, and circles are found all the same."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from reconciler import garbage

if TYPE_CHECKING:
    from collections.abc import Iterator


class Circle:
    """An object that only a look for garbage can free."""

    def __init__(self) -> None:
        self.itself = self


@contextmanager
def looks() -> Iterator[list[int]]:
    """Yield the generations that are looked at meanwhile."""
    seen: list[int] = []

    def note(phase: str, details: dict[str, int]) -> None:
        if phase == "start":
            seen.append(details["generation"])

    gc.callbacks.append(note)
    try:
        yield seen
    finally:
        gc.callbacks.remove(note)


@pytest.fixture(autouse=True)
def _as_in_a_director(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before, was_enabled = gc.get_threshold(), gc.isenabled()
    gc.enable()
    gc.set_threshold(garbage.OBJECTS)
    monkeypatch.setattr(garbage, "_looked", garbage._Looked())
    with garbage.left_alone():
        first = _many()  # the first pass of a process is looked through
    del first
    yield
    gc.set_threshold(*before)
    if not was_enabled:
        gc.disable()


def _many() -> list[list[int]]:
    return [[number] for number in range(2 * garbage.OBJECTS)]


def test_what_a_large_pass_makes_is_not_looked_through_afterwards() -> None:
    with looks() as seen:
        with garbage.left_alone():
            kept = _many()
        others = [[number] for number in range(100)]
    assert (len(kept), len(others), seen) == (2 * garbage.OBJECTS, 100, [])


def test_as_much_as_before_is_not_looked_through_however_often_it_is_made() -> None:
    kept: list[tuple[int, int]] = []
    with looks() as seen:
        for _ in range(5):
            kept.clear()
            with garbage.left_alone():
                # Tuples of numbers: after a look they are in its sight no more, and those made anew are.
                kept = [(number, number) for number in range(4 * garbage.OBJECTS)]
    assert len(kept) == 4 * garbage.OBJECTS
    assert len(seen) <= 1


def test_a_circle_of_a_large_pass_is_found_once_there_is_much_more_than_before() -> None:
    with garbage.left_alone():
        circle = weakref.ref(Circle())
        kept = [_many()]
    assert circle() is not None
    while circle() is not None and len(kept) < 200:
        with garbage.left_alone():
            kept.append(_many())
    assert circle() is None
    assert len(kept) < 200


def test_a_small_pass_changes_nothing_about_when_is_looked() -> None:
    gc.collect()
    with garbage.left_alone():
        circle = weakref.ref(Circle())
    kept = _many()
    assert circle() is None
    assert len(kept) == 2 * garbage.OBJECTS


def test_who_looks_for_no_garbage_at_all_is_left_so() -> None:
    gc.disable()
    with garbage.left_alone():
        kept = _many()
    assert (gc.isenabled(), len(kept)) == (False, 2 * garbage.OBJECTS)


def test_what_a_command_makes_before_it_ends_is_never_looked_through() -> None:
    with looks() as seen:
        with garbage.never_looked_through():
            kept = _many()
        others = [[number] for number in range(100)]
    assert (len(kept), len(others), seen, gc.isenabled()) == (2 * garbage.OBJECTS, 100, [], True)
