"""One execution of a job, with its reports and the note that it runs: shared by the agent and ``director-client once``.

A run's start is durable before borgmatic starts, together with a note of the process that watches it. A process that
finds the note of a dead one reports that run as lost: no run is ever without an end.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from client.clock import Clock
from client.log import get_logger
from client.outbox import Notes, Outbox
from schema.desired import Job
from schema.errors import TransientError
from schema.observed import Outcome, Report, RunFinished, RunProgress, RunStarted, Trigger

RUNNING = "running."
HANDLED = "handled."

log = get_logger()


class Runner(Protocol):
    """Runs borgmatic for a job (``client.runner.Runner``)."""

    async def run(
        self,
        job: Job,
        *,
        run_id: str,
        trigger: Trigger,
        due: datetime | None,
        revision: str,
        emit: Callable[[Report], Awaitable[None]],
        progress: Callable[[RunProgress], None],
        newest: Callable[[], Job | None],
    ) -> RunFinished:
        """Run to the end and return how it ended; a failed backup is no exception.

        ``newest`` says what the job is when its turn has come, which may be long after: None when it is no more.
        """

    def cancel(self, run_id: str) -> bool:
        """End a run as cancelled; whether it was running."""


class Recorder:
    """Puts reports into the outbox, and keeps going when the disk does not."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._is_stuck = False

    async def record(self, *reports: Report, notes: Notes | None = None) -> None:
        """Store reports and notes. On a full disk they wait in memory: that is logged once, and nobody has to care."""
        try:
            await self._outbox.append(*reports, notes=notes)
        except TransientError as error:
            if not self._is_stuck:
                log.warning("reports are kept in memory only", reason=error.message, hint=error.hint)
            self._is_stuck = True
        else:
            self._is_stuck = False


class Runs:
    """Executes jobs and keeps the notes about them."""

    def __init__(self, *, runner: Runner, recorder: Recorder, clock: Clock) -> None:
        self._runner = runner
        self._recorder = recorder
        self._clock = clock
        self._current: set[str] = set()
        self.handled: dict[str, datetime] = {}
        """By backup: up to when every due time has been dealt with (see ``client.scheduler``)."""

    def remember(self, notes: Mapping[str, str]) -> None:
        """Take up the notes of former processes."""
        self.handled = read_handled(notes)

    async def settle(self, handled: Mapping[str, datetime], *, starting: frozenset[str]) -> None:
        """Note up to when everything is dealt with; for what is ``starting`` now, its ``RunStarted`` will say so.

        The note and the start of the run are one transaction: whenever the machine dies, a due time is run once.
        """
        notes: dict[str, str | None] = {
            HANDLED + backup: moment.isoformat()
            for backup, moment in handled.items()
            if backup not in starting and self.handled.get(backup) != moment
        }
        self.handled.update(handled)
        if notes:
            await self._recorder.record(notes=notes)

    async def report_lost(self, notes: Mapping[str, str]) -> int:
        """Report the runs whose process died under them, and return how many."""
        lost = 0
        for key, value in notes.items():
            note = _read_note(value)
            if not key.startswith(RUNNING) or _is_alive(note.get("process", "")):
                continue
            lost += 1
            finished = RunFinished(
                at=self._clock.now(),
                run=key.removeprefix(RUNNING),
                backup=note.get("backup", "unknown"),
                outcome=Outcome.LOST,
                error="director-client or the machine stopped while this ran",
                hint="the next run follows the schedule; Borg keeps what its last checkpoint holds",
            )
            await self._recorder.record(finished, notes={key: None})
        return lost

    async def execute(
        self,
        job: Job,
        *,
        trigger: Trigger,
        due: datetime | None,
        revision: str,
        progress: Callable[[RunProgress], None],
        watch: Callable[[Report], None] = lambda _: None,
        run_id: str | None = None,
        newest: Callable[[], Job | None] | None = None,
    ) -> RunFinished:
        """Run ``job`` once. ``watch`` sees every report as well; without ``newest`` the job stays as it is."""
        run_id = run_id or new_run_id()
        self._current.add(run_id)

        async def emit(report: Report) -> None:
            watch(report)
            await self._recorder.record(report, notes=self._notes(report, due=due, trigger=trigger))

        try:
            return await self._runner.run(
                job,
                run_id=run_id,
                trigger=trigger,
                due=due,
                revision=revision,
                emit=emit,
                progress=progress,
                newest=newest or (lambda: job),
            )
        finally:
            self._current.discard(run_id)

    def cancel_all(self) -> None:
        """End every run that was begun here; each reports that it was cancelled."""
        for run_id in tuple(self._current):
            self._runner.cancel(run_id)

    def _notes(self, report: Report, *, due: datetime | None, trigger: Trigger) -> dict[str, str | None]:
        if isinstance(report, RunFinished):
            return {RUNNING + report.run: None}
        if not isinstance(report, RunStarted):
            return {}
        notes: dict[str, str | None] = {
            RUNNING + report.run: json.dumps({"backup": report.backup, "process": _process(os.getpid())})
        }
        if due is not None and trigger is not Trigger.PERSON:
            notes[HANDLED + report.backup] = due.isoformat()
        return notes


def read_handled(notes: Mapping[str, str]) -> dict[str, datetime]:
    """Return, by backup, up to when every due time has been dealt with."""
    handled = {}
    for key, value in notes.items():
        if key.startswith(HANDLED):
            with contextlib.suppress(ValueError):
                handled[key.removeprefix(HANDLED)] = datetime.fromisoformat(value).astimezone(UTC)
    return handled


def running_backups(notes: Mapping[str, str]) -> frozenset[str]:
    """Return the backups that some living process runs now."""
    found = (_read_note(value) for key, value in notes.items() if key.startswith(RUNNING))
    return frozenset(note["backup"] for note in found if "backup" in note and _is_alive(note.get("process", "")))


def new_run_id() -> str:
    """Return a name for a run that no other run has."""
    return uuid4().hex


def _read_note(value: str) -> dict[str, str]:
    try:
        note = json.loads(value)
    except ValueError:
        return {}
    return {str(key): str(one) for key, one in note.items()} if isinstance(note, dict) else {}


def _process(pid: int) -> str:
    """Return what names a process across reuse of its number: the number, and when it started (proc(5), field 22)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{pid} {fields[19]}"


def _is_alive(process: str) -> bool:
    pid = process.partition(" ")[0]
    return pid.isdigit() and int(pid) != os.getpid() and _process(int(pid)) == process
