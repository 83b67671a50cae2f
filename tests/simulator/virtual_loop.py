"""An event loop whose time is virtual: when nothing is ready, it moves to the next timer at once.

What a program would do elsewhere happens in its order, too: threads (``run_in_executor``) become timers, connections
go over ``network``. Each handle belongs to the simulated process in whose context it was made, and one of a dead
process is never run: that is kill -9, between any two awaits.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from tests.simulator.process import PROCESS, Process

if TYPE_CHECKING:
    from concurrent.futures import Executor

MOST_STEPS_WITHOUT_TIME = 50_000
"""Beyond, somebody spins: real time would pass, and a processor would be busy with nothing."""


class BusyLoop(Exception):
    """Handles run for ever without any time passing."""


class Wire(Protocol):
    """What carries connections (``network.Network``)."""

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol], path: str) -> Any: ...
    def listen(self, factory: Callable[[], asyncio.BaseProtocol], path: str) -> Any: ...


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. ``wire`` is set before anything is dialled."""

    wire: Wire
    began: float

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 1_000.0
        self._free: dict[int, float] = {}
        self.steps = 0
        self._steps_now = 0
        self._tidy_at = 1_000

    def time(self) -> float:
        return self._virtual

    @property
    def timers(self) -> int:
        """How many timers there are, cancelled ones among them."""
        return len(self._scheduled)  # type: ignore[attr-defined]

    # --- Stepping -----------------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]
        if len(timers) > self._tidy_at:
            self._tidy(timers)
        if not ready:
            self._move_on(timers)
        while timers and timers[0]._when <= self._virtual:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self._step(handle)

    def _tidy(self, timers: list[Any]) -> None:
        """Forget timers that were cancelled, as every loop does when they are many."""
        for timer in timers:
            timer._scheduled = not timer._cancelled
        timers[:] = [timer for timer in timers if timer._scheduled]
        heapq.heapify(timers)
        self._tidy_at = 1_000 + 2 * len(timers)

    def _move_on(self, timers: list[Any]) -> None:
        while timers and timers[0]._cancelled:
            timer = heapq.heappop(timers)
            timer._scheduled = False
        if not timers:
            raise RuntimeError("nothing will ever happen any more")
        if timers[0]._when > self._virtual:
            self._virtual = timers[0]._when
            self._steps_now = 0

    def _step(self, handle: Any) -> None:
        process = handle._context.get(PROCESS)
        if process is not None and not process.may_step():
            return
        self.steps += 1
        self._steps_now += 1
        if self._steps_now > MOST_STEPS_WITHOUT_TIME:
            self._steps_now = 0
            raise BusyLoop(f"{process.name if process else 'the simulator'} does not let time pass")
        handle._run()

    def _process_events(self, event_list: Any) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Close no generator that nobody finished: only the dead leave such behind, and their code is not run again."""
        self._asyncgens.discard(agen)  # type: ignore[attr-defined]

    # --- What would be elsewhere --------------------------------------------------------------------------------------

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        if process is not None:
            process.owns(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run ``func`` a moment later, after what this executor was given before."""
        future: asyncio.Future[Any] = self.create_future()
        process = PROCESS.get(None)
        begin = self._virtual
        if executor is not None:
            begin = max(begin, self._free.get(id(executor), begin))
        end = begin + (process.disk_seconds() if process else 0.0)
        if executor is not None:
            self._free[id(executor)] = end
        self.call_at(end, self._execute, future, process, func, args)
        return future

    def _execute(
        self, future: asyncio.Future[Any], process: Process | None, func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if future.cancelled():
            return
        try:
            result = func(*args) if process is None else process.in_thread(func, args)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to who waits
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    async def create_unix_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], path: str, **_: Any
    ) -> Any:
        return await self.wire.dial(protocol_factory, path)

    async def create_unix_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], path: str, **_: Any
    ) -> Any:
        return self.wire.listen(protocol_factory, path)
