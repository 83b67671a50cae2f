"""From a build to signed desired states and the store's rows: who must be sent what, and what changed since. Pure.

Called by the loop after everything was validated and weighed. Signing is deterministic (Ed25519), so this stays pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from reconciler.core import identity, origins
from reconciler.core.changes import touched
from schema.desired import PAYLOAD_TYPE, Content, DesiredState
from schema.envelope import seal_envelope
from schema.resources import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from pydantic import JsonValue

    from reconciler.core.build import Build
    from reconciler.core.expand import Effective
    from schema.desired import Job
    from schema.envelope import DirectorIdentity

CLOCK_SLACK: Final = timedelta(minutes=5)
"""By how much a clock may go back without every desired state being issued anew."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed desired state. ``without_bulk`` is what the loop keeps in memory."""

    client: str
    audience: str
    generation: int
    digest: str
    revision: str
    issued: datetime
    expires: datetime
    envelope: bytes = b""
    content: Content | None = None

    def without_bulk(self) -> Issued:
        """Return the same without envelope and content."""
        return replace(self, envelope=b"", content=None)


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client of the published revision, as pages and the gateway need it."""

    name: str
    public_key: str
    labels: dict[str, str]
    origin: str
    suspended: bool


@dataclass(frozen=True, slots=True)
class BackupRow:
    """One backup on one client of the published revision."""

    client: str
    backup: str
    origin: str
    cron: str
    time_zone: str
    rpo: int | None
    suspended: bool
    repositories: tuple[dict[str, str], ...]
    """``name``, ``url``, ``encryption`` of each."""


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """What is the same on every client of a backup, for the pages alone."""

    backup: str
    retention: dict[str, JsonValue]
    options: tuple[tuple[str, str], ...]
    """Option path and the place where it was written."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What differs between two builds, in the store's terms."""

    clients: tuple[ClientRow, ...]
    backups: tuple[BackupRow, ...]
    definitions: tuple[DefinitionRow, ...]
    removed_clients: tuple[str, ...]
    removed_backups: tuple[tuple[str, str], ...]
    removed_definitions: tuple[str, ...]


def issue(
    built: Build,
    *,
    revision: str,
    before: Mapping[str, Issued],
    audience: Callable[[str], str | None],
    identity: DirectorIdentity,
    now: datetime,
    validity: timedelta,
    names: Iterable[str] | None = None,
) -> list[Issued]:
    """Return new desired states for exactly those clients (of ``names``, or of all) whose newest one no longer serves.

    That is: other content, another audience, half of its validity gone, issued in the future (by a clock that was
    wrong: clients refuse it until then), or none at all. A client without an approved key has no audience, and is
    passed over. ``audience`` maps a client's name to its approved public key.
    """
    milliseconds = int(now.timestamp() * 1000)
    found = []
    for name in built.contents if names is None else names:
        content, key = built.contents.get(name), audience(name)
        if content is None or key is None:
            continue
        last, digest = before.get(name), built.digests[name]
        if last is not None and (last.digest, last.audience) == (digest, key) and _is_fresh(last, now, validity):
            continue
        # The clock keeps generations rising when the store was lost; `last + 1` when the clock went back.
        generation = max(last.generation + 1 if last else 1, milliseconds)
        found.append(
            _sign(
                Issued(name, key, generation, digest, revision, now, now + validity, content=content),
                content,
                identity=identity,
            )
        )
    return found


def _is_fresh(last: Issued, now: datetime, validity: timedelta) -> bool:
    return last.issued - CLOCK_SLACK <= now < last.expires - validity / 2


def _sign(unsigned: Issued, content: Content, *, identity: DirectorIdentity) -> Issued:
    state = DesiredState.model_construct(
        audience=unsigned.audience,
        generation=unsigned.generation,
        revision=unsigned.revision,
        issued=unsigned.issued,
        expires=unsigned.expires,
        digest=unsigned.digest,
        content=content,
    )
    payload = state.model_dump_json().encode()
    return replace(unsigned, envelope=seal_envelope(payload, payload_type=PAYLOAD_TYPE, identity=identity))


def rows(
    before: Build | None,
    after: Build,
    *,
    names: Collection[str] | None = None,
    stored_clients: frozenset[str] = frozenset(),
    stored_backups: frozenset[tuple[str, str]] = frozenset(),
) -> Rows:
    """Return the rows that changed, and the keys of those that went. ``names`` are the clients that were ``touched``.

    What a touched client has as it had it, its own row often, is left out: most commits change what is inside a file.
    Without ``before`` (after a start) all rows changed, and what the store still holds beside them went.
    """
    if before is None:
        names = after.contents
        pairs = {(name, job.backup) for name, content in after.contents.items() for job in content.jobs}
        gone_clients, gone_backups = sorted(stored_clients - after.contents.keys()), sorted(stored_backups - pairs)
    else:
        names = touched(before, after) if names is None else names
        gone_clients = [name for name in names if name in before.contents and name not in after.contents]
        gone_backups = [
            (name, job.backup)
            for name in names
            for job in _jobs(before.contents.get(name))
            if job.backup not in {job.backup for job in _jobs(after.contents.get(name))}
        ]
    changed = [name for name in names if name in after.contents]
    effective = after.expansion.backups
    former = dict.fromkeys(name for _, name in stored_backups) if before is None else before.expansion.backups
    defined = identity.differing(former, effective)
    return Rows(
        clients=tuple(_client_row(after, name) for name in changed if not _is_same_client(before, after, name)),
        backups=tuple(_backup_rows(before, after, changed)),
        definitions=tuple(_definition_row(effective[name]) for name in defined),
        removed_clients=tuple(gone_clients),
        removed_backups=tuple(gone_backups),
        removed_definitions=tuple(sorted(identity.gone(former, effective, differing=defined))),
    )


def _jobs(content: Content | None) -> tuple[Job, ...]:
    return content.jobs if content is not None else ()


def _is_same_client(before: Build | None, after: Build, name: str) -> bool:
    return before is not None and before.catalogue.get(Client, name) is after.catalogue.get(Client, name)


def _backup_rows(before: Build | None, after: Build, names: Iterable[str]) -> Iterator[BackupRow]:
    """Yield the rows of these clients that are other ones than before."""
    for name in names:
        former = {} if before is None else {job.backup: job for job in _jobs(before.contents.get(name))}
        for job in after.contents[name].jobs:
            row, past = _backup_row(after, name, job), former.get(job.backup)
            if before is None or past is None or row != _backup_row(before, name, past):
                yield row


def _client_row(built: Build, name: str) -> ClientRow:
    located = built.catalogue.all(Client)[name]
    client: Any = located.resource
    return ClientRow(
        name=name,
        public_key=client.spec.public_key or "",
        labels=dict(client.metadata.labels),
        origin=located.origin,
        suspended=client.spec.suspend,
    )


def _backup_row(built: Build, name: str, job: Job) -> BackupRow:
    effective = built.expansion.backups[job.backup]
    return BackupRow(
        client=name,
        backup=job.backup,
        origin=effective.backup.origin,
        cron=job.schedule.cron if job.schedule else "",
        time_zone=job.schedule.time_zone if job.schedule else "",
        rpo=job.rpo,
        suspended=job.suspend or built.contents[name].suspend,
        repositories=tuple(
            {"name": one.name, "url": one.url, "encryption": one.encryption} for one in job.repositories
        ),
    )


def _definition_row(effective: Effective) -> DefinitionRow:
    return DefinitionRow(effective.name, origins.retention(effective), origins.option_origins(effective))
