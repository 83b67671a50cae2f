"""What ran in a window of time and what is due in it, by client. Functions of a read connection.

Bounded whatever the size of the fleet: the crowd of all runs is counted from indexes alone
(``ix_runs_outcome_started``, ``ix_backups_next_due``); rows are read only of the few clients that matter first.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import String, bindparam, false, func, or_, select, true, type_coerce

from schema.observed import Outcome
from schema.status import Page
from schema.tables import UtcText, backups, clients, evidence, moment_text, runs
from schema.timeline import Crowd, DueMark, NextStart, RunSpan, Timeline, TimelineRow
from web_readonly import starts
from web_readonly.reader.clients import has_labels
from web_readonly.reader.paging import beyond, bounded, decode, encode
from web_readonly.reader.source import read_suspended

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import ColumnElement, Connection, Select

LATE: Final = timedelta(minutes=10)
"""A start that is this late is shown as late: before, the report of it may be on its way."""
LONGEST: Final = timedelta(hours=12)
"""A run that started longer before the window is only shown while it runs."""
OLDEST: Final = timedelta(days=30)
"""What has been running or late for longer than that comes behind everything else."""
TEN_MINUTES: Final = timedelta(minutes=10)
BUCKET: Final = len("2026-11-23T07:4")
"""Characters of a moment that ten minutes have in common."""
_CANDIDATES: Final = 400
_SPANS: Final = 2_000
_DUE_MARKS: Final = 60
_DUE_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class TimelineFilter:
    """Which rows; empty fields select all. The crowd is always of all."""

    client: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome | Literal["running"] | None = None


def read_timeline(
    connection: Connection, wanted: TimelineFilter, *, since: datetime, until: datetime, rows: int, now: datetime
) -> Timeline:
    """Return at most ``rows`` clients between two moments: failed, late and running first, then the busiest."""
    names = [wanted.client] if wanted.client else _first(connection, wanted, rows, since=since, until=until, now=now)
    shown = names[:rows]
    spans = _spans(connection, shown, wanted.outcome, since=since, until=until)
    due = _due(connection, shown, since=since, until=until, now=now) if wanted.outcome is None else {}
    return Timeline(
        since=since,
        until=until,
        rows=tuple(TimelineRow(client=name, runs=spans[name], due=due.get(name, ())) for name in shown),
        more=len(names) > rows,
        crowd=_crowd(connection, since=since, until=until, now=now),
    )


# --- Which clients matter first ---------------------------------------------------------------------------------------


def _first(
    connection: Connection, wanted: TimelineFilter, rows: int, *, since: datetime, until: datetime, now: datetime
) -> list[str]:
    """Return more than ``rows`` names, or all that there are: no kind is looked for that would not be shown."""
    found: dict[str, None] = {}
    for names in _candidates(connection, wanted, since=since, until=until, now=now):
        found |= dict.fromkeys(names)
        if len(found) > rows:
            break
    return list(found)


def _candidates(
    connection: Connection, wanted: TimelineFilter, *, since: datetime, until: datetime, now: datetime
) -> Iterator[Iterable[str]]:
    """Yield names of clients, those that need a person first; each kind from one range of an index."""

    def ran(*which: ColumnElement[bool], start: datetime = since) -> Iterable[str]:
        query = select(runs.c.client).where(*which, runs.c.started >= start, runs.c.started < until)
        query = _labelled(query, runs.c.client, wanted).order_by(runs.c.started.desc()).limit(_CANDIDATES)
        return (name for name, _ in Counter(connection.execute(query).scalars()).most_common())

    def of(outcome: Outcome) -> ColumnElement[bool]:
        return runs.c.outcome == outcome.value

    if wanted.outcome is not None:
        is_running = wanted.outcome == "running"
        yield ran(
            runs.c.outcome.is_(None) if is_running else runs.c.outcome == wanted.outcome,
            start=since - OLDEST if is_running else since,
        )
        return
    yield ran(of(Outcome.FAILED))
    yield ran(of(Outcome.LOST))
    if now < until:
        yield _starting(connection, wanted, after=now - OLDEST, until=now - LATE)
        yield ran(runs.c.outcome.is_(None), start=since - OLDEST)
    yield ran(of(Outcome.WARNED))
    yield ran()
    if now < until:
        yield _starting(connection, wanted, after=now, until=until)


def _starting(connection: Connection, wanted: TimelineFilter, *, after: datetime, until: datetime) -> Iterable[str]:
    query = select(backups.c.client).where(
        backups.c.next_due > after,
        backups.c.next_due < until,
        backups.c.running == "",
        backups.c.suspended.is_(False),
    )
    query = _labelled(query, backups.c.client, wanted).order_by(backups.c.next_due).limit(_CANDIDATES)
    return connection.execute(query).scalars()


def _labelled(query: Any, column: ColumnElement[str], wanted: TimelineFilter) -> Any:
    if not wanted.labels:
        return query
    return query.where(
        select(clients.c.name).where(clients.c.name == column, *has_labels(clients.c.labels, wanted.labels)).exists()
    )


# --- Their runs and starts --------------------------------------------------------------------------------------------


_WINDOW: Final = {name: bindparam(name, type_=UtcText) for name in ("since", "until", "longest", "oldest")}
_SPAN: Final = (runs.c.id, runs.c.client, runs.c.backup, runs.c.started, runs.c.finished, runs.c.outcome)
_THEIRS: Final = (
    select(*_SPAN)
    .where(runs.c.client.in_(bindparam("names", expanding=True)))
    .order_by(runs.c.started.desc())
    .limit(_SPANS)
)
_NEAR: Final = _THEIRS.where(runs.c.started >= _WINDOW["longest"], runs.c.started < _WINDOW["until"])
_LONG: Final = _THEIRS.where(
    runs.c.outcome.is_(None), runs.c.started < _WINDOW["longest"], runs.c.started >= _WINDOW["oldest"]
)


def _spans(
    connection: Connection, names: list[str], outcome: str | None, *, since: datetime, until: datetime
) -> dict[str, tuple[RunSpan, ...]]:
    asked = {"names": names, "until": until, "longest": since - LONGEST, "oldest": since - OLDEST}
    found: dict[str, list[RunSpan]] = defaultdict(list)
    for row in (*connection.execute(_NEAR, asked), *connection.execute(_LONG, asked)) if names else ():
        kind = row.outcome or "running"
        if (outcome is None or kind == outcome) and (row.finished is None or row.finished > since):
            found[row.client].append(RunSpan(**row._mapping))  # noqa: SLF001 - its public name
    return {name: tuple(reversed(found[name])) for name in names}


_SCHEDULED: Final = (backups.c.client, backups.c.backup, backups.c.cron, backups.c.time_zone, backups.c.next_due)


@lru_cache(maxsize=4)
def _due_in_window(suspended: frozenset[str]) -> Select[Any]:
    theirs = backups.c.client.in_(bindparam("names", expanding=True))
    query = select(*_SCHEDULED).where(theirs, backups.c.next_due < _WINDOW["until"], backups.c.running == "")
    return query.where(_not_suspended(suspended)).limit(_DUE_ROWS)


def _due(
    connection: Connection, names: list[str], *, since: datetime, until: datetime, now: datetime
) -> dict[str, tuple[DueMark, ...]]:
    query, asked = _due_in_window(read_suspended(connection)), {"names": names, "until": until}
    found: dict[str, list[DueMark]] = defaultdict(list)
    work = starts.Work()
    for row in connection.execute(query, asked) if names and now < until else ():
        late = row.next_due < now - LATE
        marks = [row.next_due, *work.starts_after(row.cron, row.time_zone, row.next_due, until=until)]
        found[row.client] += [
            DueMark(backup=row.backup, at=at, late=late and at == row.next_due)
            for at in marks[:_DUE_MARKS]
            if at >= since
        ]
    return {name: tuple(sorted(marks, key=lambda mark: mark.at)) for name, marks in found.items()}


def _not_suspended(suspended: frozenset[str]) -> ColumnElement[bool]:
    names = sorted(suspended)
    whole = backups.c.client.in_([name.removeprefix("client/") for name in names if name.startswith("client/")])
    single = ("backup/" + backups.c.client + "/" + backups.c.backup).in_(names) if names else false()
    return ~or_(backups.c.suspended.is_(True), whole, single)


def read_next(
    connection: Connection, *, repository: str = "", limit: int, after: str, now: datetime
) -> Page[NextStart]:
    """Return what starts next, soonest first."""
    key = (backups.c.next_due, backups.c.client, backups.c.backup)
    query = select(*_SCHEDULED).where(backups.c.next_due >= now, _not_suspended(read_suspended(connection)))
    if after:
        where = decode(after, datetime, str, str)
        here, there = beyond(key, where)
        query = query.where(backups.c.next_due >= where[0], here > there)
    if repository:
        query = query.where(uses(repository))
    found = connection.execute(query.order_by(*key).limit(bounded(limit) + 1)).all()
    work = starts.Work()
    items = tuple(
        NextStart(
            client=row.client,
            backup=row.backup,
            cron=row.cron,
            time_zone=row.time_zone,
            at=row.next_due,
            then=work.starts_after(row.cron, row.time_zone, row.next_due, until=now + starts.WEEK)[:3],
        )
        for row in found[:limit]
    )
    last = found[limit - 1] if len(found) > limit else None
    return Page(items=items, next=encode([last.next_due, last.client, last.backup]) if last else "")


def uses(repository: str) -> ColumnElement[bool]:
    """Return that a backup names a repository, in SQL."""
    here = (evidence.c.client == backups.c.client) & (evidence.c.backup == backups.c.backup)
    return select(evidence.c.url).where(here, evidence.c.repository == repository).correlate(backups).exists()


# --- The crowd --------------------------------------------------------------------------------------------------------


def _crowd(connection: Connection, *, since: datetime, until: datetime, now: datetime) -> tuple[Crowd, ...]:
    started: dict[str, dict[str, int]] = defaultdict(dict)
    for bucket, outcome, number in connection.execute(_ENDED, _buckets(since, min(until, now))):
        started[bucket][outcome] = number
    for bucket, number in connection.execute(_GOING_ON, {"since": since, "until": until}):
        started[bucket]["running"] = number
    starting = connection.execute(_DUE, _buckets(max(since, now), until))
    due = {bucket: number for bucket, number in starting if number}
    return tuple(
        Crowd(at=_moment(bucket), started=started.get(bucket, {}), due=due.get(bucket, 0))
        for bucket in sorted({*started, *due})
    )


def _buckets(since: datetime, until: datetime) -> dict[str, str]:
    """Return the starts of the ten minutes between two moments, for a statement that jumps to each in an index."""
    number = max(0, -int((since - until) // TEN_MINUTES))
    return {"buckets": json.dumps([moment_text(since + place * TEN_MINUTES)[:BUCKET] for place in range(number)])}


# To jump to each ten minutes and count there costs a third of grouping all runs of a day.
_bucket = func.json_each(bindparam("buckets")).table_valued("value", name="bucket")
_outcome = func.json_each(json.dumps([one.value for one in Outcome])).table_valued("value", name="kind")


def _within(column: ColumnElement[datetime]) -> ColumnElement[bool]:
    text = type_coerce(column, String)
    return (text >= _bucket.c.value) & (text < _bucket.c.value + "~")


_STARTED: Final = (
    select(func.count())
    .where(runs.c.outcome == _outcome.c.value, _within(runs.c.started))
    .select_from(runs)
    .correlate(_bucket, _outcome)
    .scalar_subquery()
)
_COUNTED: Final = (
    select(_bucket.c.value.label("bucket"), _outcome.c.value.label("kind"), _STARTED.label("number"))
    .select_from(_bucket.join(_outcome, true()))
    .cte("counted")
    .prefix_with("MATERIALIZED")
)
"""Not a part of the statement that leaves out the zeros: else SQLite counts twice."""
_ENDED: Final = select(*_COUNTED.c).where(_COUNTED.c.number > 0)
_STARTED_AT: Final = func.substr(type_coerce(runs.c.started, String), 1, BUCKET)
_GOING_ON: Final = (
    select(_STARTED_AT, func.count())
    .where(runs.c.outcome.is_(None), runs.c.started >= _WINDOW["since"], runs.c.started < _WINDOW["until"])
    .group_by(_STARTED_AT)
)
_STARTING: Final = (
    select(func.count())
    .where(_within(backups.c.next_due), backups.c.suspended.is_(False))
    .select_from(backups)
    .correlate(_bucket)
    .scalar_subquery()
    .label("number")
)
_DUE: Final = select(_bucket.c.value.label("bucket"), _STARTING)


def _moment(bucket: str) -> datetime:
    return datetime.fromisoformat(f"{bucket}0:00Z")
