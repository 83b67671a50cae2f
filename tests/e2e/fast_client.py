"""The client's service with a clock that runs faster, for tests that need many scheduled runs in little time.

``python fast_client.py SETTINGS RECORD``: the agent as ``director-client run`` builds it. ``FAST_CLOCK`` is the speed
and the moment at which both clocks agree, so that time goes on evenly when the process is killed and started again.
Each run whose start or end is durable is written to RECORD, a line each, which no kill takes back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from client import log
from client.clock import SystemClock
from client.outbox import Outbox
from client.service import serve
from client.settings import read_settings
from schema.observed import Report


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
    """Write down every run of which the outbox has stored a report."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    append = Outbox.append

    async def recorded(self: Outbox, *reports: Report, notes: Mapping[str, str | None] | None = None) -> None:
        await append(self, *reports, notes=notes)
        for line in _lines(reports):
            os.write(descriptor, line.encode())

    Outbox.append = recorded  # type: ignore[method-assign]


def _lines(reports: Iterable[Report]) -> Iterable[str]:
    for report in reports:
        if report.type == "run-started":
            yield f"{report.run} started\n"
        if report.type == "run-finished":
            yield f"{report.run} {report.outcome.value}\n"


def main() -> None:
    speed, start = os.environ["FAST_CLOCK"].split()
    keep_record(Path(sys.argv[2]))
    log.configure("info")
    asyncio.run(serve(read_settings(Path(sys.argv[1])), clock=FastClock(float(speed), float(start))))


if __name__ == "__main__":
    main()
