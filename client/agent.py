"""How a machine follows its desired state: the client's whole life, as loops that do not wait for each other.

::

    connection ─▶ follower ─▶ schedule ─▶ runs ─▶ inventory ─▶ contents
        ▲             └─────▶ drift ─┐     │          │            │
        └── delivery ◀── outbox ◀────┴─────┴──────────┴────────────┘

The schedule starts at once from the last good state and goes on for weeks without a director. A loop that breaks is
logged and started again: one bug must not stop the backups. ``client.build`` puts an agent together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Literal, Protocol

from client import scheduler
from client.clock import Clock, within, woken
from client.connection import Connection, Credentials, Status
from client.contents import Contents
from client.delivery import Delivery
from client.dial import Dial
from client.follower import Follower
from client.log import get_logger
from client.outbox import Outbox
from client.runs import Recorder, Runner, Runs, new_run_id
from client.scheduler import Due, Plan
from client.state import StateDirectory
from schema.desired import DesiredState, Job
from schema.errors import DirectorError, TransientError, TrustError
from schema.observed import (
    MAX_TEXT,
    Archive,
    ArchiveContents,
    ArchivesSeen,
    ClientEvent,
    Drift,
    JobState,
    Refusal,
    Report,
    StateReport,
    Trigger,
    Versions,
)
from schema.wire import Accepted, Acknowledged, Pull

TICK_SECONDS = 15.0
"""The longest sleep of the schedule and of the drift watch: a jump of the clock is noticed within it."""
JUMP_SECONDS = 30.0
"""By how much wall clock and monotonic clock may part within a tick before it counts as a jump."""
INVENTORY_SECONDS = 6 * 3600.0
FLUSH_SECONDS = 10.0
"""How long a stop waits for the director to acknowledge the last reports."""
RESTART_SECONDS = 30.0

log = get_logger()


class Machine(Protocol):
    """What the agent wants of the machine below it (``client.machine``)."""

    @property
    def runner(self) -> Runner:
        """Runs borgmatic."""

    async def drift(self, state: DesiredState, now: datetime) -> tuple[Drift, ...]:
        """Return every difference; healed ones say so."""

    async def inventory(self, job: Job, now: datetime) -> tuple[ArchivesSeen, ...]:
        """Return the archives in the job's repositories."""

    async def contents(self, job: Job, repository: str, archive: Archive, now: datetime) -> ArchiveContents:
        """Return what is in one archive, or why that cannot be said."""

    async def versions(self) -> Versions:
        """Return the versions of what is installed."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """How a stop treats a running backup, and how long it may take."""

    running: Literal["cancel", "wait"] = "cancel"
    seconds: float = 60.0


class Agent:
    """One client. ``run`` returns after ``stop``."""

    def __init__(
        self,
        *,
        directory: StateDirectory,
        follower: Follower,
        outbox: Outbox,
        machine: Machine,
        clock: Clock,
        random: Random,
        director: tuple[Dial, Credentials] | None,
        stopping: Stopping,
    ) -> None:
        self._directory = directory
        self._follower = follower
        self._outbox = outbox
        self._machine = machine
        self._clock = clock
        self._random = random
        self._stopping = stopping
        self._recorder = Recorder(outbox)
        self._runs = Runs(runner=machine.runner, recorder=self._recorder, clock=clock)
        self._contents = Contents(machine.contents, recorder=self._recorder, clock=clock)
        self._connection: Connection | None = None
        self._delivery: Delivery | None = None
        if director is not None:
            dial, credentials = director
            self._connection = Connection(dial=dial, credentials=credentials, listener=self, clock=clock, random=random)
            self._delivery = Delivery(outbox=outbox, connection=self._connection, clock=clock)
        self._name: str | None = None
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._starts: dict[str, datetime] = {}
        self._inventory_due: dict[str, float] = {}
        self._drift: tuple[Drift, ...] = ()
        self._versions = Versions()
        self._was_stale = False
        self._told: Refusal | None = None
        """The refusal that a person was told of."""
        self._reported: StateReport | None = None
        self._events: list[ClientEvent] = []
        self._replan = asyncio.Event()
        self._look_for_drift = asyncio.Event()
        self._take_inventory = asyncio.Event()
        self._report = asyncio.Event()
        self._stop = asyncio.Event()
        self._offset = self._offset_now()
        follower.on_change(self._followed)

    # --- Life ---------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End ``run`` in good order. May be called by a signal handler."""
        self._stop.set()

    async def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Follow the desired state until ``stop``. ``ready`` is called once the schedule is running."""
        self._directory.lock()
        loops: list[asyncio.Task[None]] = []
        try:
            await self._start()
            loops = [asyncio.create_task(self._keep(name, loop)) for name, loop in self._loops().items()]
            ready()
            await self._stop.wait()
            await self._finish()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._end_runs(cancel=True, seconds=self._stopping.seconds)
            self._outbox.close()
            self._directory.unlock()

    def _loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "schedule": self._schedule_for_ever,
            "follow": self._follower.run,
            "drift": self._watch_for_ever,
            "inventory": self._list_for_ever,
            "report": self._report_for_ever,
        }
        if self._connection is not None and self._delivery is not None:
            loops |= {"connection": self._connection.run, "delivery": self._delivery.run}
        return loops

    async def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for ever, whatever it raises."""
        while True:
            try:
                await loop()
            except DirectorError as error:
                log.warning("a loop stopped", loop=name, reason=error.message, hint=error.hint)
            except Exception:
                log.exception("a loop broke", loop=name)
            await self._clock.sleep(RESTART_SECONDS)

    async def _start(self) -> None:
        try:
            notes = await self._outbox.state()
        except TransientError as error:
            log.warning("cannot read what former runs left", reason=error.message)
            notes = {}
        self._runs.remember(notes)
        self._contents.remember(notes)
        if lost := await self._runs.report_lost(notes):
            log.warning("runs were lost when the former process ended", count=lost)
        if self._outbox.was_corrupt:
            self._tell("OutboxReset", "the outbox was corrupt; it was set aside, and reports in it are missing")
        self._follower.recover()
        self._follower.load()
        self._replan.set()
        self._report.set()

    async def _finish(self) -> None:
        """End what runs, as the settings say; give the director a moment to hear of it."""
        wait = self._stopping.running == "wait"
        await self._end_runs(cancel=not wait, seconds=self._stopping.seconds)
        await self._report_state()
        if self._connection is not None and self._connection.is_open and self._delivery is not None:
            with contextlib.suppress(TimeoutError, TransientError):
                await within(self._clock, FLUSH_SECONDS, self._delivery.drained())

    async def _end_runs(self, *, cancel: bool, seconds: float) -> None:
        running = list(self._running.values())
        if not running:
            return
        if cancel:
            self._runs.cancel_all()
        tasks = asyncio.gather(*(task for _, task in running), return_exceptions=True)

        async def ended() -> None:
            await tasks

        try:
            await within(self._clock, seconds, ended())
        except TimeoutError:  # `within` has cancelled the tasks, and each ends its process group
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    def _tell(self, reason: str, message: str, *, backup: str | None = None, detail: str = "") -> None:
        """Put an event on its way to a person."""
        if len(detail) > MAX_TEXT:
            detail = detail[: MAX_TEXT - 16] + "\n… (shortened)"
        now = self._clock.now()
        self._events.append(ClientEvent(at=now, reason=reason, message=message[:8_000], backup=backup, detail=detail))
        self._report.set()

    # --- What the connection says (``client.connection.Listener``) ---------------------------------------------------

    def held(self) -> Pull:
        """Return what to ask the director for."""
        return self._follower.held()

    async def opened(self, accepted: Accepted) -> None:
        """A session is open under this name."""
        self._name = accepted.name
        if accepted.resend:
            self._reported = None
            self._inventory_due.clear()
            self._contents.forget()
            self._take_inventory.set()
            self._report.set()
        if self._delivery is not None:
            self._delivery.opened()

    def desired(self, envelope: bytes) -> None:
        """Offer the desired state to the follower. One under another name means that we were renamed: ask again."""
        try:
            self._follower.offer(envelope, name=self._name)
        except TrustError as error:
            if error.code == "wrong-name" and self._connection is not None:
                self._connection.drop(error.message)

    def acknowledged(self, message: Acknowledged) -> None:
        """The director has stored reports."""
        if self._delivery is not None:
            self._delivery.acknowledged(message)

    def changed(self, status: Status) -> None:
        """The connection stands otherwise."""
        self._note_status(status)

    def _note_status(self, status: Status) -> None:
        """Leave a note for ``director-client status``."""
        refusal = self._follower.refusal
        note = {"phase": status.phase, "reason": status.reason, "hint": status.hint, "code": status.code}
        try:
            said = {"refusal": refusal.message, "refusal_hint": refusal.hint} if refusal else {"refusal": ""}
            self._directory.save_status(note | said)
        except TransientError as error:
            log.debug("cannot note the status", reason=error.message)

    # --- Following ----------------------------------------------------------------------------------------------------

    def _followed(self, message: str) -> None:
        """The follower's state, or its refusal, is a new one."""
        if message:
            self._tell("Applied", message)
        told, self._told = self._told, self._follower.refusal
        if not message and self._told is not None and not _says_again(told, self._told):
            self._tell("Refused", f"{self._told.message}\n{self._told.hint}".strip())
        if self._connection is not None:
            self._note_status(self._connection.status)
        for event in (self._replan, self._look_for_drift, self._take_inventory, self._report):
            event.set()

    # --- The schedule -------------------------------------------------------------------------------------------------

    async def _schedule_for_ever(self) -> None:
        while True:
            self._notice_jump()
            plan = self._plan()
            await self._runs.settle(plan.handled, starting=frozenset(one.job.backup for one in plan.due))
            for one in plan.due:
                self._begin(one)
            self._starts = plan.starts
            self._report.set()
            left = (plan.wake - self._clock.now()).total_seconds() if plan.wake else TICK_SECONDS
            if left > 0:  # else it came due while the plan was written down
                await woken(self._clock, self._replan, min(TICK_SECONDS, left))

    def _plan(self) -> Plan:
        state = self._follower.current
        if state is None or self._stop.is_set():
            return Plan()
        return scheduler.plan(
            state.content.jobs,
            client=state.content.client,
            now=self._clock.now(),
            handled=self._runs.handled,
            running=frozenset(self._running),
            suspended=state.content.suspend,
        )

    def _begin(self, due: Due) -> None:
        self._contents.interrupt()
        run_id = new_run_id()
        task = asyncio.create_task(self._execute(due.job, run_id, trigger=due.trigger, due=due.due))
        self._running[due.job.backup] = (run_id, task)

    async def _execute(self, job: Job, run_id: str, *, trigger: Trigger, due: datetime) -> None:
        state = self._follower.current
        log.info("run started", backup=job.backup, run=run_id, trigger=trigger)
        try:
            finished = await self._runs.execute(
                job,
                run_id=run_id,
                trigger=trigger,
                due=due,
                revision=state.revision if state else "",
                progress=self._connection.send_progress if self._connection else lambda _: None,
                newest=lambda: self._newest(job.backup),
            )
            write = log.info if not finished.error else log.error
            write("run finished", backup=job.backup, run=run_id, outcome=finished.outcome, error=finished.error)
        except Exception:
            log.exception("a run broke", backup=job.backup, run=run_id)
        finally:
            del self._running[job.backup]
            self._inventory_due[job.backup] = self._clock.monotonic()
            self._take_inventory.set()
            self._replan.set()

    def _newest(self, backup: str) -> Job | None:
        """Return a backup's job as the followed state says it now; None when it has none, or it is suspended."""
        state = self._follower.current
        jobs = state.content.jobs if state is not None and not state.content.suspend else ()
        return next((job for job in jobs if job.backup == backup and not job.suspend), None)

    def _offset_now(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _notice_jump(self) -> None:
        """Tell of a wall clock that moved by itself; a schedule made for the wrong time is made anew right after."""
        offset = self._offset_now()
        jumped, self._offset = offset - self._offset, offset
        if abs(jumped) < JUMP_SECONDS:
            return
        log.warning("the clock jumped", seconds=round(jumped))
        direction = "forward" if jumped > 0 else "back"
        self._tell("ClockJumped", f"the clock went {direction} by {timedelta(seconds=round(abs(jumped)))}")

    # --- Drift --------------------------------------------------------------------------------------------------------

    async def _watch_for_ever(self) -> None:
        while True:
            async with self._follower.quiet:
                state = self._follower.current
                drift = () if state is None else await self._machine.drift(state, self._clock.now())
            for healed in (one for one in drift if one.healed):
                log.warning("drift healed", subject=healed.subject, reason=healed.message)
                self._tell("Healed", f"{healed.message}; it was put back", backup=healed.backup, detail=healed.diff)
            self._drift = drift
            if self._follower.is_stale and not self._was_stale:
                log.warning("the desired state is past its expiry; backups go on")
                self._tell("Stale", "nobody has confirmed the desired state for too long; backups go on")
            self._was_stale = self._follower.is_stale
            self._report.set()
            await woken(self._clock, self._look_for_drift, TICK_SECONDS)

    # --- Archives -----------------------------------------------------------------------------------------------------

    async def _list_for_ever(self) -> None:
        self._versions = await self._machine.versions()
        while True:
            state = self._follower.current
            jobs = {job.backup: job for job in state.content.jobs} if state else {}
            self._inventory_due = {backup: due for backup, due in self._inventory_due.items() if backup in jobs}
            for backup, job in jobs.items():
                now = self._clock.monotonic()
                if backup in self._running or self._inventory_due.get(backup, 0.0) > now:
                    continue
                self._inventory_due[backup] = now + INVENTORY_SECONDS * self._random.uniform(0.8, 1.2)
                seen = await self._machine.inventory(job, self._clock.now())
                await self._recorder.record(*seen)
                self._contents.saw(job, seen)
            await self._contents.list_wanted(jobs=jobs, may_go_on=self._may_look_into_archives)
            now = self._clock.monotonic()
            soonest = min((due - now for due in self._inventory_due.values()), default=INVENTORY_SECONDS)
            await woken(self._clock, self._take_inventory, max(1.0, soonest))

    def _may_look_into_archives(self) -> bool:
        """A run comes first, and so does an inventory that somebody waits for."""
        return not (self._running or self._take_inventory.is_set())

    # --- The state report ---------------------------------------------------------------------------------------------

    async def _report_for_ever(self) -> None:
        while True:
            await self._report.wait()
            self._report.clear()
            await self._report_state()

    async def _report_state(self) -> None:
        """Report events, and the state when it is another one than was reported last."""
        events, self._events = self._events, []
        reports: list[Report] = [*events]
        state = await self._state()
        before = self._reported
        if before is None or state.model_copy(update={"at": before.at}) != before:
            self._reported = state
            reports.append(state)
        if reports:
            await self._recorder.record(*reports)

    async def _state(self) -> StateReport:
        current = self._follower.current
        jobs = current.content.jobs if current else ()
        try:
            dropped = await self._outbox.dropped()
        except TransientError:
            dropped = self._reported.dropped_events if self._reported else 0
        return StateReport(
            at=self._clock.now(),
            generation=current.generation if current else None,
            digest=current.digest if current else None,
            revision=current.revision if current else "",
            expires=current.expires if current else None,
            stale=self._follower.is_stale,
            refusal=self._follower.refusal,
            drift=self._drift[:500],
            jobs=tuple(self._job_state(job) for job in jobs[:2_000]),
            versions=self._versions,
            dropped_events=dropped,
        )

    def _job_state(self, job: Job) -> JobState:
        running = self._running.get(job.backup)
        return JobState(
            backup=job.backup, next_due=self._starts.get(job.backup), running=running[0] if running else None
        )


def _says_again(told: Refusal | None, refusal: Refusal) -> bool:
    """Whether a start says what its first look said, now that it knows of which generation."""
    return told is not None and not told.generation and (told.message, told.hint) == (refusal.message, refusal.hint)
