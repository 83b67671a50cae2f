"""Which jobs are due, and when to look again. Pure; ``agent`` asks at each wake-up, keeps ``handled``, starts the runs.

For each backup one moment is remembered: every due time up to it has been dealt with. From it follow all the promises:

* one run for a due time: ``handled`` moves to that time, and is written down before the run starts;
* one catch-up run after a downtime, however many due times were missed: it stands for the latest of them, and only
  when the schedule says ``catchUp``;
* a job that was never seen before owes nothing: its past begins now;
* a clock that jumps forward looks like a downtime; one that jumps back repeats no due time, unless it jumps by more
  than the schedule's own period, which can only mean that it was wrong before.

The jitter shifts every start of a backup on a client by the same amount, so that the distance between runs stays.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from schema import cron
from schema.observed import Trigger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schema.desired import DesiredSchedule, Job

ON_TIME = timedelta(minutes=10)
"""A start that is not later than this is not called a catch-up."""

_WINDOWS = tuple(timedelta(days=days) for days in (1 / 24, 1, 7, 31, 366, 9 * 366))


@dataclass(frozen=True, slots=True)
class Due:
    """A run that should start now."""

    job: Job
    due: datetime
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, what to remember, and when to ask again."""

    due: tuple[Due, ...] = ()
    handled: dict[str, datetime] = field(default_factory=dict)
    """By backup; write it down before starting ``due``."""
    starts: dict[str, datetime] = field(default_factory=dict)
    """By backup: when it starts next, jitter included. Not for what is suspended."""
    wake: datetime | None = None
    """The earliest of ``starts``; None when nothing is scheduled."""


def plan(
    jobs: Iterable[Job],
    *,
    client: str,
    now: datetime,
    handled: Mapping[str, datetime],
    running: frozenset[str] = frozenset(),
    suspended: bool = False,
) -> Plan:
    """Return what is due at ``now``. A backup in ``running`` waits; when its run has ended, ask again."""
    due, remembered, starts = [], {}, {}
    for job in jobs:
        schedule = job.schedule
        if schedule is None:
            continue
        until = _until(schedule, handled.get(job.backup), now=now)
        offset = jitter(client, job)
        paused = suspended or job.suspend
        latest = _latest_due(schedule, after=until, until=now - offset) if paused or job.backup not in running else None
        if latest is not None:
            late = now - offset - latest > ON_TIME
            if not paused and (schedule.catch_up or not late):
                due.append(Due(job, latest, Trigger.CATCH_UP if late else Trigger.SCHEDULE))
            until = latest
        remembered[job.backup] = until
        if not paused:
            starts[job.backup] = _next_due(schedule.cron, schedule.time_zone, until) + offset
    waiting = [start for backup, start in starts.items() if backup not in running]
    return Plan(tuple(due), remembered, starts, min(waiting, default=None))


def jitter(client: str, job: Job) -> timedelta:
    """Return how much later than due this backup starts on this client: always the same."""
    if job.schedule is None or job.schedule.jitter <= 0:
        return timedelta()
    number = int.from_bytes(hashlib.sha256(f"{client}\0{job.backup}".encode()).digest()[:8])
    return timedelta(seconds=number % (job.schedule.jitter + 1))


def _until(schedule: DesiredSchedule, handled: datetime | None, *, now: datetime) -> datetime:
    """Return up to when everything is dealt with. A moment too far ahead comes from a clock that was wrong."""
    if handled is None:
        return now
    if handled > now and _next_due(schedule.cron, schedule.time_zone, handled) - handled < handled - now:
        return now
    return handled


def _latest_due(schedule: DesiredSchedule, *, after: datetime, until: datetime) -> datetime | None:
    """Return the latest due time in ``(after, until]``, looking back in growing steps."""
    if _next_due(schedule.cron, schedule.time_zone, after) > until:
        return None
    for window in _WINDOWS:
        start = max(after, until - window)
        moment = cron.next_due(schedule.cron, time_zone=schedule.time_zone, after=start)
        latest = None
        while moment <= until:
            latest = moment
            moment = cron.next_due(schedule.cron, time_zone=schedule.time_zone, after=moment)
        if latest is not None or start == after:
            return latest
    return None


@lru_cache(maxsize=8192)
def _next_due(expression: str, time_zone: str, after: datetime) -> datetime:
    # At rest the same question is asked again and again, with the same answer.
    return cron.next_due(expression, time_zone=time_zone, after=after)
