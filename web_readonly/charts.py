"""Numbers as geometry: bars, lines and marks of the small charts that the templates draw as SVG. Pure.

Called by the templates. Along time everything is a share of the width in per cent, so that a chart fills any width
without its text being stretched; upwards it is pixels, or for lines a share of ``TALL``. No colour is named here: a
tone or a name becomes a class, and static/style.css knows what it looks like in light and dark.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import dropwhile
from typing import TYPE_CHECKING, Final, NamedTuple

from web_readonly import formats, tones

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schema.status import Growth
    from schema.timeline import Crowd, DueMark, RunSpan, TimelineRow
    from web_readonly.tones import Tone

TALL: Final = 100
"""Units of height of a line chart."""


def _share(moment: datetime, since: datetime, until: datetime) -> float:
    if until <= since:  # all that a stranger's clock tells of is now, or to come
        return 0.0
    return min(100.0, max(0.0, 100 * (moment - since) / (until - since)))


def across(moment: datetime, since: datetime, until: datetime) -> str:
    """Return where a moment is between two others: ``41.67%``."""
    return f"{_share(moment, since, until):.2f}%"


# --- A timeline: one lane for each client -----------------------------------------------------------------------------

_LANE: Final = 26
_SUBLANE: Final = 11
_DEPTH: Final = 4
_LEAST: Final = 0.3
"""Per cent of the width that the shortest run takes: it can be seen and hit."""
_HEIGHT: Final[Mapping[Tone, float]] = {"good": 0.5, "warn": 0.75, "bad": 1.0, "busy": 0.75, "idle": 0.35}
"""Share of its lane, so that what matters stands out by more than its colour."""


class Bar(NamedTuple):
    """One run."""

    run: RunSpan
    tone: Tone
    x: str
    width: str
    y: float
    height: float
    title: str


class Mark(NamedTuple):
    """A start to come, or one that is late."""

    x: str
    y: float
    late: bool
    title: str


class Lane(NamedTuple):
    """One client."""

    height: int
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]
    words: str
    """The same in words, for who does not see it."""


def lane(row: TimelineRow, *, since: datetime, until: datetime, now: datetime) -> Lane:
    """Return a client's lane. Runs that overlap lie below each other, at most four deep."""
    places, depth = _stack(row.runs, since=since, until=until, now=now)
    height = _LANE if depth < 2 else _SUBLANE * depth + 4
    room = height - 2 if depth < 2 else _SUBLANE
    bars = []
    for run, place in zip(row.runs, places, strict=True):
        state = tones.of_run(run)
        left, right = _extent(run, since=since, until=until, now=now)
        tall = round(room * _HEIGHT[state.tone], 1)
        top = 1 + (0 if depth < 2 else 1 + _SUBLANE * place) + (room - tall) / 2
        bars.append(
            Bar(run, state.tone, f"{left:.2f}%", f"{right - left:.2f}%", round(top, 1), tall, _title(run, now=now))
        )
    marks = tuple(
        Mark(across(due.at, since, until), height / 2, due.late, f"{due.backup}: {_due_words(due, now)}")
        for due in row.due
    )
    return Lane(height, tuple(bars), marks, _words(row, now=now))


def _stack(runs: Sequence[RunSpan], *, since: datetime, until: datetime, now: datetime) -> tuple[list[int], int]:
    """Return the place of each run, and how many places there are: the first place that is free again."""
    ends: list[float] = []
    places = []
    for run in runs:
        left, right = _extent(run, since=since, until=until, now=now)
        free = next((place for place, end in enumerate(ends) if end <= left), min(len(ends), _DEPTH - 1))
        ends[free : free + 1] = [max(right, ends[free] if free < len(ends) else 0.0)]
        places.append(free)
    return places, len(ends)


def _extent(run: RunSpan, *, since: datetime, until: datetime, now: datetime) -> tuple[float, float]:
    left = _share(run.started, since, until)
    right = _share(run.finished or max(now, run.started), since, until)
    left = min(left, 100 - _LEAST)
    return left, max(right, left + _LEAST)


def _title(run: RunSpan, *, now: datetime) -> str:
    length = formats.span(((run.finished or now) - run.started).total_seconds())
    return f"{run.backup}: {tones.of_run(run).word}, {formats.absolute(run.started)}, {length}"


def _due_words(due: DueMark, now: datetime) -> str:
    late = "late, was due" if due.late else "due"
    return f"{late} {formats.absolute(due.at)}, {formats.relative(due.at, now)}"


def _words(row: TimelineRow, *, now: datetime) -> str:
    counts = Counter(tones.of_run(run).word for run in row.runs)
    said = [f"{number} {word}" for word, number in counts.most_common()] or ["no run"]
    said += [f"{due.backup} {_due_words(due, now)}" for due in row.due[:1]]
    return ", ".join(said)


_EDGE: Final = 0.08


class Hour(NamedTuple):
    """A line of the grid."""

    x: str
    label: str
    midnight: bool
    minor: bool
    """Its label is left out where it is narrow."""
    edge: str = ""
    """``start`` or ``end`` near a side: there a narrow page has no room for half a label beyond it."""


def hours(since: datetime, until: datetime) -> tuple[Hour, ...]:
    """Return the lines of a grid of hours, in UTC: every three, of two days every six."""
    step = 3 if until - since <= timedelta(days=1) else 6
    at = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    at += timedelta(hours=-at.hour % step or (step if at < since else 0))
    found: list[Hour] = []
    while at < until and len(found) < 48:
        label = f"{at:%a} {at.day}" if at.hour == 0 else f"{at:%H}:00"
        part = (at - since) / (until - since)
        edge = "start" if part < _EDGE else "end" if part > 1 - _EDGE else ""
        found.append(Hour(across(at, since, until), label, at.hour == 0, at.hour % (2 * step) != 0, edge))
        at += timedelta(hours=step)
    return tuple(found)


# --- A crowd: how many runs started in each ten minutes ---------------------------------------------------------------

_ORDER: Final = ("failed", "lost", "warned", "cancelled", "running", "succeeded")
"""From the ground up: what is bad is never hidden under what is good."""
_HEAPED: Final = (*((tones.of_started(name).tone, name) for name in _ORDER), ("due", "due"))


class Heap(NamedTuple):
    """All columns of one tone as one path, in a box ``WIDE`` wide and ``TALL`` high."""

    tone: str
    path: str


WIDE: Final = 1_000


def heaps(crowd: Sequence[Crowd], *, since: datetime, until: datetime) -> tuple[Heap, ...]:
    """Return the columns; the highest reaches the top, and one run of many can still be seen.

    The height grows with the square root, so that a quiet hour is not nothing beside a busy one.
    """
    most = max((max(sum(one.started.values()), one.due) for one in crowd), default=0)
    paths: dict[str, list[str]] = {}
    width = WIDE * (timedelta(minutes=10) / (until - since))
    for one in crowd:
        x = WIDE * _share(one.at, since, until) / 100
        level = float(TALL)
        whole = sum(one.started.values()) or one.due
        tallest = TALL * (whole / most) ** 0.5
        for tone, name in _HEAPED:
            number = (0 if one.started else one.due) if name == "due" else one.started.get(name, 0)
            if number:
                tall = min(level, max(tallest * number / whole, 6.0))
                level -= tall
                paths.setdefault(tone, []).append(f"M{x:.1f} {level + tall:.0f}v-{tall:.0f}h{width:.1f}v{tall:.0f}z")
    return tuple(Heap(tone, "".join(path)) for tone, path in paths.items())


def totals(crowd: Sequence[Crowd]) -> dict[str, int]:
    """Return how many runs of each outcome a crowd holds, and how many starts are due."""
    found = Counter[str]()
    for one in crowd:
        found.update(one.started)
        found["due"] += one.due
    return dict(found)


# --- Lines: sizes over time -------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One size over time."""

    name: str
    points: str
    """Of a polyline in a box ``WIDE`` wide and ``TALL`` high."""
    first: int
    last: int


class Tick(NamedTuple):
    """A line of the scale."""

    at: str
    label: str


class Day(NamedTuple):
    """One day that can be pointed at."""

    x: float
    width: float
    title: str


class LineChart(NamedTuple):
    """Lines with their scale."""

    lines: tuple[Line, ...]
    scale: tuple[Tick, ...]
    dates: tuple[Tick, ...]
    days: tuple[Day, ...]


def growth(days: Sequence[Growth], names: Sequence[str], *, dates: int = 6) -> LineChart:
    """Return sizes (or ``archives``) over days, from nothing to the largest. What was never known is left out."""
    days = list(dropwhile(lambda day: not any(_value(day, name) for name in names), days))
    values = {name: [_value(day, name) for day in days] for name in names}
    values = {name: each for name, each in values.items() if any(each)}
    scale, top = _scale(max((max(each) for each in values.values()), default=0), sizes="archives" not in names)
    since = datetime.combine(days[0].day, datetime.min.time(), UTC) if days else datetime(2000, 1, 1, tzinfo=UTC)
    until = datetime.combine(days[-1].day, datetime.min.time(), UTC) if days else since
    until = max(until, since + timedelta(days=1))
    xs = [WIDE * _share(datetime.combine(day.day, datetime.min.time(), UTC), since, until) / 100 for day in days]
    lines = tuple(
        Line(
            name,
            " ".join(f"{x:.1f},{TALL - TALL * value / top:.1f}" for x, value in zip(xs, each, strict=True)),
            next((value for value in each if value), 0),
            each[-1],
        )
        for name, each in values.items()
    )
    width = WIDE / max(1, (until - since).days)
    titles = [
        f"{day.day}: " + ", ".join(f"{name} {_said(values[name][at], name)}" for name in values)
        for at, day in enumerate(days)
    ]
    hits = tuple(Day(round(x - width / 2, 1), round(width, 1), title) for x, title in zip(xs, titles, strict=True))
    return LineChart(lines, scale, _dates(since, until, most=dates), hits)


def _value(day: Growth, name: str) -> int:
    return int(getattr(day, name if name == "archives" else f"{name}_size"))


def _said(value: int, name: str) -> str:
    return f"{value:,}" if name == "archives" else formats.size(value)


def _scale(largest: int, *, sizes: bool) -> tuple[tuple[Tick, ...], float]:
    """Return two to five lines at round numbers from 0 up, and the value of the last."""
    if largest <= 0:
        return (Tick("100%", "0"),), 1.0
    step = 1
    while largest / step > 4:
        digits = str(step)
        step = int(digits[0].translate(str.maketrans("125", "251")) + digits[1:] + ("0" if digits[0] == "5" else ""))
    top = -(-largest // step) * step
    labels = [formats.size(value) if sizes and value else f"{value:,}" for value in range(0, top + 1, step)]
    return (
        tuple(Tick(f"{100 - 100 * number * step / top:.2f}%", label) for number, label in enumerate(labels)),
        float(top),
    )


def _dates(since: datetime, until: datetime, *, most: int) -> tuple[Tick, ...]:
    length = (until - since).days
    if most <= 2:
        return Tick("0%", f"{since.day} {since:%b}"), Tick("100%", f"{until.day} {until:%b}")
    every = next((one for one in (1, 2, 7, 14, 30, 60, 120) if length / one <= most), 365)
    # Counted from the last day, which is the one that is asked for.
    days = [until - timedelta(days=number) for number in range(0, length + 1, every)]
    return tuple(Tick(across(day, since, until), f"{day.day} {day:%b}") for day in reversed(days))


# --- A heat map: starts in each hour of the week ----------------------------------------------------------------------

LEVELS: Final = 5


class Cell(NamedTuple):
    """One hour: ``level`` is 0 for none and ``LEVELS`` for the most."""

    at: datetime
    starts: int
    level: int


def heat(counts: Sequence[int], *, since: datetime) -> tuple[tuple[Cell, ...], ...]:
    """Return a row of 24 cells for each day in UTC that the hours from ``since`` on touch; what is outside has -1."""
    most = max(counts, default=0)
    first = since.astimezone(UTC).replace(hour=0)
    lead = int((since - first) / timedelta(hours=1))
    padded = [-1] * lead + list(counts)
    padded += [-1] * (-len(padded) % 24)
    cells = [
        Cell(
            first + timedelta(hours=number), starts, -1 if starts < 0 else -(-starts * LEVELS // most) if starts else 0
        )
        for number, starts in enumerate(padded)
    ]
    return tuple(tuple(cells[at : at + 24]) for at in range(0, len(cells), 24))
