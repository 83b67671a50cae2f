"""A whole simulation: a fleet begins, things happen to it, they end, and everything has to come out well."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from schema.desired import Content
from tests.simulator import durable, faults, process
from tests.simulator.durable import open_descriptors
from tests.simulator.machines import DirectorMachine
from tests.simulator.oracle import Violation
from tests.simulator.timeline import telling
from tests.simulator.virtual_loop import BusyLoop, VirtualLoop
from tests.simulator.world import World

CONVERGENCE_SECONDS = 1_800.0
"""The longest way back: a client's longest pause, a pull that was just missed, and the loop's longest pause."""
QUIET_SECONDS = 150.0
DRAIN_SECONDS = 400.0
MOST_TASKS = 60
_TAIL = 80
_OF_THE_DEAD = ("Unclosed", "Task was destroyed")
"""What is said of what a kill has left, when it is collected."""


@dataclass(slots=True)
class Outcome:
    """How a simulation ended."""

    seed: int
    violations: list[str] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    """Of virtual time."""
    executions: int = 0
    deaths: int = 0
    dials: int = 0

    @property
    def ok(self) -> bool:
        return not self.violations

    def report(self, *, lines: int = _TAIL) -> str:
        """Return what went wrong, for a person."""
        said = "\n".join(f"  {one}" for one in self.violations[:20])
        tail = "\n".join(line[:400] for line in self.timeline[-lines:])
        replay = f"make simulate SEEDS=1 SEED_START={self.seed}"
        return f"seed {self.seed}: {len(self.violations)} violations\n{said}\n{tail}\n{replay}"


def simulate(seed: int, story: Callable[[World], Awaitable[None]] | None = None, **changes: Any) -> Outcome:
    """Live through one seed. The same seed is the same story, byte for byte.

    Another ``story`` than the usual may be told; ``changes`` are the ``World``'s.
    """
    process.watch()
    durable.empty_store()
    outcome = Outcome(seed)
    with _without_garbage(), durable.place() as base:
        loop = VirtualLoop()
        world: list[World] = []

        async def live() -> None:
            world.append(World(seed, base=base, loop=loop, **changes))
            with telling(world[0].timeline, outcome.violations):
                loop.set_exception_handler(lambda _, context: _note_exception(context, outcome.violations))
                try:
                    await (story or tell)(world[0])
                finally:
                    world[0].end()
                    await asyncio.sleep(1.0)

        try:
            loop.run_until_complete(live())
        except (Violation, BusyLoop) as error:
            outcome.violations.append(str(error))
        finally:
            loop.close()
        _fill_in(outcome, world[0])
        world.clear()
    return outcome


@contextlib.contextmanager
def _without_garbage() -> Iterator[None]:
    """Collect nothing meanwhile, and what is left of the dead afterwards, whatever it complains about then."""
    _keep_what_is_loaded()
    was_enabled, hook, level = gc.isenabled(), sys.unraisablehook, logging.root.manager.disable
    gc.disable()
    logging.disable()
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        logging.disable(level)
        if was_enabled:
            gc.enable()


@lru_cache(maxsize=1)
def _keep_what_is_loaded() -> None:
    """Take modules and classes out of every further collection, which then costs what one world costs."""
    gc.collect()
    gc.freeze()


def _note_exception(context: dict[str, Any], violations: list[str]) -> None:
    owner = process.PROCESS.get(None)
    if owner is None or owner.alive:
        error = context.get("exception")
        message = str(context.get("message"))
        is_ours = not isinstance(error, process.Killed) and not message.startswith(_OF_THE_DEAD)
        if is_ours and not _is_of_aiohttp(error):
            violations.append(f"{context.get('message')}: {error!r}")


def _is_of_aiohttp(error: Any) -> bool:
    """Whether a request came in the very step in which its connection went: aiohttp lets go of what it then calls."""
    last = traceback.extract_tb(error.__traceback__)[-1:] if isinstance(error, TypeError) else []
    return any(frame.name == "start" and frame.filename.endswith("aiohttp/web_protocol.py") for frame in last)


def _fill_in(outcome: Outcome, world: World) -> None:
    outcome.violations += world.oracle.violations
    outcome.violations += [fault for service in world.fleet.services() for fault in service.faults]
    outcome.timeline = world.timeline.lines
    outcome.steps, outcome.seconds = world.loop.steps, world.loop.time()
    outcome.executions, outcome.dials = len(world.executions), world.network.dials
    outcome.deaths = sum(" dies: " in line for line in world.timeline.lines)


async def tell(world: World) -> None:
    """The usual story."""
    await Story(world).tell()


class Story:
    """What happens in one world, from its begin to its end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice("story")

    async def tell(self) -> None:
        """Begin, suffer, recover, and be judged."""
        world, dice = self._world, self._dice
        world.begin()
        until = dice.uniform(120.0, 420.0)
        for fault in faults.draw(world, dice, begin=2.0, end=until, count=dice.randint(1, 7)):
            await self.until(world.loop.began + fault.at)
            fault.happen()
        await asyncio.sleep(dice.uniform(0.0, 20.0))
        await self.recover()

    async def recover(self) -> None:
        """Let all faults end, and judge what comes of it."""
        world = self._world
        world.calm()
        await self.converge()
        await self._live_quietly()
        await self._drain()
        world.oracle.judge_reports(world.executions)
        world.oracle.judge_state(world.expected())
        self._judge_memory()
        if world.oracle.violations:
            raise Violation("at the end of it all")

    async def until(self, moment: float) -> None:
        """Let time pass, and look around meanwhile."""
        while (left := moment - self._world.loop.time()) > 0:
            await asyncio.sleep(min(left, 10.0))
            self._look()

    def _look(self) -> None:
        for name in self._world.names:
            self._world.oracle.look_at(name)
        if self._world.oracle.violations:
            raise Violation("seen while it happened")

    # --- Recovering ---------------------------------------------------------------------------------------------------

    async def converge(self) -> None:
        """Wait until every client follows the newest valid revision; a person mends what only a person can."""
        deadline = self._world.loop.time() + CONVERGENCE_SECONDS
        while reason := self._why_not():
            if self._world.loop.time() > deadline:
                raise Violation(f"after {CONVERGENCE_SECONDS:.0f} quiet seconds: {reason}")
            await asyncio.sleep(5.0)
            self._look()
            self._mend()

    def _mend(self) -> None:
        """Push what is valid, or let through what is held."""
        world, director = self._world, self._world.fleet.director
        if world.is_mistaken:
            world.push()
        if director.is_up and director.director is not None and director.process is not None:
            reconciler = director.director.reconciler
            hold = reconciler.status.hold
            if hold is not None and hold.revision == world.history.head:
                work = reconciler.acknowledge(hold.revision, actor="a person")
                asyncio.get_running_loop().create_task(work, context=director.process.context)

    def _why_not(self) -> str:
        world = self._world
        if world.is_mistaken:
            return "the newest revision is a mistake"
        for name, digest in world.expected().items():
            machine = world.fleet.clients[name]
            if not machine.is_up or machine.agent is None:
                return f"{name} is down"
            if reason := world.oracle.follows(name, digest):
                return reason
            connection = machine.agent._connection
            if connection is None or not connection.is_open:
                return f"{name} is not connected"
        return "" if world.fleet.director.is_up else "the director is down"

    async def _live_quietly(self) -> None:
        """Nothing happens for a while but what was planned: all of it, and in time."""
        world = self._world
        await asyncio.sleep(20.0)  # what was late has begun
        since = world.fleet.director.clock.now()
        await self.until(world.loop.time() + QUIET_SECONDS)
        until = world.fleet.director.clock.now()
        await self._drain()
        for name in world.names:
            content = self._content(name)
            if content is not None and not content.suspend:
                world.oracle.judge_schedule(name, content.jobs, since=since, until=until)

    def _content(self, name: str) -> Content | None:
        agent = self._world.fleet.clients[name].agent
        state = agent._follower.current if agent is not None else None
        return state.content if state is not None else None

    async def _drain(self) -> None:
        """Wait until nothing runs and everything was reported."""
        deadline = self._world.loop.time() + DRAIN_SECONDS
        while reason := self._what_is_left():
            if self._world.loop.time() > deadline:
                raise Violation(f"after {DRAIN_SECONDS:.0f} more seconds: {reason}")
            await asyncio.sleep(1.0)

    def _what_is_left(self) -> str:
        for name in self._world.names:
            machine = self._world.fleet.clients[name]
            agent = machine.agent
            if agent is None or not machine.is_up:
                return f"{name} is down"
            if machine.borg.running or agent._running:
                return f"{name} is busy"
            outbox = agent._outbox
            if outbox._waiting or outbox._database is None or outbox._database.waiting():
                return f"{name}'s outbox is not empty"
        return ""

    # --- Memory -------------------------------------------------------------------------------------------------------

    def _judge_memory(self) -> None:
        world, oracle = self._world, self._world.oracle
        director = world.fleet.director
        sessions = len(director.director.gateway._sessions) if director.director is not None else 0
        if sessions > len(world.names):
            oracle.object(f"the director has {sessions} sessions with {len(world.names)} clients")
        if world.network.open_lines > 2 * len(world.names):
            oracle.object(f"{world.network.open_lines} ends of lines are open")
        for service in world.fleet.services():
            tasks = service.process.tasks if service.process is not None else 0
            bound = MOST_TASKS + (20 * len(world.names) if isinstance(service, DirectorMachine) else 0)
            if tasks > bound:
                oracle.object(f"{service.name} has {tasks} tasks")
        descriptors = open_descriptors()
        if descriptors > world.descriptors + 40:
            oracle.object(f"{descriptors} descriptors are open, and {world.descriptors} were")
