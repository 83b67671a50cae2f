"""Ten thousand connected clients report a run each, with two hundred log lines, all at the same moment.

The real gateway and store, from the first frame until the last is acknowledged: each report is read, checked and
committed. The floor is SQLite alone, with the same settings and tables, inserting the very rows that came of it in
batches. Meanwhile clients ask whether the director is there, those whose reports still wait among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from reconciler.core.issue import BackupRow, ClientRow
from reconciler.store import Store
from tests.benchmarks.processes import split_cores, staying_on
from tests.benchmarks.rows import Options, Row
from tests.benchmarks.wire_fleet import MOMENT, members, write_keys
from tests.benchmarks.wire_programs import DIRECTOR, allow_sockets, preferred, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.benchmarks.wire_fleet import Member

CLIENTS: Final = 10_000
LOAD: Final = "tests.benchmarks.reports_load"
MOST: Final = 3.0
MOST_SECONDS: Final = 1.0
BATCH: Final = 10_000
TABLES: Final = ("runs", "run_logs", "outboxes", "samples", "archives", "backups", "evidence")
_SETTINGS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 4000",
    "cache_size = -32768",
    "foreign_keys = ON",
)


def measure(options: Options) -> Iterable[Row]:
    """Return how long it takes until all is acknowledged, and how long a heartbeat waits at most."""
    count = CLIENTS // 10 if options.quick else CLIENTS
    fleet = members(count)
    mine, others = split_cores()
    with TemporaryDirectory(dir=options.folder) as name, preferred(), allow_sockets(count):
        folder = Path(name)
        write_keys(fleet, folder / "keys.json")
        asyncio.run(_publish(folder / "store.sqlite", fleet))
        with (
            told(DIRECTOR, cores=mine, keys=folder / "keys.json", folder=folder) as director,
            told(LOAD, cores=others, clients=count, port=director.first["port"]) as load,
        ):
            load.ask("connect")
            before = director.cpu_seconds()
            found = load.ask("report")
            spent = director.cpu_seconds() - before
        with staying_on(mine):
            rows, floor, least = _insert(folder / "store.sqlite", folder / "floor.sqlite")
    yield Row(
        what=f"reports: a run of each of {count:,} clients, all acknowledged",
        ours=1_000 * found["seconds"],
        floor=1_000 * floor,
        most_ratio=MOST,
        note=f"{rows:,} rows; processor time {1e6 * spent / count:.0f} and {1e6 * least / count:.0f} µs each",
    )
    yield Row(
        what="reports: the longest that a heartbeat waits meanwhile",
        ours=found["longest"],
        unit="s",
        most=MOST_SECONDS,
        note=f"of {found['beats']}; 99 of 100 within {found['p99']:.3f} s",
    )


async def _publish(path: Path, fleet: Sequence[Member]) -> None:
    """Make a store that knows the fleet and its backups."""
    repository = {"name": "nas", "url": "/nas", "encryption": "repokey-blake2"}
    clients = [ClientRow(one.name, one.public_key, {}, "clients.yaml", suspended=False) for one in fleet]
    backups = [
        BackupRow(one.name, "files", "backups.yaml", "@daily", "UTC", 93_600, False, (repository,)) for one in fleet
    ]
    async with await Store.open(path) as store:
        await store.publish(
            clients=clients, backups=backups, issued=(), removed_clients=(), removed_backups=(), at=MOMENT
        )


def _insert(source: Path, path: Path) -> tuple[int, float, float]:
    """Insert all rows of ``source`` into a new file; return how many, and the inserting's time and processor time."""
    seconds, spent, count = 0.0, 0.0, 0
    with contextlib.closing(sqlite3.connect(source)) as there:
        tables = there.execute("SELECT sql FROM sqlite_master WHERE sql <> '' AND name NOT LIKE 'sqlite_%'").fetchall()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as here:
            for setting in _SETTINGS:
                here.execute(f"PRAGMA {setting}")
            for (sql,) in tables:
                here.execute(sql)
            for table in TABLES:
                cursor = there.execute(f"SELECT * FROM {table}")
                insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(cursor.description))})"
                while rows := cursor.fetchmany(BATCH):
                    started, before = time.perf_counter(), time.process_time()
                    here.execute("BEGIN")
                    here.executemany(insert, rows)
                    here.execute("COMMIT")
                    seconds += time.perf_counter() - started
                    spent += time.process_time() - before
                    count += len(rows)
    return count, seconds, spent
