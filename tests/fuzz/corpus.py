"""The inputs that are kept: for each target as few as reach every line and branch that fuzzing has reached."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from tests.fuzz.target import Target

FOLDER = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[2]
_OURS = tuple(f"{ROOT}/{name}/" for name in ("schema", "reconciler", "client", "web_readonly"))
MOST_BYTES = 90_000
"""Of one target's corpus."""
FAULT = "fault-"
"""Begins the names of inputs that once broke a promise: these stay."""


def inputs(target: Target) -> list[bytes]:
    """Return seeds and kept inputs of a target."""
    kept = sorted((FOLDER / target.name).glob("*")) if (FOLDER / target.name).is_dir() else []
    return [*target.seeds(), *(path.read_bytes() for path in kept)]


def keep(target: Target, found: Path) -> int:
    """Replace the kept inputs of a target by the fewest, smallest first, that reach what all of them reach."""
    seeds = target.seeds()
    candidates = {path.read_bytes() for folder in (found, FOLDER / target.name) for path in _files(folder)}
    known: set[tuple[CodeType, int, int]] = set()
    for data in seeds:
        known |= reached(target, data)
    chosen: list[bytes] = []
    faults = {path.name: path.read_bytes() for path in _files(FOLDER / target.name) if path.name.startswith(FAULT)}
    for data in sorted(candidates - set(seeds), key=lambda one: (len(one), one)):
        more = reached(target, data) - known
        if more and sum(map(len, chosen)) + len(data) <= MOST_BYTES:
            known |= more
            chosen.append(data)
    shutil.rmtree(FOLDER / target.name, ignore_errors=True)
    for name, data in [*((hashlib.sha256(one).hexdigest()[:16], one) for one in chosen), *faults.items()]:
        (FOLDER / target.name).mkdir(parents=True, exist_ok=True)
        (FOLDER / target.name / name).write_bytes(data)
    return len(chosen)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def reached(target: Target, data: bytes) -> set[tuple[CodeType, int, int]]:
    """Return the steps from line to line of our own code that an input takes."""
    steps: set[tuple[CodeType, int, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event != "call" or not frame.f_code.co_filename.startswith(_OURS):
            return None
        last = 0
        code = frame.f_code

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                steps.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target.run(data)
    finally:
        sys.settrace(before)
    return steps
