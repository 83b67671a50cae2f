"""Archives against retention: which rule keeps which archive, by the rules of ``borg prune``. Pure.

The page of one backup on one client asks. The rules are those of Borg's documentation (``borg prune``): each rule looks
at all archives, newest first; the newest of each period is kept unless a former rule keeps it already, until the rule
has its number; a rule that does not reach its number also keeps the oldest archive. Periods are local time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

from schema import cron

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PERIODS: Final = {
    "keep_last": "%Y-%m-%d %H:%M:%S %f",
    "keep_secondly": "%Y-%m-%d %H:%M:%S",
    "keep_minutely": "%Y-%m-%d %H:%M",
    "keep_hourly": "%Y-%m-%d %H",
    "keep_daily": "%Y-%m-%d",
    "keep_weekly": "%G-%V",
    "keep_monthly": "%Y-%m",
    "keep_yearly": "%Y",
}
"""In the order in which Borg applies them."""
_WITHIN: Final = re.compile(r"([0-9]{1,6})([SMHdwmy])")
_UNITS: Final = {"S": 1, "M": 60, "H": 3600, "d": 86_400, "w": 7 * 86_400, "m": 31 * 86_400, "y": 365 * 86_400}
UNLIMITED: Final = -1


class Rule(NamedTuple):
    """One rule, and how many archives it keeps now."""

    name: str
    """``daily``, ``within 30d``."""
    declared: int
    """How many it wants; ``UNLIMITED`` when there is no end."""
    kept: tuple[datetime, ...]


class Retained(NamedTuple):
    """Archives by rule."""

    rules: tuple[Rule, ...]
    leaving: tuple[datetime, ...]
    """What no rule keeps: the next prune removes it."""
    most: int
    """The number of archives when every rule has its number; ``UNLIMITED`` when there is no end."""


def judge(starts: Iterable[datetime], retention: Mapping[str, int | str], *, time_zone: str, now: datetime) -> Retained:
    """Return which rule keeps which of the archives that started at these moments."""
    try:
        local = cron.zone(time_zone or "UTC")
    except ValueError:
        local = cron.zone("UTC")
    left = sorted(set(starts), reverse=True)
    every = list(left)
    rules: list[Rule] = []
    within = retention.get("keep_within")
    if isinstance(within, str) and (found := _WITHIN.fullmatch(within)):
        length = timedelta(seconds=int(found[1]) * _UNITS[found[2]])
        kept = tuple(start for start in left if now - start < length)
        rules.append(Rule(f"within {within}", UNLIMITED, kept))
        left = [start for start in left if start not in kept]
    for name, period in _PERIODS.items():
        number = retention.get(name)
        if isinstance(number, int) and number != 0:
            chosen = _newest_of_each(every, left, number=number, period=period, local=local)
            rules.append(Rule(name.removeprefix("keep_"), number, chosen))
            left = [start for start in left if start not in chosen]
    return Retained(tuple(rules), tuple(left) if rules else (), most(retention))


def most(retention: Mapping[str, int | str]) -> int:
    """Return how many archives the rules keep at most."""
    numbers = [number for name in _PERIODS if isinstance(number := retention.get(name), int) and number != 0]
    endless = "keep_within" in retention or any(number < 0 for number in numbers)
    return UNLIMITED if endless or not numbers else sum(numbers)


def wanted(retentions: Iterable[Mapping[str, int | str]]) -> int:
    """Return how many archives several backups keep at most in one repository; ``UNLIMITED`` when there is no end."""
    numbers = [most(one) for one in retentions]
    return UNLIMITED if UNLIMITED in numbers else sum(numbers)


def _newest_of_each(
    every: Sequence[datetime], left: Sequence[datetime], *, number: int, period: str, local: tzinfo
) -> tuple[datetime, ...]:
    chosen: list[datetime] = []
    last = ""
    free = set(left)
    for start in every:
        name = start.astimezone(local).strftime(period)
        if name != last:
            last = name
            if start in free:
                chosen.append(start)
                if len(chosen) == number:
                    return tuple(chosen)
    if every and every[-1] in free and every[-1] not in chosen:
        chosen.append(every[-1])
    return tuple(chosen)
