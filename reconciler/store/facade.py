"""The store, as the loop and the gateway use it: asynchronous, one writer, every call durable when it returns.

Nothing here decides anything; each method names the function of the connection that does the work. Times are handed in.
Reading goes through a second, read-only connection and sees whatever a returned call has written.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from reconciler.core.enrolment import Approval
from reconciler.store import growth, ingest, presence, publish, source, trust
from reconciler.store.changes import Broadcast, Changes
from reconciler.store.engine import database_path, explain, migrate, open_engine
from reconciler.store.latest import Latest
from reconciler.store.trim import Retention, steps
from reconciler.store.trust import PendingKey, Revocation
from reconciler.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Engine

    from reconciler.core.issue import BackupRow, ClientRow, DefinitionRow, Issued
    from reconciler.core.lockout import LockoutRow
    from schema.errors import Problem
    from schema.observed import Report, RunProgress
    from schema.status import Condition, RevisionStatus, SourceStatus, TokenStatus

T = TypeVar("T")

SEEN_SECONDS = 15.0
"""Heartbeats are written at most this often,"""
PROGRESS_SECONDS = 1.0
"""and progress this often: both are facts of the moment, and the newest replaces all before."""
PROGRESS_MANY = 500
"""Runs whose progress is 5 ms of writing. Of 5,000 that run at once each is written every ten seconds."""
GROWTH_SECONDS = 60.0
"""How often sizes are counted anew, while reports change them."""


class Store:
    """Everything that was observed or issued. Made by ``Store.open``."""

    def __init__(self, *, path: Path, writing: Engine, reading: Engine) -> None:
        self._path = path
        self._writing = writing
        self._reading = reading
        self._writer = Writer(writing, path=path)
        self._reader = ThreadPoolExecutor(1, "store-reader")
        self._broadcast = Broadcast()
        self._seen: Latest[datetime] = Latest(self._write_seen, every=SEEN_SECONDS)
        self._progress: Latest[tuple[str, RunProgress]] = Latest(
            self._write_progress, every=PROGRESS_SECONDS, many=PROGRESS_MANY
        )
        self._growth: Latest[datetime] = Latest(self._write_growth, every=GROWTH_SECONDS)

    @classmethod
    async def open(cls, location: str | Path) -> Self:
        """Return the open store at a path or ``sqlite:///…`` url, migrated; a missing file is made.

        ``TransientError`` when it is locked or the disk is full; ``TerminalError`` when it is damaged, was written by a
        newer program, or may not be written.
        """
        path = database_path(location)
        writing, reading = open_engine(path), open_engine(path, read_only=True)
        try:
            await asyncio.to_thread(migrate, writing, path=path)
        except Exception as error:
            writing.dispose()
            explained = explain(error, path=path, doing="open")
            if explained is error:
                raise
            raise explained from error
        return cls(path=path, writing=writing, reading=reading)

    async def close(self) -> None:
        """Write what waits, then close. Calls that come later get a ``TransientError``."""
        for latest in (self._seen, self._progress, self._growth):
            await latest.close()
        await self._writer.close()
        self._broadcast.close()
        await asyncio.to_thread(self._reader.shutdown)
        self._reading.dispose()
        self._writing.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def changes(self) -> Changes:
        """Return a reader of notices: ``with store.changes() as changes: async for notice in changes: …``.

        Notices: ``source``, ``conditions/OBJECT``, ``client/NAME``, ``run/ID``, ``pending``, ``events``, or ``*``.
        """
        return self._broadcast.changes()

    # --- Source -------------------------------------------------------------------------------------------------------

    async def record_revision(self, revision: RevisionStatus, *, problems: Sequence[Problem] = ()) -> None:
        """Keep how a revision was judged."""
        await self._write(source.record_revision, revision, problems, notices=["source"])

    async def set_source(self, status: SourceStatus) -> None:
        """Keep how the source stands; its conditions are kept by ``set_conditions``."""
        await self._write(source.put_source, status, notices=["source"])

    async def source(self) -> SourceStatus:
        """Return how the source stands, with its conditions; an empty status before the first pass."""
        return await self._read(source.read_source)

    async def set_acknowledged(self, revisions: Iterable[str]) -> None:
        """Keep the revisions that a person let through."""
        await self._write(source.put_value, "acknowledged", sorted(revisions))

    async def acknowledged(self) -> frozenset[str]:
        """Return the revisions that a person let through."""
        return frozenset(await self._read(source.value, "acknowledged") or ())

    async def set_suspended(self, subject: str, *, actor: str | None) -> None:
        """Suspend in the name of ``actor``, or resume (None).

        ``subject`` is ``source``, ``client/NAME`` or ``backup/CLIENT/NAME``.
        """
        await self._write(source.put_suspended, subject, actor, notices=[subject])

    async def suspended(self) -> dict[str, str]:
        """Return what is suspended by command, and by whom."""
        return await self._read(source.read_suspended)

    async def set_conditions(self, subject: str, conditions: Sequence[Condition]) -> None:
        """Replace an object's conditions; a transition time moves only when the status does."""
        if await self._write(source.put_conditions, subject, conditions):
            self._broadcast.publish([f"conditions/{subject}"])

    async def conditions(self, subject: str) -> list[Condition]:
        """Return an object's conditions, by type."""
        return await self._read(source.read_conditions, subject)

    async def event(
        self, *, reason: str, message: str, at: datetime, actor: str = "", client: str = "", backup: str = ""
    ) -> None:
        """Append to the audit trail."""
        row = source.event_row(reason=reason, message=message, at=at, actor=actor, client=client, backup=backup)
        await self._write(source.add_events, [row], notices=["events"])

    # --- Publishing ---------------------------------------------------------------------------------------------------

    async def publish(
        self,
        *,
        clients: Sequence[ClientRow],
        backups: Sequence[BackupRow],
        issued: Sequence[Issued],
        removed_clients: Sequence[str],
        removed_backups: Sequence[tuple[str, str]],
        at: datetime,
        definitions: Sequence[DefinitionRow] = (),
        removed_definitions: Sequence[str] = (),
    ) -> None:
        """Keep what a revision changed, in one transaction."""
        publication = publish.Publication(
            clients, backups, issued, removed_clients, removed_backups, at, definitions, removed_definitions
        )
        touched = {row.name for row in clients} | {row.client for row in backups} | {one.client for one in issued}
        notices = [f"client/{name}" for name in touched | set(removed_clients)]
        await self._write(publish.publish, publication, notices=notices)
        if backups or removed_backups or removed_clients:
            self._growth.put("", at)

    async def published(self) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
        """Return the names of the published clients, and (client, backup) of the published backups."""
        return await self._read(publish.read_keys)

    async def committed_keys(self) -> dict[str, str]:
        """Return the public keys of the published clients that have one, by name."""
        return await self._read(publish.read_committed_keys)

    async def issued_all(self) -> dict[str, Issued]:
        """Return what was issued to each client, without envelope and content."""
        return await self._read(publish.read_all_issued)

    async def issued(self, clients: Sequence[str]) -> dict[str, Issued]:
        """Return the newest signed desired states by client, with envelopes, without contents."""
        return await self._read(publish.read_issued, clients)

    # --- Trust --------------------------------------------------------------------------------------------------------

    async def create_token(self, token: TokenStatus, *, token_hash: str) -> None:
        """Keep a new connection token, as its hash (``envelope.hash_token``)."""
        await self._write(partial(trust.add_token, token=token, token_hash=token_hash))

    async def tokens(self) -> list[TokenStatus]:
        """Return all tokens, newest first."""
        return await self._read(trust.read_tokens)

    async def revoke_token(self, token_id: str) -> bool:
        """Return whether there was such a token; it is worth nothing from now on."""
        return await self._write(trust.revoke_token, token_id)

    async def consume_token(self, token_hash: str, public_key: str, now: datetime) -> bool:
        """Return whether the token lets this key in to wait, and take one use; none for a key that waits already."""
        work = partial(trust.consume_token, token_hash=token_hash, public_key=public_key, now=now)
        return await self._write(work)

    async def enrol(
        self,
        token_hash: str,
        *,
        public_key: str,
        name: str,
        address: str,
        config_directory: str,
        state_directory: str,
        now: datetime,
    ) -> bool:
        """Consume a token and keep the key that waits from now on: both, or neither when the token is not good."""
        key = PendingKey(public_key, name, address, now, now, config_directory, state_directory)
        return await self._write(partial(trust.enrol, token_hash=token_hash, key=key), notices=["pending"])

    async def upsert_pending(
        self, *, public_key: str, name: str, address: str, config_directory: str, state_directory: str, now: datetime
    ) -> None:
        """Keep a waiting key; the time it was first seen stays."""
        key = PendingKey(public_key, name, address, now, now, config_directory, state_directory)
        await self._write(trust.put_pending, key, notices=["pending"])

    async def pending(self) -> list[PendingKey]:
        """Return the waiting keys, the longest waiting first."""
        return await self._read(trust.read_pending)

    async def delete_pending(self, public_key: str) -> bool:
        """Return whether the key waited; it no longer does."""
        return await self._write(trust.delete_pending, public_key, notices=["pending"])

    async def approve(self, *, public_key: str, name: str, by: str, at: datetime) -> None:
        """Approve by command; ``TerminalError`` when the key is revoked, or the name has another key."""
        work = partial(trust.approve, approval=Approval(public_key, name, by), at=at)
        await self._write(work, notices=["pending", f"client/{name}"])

    async def approvals(self) -> list[Approval]:
        """Return the approvals by command, oldest first."""
        return await self._read(trust.read_approvals)

    async def revoke(self, *, public_key: str, name: str, by: str, at: datetime) -> None:
        """Keep a key out from now on, also when it stands in Git."""
        revocation = Revocation(public_key, name, by, at)
        await self._write(trust.revoke, revocation, notices=["pending", f"client/{name}"])

    async def unrevoke(self, public_key: str) -> bool:
        """Return whether the key was revoked; it no longer is."""
        return await self._write(trust.unrevoke, public_key)

    async def revocations(self) -> list[Revocation]:
        """Return the revoked keys."""
        return await self._read(trust.read_revocations)

    async def save_lockouts(self, rows: Collection[LockoutRow], *, removed: Collection[str] = ()) -> None:
        """Keep failed attempts by source address, and forget the removed ones; of too many the oldest go."""
        await self._write(partial(trust.put_lockouts, rows=rows, removed=removed))

    async def lockouts(self) -> list[LockoutRow]:
        """Return failed attempts by source address, oldest first."""
        return await self._read(trust.read_lockouts)

    # --- Clients ------------------------------------------------------------------------------------------------------

    async def connected(self, *, client: str, public_key: str, address: str, now: datetime) -> bool:
        """Keep that a session began, and return whether anything of this key's outbox was ever stored."""
        work = partial(presence.connect, client=client, public_key=public_key, address=address, at=now)
        return await self._write(work, notices=[f"client/{client}"])

    async def disconnected(self, *, client: str, public_key: str, now: datetime) -> None:
        """Keep that a session ended; one that another key has opened since is left alone."""
        self._seen.pop(client)
        work = partial(presence.disconnect, client=client, public_key=public_key, at=now)
        await self._write(work, notices=[f"client/{client}"])

    async def disconnect_all(self) -> None:
        """At the start: nobody is connected, whatever a killed director left behind."""
        await self._write(presence.disconnect_all)

    async def seen(self, *, client: str, now: datetime) -> None:
        """Note a heartbeat. Returns at once; written with others, at most every ``SEEN_SECONDS``."""
        self._seen.put(client, now)

    async def progress(self, *, client: str, progress: RunProgress) -> None:
        """Note where a run stands. Returns at once; written with others, at most every ``PROGRESS_SECONDS``."""
        self._progress.put(progress.run, (client, progress))

    async def ingest(
        self,
        *,
        client: str,
        public_key: str,
        epoch: str,
        items: Sequence[tuple[int, Report]],
        through: int,
        received: datetime,
    ) -> int:
        """Store reports exactly once and return up to where this outbox is stored.

        ``items`` are (sequence, report) in rising order, ``TrustError`` otherwise. ``through`` is the last number of
        the frame: what is missing up to it could not be read, and counts as stored.
        """
        work = partial(ingest.ingest, client=client, public_key=public_key, epoch=epoch, received=received)
        done = await self._write(partial(work, items=items, through=through))
        self._broadcast.publish(done.notices)
        if done.sizes:
            self._growth.put("", received)
        return done.sequence

    # --- History ------------------------------------------------------------------------------------------------------

    async def trim(self, *, now: datetime, retention: Retention | None = None) -> dict[str, int]:
        """Forget history by age, in small transactions; return how much went, by kind."""
        gone = {}
        for name, step in steps(retention or Retention(), now=now).items():
            gone[name] = 0
            while count := await self._write(step):
                gone[name] += count
        return gone

    # --- How ----------------------------------------------------------------------------------------------------------

    async def _write(self, work: Callable[..., T], *arguments: Any, notices: Iterable[str] = ()) -> T:
        result = await self._writer.submit(lambda connection: work(connection, *arguments))
        self._broadcast.publish(notices)
        return result

    async def _read(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._reading_with, work, arguments)
        except Exception as error:
            explained = explain(error, path=self._path, doing="read")
            if explained is error:
                raise
            raise explained from error

    def _reading_with(self, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        with self._reading.begin() as connection:
            return work(connection, *arguments)

    async def _write_seen(self, times: Mapping[str, datetime]) -> None:
        await self._write(presence.put_seen, times)

    async def _write_progress(self, latest: Mapping[str, tuple[str, RunProgress]]) -> None:
        await self._write(presence.put_progress, latest, notices=[f"run/{run}" for run in latest])

    async def _write_growth(self, latest: Mapping[str, datetime]) -> None:
        await self._write(partial(growth.count, at=max(latest.values())))
