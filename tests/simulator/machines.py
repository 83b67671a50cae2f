"""Machines: one that directs and some that are backed up, each with its own clock, and a service that is restarted."""

from __future__ import annotations

import asyncio
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from client.agent import Agent
from client.build import build_agent
from client.policy import Policy
from client.settings import ClientSettings
from reconciler import process as director_process
from reconciler.listen import Address
from reconciler.process import Director, Surroundings, directing
from reconciler.settings import DirectorSettings, SourceTable, StoreTable
from schema.errors import DirectorError
from tests.simulator.borg import Borg
from tests.simulator.history import History
from tests.simulator.process import Process

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
DIRECTOR = "/simulated/director"
"""Where the director listens: a path that only the simulated network knows."""

Tell = Callable[[str, str], None]
"""Who, and what happened."""


class MachineClock:
    """A machine's time: the loop's, and a wall clock that may be wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = loop.time()
        self.wrong = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time() - self._began + self.wrong)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Service(ABC):
    """A program that is started again when it ends. The ``world`` decides when it dies."""

    def __init__(
        self, name: str, *, folder: Path, random: Random, tell: Tell, on_death: Callable[[Process, str], None]
    ) -> None:
        self.name = name
        self.folder = folder
        self.random = random
        self.clock = MachineClock(asyncio.get_running_loop())
        self.tell = tell
        self.process: Process | None = None
        self.incarnations = 0
        self.is_held_down = False
        self.disk_is_full = False
        self.slowness = 1.0
        self.between: Callable[[], None] | None = None
        """Done once while it is down: somebody restores a backup."""
        self.faults: list[str] = []
        """Tracebacks it ended with."""
        self._on_death = on_death
        self._changed = asyncio.Event()

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.alive

    async def supervise(self) -> None:
        """Start it, for ever again."""
        while True:
            while self.is_held_down:
                await self._until_changed()
            if self.between is not None:
                self.between()
                self.between = None
            self.incarnations += 1
            process = self.process = Process(
                self.name,
                random=Random(f"{self.random.random()}"),
                folder=self.folder,
                on_death=self._died,
            )
            process.slowness = self.slowness
            process.fill_disk(full=self.disk_is_full)
            self.tell(self.name, "starts")
            task = asyncio.get_running_loop().create_task(self._live(process), context=process.context)
            task.add_done_callback(lambda _: self._changed.set())
            while process.alive and not task.done():
                await self._until_changed()
            if process.alive:
                process.kill(self._how(task))
            await asyncio.sleep(self.random.uniform(0.5, 15.0))

    async def _until_changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _how(self, task: asyncio.Task[None]) -> str:
        """Return how it ended by itself; a traceback is a fault of ours."""
        error = task.exception()
        if error is not None and not isinstance(error, DirectorError):
            self.faults.append(f"{self.name} ended with\n{''.join(traceback.format_exception(error))}")
        return f"it ended: {error}" if error is not None else "it ended"

    def _died(self, process: Process, how: str) -> None:
        self._on_death(process, how)
        self._changed.set()

    def hold_down(self, *, held: bool) -> None:
        """Keep it from being started, or let it."""
        self.is_held_down = held
        self._changed.set()

    def fill_disk(self, *, full: bool) -> None:
        """Fill the disk, or make room."""
        self.disk_is_full = full
        if self.process is not None:
            self.process.fill_disk(full=full)

    @abstractmethod
    def stop(self) -> None:
        """End it in good order."""

    @abstractmethod
    async def _live(self, process: Process) -> None:
        """Be the program, until it ends."""


class ClientMachine(Service):
    """A machine that is backed up."""

    def __init__(self, name: str, *, borg: Borg, as_name: str | None = None, **common: Any) -> None:
        super().__init__(name, **common)
        self.borg = borg
        self.agent: Agent | None = None
        self.settings = ClientSettings(
            name=as_name or name,
            config_directory=str(self.folder / "etc"),
            state_directory=str(self.folder / "var"),
            borgmatic="/usr/bin/borgmatic",
            policy=Policy(),
        )

    async def _live(self, process: Process) -> None:
        agent = self.agent = build_agent(
            self.settings, clock=self.clock, random=Random(f"{self.random.random()}"), start=self.borg.start
        )
        await agent.run()

    def stop(self) -> None:
        """End it in good order."""
        if self.is_up and self.agent is not None and self.process is not None:
            self.process.context.run(self.agent.stop)


class DirectorMachine(Service):
    """The machine that directs."""

    def __init__(self, *, history: History, schema: Mapping[str, Any], keep_days: int, **common: Any) -> None:
        super().__init__("director", **common)
        self.history = history
        self._schema = schema
        self.director: Director | None = None
        self._stopping: asyncio.Event | None = None
        self.settings = DirectorSettings(
            state_directory=self.folder,
            source=SourceTable(url="/simulated/git"),
            store=StoreTable.model_validate({"keep": f"{keep_days}d"}),
        )

    async def _live(self, process: Process) -> None:
        stopping = self._stopping = asyncio.Event()
        around = Surroundings(
            source=self.history, borgmatic_schema=self._schema, random=Random(f"{self.random.random()}")
        )
        listen = (Address(path=DIRECTOR),)
        async with directing(self.settings, clock=self.clock, listen=listen, surroundings=around) as director:
            self.director = director
            work = [
                asyncio.create_task(director.reconciler.run()),
                asyncio.create_task(director_process._watch(director)),
                asyncio.create_task(director_process._trim(director)),
            ]
            await stopping.wait()
            await director_process._end(work[1:])
            director.reconciler.stop()
            await asyncio.wait(work[:1], timeout=10.0)
            await director_process._end(work[:1])
        self.director = None

    def stop(self) -> None:
        """End it in good order."""
        if self.is_up and self._stopping is not None and self.process is not None:
            self.process.context.run(self._stopping.set)


@dataclass(slots=True)
class Fleet:
    """All machines."""

    director: DirectorMachine
    clients: dict[str, ClientMachine] = field(default_factory=dict)

    def services(self) -> list[Service]:
        return [self.director, *self.clients.values()]
