"""A store of a large fleet: 5,000 clients, 20,000 backups, 1,000,000 runs, in about a minute. Kept until it is old.

The real store makes and migrates the file; the rows go straight into its tables, with its columns' own defaults, so
that a new column needs nothing here. ``python -m tests.benchmarks.seed PATH`` writes one by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from reconciler.store import Store
from schema.tables import metadata
from tests.benchmarks import seed_history, seed_state
from tests.benchmarks.fleet import HOUR, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FRESH: Final = 12 * HOUR
"""A store is made anew when its newest run is older: it would be a fleet in trouble."""
_SOURCES: Final = ("fleet.py", "seed.py", "seed_history.py", "seed_state.py")
_HERE: Final = Path(__file__).parent
_MIGRATIONS: Final = _HERE.parent.parent / "reconciler" / "migrations" / "versions"
_FAST: Final = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -524288", "locking_mode = EXCLUSIVE")


def cached(folder: Path, *, clients: int, runs: int, seed: int = 1) -> Path:
    """Return a store of this size in ``folder``; one that is missing, old or of another schema is made."""
    moment = newest_moment()
    # Of what it is made; a migration that was not released yet may change without a new version.
    made_of = [*(_HERE / name for name in _SOURCES), *sorted(_MIGRATIONS.glob("*.py"))]
    code = b"".join(one.read_bytes() for one in made_of)
    known = hashlib.sha256(code + repr((clients, runs, seed, moment)).encode()).hexdigest()[:16]
    path = folder / f"fleet-{clients}-{known}.sqlite"
    if not path.exists():
        for old in folder.glob(f"fleet-{clients}-*"):
            old.unlink()
        unfinished = path.with_suffix(".unfinished")
        write(unfinished, Fleet(moment=moment, clients=clients, runs=runs, seed=seed))
        unfinished.rename(path)
    return path


def newest_moment() -> datetime:
    """Return the moment that a fleet of now is seen at."""
    step = FRESH.total_seconds()
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() // step * step, UTC)


def write(path: Path, fleet: Fleet) -> None:
    """Write the whole fleet into a new store."""
    asyncio.run(_migrate(path))
    connection = sqlite3.connect(path, isolation_level=None)
    # Nobody reads it yet, and what a crash leaves is not taken for a store.
    for setting in _FAST:
        connection.execute(f"PRAGMA {setting}")
    indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''").fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    connection.execute("BEGIN")
    put = Put(connection)
    runs = seed_history.write_runs(put, fleet)
    seed_state.write(put, fleet, runs)
    seed_history.write(put, fleet, runs)
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


async def _migrate(path: Path) -> None:
    async with await Store.open(path):
        pass


class Put:
    """Inserts rows of some columns; the other columns get their defaults."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __call__(self, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        names = columns.split()
        rest = {
            column.name: _as_kept(column.default.arg)
            for column in metadata.tables[table].columns
            if column.name not in names and isinstance(column.default, ScalarElementColumnDefault)
        }
        into = ", ".join(f'"{name}"' for name in (*names, *rest))
        marks = ", ".join("?" * (len(names) + len(rest)))
        constants = tuple(rest.values())
        every = ((*row, *constants) for row in rows) if constants else rows
        self._connection.executemany(f"INSERT INTO {table} ({into}) VALUES ({marks})", every)


def _as_kept(value: Any) -> Any:
    return to_json(value).decode() if isinstance(value, (dict, list)) else value


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.seed", description=__doc__)
    parser.add_argument("path", type=Path, help="the store to make")
    parser.add_argument("--clients", type=int, default=5_000, help="each has four backups")
    parser.add_argument("--runs", type=int, default=1_000_000, help="of all backups together")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same fleet")
    asked = parser.parse_args()
    write(asked.path, Fleet(moment=newest_moment(), clients=asked.clients, runs=asked.runs, seed=asked.seed))


if __name__ == "__main__":
    _main()
