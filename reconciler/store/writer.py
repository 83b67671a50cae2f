"""The one writer: a thread with the store's only writing connection. Calls that wait together share one commit.

The thread is woken when there is work, and works until there is none: it is the loop's to run (``run_in_executor``), so
that a loop of virtual time can run it in its own order.

``submit`` returns when the call's effects are on the disk, or raises the call's own error. Work is a function of the
connection and may be run again: a batch that fails is rolled back and each of its calls is repeated alone, so that the
bad one alone fails. (Savepoints would not do: SQLite itself rolls the whole transaction back when the disk is full.)
"""

from __future__ import annotations

import asyncio
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from reconciler.store.engine import explain, is_locked
from schema.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

T = TypeVar("T")

MAX_WAITING: Final = 512
"""Calls in the queue; more wait at the door (back-pressure)."""
MAX_BATCH: Final = 256
MAX_BATCH_SECONDS: Final = 0.1
"""A batch takes no further call after this long, so that no commit keeps the others waiting."""


@dataclass(slots=True)
class _Call:
    work: Callable[[Connection], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs work on the writing connection, in order."""

    def __init__(self, engine: Engine, *, path: Path, max_waiting: int = MAX_WAITING) -> None:
        self._engine = engine
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(max_waiting)
        self._queue: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._closing = False
        self._working: asyncio.Future[None] | None = None
        self.commits = 0
        """Transactions until now: under load far fewer than calls."""
        self._thread = ThreadPoolExecutor(1, "store-writer")

    async def submit(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` returned, after the commit. A caller that is cancelled does not undo the work."""
        await self._places.acquire()
        if self._closing:
            self._places.release()
            raise TransientError("the store is closed", hint="the director is shutting down")
        call = _Call(work, self._loop.create_future())
        self._queue.put(call)
        self._wake()
        return cast("T", await call.done)

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._closing = True
        while self._working is not None:
            await asyncio.wait([self._working])
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()

    def _wake(self) -> None:
        if self._working is None:
            self._working = self._loop.run_in_executor(self._thread, self._work)
            self._working.add_done_callback(self._rest)

    def _rest(self, _: asyncio.Future[None]) -> None:
        """Sleep, unless a call came after the thread's last look at the queue."""
        self._working = None
        if not self._queue.empty():
            self._wake()

    # --- In the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        connection = self._connection = self._connection or self._engine.connect()
        while calls := self._more(1):
            self._commit(connection, calls, grow=True)

    def _commit(self, connection: Connection, calls: list[_Call], *, grow: bool) -> None:
        """Run the calls, and while ``grow`` those that wait too, in one transaction."""
        try:
            with connection.begin():
                until = self._loop.time() + MAX_BATCH_SECONDS
                for call in calls:
                    call.result = call.work(connection)
                    if grow and call is calls[-1] and self._loop.time() < until:
                        calls += self._more(MAX_BATCH - len(calls))
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to a caller; the thread goes on
            if len(calls) == 1 or is_locked(error):
                explained = explain(error, path=self._path, doing="write to")
                if explained is not error:
                    explained.__cause__ = error
                for call in calls:
                    call.error = explained
            else:
                for call in calls:
                    self._commit(connection, [call], grow=False)
                return
        else:
            self.commits += 1
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, calls)

    def _more(self, count: int) -> list[_Call]:
        """Return calls that wait, without waiting for any."""
        calls: list[_Call] = []
        while len(calls) < count:
            try:
                calls.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return calls

    def _settle(self, calls: list[_Call]) -> None:
        for call in calls:
            self._places.release()
            if call.done.done():
                continue
            if call.error is None:
                call.done.set_result(call.result)
            else:
                call.done.set_exception(call.error)
                call.done.exception()  # its caller may be cancelled by now, and does not ask
