"""Reports of one client become rows, exactly once. Functions of a connection.

A report and the new sequence number of its outbox are written in one transaction, so that a report is either
acknowledged and stored, or neither. Order follows sequence numbers, never clocks. Nothing a client says touches rows of
another client: every statement names the client of the session, and a run id that somebody else owns is refused.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final

from reconciler.store import evidence as evidence_rows
from reconciler.store import statements as sql
from reconciler.store.prepared import driver_of
from reconciler.store.source import add_events, event_row
from schema.assessment import LATEST_REFUSAL
from schema.errors import TrustError
from schema.observed import (
    Archive,
    ArchiveContents,
    ArchivesSeen,
    ClientEvent,
    Outcome,
    Report,
    RepositoryStatistics,
    RunFinished,
    RunLog,
    RunStarted,
    StateReport,
    Trigger,
)
from schema.tables import moment_text, moment_texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

MAX_LOG_LINES: Final = 200_000
"""Lines kept of one run; what a client says beyond is dropped."""
NOT_ONE_OUTBOX: Final = 2**63 - 1
"""A number that no outbox reaches. A client that reads it as stored knows that somebody else reports as its outbox."""
_MAX_INTEGER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Ingested:
    """The stored high sequence, and what changed."""

    sequence: int
    notices: frozenset[str] = frozenset()
    sizes: bool = False
    """Whether a repository may have another size now."""


def mark(report: Report) -> str:
    """Return by what a report is known again when it is sent again: another one of that number has another mark."""
    if isinstance(report, RunLog):
        return f"{report.type} {report.run} {report.first}"
    return f"{report.type} {moment_text(report.at)} {getattr(report, 'run', getattr(report, 'reason', ''))}"


def ingest(
    connection: Connection,
    *,
    client: str,
    public_key: str,
    epoch: str,
    items: Sequence[tuple[int, Report]],
    through: int,
    received: datetime,
) -> Ingested:
    """Store what is new of ``items`` (sequence, report) and return how far the outbox is stored.

    Sequence numbers must rise: a gap is what the client had to drop, or what nobody could read; up to ``through`` all
    counts as stored. What is stored already is passed over. When a number that is stored stands for another report now,
    two machines share one outbox: nothing is stored, and ``NOT_ONE_OUTBOX`` is returned.
    """
    sequences = [sequence for sequence, _ in items]
    if any(later <= earlier for earlier, later in pairwise(sequences)):
        raise TrustError("reports are out of order", code="malformed")
    high, marked = sql.SEQUENCE.run(connection, of_key=public_key, of_epoch=epoch).fetchone() or (0, "")
    marks = {sequence: mark(report) for sequence, report in items if sequence in {high, *sequences[-1:]}}
    if marked and marks.get(high, marked) != marked:
        return Ingested(NOT_ONE_OUTBOX)
    reached = max([through, *sequences[-1:]])
    if reached <= high:
        return Ingested(high)
    fresh = [report for sequence, report in items if sequence > high]
    sink = _Sink(connection, client=client, public_key=public_key, received=received)
    sink.learn_owners(fresh)
    for report in fresh:
        sink.take(report)
    sink.flush()
    stored = {"epoch": epoch, "sequence": reached, "mark": marks.get(reached, "")}
    sql.PUT_OUTBOX.run(connection, public_key=public_key, at=received, **stored)
    if not high:
        sql.FORGET_OUTBOXES.run(connection, of_key=public_key, of_epoch=epoch)
    return Ingested(reached, frozenset(sink.notices), sizes=sink.sizes)


@dataclass(slots=True)
class _Sink:
    """Writes the reports of one call. Log lines are gathered and written last: their runs are there by then."""

    connection: Connection
    client: str
    public_key: str
    received: datetime
    notices: set[str] = field(default_factory=set)
    sizes: bool = False
    _owners: dict[str, str] = field(default_factory=dict)
    _lines: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _events: list[dict[str, Any]] = field(default_factory=list)

    def learn_owners(self, reports: Sequence[Report]) -> None:
        """Look up whose the runs are that these reports name."""
        wanted = {report.run for report in reports if isinstance(report, (RunStarted, RunLog, RunFinished))}
        for run in wanted:
            if (owner := sql.OWNER.value(self.connection, run=run)) is not None:
                self._owners[run] = owner

    def take(self, report: Report) -> None:
        """Write one report, or say in the audit trail why not."""
        match report:
            case RunLog():
                self._run_log(report)
            case RunStarted():
                self._run_started(report)
            case RunFinished():
                self._run_finished(report)
            case ArchivesSeen():
                self._archives_seen(report)
            case ArchiveContents():
                self._contents(report)
            case StateReport():
                self._state(report)
            case ClientEvent():
                self._event(report)

    def flush(self) -> None:
        """Write what was gathered."""
        self._add_lines()
        if self._counts:
            sql.COUNT_LINES.run_many(self.connection, [{"run": run, "lines": n} for run, n in self._counts.items()])
        add_events(self.connection, self._events)

    def _add_lines(self) -> None:
        driver = driver_of(self.connection)
        whole = len(self._lines) // sql.LINES_AT_ONCE * sql.LINES_AT_ONCE
        for first in range(0, whole, sql.LINES_AT_ONCE):
            lines = self._lines[first : first + sql.LINES_AT_ONCE]
            driver.execute(sql.ADD_LINES, list(chain.from_iterable(lines)))
        driver.executemany(sql.ADD_LINE, self._lines[whole:])

    # --- State and events ---------------------------------------------------------------------------------------------

    def _state(self, report: StateReport) -> None:
        refusal = report.refusal
        refused = 0
        if refusal is not None:
            refused = refusal.generation if 0 < refusal.generation < LATEST_REFUSAL else LATEST_REFUSAL
        sql.PUT_STATE.run(
            self.connection,
            client=self.client,
            public_key=self.public_key,
            reported=self._time(report.at),
            generation=report.generation or 0,
            digest=report.digest or "",
            revision=report.revision[:64],
            expires=report.expires,
            stale=report.stale,
            refused=refused,
            drifted=sum(not drift.healed for drift in report.drift),
            state=report,
        )
        self._jobs(report)
        self.notices.add(f"client/{self.client}")

    def _jobs(self, report: StateReport) -> None:
        kept = {name: (due, run) for name, due, run in sql.DUES.run(self.connection, of_client=self.client)}
        changed = [
            {"of_client": self.client, "of_backup": job.backup, "due": job.next_due, "run": job.running or ""}
            for job in report.jobs
            if job.backup in kept and kept[job.backup] != (_text(job.next_due), job.running or "")
        ]
        sql.BACKUP_DUE.run_many(self.connection, changed)

    def _event(self, report: ClientEvent) -> None:
        row = event_row(
            reason=report.reason,
            message=report.message,
            at=self._time(report.at),
            actor=f"client:{self.client}",
            client=self.client,
            backup=report.backup or "",
            detail=report.detail,
        )
        self._events.append(row)
        self.notices.add("events")

    def _refuse(self, message: str, *, backup: str = "") -> None:
        row = event_row(reason="ReportRefused", message=message, at=self.received, client=self.client, backup=backup)
        row["actor"] = "director"
        if row not in self._events:
            self._events.append(row)
        self.notices.add("events")

    def _time(self, at: datetime) -> datetime:
        return evidence_rows.settle(at, received=self.received)

    # --- Runs ---------------------------------------------------------------------------------------------------------

    def _owns(self, run: str, *, backup: str, at: datetime) -> bool:
        """Return whether the run is this client's; one that was lost with an older store gets a row in its place."""
        owner = self._owners.get(run)
        if owner is None:
            row = {"id": run, "client": self.client, "backup": backup, "trigger": Trigger.SCHEDULE}
            sql.PLACE_RUN.run(self.connection, **row, started=self._time(at))
            self._owners[run] = owner = self.client
        if owner != self.client:
            self._refuse(f"run {run} belongs to another client", backup=backup)
            return False
        self.notices.add(f"run/{run}")
        return True

    def _run_started(self, report: RunStarted) -> None:
        if self._owners.setdefault(report.run, self.client) != self.client:
            self._refuse(f"run {report.run} belongs to another client", backup=report.backup)
            return
        sql.START_RUN.run(
            self.connection,
            id=report.run,
            client=self.client,
            backup=report.backup,
            trigger=report.trigger,
            started=self._time(report.at),
            due=report.due,
            revision=report.revision[:64],
        )
        sql.BACKUP_RUNS.run(self.connection, of_client=self.client, of_backup=report.backup, run=report.run)
        self.notices |= {f"run/{report.run}", f"client/{self.client}"}

    def _run_log(self, report: RunLog) -> None:
        lines = report.lines[: max(0, MAX_LOG_LINES - report.first)]
        if not lines or not self._owns(report.run, backup="", at=lines[0].at):
            return
        run = report.run
        texts = moment_texts(line.at for line in lines)
        self._lines += [
            (run, number, at, line.level, line.message)
            for number, (at, line) in enumerate(zip(texts, lines, strict=True), report.first)
        ]
        self._counts[run] = max(self._counts.get(run, 0), report.first + len(lines))

    def _run_finished(self, report: RunFinished) -> None:
        if not self._owns(report.run, backup=report.backup, at=report.at):
            return
        at = self._time(report.at)
        statistics = tuple(
            one if math.isfinite(one.duration) else one.model_copy(update={"duration": 0.0})
            for one in report.statistics
        )
        sql.FINISH_RUN.run(
            self.connection,
            run=report.run,
            finished=at,
            outcome=report.outcome,
            exit_code=_bounded(report.exit_code),
            error=report.error,
            hint=report.hint,
            statistics=statistics,
            lines=max(min(report.log_lines, MAX_LOG_LINES), self._counts.pop(report.run, 0)),
        )
        worked = report.outcome in {Outcome.SUCCEEDED, Outcome.WARNED}
        sql.BACKUP_RAN.run(
            self.connection,
            of_client=self.client,
            of_backup=report.backup,
            run=report.run,
            outcome=report.outcome,
            at=at,
            success=at if worked else None,
        )
        self._statistics(report.backup, statistics, at=at)
        self.notices.add(f"client/{self.client}")

    def _statistics(self, backup: str, statistics: Sequence[RepositoryStatistics], *, at: datetime) -> None:
        if not statistics:
            return
        self.sizes = True
        declared = {name for (name,) in sql.DECLARED.run(self.connection, of_client=self.client, of_backup=backup)}
        for one in statistics:
            if one.repository not in declared:
                continue
            sizes = {name: getattr(one, name) for name in sql.SIZES}
            where = {"client": self.client, "backup": backup, "repository": one.repository}
            sql.PUT_SAMPLE.run(self.connection, **where, at=at, duration=one.duration, **sizes)
            sql.SIZE_EVIDENCE.run(self.connection, **_of(where), **sizes)
            if 0 < len(one.archive_id) <= 128:
                archive = {"id": one.archive_id, "name": one.archive, "start": at, "files": one.files}
                sql.SIZE_ARCHIVE.run(self.connection, **where, **archive, **sizes)

    # --- Archives -----------------------------------------------------------------------------------------------------

    def _archives_seen(self, report: ArchivesSeen) -> None:
        where = {"client": self.client, "backup": report.backup, "repository": report.repository}
        seen: dict[str, Any] = {"seen": self._time(report.at), "available": report.available}
        seen["message"] = report.message
        if report.available:
            believed = [one for one in report.archives if one.start <= self.received + evidence_rows.SLACK]
            newest = max(believed, key=lambda one: one.start, default=None)
            seen |= {
                "repository_id": report.repository_id[:128],
                "encryption": report.encryption[:64],
                "newest": newest.start if newest else None,
                "newest_archive": newest.name if newest else "",
                "archives": max(report.count, len(report.archives)),
                "repository_size": report.unique_size,
            }
        statement = sql.AVAILABLE if report.available else sql.UNAVAILABLE
        if statement.run(self.connection, **_of(where), **seen).rowcount == 0:
            # Sent before the client heard that the backup, or the repository, is no longer declared.
            return
        if report.available:
            self._replace_archives(report, where)
            evidence_rows.renew(self.connection, client=self.client, backup=report.backup)
            self.sizes = True
        self.notices.add(f"client/{self.client}")

    def _replace_archives(self, report: ArchivesSeen, where: dict[str, str]) -> None:
        kept = {one: (name, start) for one, name, start in sql.ARCHIVES.run(self.connection, **_of(where))}
        present: dict[str, Archive] = {one.id: one for one in report.archives}
        gone = kept.keys() - present.keys()
        for forget in (sql.FORGET_ARCHIVE, sql.FORGET_CONTENTS):
            forget.run_many(self.connection, [{**_of(where), "of_id": one} for one in gone])
        changed = [
            {**where, "id": one.id, "name": one.name, "start": one.start}
            for one in present.values()
            if kept.get(one.id) != (one.name, _text(one.start))
        ]
        sql.NAME_ARCHIVE.run_many(self.connection, changed)

    def _contents(self, report: ArchiveContents) -> None:
        where = {"client": self.client, "backup": report.backup, "repository": report.repository}
        if sql.HAS_ARCHIVE.value(self.connection, **_of(where), of_id=report.archive.id) is None:
            return  # pruned since, or of a backup that is no longer declared
        packed = zlib.compress(report.model_dump_json().encode())
        start = self._time(report.archive.start)
        sql.PUT_CONTENTS.run(self.connection, **where, archive=report.archive.id, start=start, report=packed)
        sql.FORGET_OLD_CONTENTS.run(self.connection, **_of(where))
        self.notices.add(f"client/{self.client}")


def _of(where: dict[str, str]) -> dict[str, str]:
    return {f"of_{name}": value for name, value in where.items()}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment_text(moment)


def _bounded(number: int | None) -> int | None:
    return None if number is None else max(-_MAX_INTEGER, min(number, _MAX_INTEGER))
