"""What is on disks: a place for a world, empty stores, snapshots of a store."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from reconciler.store import Store

_SHARED_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """Give a folder in memory, if there is one, whose name is always of the same length."""
    parent = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="borgmatic-director-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def snapshot(store: Path) -> dict[str, bytes]:
    """Return a store's files as they are."""
    return {
        path.name: path.read_bytes() for path in sorted(store.parent.glob(f"{store.name}*")) if "-shm" not in path.name
    }


def restore(store: Path, files: dict[str, bytes]) -> None:
    """Put the files of a snapshot in place of what is there. Nobody may have it open."""
    for path in store.parent.glob(f"{store.name}*"):
        path.unlink()
    for name, content in files.items():
        (store.parent / name).write_bytes(content)


@lru_cache(maxsize=1)
def empty_store() -> Path:
    """Return an empty store's file, which also remembers everything that was ever issued: the oracle reads it."""
    path = Path(tempfile.mkdtemp(prefix="borgmatic-director-")) / "store.sqlite"

    async def make() -> None:
        await (await Store.open(path)).close()

    asyncio.run(make())
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.executescript(_EVER_ISSUED)
    return path


_COLUMNS = "client, generation, digest, revision, envelope"
_EVER_ISSUED = f"""
CREATE TABLE ever_issued (id INTEGER PRIMARY KEY AUTOINCREMENT, {_COLUMNS});
CREATE TRIGGER issued_first AFTER INSERT ON issued BEGIN
    INSERT INTO ever_issued ({_COLUMNS}) VALUES (new.{_COLUMNS.replace(", ", ", new.")});
END;
CREATE TRIGGER issued_again AFTER UPDATE ON issued BEGIN
    INSERT INTO ever_issued ({_COLUMNS}) VALUES (new.{_COLUMNS.replace(", ", ", new.")});
END;
"""
