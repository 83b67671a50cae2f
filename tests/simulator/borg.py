"""borgmatic and Borg of one machine, as programs that the client starts: the port ``client.borgmatic.Start``.

They read the real configuration file, take virtual time, hold the locks that they inherit, and go on when the client
that started them is killed. What they execute is told to ``executed``: the oracle judges it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random

from client.borgmatic import GRACE_SECONDS
from tests.simulator.process import PROCESS, Process

_ACTIONS = ("create", "prune", "compact", "check")
_NO_GROUP = 2**30


@dataclass(slots=True)
class Execution:
    """One borgmatic that ran actions: what it was told, and how it ended."""

    number: int
    machine: str
    file: str
    content: bytes | None
    """The configuration's bytes when it began; None when there was no such file."""
    actions: tuple[str, ...]
    began: float
    wall: datetime
    lines: list[str] = field(default_factory=list)
    ended: float | None = None
    exit_code: int | None = None


class Program:
    """A running program."""

    def __init__(self, loop: asyncio.AbstractEventLoop, process: Process) -> None:
        self.id = _NO_GROUP
        self._loop = loop
        self._process = process
        self._code: int | None = None
        self._waiters: list[asyncio.Future[int]] = []
        self.task: asyncio.Task[None] | None = None

    async def wait(self) -> int:
        if self._code is None:
            waiter: asyncio.Future[int] = self._loop.create_future()
            self._waiters.append(waiter)
            return await waiter
        return self._code

    async def end(self, *, grace: float = GRACE_SECONDS) -> int:
        if self._code is None and self.task is not None:
            self.task.cancel()
        return await self.wait()

    def ended(self, code: int) -> None:
        """The program is gone."""
        if self._code is None:
            self._code = code
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(code)


class Borg:
    """The programs of one machine. ``process`` is where they run: it outlives the client."""

    def __init__(
        self,
        *,
        name: str,
        process: Process,
        random: Random,
        now: Callable[[], datetime],
        executed: Callable[[Execution], None],
        number: Callable[[], int],
    ) -> None:
        self._name = name
        self.process = process
        self._random = random
        self._now = now
        self._executed = executed
        self._number = number
        self._archives: dict[str, list[tuple[str, datetime]]] = {}
        self.running = 0
        self.longest = 12.0
        self.fails = 0.05
        self.warns = 0.05

    async def start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
        inherited: Sequence[int] = (),
    ) -> tuple[Program, asyncio.Task[None]]:
        """Start a program."""
        loop = asyncio.get_running_loop()
        client, context = PROCESS.get(), copy_context()
        program = Program(loop, self.process)
        locks = [client.gives_away(os.dup(one)) for one in inherited]
        closed: asyncio.Future[None] = loop.create_future()

        def say(data: bytes) -> None:
            if client.alive:
                loop.call_soon(stdout, data, context=context)

        def over() -> None:
            for lock in locks:
                os.close(lock)
            locks.clear()
            if not closed.done():
                closed.set_result(None)

        async def output() -> None:
            await closed

        program.task = loop.create_task(self._live(program, list(arguments), say), context=self.process.context)
        program.task.add_done_callback(lambda _: over(), context=self.process.context)
        self.process.at_death(over)
        return program, asyncio.ensure_future(output())

    async def _live(self, program: Program, arguments: list[str], say: Callable[[bytes], None]) -> None:
        code = -15
        try:
            code = await self._run(arguments, say)
        except asyncio.CancelledError:
            await asyncio.sleep(self._random.uniform(0.01, 1.0))  # a checkpoint, and the lock is given back
        finally:
            program.ended(code)

    async def _run(self, arguments: list[str], say: Callable[[bytes], None]) -> int:
        words = set(arguments)
        if "validate" in words:
            await asyncio.sleep(self._random.uniform(0.2, 1.0))
            return 0
        if "--version" in words:
            say(b"2.1.10\n")
            return 0
        if "list" in words:
            await asyncio.sleep(self._random.uniform(0.2, 3.0))
            say(b'{"path": "etc/hosts", "type": "-", "size": 12, "mtime": "2026-01-01T00:00:00.000000"}\n')
            return 0
        if "repo-list" in words or "info" in words:
            await asyncio.sleep(self._random.uniform(0.2, 2.0))
            say(self._listing(arguments))
            return 0
        return await self._execute(arguments, say)

    async def _execute(self, arguments: list[str], say: Callable[[bytes], None]) -> int:
        file = Path(arguments[arguments.index("--config") + 1])
        content = None
        with contextlib.suppress(OSError):
            content = file.read_bytes()
        execution = Execution(
            number=self._number(),
            machine=self._name,
            file=file.name,
            content=content,
            actions=tuple(one for one in arguments if one in _ACTIONS),
            began=asyncio.get_running_loop().time(),
            wall=self._now(),
        )
        self._executed(execution)
        self.running += 1
        try:
            execution.exit_code = -9  # until it says otherwise
            execution.exit_code = await self._back_up(execution, say)
        finally:
            self.running -= 1
            execution.ended = asyncio.get_running_loop().time()
        return execution.exit_code

    async def _back_up(self, execution: Execution, say: Callable[[bytes], None]) -> int:
        if execution.content is None:
            return 1
        until = self._random.uniform(0.5, self.longest)
        dice = self._random.random()
        for number in range(self._random.randint(1, 6)):
            await asyncio.sleep(until / 6)
            self._say_line(execution, f"execution {execution.number} line {number}", "INFO", say)
            say(
                json.dumps(
                    {"type": "archive_progress", "nfiles": number, "original_size": number, "path": "x"}
                ).encode()
            )
            say(b"\n")
        if dice < self.fails:
            self._say_line(execution, f"execution {execution.number} fails", "ERROR", say)
            return 1
        if dice < self.fails + self.warns:
            self._say_line(execution, f"execution {execution.number} warns", "WARNING", say)
        urls = _urls(execution.content)
        statistics = []
        for url in urls:
            name = f"archive-{execution.number}"
            archives = self._archives.setdefault(url, [])
            archives.append((name, self._now()))
            if "prune" in execution.actions:
                del archives[:-7]
            statistics.append(
                {
                    "repository": {"location": url},
                    "archive": {"name": name, "id": _archive_id(name), "stats": {"nfiles": 1}, "duration": until},
                }
            )
        if "create" in execution.actions:
            say(json.dumps(statistics).encode())
        return 0

    def _say_line(self, execution: Execution, text: str, level: str, say: Callable[[bytes], None]) -> None:
        execution.lines.append(text)
        line = {"type": "log_message", "message": text, "levelname": level, "name": "borgmatic"}
        say(json.dumps(line).encode() + b"\n")

    def _listing(self, arguments: list[str]) -> bytes:
        try:
            content = Path(arguments[arguments.index("--config") + 1]).read_bytes()
        except OSError:
            return b"[]"
        listed = []
        for url in _urls(content):
            archives = [
                {"name": name, "id": _archive_id(name), "start": at.replace(tzinfo=None).isoformat()}
                for name, at in self._archives.get(url, [])
            ]
            listed.append(
                {"repository": {"location": url, "id": "r"}, "archives": archives, "encryption": {"mode": "none"}}
            )
        return json.dumps(listed).encode()


def _archive_id(name: str) -> str:
    return name.rpartition("-")[2].rjust(64, "0")


def _urls(content: bytes) -> list[str]:
    """Return the repositories of a configuration."""
    lines = (line.strip().removeprefix("- ") for line in content.decode().splitlines())
    return [line.partition("path:")[2].strip().strip("\"'") for line in lines if line.startswith("path:")]
