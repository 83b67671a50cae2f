"""The week to come: how many backups start when, and where they meet. Functions of a read connection.

Backups are counted by schedule and next start in one index (``ix_backups_cron_time_zone_next_due``), and
``web_readonly.starts`` does the rest: twenty thousand backups with twenty schedules cost what twenty schedules cost.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import Integer, String, and_, bindparam, case, func, select, text, type_coerce

from schema.tables import UtcText, backups, evidence, runs
from schema.timeline import BusyHour, Meeting, Schedule
from web_readonly import starts
from web_readonly.reader.timeline import BUCKET, read_next, uses
from web_readonly.starts import HOUR, WEEK, Bunch

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BUNCHES: Final = 4_000
_BUSIEST: Final = 6
_NAMES: Final = 6
_PLACES: Final = 5
_WORK: Final = starts.WORK // 5
"""Of one place."""
_USERS: Final = 250
"""Of one place: beyond, the hour is of these, and the work is scaled up."""
NEXT: Final = 12


def read_schedule(connection: Connection, *, repository: str, now: datetime) -> Schedule:
    """Return the week from the hour of ``now``, of all backups or of those that use a repository."""
    since = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    scheduled, by_hand, suspended, left_out = (
        _bunches_of(connection, repository) if repository else _bunches(connection)
    )
    bunches, beyond = starts.affordable(scheduled, since=since)
    hours = starts.by_hour(bunches, since=since)
    counts = tuple(hour.total() for hour in hours)
    return Schedule(
        since=since,
        until=since + WEEK,
        repository=repository,
        hours=counts,
        starts=sum(counts),
        scheduled=sum(bunch.number for bunch in bunches),
        by_hand=by_hand,
        suspended=suspended,
        left_out=left_out + sum(bunch.number for bunch in beyond),
        busiest=_busiest(connection, hours, since=since),
        meetings=_meetings(connection, repository, since=since),
        next=read_next(connection, repository=repository, limit=NEXT, after="", now=now).items,
    )


_SCHEDULES: Final = select(
    backups.c.cron,
    backups.c.time_zone,
    func.count().label("number"),
    func.sum(case((backups.c.suspended.is_(True), 1), else_=0)).label("suspended"),
    func.sum(case((and_(backups.c.next_due.is_(None), backups.c.suspended.is_(False)), 1), else_=0)).label("untold"),
).group_by(backups.c.cron, backups.c.time_zone)
_BUNCHES_TOLD: Final = text("""
    WITH RECURSIVE bunch(cron, time_zone, start) AS (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), '' FROM json_each(:schedules)
        UNION ALL
        SELECT cron, time_zone, (
            SELECT min(next_due) FROM backups
            WHERE cron = bunch.cron AND time_zone = bunch.time_zone AND NOT suspended
                AND next_due >= iif(start = '', '', substr(start, 1, :bucket) || '~')
        ) FROM bunch WHERE start IS NOT NULL
    )
    SELECT cron, time_zone, start, (
        SELECT count(*) FROM backups
        WHERE cron = bunch.cron AND time_zone = bunch.time_zone AND NOT suspended
            AND next_due >= start AND next_due < substr(start, 1, :bucket) || '~'
    ) FROM bunch WHERE start <> '' LIMIT :limit
""")
"""Jumps from one ten minutes of a schedule to the next, and counts there: a third of what it costs to group all."""


def _bunches(connection: Connection, *, most: int = _BUNCHES) -> tuple[list[Bunch], int, int, int]:
    """Return what is scheduled; how many backups run by hand, are suspended, and were too many."""
    found: list[Bunch] = []
    numbers = Counter[str]()
    schedules: list[tuple[str, str]] = []
    for row in connection.execute(_SCHEDULES):
        numbers["suspended"] += row.suspended
        numbers["scheduled" if row.cron else "by hand"] += row.number - row.suspended
        if row.cron:
            schedules.append((row.cron, row.time_zone))
            found += [Bunch(row.cron, row.time_zone, None, row.untold)] if row.untold else []
    asked = {"schedules": json.dumps(schedules), "bucket": BUCKET, "limit": most}
    told = connection.execute(_BUNCHES_TOLD, asked)
    found += [Bunch(cron, zone, datetime.fromisoformat(start), number) for cron, zone, start, number in told]
    found.sort(key=lambda one: (one.cron, one.time_zone, one.start is not None, one.start))
    counted = sum(one.number for one in found[:most])
    return found[:most], numbers["by hand"], numbers["suspended"], numbers["scheduled"] - counted


def _bunches_of(connection: Connection, repository: str) -> tuple[list[Bunch], int, int, int]:
    """Return the same of the backups that use a repository, which no index of schedules knows."""
    start = func.substr(type_coerce(backups.c.next_due, String), 1, BUCKET)
    key = (backups.c.cron, backups.c.time_zone, start, backups.c.suspended)
    query = select(*key, func.min(backups.c.next_due, type_=backups.c.next_due.type), func.count())
    found: list[Bunch] = []
    numbers = Counter[str]()
    for cron, time_zone, _, suspended, next_due, number in connection.execute(
        query.where(uses(repository)).group_by(*key)
    ):
        if not cron or suspended:
            numbers["suspended" if suspended else "by hand"] += number
        elif len(found) < _BUNCHES:
            found.append(Bunch(cron, time_zone, next_due, number))
        else:
            numbers["left out"] += number
    return found, numbers["by hand"], numbers["suspended"], numbers["left out"]


def _busiest(connection: Connection, hours: list[Counter[Bunch]], *, since: datetime) -> tuple[BusyHour, ...]:
    """Return the busiest hours; what is the same every night is one of them."""
    alike: dict[tuple[int, int, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, hour in enumerate(hours):
        if hour:
            schedules = tuple(dict.fromkeys(bunch.cron for bunch, _ in hour.most_common()))[:3]
            alike[hour.total(), (since.hour + number) % 24, schedules].append(number)
    order = sorted(alike.items(), key=lambda one: (-one[0][0], one[1][0]))
    return tuple(
        BusyHour(
            at=since + numbers[0] * HOUR,
            alike=tuple(since + number * HOUR for number in numbers[1:]),
            starts=total,
            schedules=schedules,
            names=_names(connection, hours[numbers[0]]),
        )
        for (total, _, schedules), numbers in order[:_BUSIEST]
    )


_SAME: Final = (
    select(backups.c.client, backups.c.backup)
    .where(
        backups.c.cron == bindparam("cron"),
        backups.c.time_zone == bindparam("time_zone"),
        backups.c.suspended.is_(False),
    )
    .order_by(backups.c.next_due)
    .limit(bindparam("limit", type_=Integer))
)
_TOLD: Final = _SAME.where(backups.c.next_due >= bindparam("start", type_=UtcText))
_UNTOLD: Final = _SAME.where(backups.c.next_due.is_(None))


def _names(connection: Connection, hour: Counter[Bunch]) -> tuple[str, ...]:
    names: list[str] = []
    for bunch, _ in hour.most_common(_NAMES):
        asked = {"cron": bunch.cron, "time_zone": bunch.time_zone, "limit": min(bunch.number, _NAMES - len(names))}
        same = (_UNTOLD, asked) if bunch.start is None else (_TOLD, {**asked, "start": bunch.start})
        names += [f"{row.client}/{row.backup}" for row in connection.execute(*same)]
        if len(names) >= _NAMES:
            break
    return tuple(names)


# --- Where runs meet --------------------------------------------------------------------------------------------------


_PLACE: Final = (evidence.c.repository, evidence.c.url)
_SHARED: Final = (
    select(*_PLACE, func.count().label("users"))
    .group_by(*_PLACE)
    .having(func.count() > 1)
    .order_by(func.count().desc(), *_PLACE)
    .limit(_PLACES)
)
_USING: Final = (
    select(backups.c.cron, backups.c.time_zone, backups.c.next_due, runs.c.started, runs.c.finished)
    .select_from(
        evidence.join(
            backups, (evidence.c.client == backups.c.client) & (evidence.c.backup == backups.c.backup)
        ).outerjoin(runs, runs.c.id == backups.c.last_run)
    )
    .where(evidence.c.repository == bindparam("repository"), evidence.c.url == bindparam("url"))
    .where(backups.c.cron != "", backups.c.suspended.is_(False))
    .limit(_USERS)
)


def _meetings(connection: Connection, repository: str, *, since: datetime) -> tuple[Meeting, ...]:
    """Return the places that several backups use, with the hour in which most of them start."""
    query = _SHARED.where(evidence.c.repository == repository) if repository else _SHARED
    found = connection.execute(query).all()
    shown = [_meeting(connection, row.repository, row.url, row.users, since=since) for row in found]
    return tuple(sorted((one for one in shown if one is not None), key=lambda one: (-one.work, -one.starts)))


def _meeting(connection: Connection, repository: str, url: str, users: int, *, since: datetime) -> Meeting | None:
    took: dict[tuple[str, str, datetime | None], list[float | None]] = defaultdict(list)
    for cron, time_zone, next_due, started, finished in connection.execute(
        _USING, {"repository": repository, "url": url}
    ):
        start = None if next_due is None else next_due.replace(minute=next_due.minute // 10 * 10, second=0)
        took[cron, time_zone, start].append((finished - started).total_seconds() if finished else None)
    bunches = {Bunch(*key, number=len(each)): each for key, each in took.items()}
    fine, _ = starts.affordable(bunches, since=since, work=_WORK)
    hours = starts.by_hour(fine, since=since)
    best = max(range(len(hours)), key=lambda at: hours[at].total())
    if hours[best].total() < 2:
        return None
    scale = users / max(1, sum(map(len, took.values()))) if users > _USERS else 1.0
    known = [length for bunch in hours[best] for length in bunches[bunch] if length is not None]
    return Meeting(
        repository=repository,
        url=url,
        users=users,
        at=since + best * HOUR,
        starts=round(hours[best].total() * scale),
        work=sum(known) * scale,
        measured=round(len(known) * scale),
    )
