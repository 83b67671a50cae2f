"""The steps of a process that a kill can tell apart, and a kill before any of them: ``kill -9`` of itself.

A step is what changes a disk, another process or the wire: a rename, a removal, a flush, a statement of SQLite, a
program that starts, a frame that leaves. Between two of them nothing changes that outlives the process, so that a kill
before each one is a kill at every moment. Python's profiler sees them in every thread, so that the code that is tested
needs no door for this. What SQLite does inside of one statement is its own promise.

``python steps.py PROGRAM WORDS…`` is ``director`` or ``director-client`` under this; ``fast_client`` does it by itself.
``STEPS_RECORD`` names the file that gets the name of each step; ``STEPS_KILL`` is the step before which the process
dies, when it comes for the ``STEPS_COUNT``-th time. With ``STEPS_WHILE``, only steps count while that file exists.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
_OURS: Final = tuple(f"{ROOT / name}/" for name in ("client", "reconciler", "schema", "web_readonly"))
_FILES: Final = {"rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "ftruncate", "fsync"}
_STATEMENTS: Final = {"execute", "executemany", "executescript", "commit", "rollback"}
_CALLS: Final = {
    f"{ROOT}/client/dial.py": ("send", "a frame"),
    f"{ROOT}/reconciler/session.py": ("send_frame", "a frame"),
    f"{ROOT}/reconciler/git_process.py": ("run", "a program"),
}
"""Functions of ours that are a step: where what they call is not Python's own, or not seen by its profiler."""
_FRAMES: Final = 3
"""How many of our functions, from the innermost outwards, name a step."""


def watch(before: Callable[[str], None]) -> None:
    """Call ``before`` with the name of each step, in every thread that begins from now on and in this one."""

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            if is_step(argument):
                before(f"{argument.__name__} in {_place(frame)}")
        elif event == "call":
            name, what = _CALLS.get(frame.f_code.co_filename, ("", ""))
            if name == frame.f_code.co_name:
                before(f"{what} by {_place(frame)}")

    threading.setprofile(profile)
    sys.setprofile(profile)


def is_step(function: Any) -> bool:
    """Whether that function of C changes what outlives the process."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if name in _STATEMENTS:
        return isinstance(owner, (sqlite3.Connection, sqlite3.Cursor))
    if name in _FILES:
        return bool(function.__module__ == "posix")
    if name == "flush":
        return type(owner).__name__ in {"BufferedWriter", "TextIOWrapper"} and owner not in {sys.stdout, sys.stderr}
    return bool(name == "fork_exec")


def _place(frame: FrameType | None) -> str:
    """Return where in our code that is, from the innermost function outwards."""
    found: list[str] = []
    while frame is not None and len(found) < _FRAMES:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            found.append(f"{file.removeprefix(f'{ROOT}/')}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(found) or "somebody else's code"


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch_as_told() -> None:
    """Do what the environment says: write the steps down, or die before one."""
    record, fatal = os.environ.get("STEPS_RECORD"), os.environ.get("STEPS_KILL")
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if record else None
    left = int(os.environ.get("STEPS_COUNT", "1"))
    armed = os.environ.get("STEPS_WHILE")

    def before(step: str) -> None:
        nonlocal left
        if armed and not os.path.exists(armed):  # noqa: PTH110 - before every step: nothing that makes an object
            return
        if descriptor is not None:
            os.write(descriptor, f"{step}\n".encode())
        if step == fatal:
            left -= 1
            if left == 0:
                die()

    if record or fatal:
        watch(before)


def load(program: str) -> Callable[[], None]:
    """Return a program of ours. What it loads while it runs is slow under a profiler, and none of it is a step."""
    if program == "director":
        import reconciler.process  # noqa: F401
        import web_readonly.app  # noqa: F401
        from reconciler.cli import main as director

        return director
    import client.enrol
    import client.service  # noqa: F401
    from client.cli import main as director_client

    return director_client


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    run = load(sys.argv[0])
    watch_as_told()
    run()
