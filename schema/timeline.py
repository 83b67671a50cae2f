"""The read model of time: what ran where, what runs next, where starts pile up. Stable names; additions only.

``web_readonly.reader.timeline`` and ``web_readonly.reader.schedule`` fill these models from the store.
"""

from __future__ import annotations

from pydantic import Field

from schema.observed import Outcome
from schema.scalars import Moment
from schema.status import Shown

# --- What ran, and what is due ----------------------------------------------------------------------------------------


class RunSpan(Shown):
    """A run as a timeline needs it."""

    id: str
    client: str
    backup: str
    started: Moment
    finished: Moment | None = None
    outcome: Outcome | None = None
    """None while it runs."""


class DueMark(Shown):
    """A start that is to come, or one that is late: it was due, and no run has begun."""

    backup: str
    at: Moment
    late: bool = False


class TimelineRow(Shown):
    """One client's runs and next starts, oldest first."""

    client: str
    runs: tuple[RunSpan, ...] = ()
    due: tuple[DueMark, ...] = ()


class Crowd(Shown):
    """Ten minutes of all clients: how many runs started, by outcome (``running`` for those that go on)."""

    at: Moment
    started: dict[str, int] = Field(default_factory=dict)
    due: int = 0


class Timeline(Shown):
    """A window of time: the clients that matter first as rows, and all of them as a crowd."""

    since: Moment
    until: Moment
    rows: tuple[TimelineRow, ...] = ()
    more: bool = False
    """Other clients ran as well."""
    crowd: tuple[Crowd, ...] = ()
    """Only the ten minutes in which something started or is due."""


class NextStart(Shown):
    """When one backup on one client starts next, and after that."""

    client: str
    backup: str
    cron: str
    time_zone: str
    at: Moment
    then: tuple[Moment, ...] = ()


# --- The coming week --------------------------------------------------------------------------------------------------


class BusyHour(Shown):
    """An hour in which many runs start. ``names`` are some of the backups."""

    at: Moment
    alike: tuple[Moment, ...] = ()
    """The same hour of other days, on which as many start by the same schedules."""
    starts: int
    schedules: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class Meeting(Shown):
    """The hour in which most runs meet in one repository, which lets one write at a time."""

    repository: str
    url: str
    users: int
    """Backups that use it."""
    at: Moment
    starts: int
    work: float = 0.0
    """Seconds that these runs take one after the other, going by their last ones."""
    measured: int = 0
    """How many of them have run before, and so are in ``work``."""


class Schedule(Shown):
    """The week to come."""

    since: Moment
    until: Moment
    repository: str = ""
    hours: tuple[int, ...] = ()
    """Starts in each hour from ``since`` on."""
    starts: int = 0
    scheduled: int = 0
    """Backups with a schedule that is not suspended."""
    by_hand: int = 0
    suspended: int = 0
    left_out: int = 0
    """Backups whose schedules are too many to count here."""
    busiest: tuple[BusyHour, ...] = ()
    meetings: tuple[Meeting, ...] = ()
    next: tuple[NextStart, ...] = ()
