"""The reader, as pages, API and command line use it: each method is one read transaction and returns read models.

Synchronous: callers on an event loop run it in a thread. Time is handed in, because a backup becomes overdue by time
passing. Raises ``StoreUnavailable`` (answer 503) and ``InvalidQuery`` (answer 400).
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from schema import assessment
from schema.status import MAX_REVISIONS, Following, Overview, Page, RefusalShown, RevisionStatus
from web_readonly.reader import attention as attention_rows
from web_readonly.reader import backups as backup_rows
from web_readonly.reader import clients as client_rows
from web_readonly.reader import contents as content_rows
from web_readonly.reader import facets
from web_readonly.reader import growth as growth_rows
from web_readonly.reader import numbers as number_rows
from web_readonly.reader import runs as run_rows
from web_readonly.reader import schedule as schedule_rows
from web_readonly.reader import source as source_rows
from web_readonly.reader import timeline as timeline_rows
from web_readonly.reader.backups import BackupFilter
from web_readonly.reader.clients import ClientFilter
from web_readonly.reader.database import Database
from web_readonly.reader.runs import RunFilter
from web_readonly.reader.source import EventFilter
from web_readonly.reader.version import StoreVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from schema.desired import Content
    from schema.errors import Problem
    from schema.observed import StateReport
    from schema.status import (
        ArchiveDetail,
        ArchiveStatus,
        Attention,
        BackupStatus,
        ClientStatus,
        EventRecord,
        Growth,
        LockoutStatus,
        LogEntry,
        PendingClient,
        RepositoryStatus,
        RunStatus,
        Sample,
        SourceStatus,
        TokenStatus,
    )
    from schema.timeline import NextStart, Schedule, Timeline
    from web_readonly.reader.clients import ClientCounts
    from web_readonly.reader.facets import Facet, Named, StoreFacts
    from web_readonly.reader.numbers import Numbers, Standing
    from web_readonly.reader.runs import Level
    from web_readonly.reader.timeline import TimelineFilter

DEFAULT_LIMIT: Final = 50
MAX_ATTENTION: Final = 12
"""Of each sort; the lists tell of all."""
MAX_REFUSALS: Final = 5
AWAY: Final = timedelta(minutes=15)
"""A client that is gone for less than this may just be restarting."""


class Reader:
    """Everything that can be asked of a store. Can write nothing."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self._version = StoreVersion(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        self._version.close()

    def version(self) -> str:
        """Return a text that is another one after every write; empty when the store cannot be read now."""
        return self._version.read()

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Let all that this thread asks inside see the same moment of the store, in one transaction."""
        with self._database.read():
            yield

    def check(self) -> None:
        """Return when the store can be read; ``StoreUnavailable`` when not."""
        with self._database.read():
            pass

    # --- Overview and source ------------------------------------------------------------------------------------------

    def overview(self, *, now: datetime) -> Overview:
        """Return the first page."""
        with self._database.read() as connection:
            source = source_rows.read_source(connection)
            clients = client_rows.count_clients(connection, now=now)
            backups = backup_rows.count_backups(connection, now=now)
            troubled = attention_rows.read_troubled(connection, limit=MAX_ATTENTION, away_since=now - AWAY, now=now)
            unwell = attention_rows.read_unwell(connection, limit=MAX_ATTENTION, now=now)
            pending = client_rows.read_pending(connection)[:MAX_ATTENTION]
            return Overview(
                at=now,
                source=source,
                clients=clients.clients,
                connected=clients.connected,
                following=clients.following,
                revisions=clients.revisions[:MAX_REVISIONS],
                other_revisions=sum(one.clients for one in clients.revisions[MAX_REVISIONS:]),
                refusals=tuple(_refusals(troubled))[:MAX_REFUSALS],
                backups=sum(number for state, number in backups.items() if state != "running"),
                protected=backups["protected"],
                unprotected=backups["unprotected"],
                unknown=backups["unknown"],
                without_objective=backups["without-objective"],
                running=backups["running"],
                drifted=clients.drifted,
                attention=assessment.in_order(_attention(source, unwell, troubled, pending)),
            )

    def source(self) -> SourceStatus:
        """Return how the source stands."""
        with self._database.read() as connection:
            return source_rows.read_source(connection)

    def revisions(self, *, limit: int = DEFAULT_LIMIT, before: str = "") -> Page[RevisionStatus]:
        """Return the revisions the director has judged, newest first."""
        with self._database.read() as connection:
            return source_rows.read_revisions(connection, limit=limit, before=before)

    def revision(self, revision: str) -> tuple[RevisionStatus, tuple[Problem, ...]] | None:
        """Return one revision, by at least seven characters, and its problems."""
        with self._database.read() as connection:
            return source_rows.read_revision(connection, revision)

    def known_revisions(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of the revisions that have a page."""
        with self._database.read() as connection:
            return facets.read_known_revisions(connection, names)

    def events(
        self, wanted: EventFilter | None = None, *, limit: int = DEFAULT_LIMIT, before: str = ""
    ) -> Page[EventRecord]:
        """Return the audit trail, newest first."""
        with self._database.read() as connection:
            return source_rows.read_events(connection, wanted or EventFilter(), limit=limit, before=before)

    def reasons(self) -> tuple[Facet, ...]:
        """Return the reasons that stand in the audit trail."""
        with self._database.read() as connection:
            return facets.read_reasons(connection)

    def neighbours(self, kind: Named, name: str) -> tuple[str, ...]:
        """Return names of a kind that stand around one that is not there."""
        with self._database.read() as connection:
            return facets.read_neighbours(connection, kind, name)

    def facts(self) -> StoreFacts:
        """Return how large the store is, and how far back it goes."""
        with self._database.read() as connection:
            return facets.read_facts(connection, size=self._database.size())

    def tokens(self) -> tuple[TokenStatus, ...]:
        """Return the connection tokens, never their texts."""
        with self._database.read() as connection:
            return source_rows.read_tokens(connection)

    def lockouts(self, *, now: datetime) -> tuple[LockoutStatus, ...]:
        """Return the addresses that are locked out."""
        with self._database.read() as connection:
            return source_rows.read_lockouts(connection, now=now)

    # --- Clients ------------------------------------------------------------------------------------------------------

    def clients(
        self, wanted: ClientFilter | None = None, *, limit: int = DEFAULT_LIMIT, after: str = "", now: datetime
    ) -> Page[ClientStatus]:
        """Return clients by name."""
        with self._database.read() as connection:
            return client_rows.read_clients(connection, wanted or ClientFilter(), limit=limit, after=after, now=now)

    def client(self, name: str, *, now: datetime) -> ClientStatus | None:
        """Return one client."""
        with self._database.read() as connection:
            return client_rows.read_client(connection, name, now=now)

    def content(self, client: str) -> Content | None:
        """Return what the newest issued desired state asks of a client."""
        with self._database.read() as connection:
            return client_rows.read_content(connection, client)

    def former(self, client: str, *, digest: str) -> Content | None:
        """Return what a client had applied when the newest was issued, if it still has that."""
        with self._database.read() as connection:
            return client_rows.read_former(connection, client, digest=digest)

    def options(self, client: str) -> Mapping[str, Mapping[str, str]]:
        """Return, for each backup of a client, where each option was written: path → ``file:line``."""
        with self._database.read() as connection:
            return facets.read_options(connection, client)

    def client_counts(self, *, now: datetime) -> ClientCounts:
        """Return how many clients there are, and how they stand."""
        with self._database.read() as connection:
            return client_rows.count_clients(connection, now=now)

    def labels(self) -> tuple[Facet, ...]:
        """Return the labels of the published clients, and how many have each."""
        with self._database.read() as connection:
            return facets.read_labels(connection)

    def state(self, client: str) -> StateReport | None:
        """Return a client's newest report of its state."""
        with self._database.read() as connection:
            return client_rows.read_state(connection, client)

    def pending(self) -> tuple[PendingClient, ...]:
        """Return the keys that wait for approval."""
        with self._database.read() as connection:
            return client_rows.read_pending(connection)

    def count_pending(self) -> int:
        """Return how many keys wait for approval."""
        with self._database.read() as connection:
            return client_rows.count_pending(connection)

    # --- Backups ------------------------------------------------------------------------------------------------------

    def backups(
        self, wanted: BackupFilter | None = None, *, limit: int = DEFAULT_LIMIT, after: str = "", now: datetime
    ) -> Page[BackupStatus]:
        """Return backups by client and name; ``BackupFilter(backup=…)`` is one backup across its clients."""
        with self._database.read() as connection:
            return backup_rows.read_backups(connection, wanted or BackupFilter(), limit=limit, after=after, now=now)

    def backup(self, *, client: str, backup: str, now: datetime) -> BackupStatus | None:
        """Return one backup on one client."""
        with self._database.read() as connection:
            return backup_rows.read_backup(connection, client=client, backup=backup, now=now)

    def samples(self, *, client: str, backup: str, since: datetime, limit: int = 2_000) -> tuple[Sample, ...]:
        """Return how a backup's repositories grew."""
        with self._database.read() as connection:
            return run_rows.read_samples(connection, client=client, backup=backup, since=since, limit=limit)

    def repositories(
        self, *, name: str = "", url: str = "", limit: int = DEFAULT_LIMIT, after: str = ""
    ) -> Page[RepositoryStatus]:
        """Return Borg repositories, one for each url."""
        with self._database.read() as connection:
            return backup_rows.read_repositories(connection, name=name, url=url, limit=limit, after=after)

    def archives(
        self, *, client: str = "", backup: str = "", repository: str = "", limit: int = DEFAULT_LIMIT, before: str = ""
    ) -> Page[ArchiveStatus]:
        """Return archives that were seen, newest first."""
        with self._database.read() as connection:
            return backup_rows.read_archives(
                connection, client=client, backup=backup, repository=repository, limit=limit, before=before
            )

    def archive(self, *, client: str, backup: str, repository: str, archive: str) -> ArchiveStatus | None:
        """Return one archive by id or name."""
        with self._database.read() as connection:
            return backup_rows.read_archive(
                connection, client=client, backup=backup, repository=repository, archive=archive
            )

    # --- Numbers ------------------------------------------------------------------------------------------------------

    def numbers(self, *, limit: int, now: datetime) -> Numbers:
        """Return what ``/metrics`` tells: of at most ``limit`` clients and backups one by one."""
        with self._database.read() as connection:
            return number_rows.read_numbers(connection, limit=limit, now=now)

    def standings(self, *, client: str = "", backup: str = "", now: datetime) -> tuple[Standing, ...]:
        """Return how many backups of a name stand alike; of all when no name is given."""
        with self._database.read() as connection:
            return number_rows.read_standings(connection, client=client, backup=backup, now=now)

    def archive_detail(self, *, client: str, backup: str, repository: str, archive: str) -> ArchiveDetail | None:
        """Return one archive by id or name, with what is in it."""
        with self._database.read() as connection:
            return content_rows.read_detail(
                connection, client=client, backup=backup, repository=repository, archive=archive
            )

    # --- Runs ---------------------------------------------------------------------------------------------------------

    def runs(self, wanted: RunFilter | None = None, *, limit: int = DEFAULT_LIMIT, before: str = "") -> Page[RunStatus]:
        """Return runs, the last started first."""
        with self._database.read() as connection:
            return run_rows.read_runs(connection, wanted or RunFilter(), limit=limit, before=before)

    def has_runs(self) -> bool:
        """Return whether anything ever ran, as far as is known."""
        with self._database.read() as connection:
            return run_rows.has_runs(connection)

    def run(self, run: str) -> RunStatus | None:
        """Return one run."""
        with self._database.read() as connection:
            return run_rows.read_run(connection, run)

    def run_log(
        self, run: str, *, after: int = -1, limit: int = 500, level: Level = "debug", text: str = ""
    ) -> Page[LogEntry]:
        """Return log lines of a run in order; ``next`` is the number to give as ``after``."""
        with self._database.read() as connection:
            return run_rows.read_log(connection, run, after=after, limit=limit, level=level, text=text)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def timeline(
        self, wanted: TimelineFilter, *, since: datetime, until: datetime, rows: int, now: datetime
    ) -> Timeline:
        """Return what ran and what is due between two moments, the clients that matter first."""
        with self._database.read() as connection:
            return timeline_rows.read_timeline(connection, wanted, since=since, until=until, rows=rows, now=now)

    def schedule(self, *, repository: str = "", now: datetime) -> Schedule:
        """Return the week to come, of all backups or of those that use a repository."""
        with self._database.read() as connection:
            return schedule_rows.read_schedule(connection, repository=repository, now=now)

    def growth(self, *, repository: str = "", url: str = "", since: datetime, until: datetime) -> tuple[Growth, ...]:
        """Return sizes day by day, oldest first: of one url, of a repository at all its urls, or of all."""
        with self._database.read() as connection:
            return growth_rows.read_growth(connection, repository=repository, url=url, since=since, until=until)

    def wanted_archives(self) -> int:
        """Return how many archives the retention of all backups keeps at most; negative when there is no end."""
        with self._database.read() as connection:
            return growth_rows.read_wanted(connection)

    def repository_names(self) -> tuple[str, ...]:
        """Return the names of the repositories that backups use."""
        with self._database.read() as connection:
            return backup_rows.read_repository_names(connection)

    def next_starts(
        self, *, repository: str = "", limit: int = DEFAULT_LIMIT, after: str = "", now: datetime
    ) -> Page[NextStart]:
        """Return what starts next, soonest first."""
        with self._database.read() as connection:
            return timeline_rows.read_next(connection, repository=repository, limit=limit, after=after, now=now)


def _refusals(troubled: list[ClientStatus]) -> Iterator[RefusalShown]:
    for one in troubled:
        if one.following is Following.REFUSED and one.refusal is not None:
            said = one.refusal
            yield RefusalShown(client=one.name, code=said.code, message=said.message, hint=said.hint)


def _attention(
    source: SourceStatus,
    unwell: tuple[BackupStatus, ...],
    troubled: list[ClientStatus],
    pending: tuple[PendingClient, ...],
) -> Iterator[Attention]:
    yield from assessment.source_attention(source)
    for backup in unwell:
        if (found := assessment.backup_attention(backup, backup.conditions[0])) is not None:
            yield found
    for client in troubled:
        yield from assessment.client_attention(client)
    yield from map(assessment.pending_attention, pending)
