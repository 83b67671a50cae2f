"""What one run tells while it goes on: its log lines in batches, and how far it is. Used by ``runner``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.borgmatic_output import Level, Reader, Scrubber, Seen
from schema.observed import MAX_TEXT, LogLine, RunLog, RunProgress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from client.clock import Clock
    from schema.observed import Report

    Emit = Callable[[Report], Awaitable[None]]
    ShowProgress = Callable[[RunProgress], None]

PROGRESS_SECONDS = 0.5
BATCH_SECONDS = 1.0
BATCH_LINES = 100
MAX_LOG_LINES = 20_000
"""More lines than this of one run are counted, not kept."""
_MAX_WAITING_CHARACTERS = 4 * 1024 * 1024


@dataclass(slots=True)
class Telling:
    """Of one run, from its start to its end."""

    run: str
    backup: str
    emit: Emit
    progress: ShowProgress
    scrub: Scrubber
    clock: Clock
    _waiting: list[LogLine] = field(default_factory=list)
    _waiting_characters: int = 0
    _full: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: int = 0
    _dropped: int = 0
    _last_progress: float = float("-inf")
    _counted: RunProgress | None = None
    """The newest progress, to know when its numbers begin anew."""

    @property
    def lines(self) -> int:
        """How many lines the run had, those included that were not kept."""
        return self._sent + len(self._waiting) + self._dropped

    def reader(self, *, quiet: bool = False) -> Reader:
        """Return what understands the output of one program of the run; a quiet one shows no progress."""

        def show(seen: Seen) -> None:
            now = self.clock.monotonic()
            if not quiet and now - self._last_progress >= PROGRESS_SECONDS:
                self._last_progress = now
                self.show(seen)

        return Reader(on_line=self._keep, on_progress=show, now=self.clock.now, scrub=self.scrub)

    def show(self, seen: Seen) -> None:
        """Show how far the run is; where the numbers begin anew, so does the time that they count from."""
        now, before = self.clock.now(), self._counted
        goes_on = (
            before is not None
            and before.phase == seen.phase
            and before.files <= seen.files
            and (before.percent or 0) <= (seen.percent or 0)
        )
        self._counted = RunProgress(
            at=now,
            run=self.run,
            backup=self.backup,
            phase=seen.phase,
            files=seen.files,
            original_size=seen.original_size,
            deduplicated_size=seen.deduplicated_size,
            path=seen.path,
            percent=seen.percent,
            since=before.since if before is not None and goes_on else now,
        )
        self.progress(self._counted)

    def note(self, level: Level, message: str) -> None:
        """Add a line of our own to the log."""
        self._keep(LogLine(at=self.clock.now(), level=level, message=self.scrub(message)[:MAX_TEXT]))

    def _keep(self, line: LogLine) -> None:
        too_many = self._sent + len(self._waiting) >= MAX_LOG_LINES
        if too_many or self._waiting_characters > _MAX_WAITING_CHARACTERS:
            self._dropped += 1
            return
        self._waiting.append(line)
        self._waiting_characters += len(line.message)
        if len(self._waiting) >= BATCH_LINES:
            self._full.set()

    async def flush_for_ever(self) -> None:
        """Emit what waits each second, or as soon as a batch is full."""
        while True:
            timer = asyncio.create_task(self.clock.sleep(BATCH_SECONDS))
            full = asyncio.create_task(self._full.wait())
            try:
                await asyncio.wait((timer, full), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                full.cancel()
            self._full.clear()
            await self.flush()

    async def flush(self) -> None:
        """Emit what waits."""
        while self._waiting:
            batch = tuple(self._waiting[:BATCH_LINES])
            await self.emit(RunLog(run=self.run, first=self._sent, lines=batch))
            # Only now: what an interrupted emit may not have kept is sent again under the same number.
            del self._waiting[: len(batch)]
            self._waiting_characters = sum(len(line.message) for line in self._waiting)
            self._sent += len(batch)
