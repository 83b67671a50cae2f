"""Reports of one client become rows, exactly once. Functions of a connection.

A report and the new sequence number of its outbox are written in one transaction, so that a report is either
acknowledged and stored, or neither. Order follows sequence numbers, never clocks. Nothing a client says touches rows of
another client: every statement names the client of the session, and a run id that somebody else owns is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from reconciler.store import evidence as evidence_rows
from reconciler.store.source import add_events, event_row
from schema.assessment import LATEST_REFUSAL
from schema.errors import TrustError
from schema.observed import (
    Archive,
    ArchivesSeen,
    ClientEvent,
    Outcome,
    Report,
    RunFinished,
    RunLog,
    RunStarted,
    StateReport,
    Trigger,
)
from schema.tables import UtcText, archives, backups, evidence, moment_text, observed, outboxes, runs, samples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

MAX_LOG_LINES: Final = 200_000
"""Lines kept of one run; what a client says beyond is dropped."""
MAX_EPOCHS: Final = 8
"""Outboxes remembered for one key: a client has one, and a new one after it lost the old."""
_MAX_INTEGER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Ingested:
    """The stored high sequence, and what changed."""

    sequence: int
    notices: frozenset[str] = frozenset()


# --- Statements, made once --------------------------------------------------------------------------------------------

_SEQUENCE = select(outboxes.c.sequence).where(
    outboxes.c.public_key == bindparam("key"), outboxes.c.epoch == bindparam("of_epoch")
)
_new_outbox = insert(outboxes)
_PUT_OUTBOX = _new_outbox.on_conflict_do_update(
    index_elements=["public_key", "epoch"],
    set_={"sequence": _new_outbox.excluded.sequence, "at": _new_outbox.excluded.at},
)

_new_run = insert(runs)
_START_RUN = _new_run.on_conflict_do_update(
    index_elements=["id"],
    set_={name: _new_run.excluded[name] for name in ("backup", "trigger", "started", "due", "revision")},
    where=runs.c.client == _new_run.excluded.client,
)
_PLACE_RUN = insert(runs).on_conflict_do_nothing()
_FINISH_RUN = (
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        progress=None,
        log_lines=func.max(runs.c.log_lines, bindparam("lines")),
        **{name: bindparam(name) for name in ("finished", "outcome", "exit_code", "error", "hint", "statistics")},
    )
)
_COUNT_LINES = (
    update(runs).where(runs.c.id == bindparam("run")).values(log_lines=func.max(runs.c.log_lines, bindparam("lines")))
)
# The bulk of all rows: handed to the driver as they are, without a trip through bind processors.
_ADD_LINES = "INSERT INTO run_logs (run, number, at, level, message) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"

_OF_BACKUP = (backups.c.client == bindparam("of_client")) & (backups.c.backup == bindparam("of_backup"))
_BACKUP_RUNS = update(backups).where(_OF_BACKUP).values(running=bindparam("run"))
_BACKUP_RAN = (
    update(backups)
    .where(_OF_BACKUP)
    .values(
        running=case((backups.c.running == bindparam("run"), ""), else_=backups.c.running),
        last_run=bindparam("run"),
        last_outcome=bindparam("outcome"),
        last_finished=bindparam("at"),
        last_success=func.coalesce(bindparam("success", type_=UtcText), backups.c.last_success),
    )
)
_BACKUP_DUE = update(backups).where(_OF_BACKUP).values(next_due=bindparam("due"), running=bindparam("run"))

_STATE = (
    "public_key",
    "reported",
    "generation",
    "digest",
    "revision",
    "expires",
    "stale",
    "refused",
    "drifted",
    "state",
)
_new_state = insert(observed)
_PUT_STATE = _new_state.on_conflict_do_update(
    index_elements=["client"], set_={name: _new_state.excluded[name] for name in _STATE}
)

_SIZES = ("original_size", "compressed_size", "deduplicated_size", "repository_size")
_new_sample = insert(samples)
_PUT_SAMPLE = _new_sample.on_conflict_do_update(
    index_elements=["client", "backup", "repository", "at"],
    set_={name: _new_sample.excluded[name] for name in (*_SIZES, "duration")},
)
_new_archive = insert(archives)
_SIZE_ARCHIVE = _new_archive.on_conflict_do_update(
    index_elements=["client", "backup", "repository", "id"],
    set_={name: _new_archive.excluded[name] for name in (*_SIZES[:3], "files")},
)
_NAME_ARCHIVE = _new_archive.on_conflict_do_update(
    index_elements=["client", "backup", "repository", "id"],
    set_={name: _new_archive.excluded[name] for name in ("name", "start")},
)
_OF_REPOSITORY = (
    (evidence.c.client == bindparam("of_client"))
    & (evidence.c.backup == bindparam("of_backup"))
    & (evidence.c.repository == bindparam("of_repository"))
)
_SIZE_EVIDENCE = (
    update(evidence)
    .where(_OF_REPOSITORY)
    .values(
        **{name: bindparam(name) for name in _SIZES[:3]},
        repository_size=func.coalesce(func.nullif(bindparam("repository_size"), 0), evidence.c.repository_size),
    )
)


def read_sequence(connection: Connection, *, public_key: str, epoch: str) -> int:
    """Return how far an outbox is stored; 0 when it is not known."""
    return connection.execute(_SEQUENCE, {"key": public_key, "of_epoch": epoch}).scalar() or 0


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
    counts as stored. What is stored already is passed over.
    """
    sequences = [sequence for sequence, _ in items]
    if any(later <= earlier for earlier, later in pairwise(sequences)):
        raise TrustError("reports are out of order", code="malformed")
    high = read_sequence(connection, public_key=public_key, epoch=epoch)
    reached = max([through, *sequences[-1:]])
    if reached <= high:
        return Ingested(high)
    fresh = [report for sequence, report in items if sequence > high]
    sink = _Sink(connection, client=client, public_key=public_key, received=received)
    sink.learn_owners(fresh)
    for report in fresh:
        sink.take(report)
    sink.flush()
    _advance(connection, public_key=public_key, epoch=epoch, known=high > 0, sequence=reached, at=received)
    return Ingested(reached, frozenset(sink.notices))


def _advance(connection: Connection, *, public_key: str, epoch: str, known: bool, sequence: int, at: datetime) -> None:
    row = {"public_key": public_key, "epoch": epoch, "sequence": sequence, "at": at}
    connection.execute(_PUT_OUTBOX, row)
    if not known:
        mine = outboxes.c.public_key == public_key
        newest = select(outboxes.c.epoch).where(mine).order_by(outboxes.c.at.desc()).limit(MAX_EPOCHS)
        connection.execute(delete(outboxes).where(mine, outboxes.c.epoch.not_in(newest), outboxes.c.epoch != epoch))


@dataclass(slots=True)
class _Sink:
    """Writes the reports of one call. Log lines are gathered and written last: their runs are there by then."""

    connection: Connection
    client: str
    public_key: str
    received: datetime
    notices: set[str] = field(default_factory=set)
    _owners: dict[str, str] = field(default_factory=dict)
    _lines: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _events: list[dict[str, Any]] = field(default_factory=list)

    def learn_owners(self, reports: Sequence[Report]) -> None:
        """Look up whose the runs are that these reports name."""
        wanted = {report.run for report in reports if isinstance(report, (RunStarted, RunLog, RunFinished))}
        if wanted:
            found = self.connection.execute(select(runs.c.id, runs.c.client).where(runs.c.id.in_(sorted(wanted))))
            self._owners = {row.id: row.client for row in found}

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
            case StateReport():
                self._state(report)
            case ClientEvent():
                self._event(report.reason, report.message, at=report.at, backup=report.backup or "")

    def flush(self) -> None:
        """Write what was gathered."""
        if self._lines:
            self.connection.exec_driver_sql(_ADD_LINES, self._lines)
            counts = [{"run": run, "lines": lines} for run, lines in self._counts.items()]
            self.connection.execute(_COUNT_LINES, counts)
        add_events(self.connection, self._events)

    # --- State and events ---------------------------------------------------------------------------------------------

    def _state(self, report: StateReport) -> None:
        refusal = report.refusal
        refused = 0
        if refusal is not None:
            refused = refusal.generation if 0 < refusal.generation < LATEST_REFUSAL else LATEST_REFUSAL
        self.connection.execute(
            _PUT_STATE,
            {
                "client": self.client,
                "public_key": self.public_key,
                "reported": self._time(report.at),
                "generation": report.generation or 0,
                "digest": report.digest or "",
                "revision": report.revision[:64],
                "expires": report.expires,
                "stale": report.stale,
                "refused": refused,
                "drifted": sum(not drift.healed for drift in report.drift),
                "state": report,
            },
        )
        self._jobs(report)
        self.notices.add(f"client/{self.client}")

    def _jobs(self, report: StateReport) -> None:
        columns = (backups.c.backup, backups.c.next_due, backups.c.running)
        kept = {
            row.backup: (row.next_due, row.running)
            for row in self.connection.execute(select(*columns).where(backups.c.client == self.client))
        }
        changed = [
            {"of_client": self.client, "of_backup": job.backup, "due": job.next_due, "run": job.running or ""}
            for job in report.jobs
            if kept.get(job.backup, (job.next_due, job.running or "")) != (job.next_due, job.running or "")
        ]
        if changed:
            self.connection.execute(_BACKUP_DUE, changed)

    def _event(self, reason: str, message: str, *, at: datetime, backup: str = "") -> None:
        row = event_row(reason=reason, message=message, at=self._time(at), client=self.client, backup=backup)
        self._events.append(row | {"actor": f"client:{self.client}"})
        self.notices.add("events")

    def _refuse(self, message: str, *, backup: str = "") -> None:
        row = event_row(reason="ReportRefused", message=message, at=self.received, client=self.client, backup=backup)
        self._events.append(row | {"actor": "director"})
        self.notices.add("events")

    def _time(self, at: datetime) -> datetime:
        return evidence_rows.settle(at, received=self.received)

    # --- Runs ---------------------------------------------------------------------------------------------------------

    def _owns(self, run: str, *, backup: str, at: datetime) -> bool:
        """Return whether the run is this client's; one that was lost with an older store gets a row in its place."""
        owner = self._owners.get(run)
        if owner is None:
            row = {"id": run, "client": self.client, "backup": backup, "trigger": Trigger.SCHEDULE}
            self.connection.execute(_PLACE_RUN, row | {"started": self._time(at)})
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
        self.connection.execute(
            _START_RUN,
            {
                "id": report.run,
                "client": self.client,
                "backup": report.backup,
                "trigger": report.trigger,
                "started": self._time(report.at),
                "due": report.due,
                "revision": report.revision[:64],
            },
        )
        self.connection.execute(_BACKUP_RUNS, {"of_client": self.client, "of_backup": report.backup, "run": report.run})
        self.notices |= {f"run/{report.run}", f"client/{self.client}"}

    def _run_log(self, report: RunLog) -> None:
        lines = report.lines[: max(0, MAX_LOG_LINES - report.first)]
        if not lines or not self._owns(report.run, backup="", at=lines[0].at):
            return
        run = report.run
        self._lines += [
            (run, number, moment_text(line.at), line.level, line.message)
            for number, line in enumerate(lines, report.first)
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
        self.connection.execute(
            _FINISH_RUN,
            {
                "run": report.run,
                "finished": at,
                "outcome": report.outcome,
                "exit_code": _bounded(report.exit_code),
                "error": report.error,
                "hint": report.hint,
                "statistics": statistics,
                "lines": min(report.log_lines, MAX_LOG_LINES),
            },
        )
        worked = report.outcome in {Outcome.SUCCEEDED, Outcome.WARNED}
        self.connection.execute(
            _BACKUP_RAN,
            {
                "of_client": self.client,
                "of_backup": report.backup,
                "run": report.run,
                "outcome": report.outcome,
                "at": at,
                "success": at if worked else None,
            },
        )
        self._statistics(report.model_copy(update={"statistics": statistics}), at=at)
        self.notices.add(f"client/{self.client}")

    def _statistics(self, report: RunFinished, *, at: datetime) -> None:
        if not report.statistics:
            return
        declared = self._repositories(report.backup)
        of_backup = {"client": self.client, "backup": report.backup}
        for one in report.statistics:
            if one.repository not in declared:
                continue
            sizes = {name: getattr(one, name) for name in _SIZES}
            where = of_backup | {"repository": one.repository}
            self.connection.execute(_PUT_SAMPLE, {**where, "at": at, "duration": one.duration, **sizes})
            self.connection.execute(_SIZE_EVIDENCE, {**{f"of_{name}": value for name, value in where.items()}, **sizes})
            if 0 < len(one.archive_id) <= 128:
                del sizes["repository_size"]
                archive = {"id": one.archive_id, "name": one.archive, "start": at, "files": one.files}
                self.connection.execute(_SIZE_ARCHIVE, {**where, **archive, **sizes})

    def _repositories(self, backup: str) -> frozenset[str]:
        declared = select(evidence.c.repository).where(evidence.c.client == self.client, evidence.c.backup == backup)
        return frozenset(self.connection.execute(declared).scalars())

    # --- Archives -----------------------------------------------------------------------------------------------------

    def _archives_seen(self, report: ArchivesSeen) -> None:
        here = (
            (evidence.c.client == self.client)
            & (evidence.c.backup == report.backup)
            & (evidence.c.repository == report.repository)
        )
        seen = {"seen": self._time(report.at), "available": report.available, "message": report.message}
        if report.available:
            believed = [one for one in report.archives if one.start <= self.received + evidence_rows.SLACK]
            newest = max(believed, key=lambda one: one.start, default=None)
            seen |= {
                "repository_id": report.repository_id[:128],
                "newest": newest.start if newest else None,
                "newest_archive": newest.name if newest else "",
                "archives": max(report.count, len(report.archives)),
            }
            if report.encryption:
                seen["encryption"] = report.encryption[:64]
            if report.unique_size:
                seen["repository_size"] = report.unique_size
        if self.connection.execute(update(evidence).where(here).values(seen)).rowcount == 0:
            # Sent before the client heard that the backup, or the repository, is no longer declared.
            return
        if report.available:
            self._replace_archives(report)
            evidence_rows.renew(self.connection, client=self.client, backup=report.backup)
        self.notices.add(f"client/{self.client}")

    def _replace_archives(self, report: ArchivesSeen) -> None:
        here = (
            (archives.c.client == self.client)
            & (archives.c.backup == report.backup)
            & (archives.c.repository == report.repository)
        )
        kept = {
            row.id: (row.name, row.start)
            for row in self.connection.execute(select(archives.c.id, archives.c.name, archives.c.start).where(here))
        }
        present: dict[str, Archive] = {one.id: one for one in report.archives}
        gone = [{"of_id": one} for one in kept.keys() - present.keys()]
        if gone:
            self.connection.execute(delete(archives).where(here, archives.c.id == bindparam("of_id")), gone)
        where = {"client": self.client, "backup": report.backup, "repository": report.repository}
        changed = [
            {**where, "id": one.id, "name": one.name, "start": one.start}
            for one in present.values()
            if kept.get(one.id) != (one.name, one.start)
        ]
        if changed:
            self.connection.execute(_NAME_ARCHIVE, changed)


def _bounded(number: int | None) -> int | None:
    return None if number is None else max(-_MAX_INTEGER, min(number, _MAX_INTEGER))
