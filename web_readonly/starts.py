"""When backups start in the days to come, from their schedules. Pure; the readers of timeline and schedule use it.

A client shifts every start of a backup by its jitter, always by the same amount. The store does not know the jitter,
but the next start as the client reported it: what that is later than the schedule's due moment is the shift.

The cost follows the number of distinct schedules, not of backups: due moments are kept for each schedule and day.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from schema import cron as schedules

if TYPE_CHECKING:
    from collections.abc import Iterable

HOUR: Final = timedelta(hours=1)
WEEK: Final = timedelta(days=7)
HOURS: Final = 7 * 24
_DAY: Final = timedelta(days=1)
_MOST: Final = 3_000
"""Due moments of one schedule: every five minutes for ten days. One that is due oftener is cut off."""
_KEPT: Final = 512
WORK: Final = 100_000
"""Due moments that one question looks at: what is beyond is left out, so that no schedule makes the pages wait."""
_NEAR: Final = timedelta(days=10)
"""A start that is further away tells nothing of this week's."""


class Bunch(NamedTuple):
    """Backups of one schedule that start at the same time, give or take ten minutes."""

    cron: str
    time_zone: str
    start: datetime | None
    """A next start of theirs, as reported; None before the first report."""
    number: int


def due_around(cron: str, time_zone: str, day: date) -> tuple[datetime, ...]:
    """Return the due moments from the day before to eight days after; none for what is no schedule."""
    return _due_around(cron, time_zone or "UTC", day)


@lru_cache(maxsize=_KEPT)
def _due_around(cron: str, time_zone: str, day: date) -> tuple[datetime, ...]:
    try:
        first = datetime.combine(day, time(), UTC) - _DAY
        schedules.check_cron(cron)
        return tuple(
            schedules.due_between(
                cron, time_zone=time_zone, after=first - timedelta(seconds=1), until=first + 10 * _DAY, limit=_MOST
            )
        )
    except (ValueError, OverflowError):  # no schedule, or at the end of all days
        return ()


def shift(cron: str, time_zone: str, start: datetime | None) -> timedelta:
    """Return how much later than due a backup starts."""
    if start is None:
        return timedelta()
    due = [moment for moment in due_around(cron, time_zone, start.date()) if moment <= start]
    return start - due[-1] if due else timedelta()


def starts_after(cron: str, time_zone: str, start: datetime, *, until: datetime) -> tuple[datetime, ...]:
    """Return the starts that follow a known one, at most a week of them."""
    later = shift(cron, time_zone, start)
    return tuple(due + later for due in due_around(cron, time_zone, start.date()) if start < due + later < until)


@dataclass(slots=True)
class Work:
    """What one question may still spend on starts that follow known ones: beyond, the known ones stand alone."""

    left: int = WORK // 4

    def starts_after(self, cron: str, time_zone: str, start: datetime, *, until: datetime) -> tuple[datetime, ...]:
        """Return the starts that follow a known one, or none when all is spent."""
        if self.left <= 0:
            return ()
        self.left -= len(due_around(cron, time_zone, start.date()))
        return starts_after(cron, time_zone, start, until=until)


def starts_of(bunch: Bunch, *, since: datetime) -> list[datetime]:
    """Return the starts of a bunch in the week from ``since``."""
    later = shift(bunch.cron, bunch.time_zone, _told(bunch, since))
    due = due_around(bunch.cron, bunch.time_zone, since.date())
    return [moment + later for moment in due if since <= moment + later < since + WEEK]


def affordable(bunches: Iterable[Bunch], *, since: datetime, work: int = WORK) -> tuple[list[Bunch], list[Bunch]]:
    """Return what can be counted within bounds, and what cannot: more moments, or more schedules than are kept."""
    fine: list[Bunch] = []
    beyond: list[Bunch] = []
    known: set[tuple[str, str, date]] = set()
    for bunch in bunches:
        told = _told(bunch, since)
        asked = {(bunch.cron, bunch.time_zone, day.date()) for day in (since, told) if day is not None}
        if work <= 0 or len(known | asked) > _KEPT:
            beyond.append(bunch)
            continue
        known |= asked
        work -= sum(len(due_around(*one)) for one in asked)
        fine.append(bunch)
    return fine, beyond


def _told(bunch: Bunch, since: datetime) -> datetime | None:
    return bunch.start if bunch.start is not None and abs(bunch.start - since) < _NEAR else None


def by_hour(bunches: Iterable[Bunch], *, since: datetime) -> list[Counter[Bunch]]:
    """Return for each hour of the week from ``since`` how many starts each bunch adds."""
    hours: list[Counter[Bunch]] = [Counter() for _ in range(HOURS)]
    for bunch in bunches:
        for start in starts_of(bunch, since=since):
            hours[int((start - since) / HOUR)][bunch] += bunch.number
    return hours
