"""What the pages of time ask: runs and due starts by client, and the week to come. As ``web_readonly.questions``."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final

from schema.observed import Outcome
from web_readonly.asking import RUN_OUTCOMES, Answer, Asked
from web_readonly.reader import InvalidQuery
from web_readonly.reader.timeline import TimelineFilter

if TYPE_CHECKING:
    from datetime import datetime

    from web_readonly.reader import Reader

DAY: Final = timedelta(days=1)
ROWS: Final = 40


def timeline(reader: Reader, asked: Asked) -> Answer:
    """Answer what ran and what is due, by client: around now, or on one day in UTC."""
    since, until = window(asked)
    outcome = asked.choice("outcome", RUN_OUTCOMES)
    wanted = TimelineFilter(
        client=asked.text("client"),
        labels=asked.labels(),
        outcome="running" if outcome == "running" else Outcome(outcome) if outcome else None,
    )
    main = reader.timeline(wanted, since=since, until=until, rows=ROWS, now=asked.now)
    today = asked.now.astimezone(UTC).date()
    # Around now is the page without a day: between yesterday and tomorrow.
    day = since.date() if asked.text("day") else None
    return Answer(
        main,
        lambda: {
            "outcomes": RUN_OUTCOMES,
            "day": day.isoformat() if day else "",
            "before": ((day or today) - DAY).isoformat(),
            "after_that": "" if day is None and until.date() > today + DAY else ((day or today) + DAY).isoformat(),
            "labels": [f"{key}={value}" for key, value in wanted.labels.items()],
        },
    )


def window(asked: Asked) -> tuple[datetime, datetime]:
    """Return a day before and after now, or the whole day that was asked for."""
    day = asked.moment("day")
    if day is None:
        # Whole ten minutes, so that the picture stands still between two looks.
        now = asked.now.replace(minute=asked.now.minute // 10 * 10, second=0, microsecond=0)
        return now - DAY, now + DAY
    if abs(day - asked.now) > 3660 * DAY:
        raise InvalidQuery(f"'day' cannot be '{asked.text('day')[:80]}'", hint="it is a day such as 2026-11-23")
    start = day.replace(hour=0, minute=0, second=0, microsecond=0)
    return start, start + DAY


def schedule(reader: Reader, asked: Asked) -> Answer:
    """Answer how many backups start when in the week to come, and where they meet."""
    repository = asked.text("repository")
    return Answer(
        reader.schedule(repository=repository, now=asked.now),
        lambda: {"names": reader.repository_names()},
    )


def next_starts(reader: Reader, asked: Asked) -> Answer:
    """Answer what starts next, soonest first."""
    wanted, after = asked.text("repository"), asked.text("after")
    return Answer(reader.next_starts(repository=wanted, limit=asked.limit(), after=after, now=asked.now))
