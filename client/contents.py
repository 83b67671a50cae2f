"""What is in the newest archive of each repository, in short. Called by ``agent`` after inventories.

borgmatic lists an archive as a stream of JSON lines, one for each file, which ``archive_tree`` folds as they come. It
reads what describes the files, not what is in them, and still costs: so it runs with the lowest priority, for five
minutes at most, at most once in twenty hours for each backup and repository, and never beside a run. A run that comes
due ends it at once; it is tried again later. Local policy may forbid it: names of directories leave the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from client import borgmatic, ssh
from client.archive_tree import ArchiveTree
from client.borgmatic import Start
from client.borgmatic_output import Lines, Reader, Scrubber
from client.clock import Clock
from client.log import get_logger
from client.runs import Recorder
from client.turns import Turns
from schema.desired import Job
from schema.errors import DirectorError
from schema.observed import MAX_TEXT, Archive, ArchiveContents, ArchivesSeen

NOTE: Final = "contents."
"""Begins the keys of the notes of when a place was listed last."""
EVERY: Final = timedelta(hours=20)
"""Less than a day, so that a nightly backup that ends a little earlier than yesterday is listed all the same."""
SECONDS: Final = 300.0
_GRACE_SECONDS: Final = 5.0
_LOWEST_PRIORITY: Final = 19
FORBIDDEN: Final = 'this machine does not tell: its client.toml says contents = "none" under [policy]'

log = get_logger()


class Listings:
    """Lists archives with borgmatic."""

    def __init__(
        self,
        *,
        program: str,
        config_directory: Path,
        state_directory: Path,
        turns: Turns,
        allowed: bool,
        environment: Mapping[str, str] = os.environ,
        pass_on: tuple[str, ...] = (),
        seconds: float = SECONDS,
        start: Start = borgmatic.start,
    ) -> None:
        self._program = borgmatic.find(program)
        self._config = config_directory
        self._state = state_directory
        self._turns = turns
        self._allowed = allowed
        self._environment = {**borgmatic.environment(environment, also=pass_on), "TZ": "UTC"}
        self._seconds = seconds
        self._start = start

    async def contents(self, job: Job, repository: str, archive: Archive, now: datetime) -> ArchiveContents:
        """Return what is in ``archive``, or why that cannot be said. Cancelled, it ends borgmatic and says nothing."""
        report = ArchiveContents(at=now, backup=job.backup, repository=repository, archive=archive, listed=False)
        if not self._allowed:
            return report.model_copy(update={"message": FORBIDDEN})
        urls = [one.url for one in job.repositories if one.name == repository]
        try:
            async with self._turns.hold(urls, waiting=lambda _: None) as locks:
                return await self._list(job, report, locks)
        except DirectorError as error:
            return report.model_copy(update={"message": error.message[:MAX_TEXT]})

    async def _list(self, job: Job, report: ArchiveContents, locks: tuple[int, ...]) -> ArchiveContents:
        scrub = Scrubber(borgmatic.opened_secrets(self._state))
        tree = ArchiveTree()
        first: list[str] = []
        errors = Reader(
            on_line=lambda line: first.extend([line.message][len(first) :]),
            on_progress=lambda _: None,
            now=lambda: report.at,
            scrub=scrub,
        )
        group, output = await self._start(
            self._arguments(job, report),
            environment=self._environment,
            stdout=_each_line(tree.read),
            stderr=_each_line(errors.stderr),
            inherited=locks,
        )
        # Of the whole group, so of Borg too; the priority at the disk follows where its scheduler knows one.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PGRP, group.id, _LOWEST_PRIORITY)
        try:
            async with asyncio.timeout(self._seconds):
                code = await borgmatic.finish(group, output)
        except TimeoutError:
            await group.end(grace=_GRACE_SECONDS)
            return report.model_copy(
                update={"message": f"it was not listed to its end within {self._seconds:.0f} seconds"}
            )
        except asyncio.CancelledError:
            await group.end(grace=_GRACE_SECONDS)
            raise
        finally:
            output.cancel()
        if code != 0:
            await ssh.explain(errors, job, config=self._config, environment=self._environment, only=report.repository)
            reason, hint = errors.reason(code)
            if not errors.reasons and first:
                reason = first[0]  # Borg's own words; what borgmatic makes of them comes after
            return report.model_copy(update={"message": (f"{reason} ({hint})" if hint else reason)[:MAX_TEXT]})
        return report.model_copy(
            update={
                "listed": True,
                "files": tree.files,
                "size": tree.size,
                "oldest": tree.oldest,
                "newest": tree.newest,
                "directory_count": tree.directory_count,
                "directories": tree.directories(scrub),
                "largest": tree.largest(scrub),
            }
        )

    def _arguments(self, job: Job, report: ArchiveContents) -> list[str]:
        return [
            self._program,
            *("--config", str(self._config / job.file), "--verbosity", "0"),
            # Another machine that shares the repository must not wait for us: archives do not change.
            "--extra-borg-options.list=--bypass-lock",
            *("list", "--json", "--repository", report.repository, f"--archive={report.archive.name}"),
        ]


def _each_line(read: Callable[[bytes], None]) -> Callable[[bytes], None]:
    lines = Lines()

    def chunk(data: bytes) -> None:
        for line in lines.feed(data):
            read(line)

    return chunk


Look = Callable[[Job, str, Archive, datetime], Awaitable[ArchiveContents]]


class Contents:
    """Decides when to look into which archive, and reports what was found."""

    def __init__(self, look: Look, *, recorder: Recorder, clock: Clock) -> None:
        self._look = look
        self._recorder = recorder
        self._clock = clock
        self._wanted: dict[str, tuple[Job, str, Archive]] = {}
        self._listed: dict[str, tuple[datetime, str]] = {}
        """By place (BACKUP/REPOSITORY): when it was listed last, and the archive's id."""
        self._current: asyncio.Task[ArchiveContents] | None = None

    def remember(self, notes: Mapping[str, str]) -> None:
        """Take up the notes of former processes."""
        for key, value in notes.items():
            when, _, archive = value.partition(" ")
            if key.startswith(NOTE):
                with contextlib.suppress(ValueError):
                    self._listed[key.removeprefix(NOTE)] = (datetime.fromisoformat(when), archive)

    def forget(self) -> None:
        """The director knows nothing any more: what the next inventories show is listed anew."""
        self._listed.clear()

    def saw(self, job: Job, seen: Iterable[ArchivesSeen]) -> None:
        """Note the newest archive of each repository, when it is not the one that was listed last."""
        for one in seen:
            place = f"{one.backup}/{one.repository}"
            newest = next(iter(one.archives), None)
            if not one.available:
                continue
            if newest is None or self._listed.get(place, (None, ""))[1] == newest.id:
                self._wanted.pop(place, None)
            else:
                self._wanted[place] = (job, one.repository, newest)

    def interrupt(self) -> None:
        """A run is about to begin: end what is going on. It stays wanted."""
        if self._current is not None:
            self._current.cancel()

    async def list_wanted(self, *, jobs: Mapping[str, Job], may_go_on: Callable[[], bool]) -> None:
        """List what is wanted and due, one after another, until ``interrupt`` or while it ``may_go_on``."""
        for place, (job, repository, archive) in list(self._wanted.items()):
            if jobs.get(job.backup) != job:
                del self._wanted[place]  # it is another one now, and its next inventory will tell
                continue
            now = self._clock.now()
            if not may_go_on():
                return
            last = self._listed.get(place)
            if last is not None and timedelta(0) <= now - last[0] < EVERY:
                continue
            report = await self._interruptible(self._look(job, repository, archive, now))
            if report is None:
                return
            self._wanted.pop(place, None)
            self._listed[place] = (now, archive.id)
            if not report.listed:
                log.info("an archive was not listed", backup=job.backup, archive=archive.name, reason=report.message)
            await self._recorder.record(report, notes={NOTE + place: f"{now.isoformat()} {archive.id}"})

    async def _interruptible(self, looking: Awaitable[ArchiveContents]) -> ArchiveContents | None:
        """Return the report; None when it was interrupted."""
        task = self._current = asyncio.ensure_future(looking)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            self._current = None
        return None if task.cancelled() else task.result()
