"""Reports that wait for the director: numbered, durable, and kept until it has stored them.

``append`` returns when a report is on the disk; concurrent ones share one transaction. A full outbox drops run logs
first, oldest first, then inventories and contents that a newer one replaced; never a run, and never the newest of
anything. Of state reports only the newest counts, and only it is kept. When the disk is full, reports wait in memory,
as many as fit, and ``append`` says so with a ``TransientError``: backups go on. A database that SQLite calls corrupt is
set aside, and a new epoch begins.

The same file holds a small key/value ``state`` table, written in the same transactions: a run's report and the note
that it ran cannot part, whenever the machine dies.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from client.log import get_logger
from schema.envelope import random_nonce
from schema.errors import TransientError
from schema.observed import ArchiveContents, ArchivesSeen, Report, RunLog, StateReport
from schema.wire import MAX_REPORTS, ReportItem, Reports

MAX_BYTES = 256 * 1024 * 1024
DISK_RESERVE = 64 * 1024 * 1024
"""Run logs are not written when less than this is free: the room belongs to runs, and to the machine."""
MAX_ITEM = 512 * 1024
MAX_BATCH = 768 * 1024
"""Both in bytes, and well below a frame (``wire.MAX_CLIENT_FRAME``)."""
MAX_WAITING = 2_000
"""Reports kept in memory while the disk is full."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (epoch TEXT NOT NULL, dropped INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS reports (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    lines INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS reports_by_type ON reports (type, subject, sequence);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

log = get_logger()
Result = TypeVar("Result")
Notes = Mapping[str, str | None]
"""Keys of the ``state`` table and their new values; None removes a key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One report as it is stored."""

    type: str
    subject: str
    """What a newer report of that type and subject replaces."""
    lines: int
    body: str

    @property
    def size(self) -> int:
        return len(self.body) + 64


def entries(report: Report) -> list[Entry]:
    """Return what is stored of ``report``: split or shortened where it would not fit into a frame."""
    body = report.model_dump_json()
    if len(body.encode()) <= MAX_ITEM:
        return [Entry(report.type, _subject(report), len(report.lines) if isinstance(report, RunLog) else 0, body)]
    match report:
        case RunLog(lines=lines) if len(lines) > 1:
            middle = len(lines) // 2
            first = report.model_copy(update={"lines": lines[:middle]})
            second = report.model_copy(update={"lines": lines[middle:], "first": report.first + middle})
            return entries(first) + entries(second)
        case ArchivesSeen(archives=archives) if archives:
            return entries(report.model_copy(update={"archives": archives[: len(archives) // 2]}))
        case ArchiveContents(directories=directories) if directories:
            return entries(report.model_copy(update={"directories": directories[: len(directories) // 2]}))
        case StateReport(drift=drift) if any(one.diff for one in drift):
            return entries(
                report.model_copy(update={"drift": tuple(one.model_copy(update={"diff": ""}) for one in drift)})
            )
        case StateReport(drift=drift, jobs=jobs):
            halves = {"drift": drift[: len(drift) // 2], "jobs": jobs[: len(jobs) // 2]}
            return entries(report.model_copy(update=halves))
    raise ValueError(f"a report of type '{report.type}' has {len(body)} bytes")


def _subject(report: Report) -> str:
    match report:
        case ArchivesSeen() | ArchiveContents():
            return f"{report.backup}/{report.repository}"
        case RunLog():
            return f"{report.run}/{report.first}"
    return ""


class Database:
    """The file. Not to be used by two threads at once; every method is one transaction."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, disk_reserve: int = DISK_RESERVE) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._disk_reserve = disk_reserve
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            self._open()
        except BaseException:
            self._sql.close()
            raise

    def _open(self) -> None:
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA cache_size = -512")
        self._sql.execute("PRAGMA journal_size_limit = 4194304")
        problem = self._sql.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {problem}")
        self._sql.executescript(_SCHEMA)
        found = self._sql.execute("SELECT epoch FROM outbox").fetchone()
        if found is None:
            found = (random_nonce()[:16].hex(),)
            self._sql.execute("INSERT INTO outbox (epoch) VALUES (?)", found)
        self.epoch: str = found[0]
        self.size = self._total("1")

    def close(self) -> None:
        self._sql.close()

    def write(self, batch: list[Entry], notes: Notes) -> None:
        """Store entries and notes, all or nothing; drop what a full outbox cannot keep."""
        only_logs = not notes and all(entry.type == "run-log" for entry in batch)
        # A log line may be lost with the power, together with nothing; a run may not. Neither is lost with the process.
        self._sql.execute(f"PRAGMA synchronous = {'NORMAL' if only_logs else 'FULL'}")
        nearly_full = any(entry.type == "run-log" for entry in batch) and self._disk_is_nearly_full()
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            for entry in batch:
                self._insert(entry, nearly_full=nearly_full)
            for key, value in notes.items():
                self._note(key, value)
            if self.size > self._max_bytes:
                self._make_room()
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            self.size = self._total("1")
            raise

    def _total(self, condition: str) -> int:
        query = f"SELECT coalesce(sum(size), 0) FROM reports WHERE {condition}"  # noqa: S608 - our own conditions
        return int(self._sql.execute(query).fetchone()[0])

    def _insert(self, entry: Entry, *, nearly_full: bool) -> None:
        if entry.type == "run-log" and nearly_full:
            self._sql.execute("UPDATE outbox SET dropped = dropped + ?", (entry.lines,))
            return
        if entry.type in {"state", "run-log"}:  # the newest state; lines that an interrupted run sends once more
            same = self._sql.execute(
                "DELETE FROM reports WHERE type = ? AND subject = ? RETURNING size", (entry.type, entry.subject)
            )
            self.size -= sum(size for (size,) in same.fetchall())
        self.size += entry.size
        self._sql.execute(
            "INSERT INTO reports (type, subject, lines, size, body) VALUES (?, ?, ?, ?, ?)",
            (entry.type, entry.subject, entry.lines, entry.size, entry.body),
        )

    def _note(self, key: str, value: str | None) -> None:
        if value is None:
            self._sql.execute("DELETE FROM state WHERE key = ?", (key,))
        else:
            self._sql.execute(
                "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )

    def _make_room(self) -> None:
        """Drop run logs, oldest first, then replaced inventories and contents, until a tenth is free."""
        goal = self._max_bytes * 9 // 10
        logs = "SELECT sequence, size, lines FROM reports WHERE type = 'run-log' ORDER BY sequence"
        replaced = (
            "SELECT sequence, size, lines FROM reports AS old WHERE type IN ('archives', 'contents') AND EXISTS "
            "(SELECT 1 FROM reports AS new WHERE new.type = old.type AND new.subject = old.subject "
            "AND new.sequence > old.sequence) ORDER BY sequence"
        )
        for query in (logs, replaced):
            chosen: list[tuple[int]] = []
            lost = 0
            for sequence, item, lines in self._sql.execute(query):
                if self.size <= goal:
                    break
                chosen.append((sequence,))
                self.size -= item
                lost += lines
            self._sql.executemany("DELETE FROM reports WHERE sequence = ?", chosen)
            self._sql.execute("UPDATE outbox SET dropped = dropped + ?", (lost,))

    def _disk_is_nearly_full(self) -> bool:
        return shutil.disk_usage(self._path.parent).free < self._disk_reserve

    def batch(self, after: int, *, items: int, limit: int) -> list[tuple[int, str]]:
        """Return the next reports after ``after``: at least one when there is one, then as many as fit."""
        found: list[tuple[int, str]] = []
        size = 0
        rows = self._sql.execute(
            "SELECT sequence, body FROM reports WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, items)
        )
        for sequence, body in rows:
            size += len(body.encode()) + 64
            if found and size > limit:
                break
            found.append((sequence, body))
        return found

    def acknowledge(self, sequence: int) -> None:
        """Forget everything up to ``sequence``."""
        self._sql.execute("PRAGMA synchronous = NORMAL")  # a forgotten acknowledgement is only a report sent twice
        self._sql.execute("DELETE FROM reports WHERE sequence <= ?", (sequence,))
        self.size = self._total("1")  # `director-client once` may have written here, too

    def rename(self) -> None:
        """Begin a new epoch with the reports that wait: what was stored under the old one is not all ours."""
        epoch = random_nonce()[:16].hex()
        self._sql.execute("UPDATE outbox SET epoch = ?", (epoch,))
        self.epoch = epoch

    def waiting(self) -> int:
        """Return how many reports are not acknowledged."""
        return int(self._sql.execute("SELECT count(*) FROM reports").fetchone()[0])

    def state(self, prefix: str) -> dict[str, str]:
        """Return the notes whose key begins with ``prefix``."""
        rows = self._sql.execute("SELECT key, value FROM state WHERE substr(key, 1, ?) = ?", (len(prefix), prefix))
        return dict(rows.fetchall())

    def dropped(self) -> int:
        return int(self._sql.execute("SELECT dropped FROM outbox").fetchone()[0])


def set_aside(path: Path, *, now: datetime) -> Path:
    """Rename a corrupt database, so that a person can look at it, and return its new name."""
    aside = path.with_name(f"{path.name}.corrupt-{now.strftime('%Y%m%dT%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def read_state(path: Path, prefix: str = "") -> dict[str, str]:
    """Return the notes of an outbox that another process may be using, read-only."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
        try:
            rows = sql.execute("SELECT key, value FROM state WHERE substr(key, 1, ?) = ?", (len(prefix), prefix))
            return dict(rows.fetchall())
        except sqlite3.Error:
            return {}


def count_waiting(path: Path) -> int:
    """Return how many reports wait in an outbox that another process may be using."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
        try:
            return int(sql.execute("SELECT count(*) FROM reports").fetchone()[0])
        except sqlite3.Error:
            return 0


class Outbox:
    """The outbox as the agent uses it: the database in a thread of its own, and what memory keeps for a full disk."""

    def __init__(
        self, path: Path, *, now: Callable[[], datetime], max_bytes: int = MAX_BYTES, disk_reserve: int = DISK_RESERVE
    ) -> None:
        self._path = path
        self._now = now
        self._limits = {"max_bytes": max_bytes, "disk_reserve": disk_reserve}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")
        self._waiting: deque[tuple[list[Entry], Notes]] = deque()
        self._writing = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()
        self._lost_in_memory = 0
        self._sent: tuple[str, int] = ("", 0)
        self.arrived = asyncio.Event()
        """Set when there may be something to send."""
        self.was_corrupt = False
        self._database: Database | None = None
        try:
            self._database = self._open()
        except TransientError as error:
            log.warning("the outbox is not open yet; reports are kept in memory only", reason=error.message)

    @property
    def epoch(self) -> str:
        """The name of this outbox; empty while it could not be opened."""
        return self._database.epoch if self._database is not None else ""

    def close(self) -> None:
        """Finish what is being written, and close."""
        self._thread.shutdown(wait=True)
        if self._database is not None:
            self._database.close()

    async def append(self, *reports: Report, notes: Notes | None = None) -> None:
        """Store reports and notes in one transaction; ``TransientError`` when they wait in memory instead."""
        self._waiting.append(([entry for report in reports for entry in entries(report)], notes or {}))
        self._bound_memory()
        self.arrived.set()
        await self.flush()

    async def flush(self) -> None:
        """Write what waits in memory; a caller that is cancelled leaves no half-known transaction behind."""
        if not self._waiting and not self._flushes:
            return  # as at rest, every few seconds
        task = asyncio.ensure_future(self._flush())
        self._flushes.add(task)
        task.add_done_callback(self._flushed)
        await asyncio.shield(task)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        """Let go of a write. Where its caller was cancelled, nobody else asks what came of it: what failed waits on."""
        self._flushes.discard(task)
        if not task.cancelled():
            task.exception()

    async def try_flush(self) -> bool:
        """Write what waits in memory; whether nothing waits any more."""
        try:
            await self.flush()
        except TransientError:
            return False
        return True

    async def _flush(self) -> None:
        """Everything that came while the last transaction was on its way shares the next."""
        async with self._writing:
            if not self._waiting:
                return
            taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
            batch = [entry for one, _ in taken for entry in one]
            notes = {key: value for _, one in taken for key, value in one.items()}
            try:
                await self._call(lambda database: database.write(batch, notes))
            except BaseException:
                self._waiting.extendleft(reversed(taken))
                raise
        self.arrived.set()

    async def batch(self, *, items: int = MAX_REPORTS, limit: int = MAX_BATCH) -> Reports | None:
        """Return the oldest reports that are not acknowledged, or None when there are none."""
        found = await self._call(lambda database: (database.epoch, database.batch(0, items=items, limit=limit)))
        epoch, rows = found
        if not rows:
            return None
        self._sent = (epoch, max(rows[-1][0], self._sent[1] if self._sent[0] == epoch else 0))
        return Reports(
            epoch=epoch, items=tuple(ReportItem(sequence=number, report=json.loads(body)) for number, body in rows)
        )

    def was_sent(self, epoch: str, sequence: int) -> bool:
        """Whether that report was handed out: only such a one can be acknowledged."""
        return epoch == self._sent[0] and sequence <= self._sent[1]

    async def acknowledge(self, epoch: str, sequence: int) -> None:
        """Forget what the director has stored; of another epoch, or of what was never sent, nothing."""
        if self.was_sent(epoch, sequence):
            await self._call(lambda database: database.acknowledge(sequence) if database.epoch == epoch else None)

    async def rename(self) -> None:
        """Take another name, under which everything that waits is sent again."""
        await self._call(lambda database: database.rename())

    async def state(self, prefix: str = "") -> dict[str, str]:
        """Return the notes whose key begins with ``prefix``."""
        return await self._call(lambda database: database.state(prefix))

    async def waiting(self) -> int:
        """Return how many reports are not acknowledged."""
        return await self._call(lambda database: database.waiting())

    async def dropped(self) -> int:
        """Return how many log lines were dropped since this outbox was made."""
        return await self._call(lambda database: database.dropped()) + self._lost_in_memory

    def _bound_memory(self) -> None:
        """Let go of log lines, then of the oldest reports without a note, when too much waits for the disk."""
        while len(self._waiting) > MAX_WAITING:
            victim = next(
                (one for one in self._waiting if not one[1] and all(entry.type == "run-log" for entry in one[0])), None
            )
            victim = victim or next((one for one in self._waiting if not one[1]), self._waiting[0])
            self._waiting.remove(victim)
            self._lost_in_memory += sum(entry.lines for entry in victim[0]) or 1

    def _open(self) -> Database:
        try:
            return Database(self._path, **self._limits)
        except sqlite3.OperationalError as error:
            raise TransientError(f"cannot open {self._path}: {error}") from None
        except sqlite3.DatabaseError as error:
            return self._begin_anew(error)
        except OSError as error:
            raise TransientError(f"cannot open {self._path}: {error.strerror}") from None

    def _begin_anew(self, error: sqlite3.DatabaseError) -> Database:
        aside = set_aside(self._path, now=self._now())
        log.error("the outbox is corrupt, and a new one begins", reason=str(error), kept_as=str(aside))
        self.was_corrupt = True
        return Database(self._path, **self._limits)

    async def _call(self, work: Callable[[Database], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[Database], Result]) -> Result:
        database = self._database = self._database or self._open()
        try:
            return work(database)
        except sqlite3.OperationalError as error:
            raise TransientError(f"cannot write {self._path}: {error}", hint="is the disk full?") from None
        except sqlite3.DatabaseError as error:
            database.close()
            self._database = self._begin_anew(error)
            return work(self._database)
        except OSError as error:
            raise TransientError(f"cannot write {self._path}: {error.strerror}", hint="is the disk full?") from None
