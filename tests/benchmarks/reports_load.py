"""Ten thousand clients that report a run each, all at once, and go on asking whether the director is there.

``python -m tests.benchmarks.reports_load --clients=NUMBER --port=NUMBER``, told on its standard input what to do.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from schema import wire
from schema.observed import (
    Archive,
    ArchivesSeen,
    LogLine,
    Outcome,
    RepositoryStatistics,
    RunFinished,
    RunLog,
    RunStarted,
    Trigger,
)
from tests.benchmarks.load import quantile
from tests.benchmarks.wire_clients import PING, PONG, LoadClient, connect_all, frame, kind_of
from tests.benchmarks.wire_fleet import MOMENT, members
from tests.benchmarks.wire_programs import obey, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schema.observed import Report
    from tests.benchmarks.wire_fleet import Member

LINES: Final = 200
BATCH: Final = 100
"""Lines in one report, as the client sends them."""
LONGEST: Final = 240.0
HEARTBEAT: Final = 0.02
"""Seconds between one client's heartbeat and the next one's."""
_RUN: Final = "0" * 32
_EPOCH: Final = "e" * 32
_ARCHIVE: Final = "a" * 64


class Reporter(LoadClient):
    """A client that asks whether the director is there, and hears that it is."""

    __slots__ = ("alive", "asked")

    def __init__(self, member: Member, *, number: int) -> None:
        super().__init__(member, number=number)
        self.asked: float | None = None
        self.alive: Callable[[float], None] = lambda _: None

    def ask(self) -> None:
        """Send a heartbeat, unless one is not answered yet."""
        if self._transport is not None and self.asked is None:
            self.asked = time.perf_counter()
            self._transport.write(frame(PING, b""))

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == PONG and self.asked is not None:
            self.alive(time.perf_counter() - self.asked)
            self.asked = None
        else:
            super()._take(kind, payload)


class Load:
    """The fleet, and what it reports."""

    def __init__(self, clients: int, *, port: int) -> None:
        self._clients = [Reporter(member, number=number) for number, member in enumerate(members(clients))]
        self._port = port
        self._beats: list[float] = []
        self._acknowledged = 0
        self._all = asyncio.Event()
        self._frame = reports_frame().encode()
        for client in self._clients:
            client.hear = self._hear
            client.alive = self._beats.append

    async def connect(self) -> Mapping[str, Any]:
        """Connect all of them."""
        await connect_all(self._clients, self._port)
        return {}

    async def report(self) -> Mapping[str, Any]:
        """Report a run of each; return once all are acknowledged, and how long heartbeats had to wait meanwhile."""
        beating = asyncio.create_task(self._beat())
        started = time.perf_counter()
        for client in self._clients:
            one = b"%032x" % (client.number + 1)
            mine = self._frame.replace(_RUN.encode(), one).replace(_EPOCH.encode(), one)
            client.send(mine.replace(_ARCHIVE.encode(), one + one))
        sent = time.perf_counter() - started
        async with asyncio.timeout(LONGEST):
            await self._all.wait()
        seconds = time.perf_counter() - started
        beating.cancel()
        # Who was not answered yet has waited until now.
        now = time.perf_counter()
        waits = [*self._beats, *(now - one.asked for one in self._clients if one.asked is not None)]
        return {
            "seconds": seconds,
            "sent": sent,
            "beats": len(waits),
            "longest": max(waits),
            "p99": quantile(waits, 0.99),
        }

    async def _beat(self) -> None:
        """Have one client after the other send a heartbeat, whether or not it waits for its acknowledgement."""
        while True:
            for client in self._clients[:: max(1, len(self._clients) // 997)]:
                client.ask()
                await asyncio.sleep(HEARTBEAT)

    def _hear(self, _: LoadClient, message: bytes) -> None:
        if kind_of(message) == b"acknowledged":
            self._acknowledged += 1
            if self._acknowledged == len(self._clients):
                self._all.set()


def reports_frame() -> str:
    """Return what one client says of one run, its lines included, with names to be replaced."""
    lines = tuple(
        LogLine(
            at=MOMENT + timedelta(seconds=number),
            level="info",
            message=f"nas: line {number} of what borgmatic tells about /var/lib/something",
        )
        for number in range(LINES)
    )
    statistics = RepositoryStatistics(
        repository="nas", archive="web", archive_id=_ARCHIVE, original_size=10**9, files=9
    )
    seen = Archive(id=_ARCHIVE, name="web", start=MOMENT)
    reports: list[Report] = [
        RunStarted(at=MOMENT, run=_RUN, backup="files", trigger=Trigger.SCHEDULE, due=MOMENT),
        *(RunLog(run=_RUN, first=first, lines=lines[first : first + BATCH]) for first in range(0, LINES, BATCH)),
        RunFinished(
            at=MOMENT,
            run=_RUN,
            backup="files",
            outcome=Outcome.SUCCEEDED,
            exit_code=0,
            log_lines=LINES,
            statistics=(statistics,),
        ),
        ArchivesSeen(
            at=MOMENT, backup="files", repository="nas", url="/nas", available=True, count=1, archives=(seen,)
        ),
    ]
    items = tuple(
        wire.ReportItem(sequence=number, report=report.model_dump(mode="json"))
        for number, report in enumerate(reports, start=1)
    )
    return wire.encode(wire.Reports(epoch=_EPOCH, items=items))


async def _main(clients: int, *, port: int) -> None:
    load = Load(clients, port=port)
    await obey({}, {"connect": load.connect, "report": load.report})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int)
    parser.add_argument("--port", type=int)
    asked = parser.parse_args()
    run(_main(asked.clients, port=asked.port))
