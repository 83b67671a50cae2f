"""The store's numbers in Prometheus' text format, after those of the director's own process.

Asked by ``web_readonly.app`` and, with ``[listen] metrics_address``, by the gateway. ``FAMILIES`` is all there is to
know: the documentation's table is made from it. How many series there are is bounded by ``limit``; no label holds a
url, an address, a key or a message.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import datetime
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schema.errors import Severity
from schema.status import ConditionType, Following
from web_readonly.reader import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from schema.status import SourceStatus
    from web_readonly.reader import Reader
    from web_readonly.reader.numbers import BackupNumbers, ClientNumbers, Numbers, RepositoryNumbers

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
DEFAULT_LIMIT: Final = 10_000
KEPT_SECONDS: Final = 5.0
"""Two Prometheus servers, and whoever looks besides, cost one reading."""
BACKUP_STATES: Final = ("protected", "unprotected", "unknown", "without-objective")
PREFIX: Final = "borgmatic_director_"

Sample = tuple[str, float | str]
"""Labels as they are written, without the braces, and the value."""


class Labelled(NamedTuple):
    """The numbers of a store; rows with the labels that name them, which are written once for all metrics."""

    all: Numbers
    clients: list[tuple[str, ClientNumbers]]
    backups: list[tuple[str, BackupNumbers]]
    repositories: list[tuple[str, RepositoryNumbers]]


class Family(NamedTuple):
    """One metric. All are gauges: what is counted is counted by the director's process."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    reads: Callable[[Labelled], Iterable[Sample]] = lambda _: ()


class StoreMetrics:
    """The text of all metrics, kept for some seconds."""

    def __init__(
        self,
        reader: Reader,
        *,
        now: Callable[[], datetime],
        limit: int = DEFAULT_LIMIT,
        own: Callable[[], bytes] | None = None,
    ) -> None:
        """``own`` gives the numbers of the director's process, when this is one."""
        self._reader = reader
        self._now = now
        self._limit = limit
        self._own = own
        self._kept: bytes | None = None
        self._reading = asyncio.Lock()

    async def text(self, threads: Executor | None = None) -> bytes:
        """Return everything in Prometheus' text format (``CONTENT_TYPE``)."""
        async with self._reading:
            if self._kept is None:
                loop = asyncio.get_running_loop()
                self._kept = await loop.run_in_executor(threads, self._read)
                loop.call_later(KEPT_SECONDS, self._forget)
            kept = self._kept
        return (self._own() if self._own else b"") + kept

    def _forget(self) -> None:
        self._kept = None

    def _read(self) -> bytes:
        try:
            return exposition(self._reader.numbers(limit=self._limit, now=self._now()))
        except StoreUnavailable:
            return _text([_READABLE, _BUILD], None)


def exposition(numbers: Numbers) -> bytes:
    """Return the numbers of a store as text."""
    rows = Labelled(
        numbers,
        [(labelled(client=row.client), row) for row in numbers.client_rows],
        [(labelled(client=row.client, backup=row.backup), row) for row in numbers.backup_rows],
        [
            (labelled(client=row.client, backup=row.backup, repository=row.repository), row)
            for row in numbers.repository_rows
        ],
    )
    return _text(FAMILIES, rows)


def _text(families: Iterable[Family], rows: Labelled | None) -> bytes:
    # One metric after the other becomes bytes: nothing else runs while twenty megabytes of text are joined at once.
    return b"".join("\n".join([*_lines(family, rows), ""]).encode("utf-8", "replace") for family in families)


def _lines(family: Family, rows: Labelled | None) -> Iterable[str]:
    name = PREFIX + family.name
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} gauge"
    if rows is not None:
        for labels, value in family.reads(rows):
            yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
    elif family is _READABLE:
        yield f"{name} 0"
    else:
        yield f"{name}{{{_BUILD_LABELS}}} 1"


_ESCAPED: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def labelled(**labels: str) -> str:
    """Return labels as they stand in braces after a metric's name."""
    return ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items())


def _seconds(stored: str) -> float:
    return datetime.fromisoformat(stored).timestamp()


# --- The source and the counts ----------------------------------------------------------------------------------------


def _moment(moment: datetime | None) -> list[Sample]:
    return [] if moment is None else [("", moment.timestamp())]


def _is(source: SourceStatus, condition: ConditionType) -> bool:
    return any(one.type is condition and one.status == "True" for one in source.conditions)


def _problems(rows: Labelled) -> list[Sample]:
    counted = Counter(problem.severity for problem in rows.all.source.problems)
    return [(labelled(severity=one.value), counted[one]) for one in Severity]


def _left_out(total: int, shown: int) -> list[Sample]:
    return [("", total - shown)]


def _total(backups: dict[str, int]) -> int:
    return sum(backups.get(state, 0) for state in BACKUP_STATES)


_BUILD_LABELS: Final = labelled(version=metadata.version("borgmatic-director"))
_BUILD: Final = Family("build_info", "The version that runs; always 1", ("version",), lambda _: [(_BUILD_LABELS, 1)])
_READABLE: Final = Family(
    "store_readable",
    "1 when the store could be read; 0: every metric that comes from it is missing",
    reads=lambda _: [("", 1)],
)
_OF_ALL: Final = (
    _READABLE,
    _BUILD,
    Family(
        "source_published_timestamp_seconds",
        "When the revision was published that clients follow",
        reads=lambda rows: _moment(rows.all.source.published),
    ),
    Family(
        "source_fetched_timestamp_seconds",
        "When the source was last read",
        reads=lambda rows: _moment(rows.all.source.fetched),
    ),
    Family(
        "source_stalled",
        "1 when the newest revision is not published: it has problems, is held, or cannot be fetched",
        reads=lambda rows: [("", int(_is(rows.all.source, ConditionType.STALLED)))],
    ),
    Family(
        "source_held",
        "1 when the newest revision waits for a person's acknowledgement",
        reads=lambda rows: [("", int(rows.all.source.hold is not None))],
    ),
    Family(
        "source_suspended",
        "1 when a person suspended reconciling",
        reads=lambda rows: [("", int(rows.all.source.suspended))],
    ),
    Family("source_problems", "Problems in the newest revision", ("severity",), _problems),
    Family(
        "clients",
        "Clients by how they stand to their desired state",
        ("following",),
        lambda rows: [
            (labelled(following=one.value), rows.all.clients.following.get(one.value, 0)) for one in Following
        ],
    ),
    Family("clients_connected", "Clients with a session", reads=lambda rows: [("", rows.all.clients.connected)]),
    Family(
        "clients_drifted",
        "Clients on which something differs from what is desired",
        reads=lambda rows: [("", rows.all.clients.drifted)],
    ),
    Family("clients_pending", "Keys that wait for approval", reads=lambda rows: [("", rows.all.pending)]),
    Family(
        "clients_left_out",
        "Clients that are counted above and not shown one by one, because there are more than the limit",
        reads=lambda rows: _left_out(rows.all.clients.clients, len(rows.all.client_rows)),
    ),
    Family(
        "backups",
        "Backups by whether an archive inside the objective was seen in each repository",
        ("state",),
        lambda rows: [(labelled(state=state), rows.all.backups.get(state, 0)) for state in BACKUP_STATES],
    ),
    Family("backups_running", "Backups that run now", reads=lambda rows: [("", rows.all.backups.get("running", 0))]),
    Family(
        "backups_left_out",
        "Backups that are counted above and not shown one by one, because there are more than the limit",
        reads=lambda rows: _left_out(_total(rows.all.backups), len(rows.all.backup_rows)),
    ),
)


# --- One by one -------------------------------------------------------------------------------------------------------


def _of_client(value: Callable[[ClientNumbers], Any]) -> Callable[[Labelled], Iterable[Sample]]:
    """Return a family's samples: one for each client of which there is a value."""
    return lambda rows: [(labels, found) for labels, row in rows.clients if (found := value(row)) is not None]


def _of_backup(value: Callable[[BackupNumbers], Any]) -> Callable[[Labelled], Iterable[Sample]]:
    return lambda rows: [(labels, found) for labels, row in rows.backups if (found := value(row)) is not None]


def _of_repository(value: Callable[[RepositoryNumbers], Any]) -> Callable[[Labelled], Iterable[Sample]]:
    return lambda rows: [(labels, found) for labels, row in rows.repositories if (found := value(row)) is not None]


def _time(stored: str | None) -> float | None:
    return None if stored is None else _seconds(stored)


def _duration(row: BackupNumbers) -> float | None:
    if row.last_finished is None or row.last_started is None:
        return None
    return max(0.0, round(_seconds(row.last_finished) - _seconds(row.last_started), 3))


@lru_cache(1_024)
def _retained(stored: str | None) -> int | None:
    """Return the sum of what retention keeps; None when it keeps by age, everything, or is not declared."""
    kept: dict[str, int | str] = json.loads(stored or "{}")
    counts = list(kept.values())
    whole = [count for count in counts if isinstance(count, int) and count >= 0]
    return sum(whole) if counts and len(whole) == len(counts) else None


_CLIENT: Final = ("client",)
_BACKUP: Final = ("client", "backup")
_REPOSITORY: Final = ("client", "backup", "repository")
_OF_CLIENTS: Final = (
    Family("client_connected", "1 when the client has a session", _CLIENT, _of_client(lambda row: int(row.connected))),
    Family(
        "client_last_seen_timestamp_seconds",
        "When the client was last heard of",
        _CLIENT,
        _of_client(lambda row: _time(row.last_seen)),
    ),
    Family(
        "client_following",
        "1 for the word that says how the client stands to its desired state; the other words have no sample",
        (*_CLIENT, "following"),
        lambda rows: [(f'{labels},following="{row.following}"', 1) for labels, row in rows.clients],
    ),
    Family(
        "client_drift",
        "Differences between what is desired and what is on the machine that are not healed",
        _CLIENT,
        _of_client(lambda row: row.drifted),
    ),
)
_OF_BACKUPS: Final = (
    Family(
        "backup_state",
        "1 for the word that says whether the backup is protected; the other words have no sample",
        (*_BACKUP, "state"),
        lambda rows: [(f'{labels},state="{row.state}"', 1) for labels, row in rows.backups],
    ),
    Family(
        "backup_overdue",
        "1 when a repository has no archive inside the objective; no sample without an objective",
        _BACKUP,
        _of_backup(lambda row: None if row.objective is None else int(row.state == "unprotected")),
    ),
    Family(
        "backup_objective_seconds",
        "How old the newest archive may be",
        _BACKUP,
        _of_backup(lambda row: row.objective),
    ),
    Family(
        "backup_protected_until_timestamp_seconds",
        "When the backup becomes overdue, or became so",
        _BACKUP,
        _of_backup(lambda row: _time(row.protected_until)),
    ),
    Family(
        "backup_newest_archive_timestamp_seconds",
        "The newest archive of the repository that is furthest behind; no sample while one has none",
        _BACKUP,
        _of_backup(lambda row: _time(row.newest_archive)),
    ),
    Family(
        "backup_last_success_timestamp_seconds",
        "When a run last ended with an archive: succeeded or warned",
        _BACKUP,
        _of_backup(lambda row: _time(row.last_success)),
    ),
    Family(
        "backup_last_run_timestamp_seconds",
        "When the last run ended",
        _BACKUP,
        _of_backup(lambda row: _time(row.last_finished)),
    ),
    Family("backup_last_run_duration_seconds", "How long the last run took", _BACKUP, _of_backup(_duration)),
    Family(
        "backup_last_run_outcome",
        "1 for the word that says how the last run ended; the other words have no sample",
        (*_BACKUP, "outcome"),
        lambda rows: [
            (f'{labels},outcome="{row.last_outcome}"', 1) for labels, row in rows.backups if row.last_outcome
        ],
    ),
    Family(
        "backup_retention_archives",
        "How many archives retention keeps once there are enough: the sum of keep_daily and the like",
        _BACKUP,
        _of_backup(lambda row: _retained(row.retention)),
    ),
    Family("backup_running", "1 while the backup runs", _BACKUP, _of_backup(lambda row: int(row.running))),
)
_OF_REPOSITORIES: Final = (
    Family(
        "repository_available",
        "1 when the client could read the repository when it last looked",
        _REPOSITORY,
        _of_repository(lambda row: None if row.available is None else int(row.available)),
    ),
    Family(
        "repository_newest_archive_timestamp_seconds",
        "The newest archive of this backup in the repository",
        _REPOSITORY,
        _of_repository(lambda row: _time(row.newest)),
    ),
    Family(
        "repository_archives",
        "Archives of this backup in the repository",
        _REPOSITORY,
        _of_repository(lambda row: row.archives),
    ),
    Family(
        "repository_bytes",
        "Everything in the repository, as this client last saw it: of a shared one take the maximum, not the sum",
        _REPOSITORY,
        _of_repository(lambda row: row.repository_size or None),
    ),
    Family(
        "archive_original_bytes",
        "The newest archive before compression",
        _REPOSITORY,
        _of_repository(lambda row: row.original_size or None),
    ),
    Family(
        "archive_compressed_bytes",
        "The newest archive after compression",
        _REPOSITORY,
        _of_repository(lambda row: row.compressed_size or None),
    ),
    Family(
        "archive_deduplicated_bytes",
        "What the newest archive added to the repository",
        _REPOSITORY,
        _of_repository(lambda row: row.deduplicated_size or None),
    ),
)
FAMILIES: Final = (*_OF_ALL, *_OF_CLIENTS, *_OF_BACKUPS, *_OF_REPOSITORIES)
