"""When a schedule is due: cron with a time zone and a written daylight-saving policy. Pure; the door to croniter.

Called by the loader (is this a cron expression?), the client's scheduler and the pages (when next?). The policy:

* a local time that is skipped by the clock going forward runs once, at the first moment after the gap;
* a local time that is repeated by the clock going back runs once, at its first occurrence;
* where day and weekday are both given, either will do; where one of them begins with ``*``, as in ``*/2``, both must
  match (crontab(5): a field is restricted when it holds no ``*``);
* a schedule that fires every hour or oftener follows real elapsed time only as far as its wall-clock fields say, so an
  hourly one does not run twice within a repeated hour.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    from croniter import croniter

# For the time zones of Windows, dateutil (croniter's) loads ctypes before it finds that this is none: 1 MiB less.
sys.modules.setdefault("dateutil.tz.win", None)  # type: ignore[arg-type]

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SEARCH_YEARS = 9  # 29 February is at most eight years away (2096 to 2104)


class _Field(NamedTuple):
    """One of the five fields: its numbers, and the words that may stand for them, from ``low`` on."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    special: re.Pattern[str] | None = None

    def check(self, text: str) -> None:
        """Raise ``ValueError`` when ``text`` is not a list of numbers, ranges and steps of this field."""
        for item in text.lower().split(","):
            if self.special is not None and self.special.fullmatch(item):
                continue
            values, slash, step = item.partition("/")
            if slash and not (step.isdecimal() and step.isascii() and 1 <= int(step[:9]) <= self.high):
                raise ValueError(f"{item!r} in the {self.name} field: a step is a number from 1 to {self.high}")
            if values != "*":
                self._check_range(values, item, step=step)

    def _check_range(self, values: str, item: str, *, step: str) -> None:
        ends = values.split("-")
        if len(ends) > 2 or not all(self._is_value(end) for end in ends):
            words = f", or {self.words[0]} to {self.words[-1]}" if self.words else ""
            raise ValueError(f"{item!r} in the {self.name} field: allowed are *, {self.low} to {self.high}{words}")
        if len(ends) == 2 and self._number(ends[0]) == self._number(ends[1]):
            # croniter takes it for all there are.
            raise ValueError(f"{item!r} in the {self.name} field: the range begins where it ends; write {ends[0]}")
        if len(ends) == 2 and step and self._number(ends[0]) > self._number(ends[1]):
            # Each cron counts the steps across the turn in a way of its own.
            two = f"{ends[0]}-{self.high}/{step},{self.low}-{ends[1]}/{step}"
            raise ValueError(f"{item!r} in the {self.name} field: a step needs a range that rises; write {two}")

    def _number(self, text: str) -> int:
        return self.words.index(text) + self.low if text in self.words else int(text)

    def _is_value(self, text: str) -> bool:
        if text in self.words:
            return True
        return text.isdecimal() and text.isascii() and len(text) <= 2 and self.low <= int(text) <= self.high


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31, special=re.compile(r"l|\?")),  # L: the last day of the month
    _Field("month", 1, 12, words=_MONTHS),
    _Field("weekday", 0, 7, words=_WEEKDAYS, special=re.compile(r"[0-7]#[1-5]|l[0-7]|\?")),  # 5#2: the second Friday
)

_COUNTED = re.compile(r"[#lL]")
"""In a weekday: one of a month, counted. croniter then takes a day beside it in a way of its own."""


def check_cron(text: str) -> str:
    """Return ``text`` when it is a five-field cron expression (or an alias such as ``@daily``) that fires some day.

    Checked here and not by croniter, which also takes six fields, surrounding space, and ``H`` and ``R``, whose times
    nobody can foresee.
    """
    if text in _ALIASES:
        return text
    fields = [field for field in text.split(" ") if field]
    if len(fields) != len(_FIELDS) or text != text.strip():
        raise ValueError(
            f"{text!r} is not a cron expression: write five fields (minute hour day month weekday) and nothing around "
            "them, or an alias such as @daily"
        )
    for field, value in zip(_FIELDS, fields, strict=True):
        try:
            field.check(value)
        except ValueError as error:
            hint = "; for a time of its own on each client use jitter" if value[:1] in {"H", "R", "h", "r"} else ""
            raise ValueError(f"{text!r} is not a cron expression: {error}{hint}") from None
    if _COUNTED.search(fields[4]) and fields[2] not in {"*", "?"}:
        raise ValueError(
            f"{text!r} is not a cron expression: beside {fields[4]!r} as the weekday, the day can only be *; for both, "
            "write two schedules"
        )
    from croniter import CroniterBadDateError, CroniterError  # noqa: PLC0415 - see `_locals`

    try:
        _next_local(text, datetime(2024, 1, 1))  # noqa: DTZ001 - wall-clock time on purpose
    except CroniterBadDateError:
        raise ValueError(f"{text!r} does not fire within nine years: there is no such day") from None
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError):
        raise ValueError(f"{text!r} is not a cron expression") from None
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
    # A later wall-clock time never has an earlier first moment: what is due after `after` shows a later time than it.
    # Within the second pass of a repeated hour the first candidates have been due already, and are passed over.
    candidate = after.astimezone(tz).replace(tzinfo=None)
    while True:
        candidate = _next_local(cron, candidate)
        moment = _first_moment(candidate, tz)
        if moment > after:
            return moment


def due_between(cron: str, *, time_zone: str, after: datetime, until: datetime, limit: int = 1000) -> list[datetime]:
    """Return the due moments in ``(after, until]``, oldest first, at most ``limit``."""
    tz = zone(time_zone)
    # As ``next_due`` again and again, but the expression is read once: a tenth of the time.
    candidates = _locals(cron, after.astimezone(tz).replace(tzinfo=None))
    moments: list[datetime] = []
    latest = after
    while len(moments) < limit and (moment := _first_moment(_next_of(candidates), tz)) <= until:
        if moment > latest:
            moments.append(moment)
            latest = moment
    return moments


def _next_local(cron: str, local: datetime) -> datetime:
    return _next_of(_locals(cron, local))


def _locals(cron: str, local: datetime) -> croniter[datetime]:
    """Return the wall-clock times after ``local`` at which a schedule is due."""
    # 20 ms, a tenth of a `director validate`, and only who has a schedule needs it.
    from croniter import croniter  # noqa: PLC0415

    return croniter(
        _ALIASES.get(cron, cron),
        local,
        ret_type=datetime,
        max_years_between_matches=_SEARCH_YEARS,
        implement_cron_bug=True,  # of days and weekdays, as every cron has it; see above
    )


def _next_of(candidates: croniter[datetime]) -> datetime:
    found = candidates.get_next()
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
