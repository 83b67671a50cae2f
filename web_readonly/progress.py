"""How far a run is, how fast it goes and when it may end, from what was last heard of it. Pure; for the run's page.

Borg says how much it has read, and not of how much. The last archive is the best guess: it is called a guess wherever
it is shown, and nothing is guessed once it proved wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from schema.status import RunStatus

CREATE: Final = "create"
LEAST: Final = timedelta(seconds=5)
"""Before, a rate says nothing yet."""
FINE: Final = 120.0
"""Seconds up to which they are counted: what lies further ahead is not known to the second."""
QUIET: Final = timedelta(seconds=30)
"""Without a word for so long, the numbers are called old: some of Borg's work goes on in silence."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the page shows of a run that has not ended."""

    elapsed: timedelta
    """Since the run began."""
    quiet: timedelta | None = None
    """Since the last word, when that is long ago."""
    percent: float | None = None
    guessed: bool = False
    """Whether percent and what remains rest on the size of the last archive."""
    expected: int = 0
    """Bytes that the last archive had; 0 when it is of no use."""
    repositories: int = 0
    """That the last run wrote to: numbers begin anew for each."""
    bytes_rate: float | None = None
    """In a second, on average."""
    files_rate: float | None = None
    remaining: timedelta | None = None


def pace(run: RunStatus, *, last: RunStatus | None, now: datetime) -> Pace:
    """Return the pace of ``run``; ``last`` is the newest run of the same backup that made an archive."""
    heard = run.progress
    if heard is None:
        return Pace(elapsed=max(now - run.started, timedelta(0)))
    spent = heard.at - max(heard.since or run.started, run.started)
    seconds = spent.total_seconds() if spent >= LEAST else 0.0
    bytes_rate = heard.original_size / seconds if seconds and heard.original_size else None
    size = _last_size(last) if heard.phase == CREATE and heard.percent is None else 0
    expected = size if heard.original_size <= size else 0
    percent = 100 * heard.original_size / expected if expected else heard.percent
    return Pace(
        elapsed=max(now - run.started, timedelta(0)),
        quiet=now - heard.at if now - heard.at >= QUIET else None,
        percent=percent,
        guessed=bool(expected),
        expected=expected,
        repositories=len(last.statistics) if last and heard.phase == CREATE else 0,
        bytes_rate=bytes_rate,
        files_rate=heard.files / seconds if seconds and heard.files else None,
        remaining=_remaining(seconds, percent),
    )


def _remaining(seconds: float, percent: float | None) -> timedelta | None:
    if not seconds or not percent or percent < 1:
        return None
    left = seconds * (100 - percent) / percent
    return timedelta(seconds=left if left < FINE else 60 * round(left / 60))


def _last_size(last: RunStatus | None) -> int:
    return max((one.original_size for one in last.statistics), default=0) if last else 0
