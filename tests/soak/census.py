"""What only a process itself can count: its tasks and objects. A thread writes them to a file, now and then.

The processes of the soak are the programs as they are, with this thread beside. Which kinds of objects there are most
of is written too: where something grows, that says what.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

EVERY_SECONDS: Final = 30.0
_KINDS: Final = 40


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
        fresh.write_text(json.dumps(_count()))
        fresh.replace(file)
        time.sleep(EVERY_SECONDS)


def _count() -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    tasks = 0
    for one in gc.get_objects():
        kind = type(one)
        kinds[f"{kind.__module__}.{kind.__qualname__}"] += 1
        tasks += issubclass(kind, asyncio.Task) and not one.done()
    return {"tasks": tasks, "objects": sum(kinds.values()), "kinds": dict(kinds.most_common(_KINDS))}
