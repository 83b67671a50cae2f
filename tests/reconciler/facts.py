"""Rows and reports for tests of the store and the reader, all at one moment unless told otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.core.issue import BackupRow, ClientRow, Issued
from reconciler.store import Store
from schema.desired import Content
from schema.directories import Directories
from schema.observed import (
    Archive,
    ArchivesSeen,
    LogLine,
    Outcome,
    Report,
    RepositoryStatistics,
    RunFinished,
    RunLog,
    RunStarted,
    Trigger,
)

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
RPO = 26 * 3600
EPOCH = "e" * 32
RUN = "a" * 32
ARCHIVE = "ab" * 32


def later(**units: float) -> datetime:
    return NOW + timedelta(**units)


def key_of(client: str) -> str:
    return f"key-of-{client}"


def client_row(name: str = "web-1", **fields: Any) -> ClientRow:
    defaults: dict[str, Any] = {
        "public_key": key_of(name),
        "labels": {"role": "web"},
        "origin": "clients.yaml:1",
        "suspended": False,
    }
    return ClientRow(name, **(defaults | fields))


def repository(name: str = "nas", url: str = "/mnt/nas") -> dict[str, str]:
    return {"name": name, "url": url, "encryption": "repokey-blake2"}


def backup_row(client: str = "web-1", backup: str = "files", **fields: Any) -> BackupRow:
    defaults: dict[str, Any] = {
        "origin": "backups.yaml:1",
        "cron": "0 3 * * *",
        "time_zone": "UTC",
        "rpo": RPO,
        "suspended": False,
        "repositories": (repository(),),
    }
    return BackupRow(client, backup, **(defaults | fields))


def issued(client: str = "web-1", *, generation: int = 1, digest: str = "sha256:" + "1" * 64, **fields: Any) -> Issued:
    content = Content(client=client, directories=Directories())
    defaults: dict[str, Any] = {
        "audience": key_of(client),
        "revision": "r" * 40,
        "issued": NOW,
        "expires": later(days=90),
        "envelope": b"{}",
        "content": content,
    }
    return Issued(client=client, generation=generation, digest=digest, **(defaults | fields))


async def publish(store: Store, *, at: datetime = NOW, **rows: Any) -> None:
    empty: dict[str, Any] = {"clients": (), "backups": (), "issued": (), "removed_clients": (), "removed_backups": ()}
    await store.publish(**(empty | rows), at=at)


async def ingest(
    store: Store, *reports: Report, client: str = "web-1", first: int = 1, epoch: str = EPOCH, at: datetime = NOW
) -> int:
    items = list(enumerate(reports, first))
    return await store.ingest(
        client=client, public_key=key_of(client), epoch=epoch, items=items, through=items[-1][0], received=at
    )


def started(run: str = RUN, *, backup: str = "files", at: datetime = NOW) -> RunStarted:
    return RunStarted(at=at, run=run, backup=backup, trigger=Trigger.SCHEDULE)


def log(run: str = RUN, *, first: int = 0, lines: int = 3) -> RunLog:
    return RunLog(
        run=run,
        first=first,
        lines=tuple(LogLine(at=NOW, level="info", message=f"line {first + number}") for number in range(lines)),
    )


def finished(
    run: str = RUN, *, backup: str = "files", outcome: Outcome = Outcome.SUCCEEDED, at: datetime = NOW, **fields: Any
) -> RunFinished:
    return RunFinished(at=at, run=run, backup=backup, outcome=outcome, **fields)


def statistics(repository: str = "nas", **fields: Any) -> RepositoryStatistics:
    defaults: dict[str, Any] = {"archive": "web-1-files", "archive_id": ARCHIVE, "original_size": 1000}
    return RepositoryStatistics(repository=repository, **(defaults | fields))


def archives(
    *starts: datetime, backup: str = "files", repository: str = "nas", available: bool = True, **fields: Any
) -> ArchivesSeen:
    seen = tuple(
        Archive(id=f"{int(start.timestamp()):064x}", name=f"archive-{start:%Y-%m-%d}", start=start) for start in starts
    )
    defaults: dict[str, Any] = {"at": NOW, "url": "/mnt/nas", "count": len(seen)}
    return ArchivesSeen(backup=backup, repository=repository, available=available, archives=seen, **(defaults | fields))
