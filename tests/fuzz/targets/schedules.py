"""Cron against a calendar walked minute by minute; durations against their own text."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta

from schema.cron import check_cron, check_time_zone, due_between, next_due
from schema.scalars import MAX_DURATION_SECONDS, format_duration, parse_duration
from tests.fuzz.target import Target, parts, refusing

_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_START = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS_WALKED = 3


def _cron(data: bytes) -> None:
    """Lines: an expression, a time zone (or its number), minutes after the beginning of 2024."""
    expression, zone_text, minutes, *_ = [*parts(data, b"\n"), "", "", ""]
    with refusing(ValueError):
        check_cron(expression)
    zone = _ZONES[len(zone_text) % len(_ZONES)]
    if "/" in zone_text:
        with refusing(ValueError):
            zone = check_time_zone(zone_text)
    after = _START + timedelta(minutes=int(minutes[:7]) if re.fullmatch(r"[0-9]+", minutes) else 0)
    first = next_due(expression, time_zone=zone, after=after)
    assert first > after
    assert first.tzinfo is UTC
    several = due_between(expression, time_zone=zone, after=after, until=first + timedelta(days=2), limit=50)
    assert several[0] == first
    latest = after
    for moment in several[:5]:
        assert moment == next_due(expression, time_zone=zone, after=latest)
        latest = moment
    assert several == sorted(set(several))
    _walk(expression, after)


def _walk(expression: str, after: datetime) -> None:
    """In UTC, where every minute comes once, the due minutes of some days are those whose fields all match."""
    if expression.startswith("@"):
        return
    until = after + timedelta(days=_DAYS_WALKED)
    due = due_between(expression, time_zone="UTC", after=after, until=until, limit=5_000)
    assert due == [minute for minute in _minutes(after, until) if _matches(expression, minute)], expression


def _minutes(after: datetime, until: datetime) -> list[datetime]:
    first = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return [first + timedelta(minutes=number) for number in range(int((until - first).total_seconds() // 60) + 1)]


def _matches(expression: str, at: datetime) -> bool:
    """Whether a minute is due, as crontab(5) has it: with both days given, either will do."""
    minute, hour, day, month, weekday = (field for field in expression.lower().split(" ") if field)
    if not (_in(minute, at.minute, 0, 59) and _in(hour, at.hour, 0, 23) and _in(month, at.month, 1, 12, _MONTHS)):
        return False
    days = any(_day(item, at) for item in day.split(","))
    weekdays = any(_weekday(item, at) for item in weekday.split(","))
    if day[:1] in {"*", "?"} or weekday[:1] in {"*", "?"}:
        return days and weekdays
    return days or weekdays


def _day(item: str, at: datetime) -> bool:
    if item in {"l", "?"}:
        return item == "?" or at.day == monthrange(at.year, at.month)[1]
    return _in(item, at.day, 1, 31)


def _weekday(item: str, at: datetime) -> bool:
    number = at.isoweekday() % 7
    last = at.day + 7 > monthrange(at.year, at.month)[1]
    if item == "?":
        return True
    if item.startswith("l"):
        return last and int(item[1:]) % 7 == number
    if "#" in item:
        day, _, count = item.partition("#")
        return int(day) % 7 == number and (at.day - 1) // 7 + 1 == int(count)
    return _in(item, number, 0, 7, _DAYS) or (number == 0 and _in(item, 7, 0, 7, _DAYS))


def _in(field: str, value: int, low: int, high: int, words: list[str] | None = None) -> bool:
    return any(value in _values(item, low, high, words or []) for item in field.split(","))


def _values(item: str, low: int, high: int, words: list[str]) -> set[int]:
    span, slash, step = item.partition("/")
    ends = [words.index(end) + low if end in words else int(end) for end in span.split("-") if span != "*"]
    first, last = (low, high) if not ends else (ends[0], ends[-1])
    if slash and len(ends) == 1:
        last = high
    numbers = list(range(first, last + 1)) if first <= last else [*range(first, high + 1), *range(low, last + 1)]
    return set(numbers[:: int(step) if slash else 1])


def _duration(data: bytes) -> None:
    for text in parts(data, b"\n"):
        try:
            seconds = parse_duration(text)
        except ValueError:
            continue
        assert 0 <= seconds <= MAX_DURATION_SECONDS
        written = format_duration(seconds)
        assert parse_duration(written) == seconds
        assert format_duration(parse_duration(written)) == written
        assert text.isascii()


TARGETS = (
    Target(
        name="cron",
        promise="an expression is refused with a ValueError or is due some day, later than asked, in order, and in UTC "
        "in exactly the minutes that a calendar walked minute by minute gives",
        check=_cron,
        seeds=lambda: [
            b"30 2 * * *\n\n0",
            b"*/15 0-6,22-23 1,15 jan-mar mon-fri\nEurope/Berlin\n128000",
            b"0 0 L * *\nx\n43000",
            b"5 4 ? * 5#2\nxx\n5",
            b"0 12 * * L5\nxxx\n99999",
            b"@hourly\nxxxx\n7",
            b"0 0 29 2 *\nxxxxx\n7",
            b"1-59/2 * 1-7 * sun\nAmerica/New_York\n100000",
            b"*/20 * * * *\nAustralia/Lord_Howe\n132000",
        ],
        separator=b"\n",
        words=("*/5", "L", "?", "5#3", "l5", "mon-fri", "jan", "@daily", "0-23/7", "Europe/Berlin", "29", "31"),
        most=256,
    ),
    Target(
        name="durations",
        promise="a duration is refused with a ValueError, or its seconds are written and read back the same",
        check=_duration,
        seeds=lambda: [b"26h\n1d12h\n90s\n0s\n1w2d3h4m5s\n520w", b"3660d"],
        separator=b"\n",
        words=("w", "d", "h", "m", "s", "999999"),
        most=256,
    ),
)
