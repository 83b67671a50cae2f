"""What the commands of ``client.cli`` do once the words are parsed: the service itself, one run, status, doctor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from client import doctor, scheduler
from client.agent import Agent
from client.build import build_agent, build_parts
from client.clock import Clock, SystemClock
from client.follower import Follower
from client.outbox import Outbox, count_waiting, read_state
from client.runs import Recorder, Runs, read_handled, running_backups
from client.settings import ClientSettings
from client.state import StateDirectory
from schema.errors import DirectorError, TerminalError
from schema.observed import Outcome, Report, RunFinished, RunProgress, Trigger

# --- run ------------------------------------------------------------------------------------------------------------


async def serve(settings: ClientSettings, *, clock: Clock | None = None) -> None:
    """Run the agent until SIGTERM or SIGINT; tell systemd how it is."""
    clock = clock or SystemClock()
    agent = build_agent(settings, clock=clock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, agent)
    watchdog = asyncio.create_task(_feed_watchdog(clock))
    try:
        await agent.run(ready=lambda: notify("READY=1"))
    finally:
        watchdog.cancel()


def _stop(agent: Agent) -> None:
    notify("STOPPING=1")
    agent.stop()


def notify(state: str) -> None:
    """Tell systemd, when it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as channel, suppress(OSError):
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(state.encode())


async def _feed_watchdog(clock: Clock) -> None:
    """Say that the event loop turns, twice in the time that systemd allows."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if microseconds.isdigit() and int(microseconds) > 0:
        while True:
            notify("WATCHDOG=1")
            await clock.sleep(int(microseconds) / 2_000_000)


# --- once -----------------------------------------------------------------------------------------------------------


_MADE_SOMETHING = frozenset({Outcome.SUCCEEDED, Outcome.WARNED, Outcome.FAILED})
"""A run that failed may have failed at one of several repositories."""


async def run_once(
    settings: ClientSettings,
    backup: str,
    *,
    progress: Callable[[RunProgress], None],
    watch: Callable[[Report], None],
    clock: Clock | None = None,
) -> RunFinished:
    """Run one job of the current desired state, beside the service or without it; SIGTERM and SIGINT cancel it."""
    clock = clock or SystemClock()
    parts = build_parts(settings, clock=clock)
    parts.follower.load()
    state = parts.follower.current
    if state is None:
        refusal = parts.follower.refusal
        hint = refusal.message if refusal else "director-client status shows why"
        raise TerminalError("this machine follows no desired state yet", hint=hint)
    job = next((one for one in state.content.jobs if one.backup == backup), None)
    if job is None:
        known = ", ".join(sorted(one.backup for one in state.content.jobs)) or "none"
        raise TerminalError(f"there is no backup '{backup}' on this machine", hint=f"its backups are: {known}")
    outbox = Outbox(parts.directory.outbox, now=clock.now)
    try:
        recorder = Recorder(outbox)
        runs = Runs(runner=parts.machine.runner, recorder=recorder, clock=clock)
        task = asyncio.create_task(
            runs.execute(job, trigger=Trigger.PERSON, due=None, revision=state.revision, progress=progress, watch=watch)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, runs.cancel_all)
        finished = await task
        # The service lists archives after its own runs only, and what was seen is what counts as protected.
        for seen in await parts.machine.inventory(job, clock.now()) if finished.outcome in _MADE_SOMETHING else ():
            await recorder.record(seen)
        return finished
    finally:
        outbox.close()


# --- status -----------------------------------------------------------------------------------------------------------


class JobStatus(BaseModel):
    """One job, for a person or a script."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    backup: str
    schedule: str = ""
    next_due: datetime | None = None
    running: bool = False
    suspended: bool = False
    repositories: tuple[str, ...] = ()


class ClientStatus(BaseModel):
    """How this machine is, as far as its own disk tells. The JSON's names are an interface for scripts."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    name: str
    fingerprint: str
    director: str = ""
    running: bool = False
    connection: str = ""
    reason: str = ""
    hint: str = ""
    revision: str = ""
    generation: int | None = None
    expires: datetime | None = None
    stale: bool = False
    refusal: str = ""
    refusal_hint: str = ""
    """What would let the refused state in."""
    waiting_reports: int = 0
    jobs: tuple[JobStatus, ...] = ()

    @property
    def is_well(self) -> bool:
        return self.running and self.connection == "connected" and not self.refusal and not self.stale


def read_status(settings: ClientSettings, *, clock: Clock | None = None) -> ClientStatus:
    """Return how this machine is. Reads only."""
    clock = clock or SystemClock()
    parts = build_parts(settings, clock=clock)
    parts.follower.load()
    directory, state = parts.directory, parts.follower.current
    noted = directory.status()
    is_running = directory.is_locked()
    refused = parts.follower.refusal
    refusal = refused.message if refused else noted.get("refusal", "")
    status = ClientStatus(
        name=state.content.client if state else settings.name,
        fingerprint=parts.identity.public.fingerprint,
        director=(settings.url or parts.enrolment.url) if parts.enrolment else "",
        running=is_running,
        connection=noted.get("phase", "connecting") if is_running else "",
        reason=noted.get("reason", "") if is_running else "",
        hint=noted.get("hint", "") if is_running else "start it: systemctl start director-client",
        refusal=refusal,
        refusal_hint=refused.hint if refused else noted.get("refusal_hint", ""),
        waiting_reports=count_waiting(directory.outbox),
    )
    if state is None:
        return status
    return status.model_copy(
        update={
            "revision": state.revision,
            "generation": state.generation,
            "expires": state.expires,
            "stale": parts.follower.is_stale,
            "jobs": _jobs(parts.follower, directory, now=clock.now()),
        }
    )


def _jobs(follower: Follower, directory: StateDirectory, *, now: datetime) -> tuple[JobStatus, ...]:
    state = follower.current
    if state is None:
        return ()
    notes = read_state(directory.outbox)
    running = running_backups(notes)
    content = state.content
    plan = scheduler.plan(
        content.jobs, client=content.client, now=now, handled=read_handled(notes), suspended=content.suspend
    )
    return tuple(
        JobStatus(
            backup=job.backup,
            schedule=f"{job.schedule.cron} {job.schedule.time_zone}" if job.schedule else "",
            next_due=plan.starts.get(job.backup),
            running=job.backup in running,
            suspended=job.suspend or content.suspend,
            repositories=tuple(repository.name for repository in job.repositories),
        )
        for job in content.jobs
    )


# --- doctor -----------------------------------------------------------------------------------------------------------


async def examine(settings: ClientSettings, *, clock: Clock | None = None) -> list[doctor.Finding]:
    """Look at everything that could keep this machine from being backed up."""
    clock = clock or SystemClock()
    try:
        parts = build_parts(settings, clock=clock)
        parts.follower.load()
    except DirectorError as error:
        found = await doctor.examine(settings, state=None, clock=clock)
        return [*found, doctor.Finding("client", doctor.Level.ERROR, error.message, error.hint)]
    found = await doctor.examine(settings, state=parts.follower.current, clock=clock)
    refusal = parts.follower.refusal
    if refusal is not None:
        found.append(doctor.Finding("desired state", doctor.Level.ERROR, refusal.message, refusal.hint))
    noted = parts.directory.status()
    if refusal is None and noted.get("refusal"):
        hint = noted.get("refusal_hint", "")
        found.append(doctor.Finding("desired state", doctor.Level.ERROR, noted["refusal"], hint))
    if parts.directory.is_locked() and noted.get("reason"):
        found.append(doctor.Finding("connection", doctor.Level.WARNING, noted["reason"], noted.get("hint", "")))
    return found
