"""When a schedule is due: cron with a time zone and a written daylight-saving policy. Pure; the door to croniter.

Called by the loader (is this a cron expression?), the client's scheduler and the pages (when next?). The policy:

* a local time that is skipped by the clock going forward runs once, at the first moment after the gap;
* a local time that is repeated by the clock going back runs once, at its first occurrence;
* a schedule that fires every hour or oftener follows real elapsed time only as far as its wall-clock fields say, so an
  hourly one does not run twice within a repeated hour.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter
from pydantic import AfterValidator, Field

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = 5
_SEARCH_YEARS = 9  # 29 February is at most eight years away (2096 to 2104)


def check_cron(text: str) -> str:
    """Return ``text`` when it is a five-field cron expression (or an alias such as ``@daily``) that fires some day."""
    fields = _ALIASES.get(text, text).split()
    if len(fields) != _FIELDS:
        raise ValueError(
            f"'{text}' is not a cron expression: write five fields (minute hour day month weekday) or @daily"
        )
    try:
        _next_local(text, datetime(2024, 1, 1))  # noqa: DTZ001 - wall-clock time on purpose
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"'{text}' is not a cron expression that ever fires: {error}") from None
    return text


def check_time_zone(text: str) -> str:
    """Return ``text`` when it names a zone of the IANA database, e.g. ``Europe/Berlin``."""
    zone(text)
    return text


@lru_cache(maxsize=256)
def zone(text: str) -> ZoneInfo:
    """Return the zone named ``text``; ``ValueError`` when there is none."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{text}' is not a time zone: write for example UTC or Europe/Berlin") from None


Cron = Annotated[
    str,
    AfterValidator(check_cron),
    Field(
        max_length=200,
        description="Five cron fields, or @hourly, @daily, @weekly, @monthly, @yearly.",
        examples=["30 2 * * *"],
    ),
]
TimeZone = Annotated[
    str,
    AfterValidator(check_time_zone),
    Field(max_length=64, description="A zone of the IANA database.", examples=["Europe/Berlin"]),
]


def next_due(cron: str, *, time_zone: str, after: datetime) -> datetime:
    """Return the first due moment strictly after ``after`` (aware), in UTC, by the policy above."""
    tz = zone(time_zone)
    # A repeated hour maps two moments to one wall-clock time. Starting the search at the wall clock of `after` and
    # taking each candidate's first occurrence gives "once"; candidates not after `after` are passed over.
    local = after.astimezone(tz).replace(tzinfo=None)
    if after.astimezone(tz).fold or _is_skipped_just_before(local, tz):
        local -= timedelta(hours=3)
    candidate = local
    while True:
        candidate = _next_local(cron, candidate)
        moment = _first_moment(candidate, tz)
        if moment > after:
            return moment


def due_between(cron: str, *, time_zone: str, after: datetime, until: datetime, limit: int = 1000) -> list[datetime]:
    """Return the due moments in ``(after, until]``, oldest first, at most ``limit``."""
    moments: list[datetime] = []
    moment = next_due(cron, time_zone=time_zone, after=after)
    while moment <= until and len(moments) < limit:
        moments.append(moment)
        moment = next_due(cron, time_zone=time_zone, after=moment)
    return moments


def _next_local(cron: str, local: datetime) -> datetime:
    found = croniter(
        _ALIASES.get(cron, cron), local, ret_type=datetime, max_years_between_matches=_SEARCH_YEARS
    ).get_next()
    if not isinstance(found, datetime):
        raise TypeError(f"croniter returned {type(found).__name__}, not a datetime")
    return found


def _first_moment(local: datetime, tz: ZoneInfo) -> datetime:
    """Return the first moment with that wall-clock time; for a skipped one, the first moment after the gap."""
    moment = local.replace(tzinfo=tz, fold=0).astimezone(UTC)
    if moment.astimezone(tz).replace(tzinfo=None) == local:
        return moment
    # Inside a gap, fold=0 uses the offset before it and so overshoots by the gap's length; fold=1 undershoots.
    # The gap ends at the transition between the two, found to the second by bisection.
    low, high = local.replace(tzinfo=tz, fold=1).astimezone(UTC), moment
    before = low.astimezone(tz).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(tz).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def _is_skipped_just_before(local: datetime, tz: ZoneInfo) -> bool:
    """Whether a gap lies in the three hours before ``local``: then a skipped time may still be due."""
    return local.replace(tzinfo=tz).utcoffset() != (local - timedelta(hours=3)).replace(tzinfo=tz).utcoffset()
