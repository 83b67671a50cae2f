"""The client's service with a clock that runs faster, for tests that need many scheduled runs in little time.

``python fast_client.py SETTINGS RECORD``: the agent as ``director-client run`` builds it. ``FAST_CLOCK`` is the speed
and the moment at which both clocks agree, so that time goes on evenly when the process is killed and started again.
Each run whose start or end is durable is written to RECORD, a line each, which no kill takes back: by the thread that
stored it, right after the transaction, whatever became of the task that asked for it. ``steps`` says how it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from client import log
from client.clock import SystemClock
from client.outbox import Database, Entry, Notes
from client.service import serve
from client.settings import read_settings
from tests.e2e import steps


class FastClock(SystemClock):
    """Time that passes ``speed`` times as fast since ``start`` (a Unix time)."""

    def __init__(self, speed: float, start: float) -> None:
        self._speed = speed
        self._start = start

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._start + (time.time() - self._start) * self._speed, UTC)

    def monotonic(self) -> float:
        return time.monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


def keep_record(file: Path) -> None:
    """Write down every run of which the outbox has stored a report, and every event."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = Database.write

    def recorded(self: Database, batch: list[Entry], notes: Notes) -> None:
        write(self, batch, notes)
        lines = "".join(_lines(batch))
        if lines:
            os.write(descriptor, lines.encode())

    Database.write = recorded  # type: ignore[method-assign]


def _lines(batch: Iterable[Entry]) -> Iterable[str]:
    for entry in batch:
        report = json.loads(entry.body)
        if entry.type == "run-started":
            yield f"{report['run']} started\n"
        if entry.type == "run-finished":
            yield f"{report['run']} {report['outcome']}\n"
        if entry.type == "event":
            yield f"event {report['reason']}\n"


def main() -> None:
    speed, start = os.environ["FAST_CLOCK"].split()
    keep_record(Path(sys.argv[2]))
    steps.watch_as_told()
    log.configure("info")
    asyncio.run(serve(read_settings(Path(sys.argv[1])), clock=FastClock(float(speed), float(start))))


if __name__ == "__main__":
    main()
