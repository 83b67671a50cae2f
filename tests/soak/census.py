"""What only a process itself can count: its tasks, and Python's blocks of memory. A thread writes them to a file.

The processes of the soak are the programs as they are, with this thread beside. Blocks tell whether it is Python's
objects that grow, where memory does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

EVERY_SECONDS: Final = 30.0
_ATTEMPTS: Final = 100


def write_for_ever(file: Path) -> None:
    """Begin to write the census of this process to ``file``; ends with the process."""
    threading.Thread(target=_write, args=(file,), name="census", daemon=True).start()


def read(file: Path) -> dict[str, Any]:
    """Return the newest census, or nothing while there is none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return found


def _write(file: Path) -> None:
    fresh = file.with_suffix(".new")
    while True:
        fresh.write_text(json.dumps({"tasks": _tasks(), "blocks": sys.getallocatedblocks()}))
        fresh.replace(file)
        time.sleep(EVERY_SECONDS)


def _tasks() -> int:
    """Return how many tasks there are. Tasks come and go while they are counted, so it is tried again."""
    # Not by the garbage collector: whoever holds all objects for a moment breaks a tuple that is just being made.
    names = ("_scheduled_tasks", "_all_tasks")  # since Python 3.12, and before
    known = next(getattr(asyncio.tasks, name) for name in names if hasattr(asyncio.tasks, name))
    for _ in range(_ATTEMPTS):
        try:
            return sum(not one.done() for one in list(known))
        except RuntimeError:
            continue
    return 0
