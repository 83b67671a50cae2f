"""Simulated processes: whose code is running, which of its operations fail, and how it dies.

A process is a context variable: every task and callback that its code makes inherits it. Python's audit events tell of
each file operation and each database that is opened; a dead process can do none any more, so that no ``finally`` of its
repairs what a kill -9 would have left behind. The code that is simulated knows nothing of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
import sys
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from random import Random
from typing import Any

PROCESS: ContextVar[Process] = ContextVar("process")

_CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NO_LIMIT = 1_073_741_823


class Killed(BaseException):
    """Raised in a process that is dead, wherever its code is about to change something."""


class Process:
    """One incarnation of a program. ``on_death`` is told once, outside of the process."""

    def __init__(self, name: str, *, random: Random, folder: Path, on_death: Callable[[Process, str], None]) -> None:
        self.name = name
        self.folder = folder
        self.alive = True
        self.disk_is_full = False
        self.slowness = 1.0
        self.dies_at_step: int | None = None
        self.dies_at_operation: int | None = None
        self.dies_at_transaction: int | None = None
        self.steps = self.operations = self.transactions = 0
        self._random = random
        self._on_death = on_death
        self._tasks: list[asyncio.Task[Any]] = []
        self._most_tasks = 64
        self._databases: list[sqlite3.Connection] = []
        self._has_news = False
        self._locks: dict[int, tuple[int, int]] = {}
        self._written: str | None = None
        self._torn: tuple[Path, int, int] | None = None
        self._last_will: list[Callable[[], None]] = []
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    # --- Living -------------------------------------------------------------------------------------------------------

    def owns(self, task: asyncio.Task[Any]) -> None:
        """Remember a task of ours. The dead make some, too, while they are taken apart."""
        self._tasks.append(task)
        if self.alive and len(self._tasks) > self._most_tasks:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._most_tasks = 64 + 2 * len(self._tasks)

    def spare(self) -> None:
        """Nothing kills us any more."""
        self.dies_at_step = self.dies_at_operation = self.dies_at_transaction = None

    @property
    def tasks(self) -> int:
        """How many tasks are not done."""
        return sum(not one.done() for one in self._tasks)

    def may_step(self) -> bool:
        """Count a step; False when there are no more."""
        if not self.alive:
            return False
        self.steps += 1
        if self.steps == self.dies_at_step:
            self.kill("between two awaits")
        return self.alive

    def disk_seconds(self) -> float:
        """Return how long the next work of a thread takes."""
        return self._random.uniform(0.0001, 0.003) * self.slowness

    def in_thread(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run the work of a thread. A kill may come right after it, before anybody hears of it."""
        self.transactions += 1
        if self._has_news:
            self.fill_disk(full=self.disk_is_full)
        if self.transactions != self.dies_at_transaction:
            return func(*args)
        before = {path: path.stat().st_size for path in sorted(self.folder.rglob("*.sqlite-wal"))}
        result = func(*args)
        for path, size in before.items():
            if path.exists() and path.stat().st_size > size and self._random.random() < 0.5:
                self._torn = (path, size, path.stat().st_size)
        self.kill("within a transaction" if self._torn else "after a transaction")
        return result

    # --- The disk -----------------------------------------------------------------------------------------------------

    def changes(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called before each operation that changes a file."""
        if not self.alive:
            raise Killed
        if self.disk_is_full and _needs_room(event, arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])
        self.operations += 1
        if self.operations == self.dies_at_operation:
            self._tear()
            self.kill(f"before {event}")
            raise Killed
        if event == "open":
            self._written = os.fspath(arguments[0])
        elif event != "os.chmod":
            self._written = None

    def _tear(self) -> None:
        """The kill fell into the middle of the last write: its file ends anywhere."""
        if self._written is None or self._random.random() < 0.5:
            return
        name = Path(self._written).name
        for path in sorted(self.folder.rglob(name)):
            if path.is_file() and not path.is_symlink() and ".sqlite" not in name and name != "lock":
                os.truncate(path, self._random.randint(0, path.stat().st_size))

    def locked(self, descriptor: int) -> None:
        """Remember the descriptor of a file lock."""
        status = os.fstat(descriptor)
        self._locks[descriptor] = (status.st_dev, status.st_ino)

    def gives_away(self, descriptor: int) -> int:
        """Forget a descriptor that a child has inherited: it may have the number of one that we closed."""
        self._locks.pop(descriptor, None)
        return descriptor

    def opened(self, database: sqlite3.Connection) -> None:
        """Remember a database of ours. It is only being opened, and told of a full disk before its next work."""
        self._databases.append(database)
        self._has_news = self.disk_is_full

    def fill_disk(self, *, full: bool) -> None:
        """From now on nothing new can be written, or it can again."""
        self.disk_is_full, self._has_news = full, False
        for database in self._databases:
            with contextlib.suppress(sqlite3.Error):
                _limit(database, full=full)

    # --- Dying --------------------------------------------------------------------------------------------------------

    def kill(self, how: str) -> None:
        """Die now: nothing of ours is run any more."""
        if self.alive:
            self.alive = False
            self._on_death(self, how)

    def at_death(self, call: Callable[[], None]) -> None:
        """Call this when we are dead: what a kernel does."""
        self._last_will.append(call)

    def bury(self) -> None:
        """Take apart what is left, once nothing of ours is on the stack. None of our code can change anything."""
        for call in self._last_will:
            call()
        descriptors, undead = self._let_go_of_locks(), len(_UNDEAD)
        for task in self._tasks:  # which grows
            task._log_traceback = False
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if not self.context.run(_close, task.get_coro()):
                    _UNDEAD.append(task)
        if len(_UNDEAD) == undead:  # else one of them may still close its own
            _close_nothing(descriptors)
        self._tasks.clear()
        self._close_databases()

    def _let_go_of_locks(self) -> list[int]:
        """Put nothing in the place of each lock's descriptor, so that whoever closes it later closes nothing else."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, file in self._locks.items():
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) == file:
                    os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
        descriptors = list(self._locks)
        self._locks.clear()
        return descriptors

    def _close_databases(self) -> None:
        """Let go of the databases as a kill does: what is in their files stays as it is, but for a torn last write."""
        files = [path for suffix in ("", "-wal") for path in sorted(self.folder.rglob(f"*.sqlite{suffix}"))]
        kept = {path: path.read_bytes() for path in files}
        for database in self._databases:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        self._databases.clear()
        if self._torn is not None:
            path, before, after = self._torn
            kept[path] = kept[path][: self._random.randint(before, after)]
        for path, content in kept.items():
            path.write_bytes(content)
            path.with_name(path.name + "-shm").unlink(missing_ok=True)


_UNDEAD: list[asyncio.Task[Any]] = []
"""Tasks that could not be taken apart: collecting them as garbage would run their code once more."""


def _close_nothing(descriptors: list[int]) -> None:
    """Close those that nobody has closed, and that are nothing."""
    nothing = Path(os.devnull).stat().st_rdev
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_rdev == nothing:
                os.close(descriptor)


def _close(coroutine: Any) -> bool:
    """End a coroutine that will never be run again, whatever it still wants to do; whether that worked."""
    for _ in range(100):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001 - it is dead, and objects
            continue
        return True
    return False


def _needs_room(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        path, flags = arguments[0], arguments[2]
        if flags & (os.O_EXCL | os.O_TRUNC):
            return True
        return bool(flags & os.O_CREAT) and not os.path.lexists(path)
    return event in {"os.mkdir", "os.link", "os.symlink"}


def _limit(database: sqlite3.Connection, *, full: bool) -> None:
    database.execute(f"PRAGMA max_page_count = {1 if full else _NO_LIMIT}")  # SQLite makes it the present size


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if not (isinstance(arguments[2], int) and arguments[2] & _WRITING) or isinstance(arguments[0], int):
            return
    elif event == "sqlite3.connect/handle":
        process = PROCESS.get(None)
        if process is not None:
            process.opened(arguments[0])
        return
    elif event == "fcntl.flock":
        process = PROCESS.get(None)
        if process is not None:
            process.locked(arguments[0])
        return
    elif event not in _CHANGING:
        return
    process = PROCESS.get(None)
    if process is not None:
        process.changes(event, arguments)


_is_watching: list[bool] = []


def watch() -> None:
    """Begin to hear of file operations. Python cannot forget an audit hook, so that there is one for ever."""
    if not _is_watching:
        _is_watching.append(True)
        sys.addaudithook(_audit)
