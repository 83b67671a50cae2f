"""Conditions and the read model: what the command line prints as JSON and the pages show. Stable names; additions only.

``schema.assessment`` decides what the facts mean; ``web_readonly.reader`` fills these models from the store.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schema.errors import Problem
from schema.observed import (
    ArchiveContents,
    Drift,
    Outcome,
    Refusal,
    RepositoryStatistics,
    RunProgress,
    Trigger,
    Versions,
)
from schema.scalars import Duration, Moment


class Shown(BaseModel):
    """Base of the read model: camelCase in JSON."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class ConditionType(StrEnum):
    """As in Kubernetes."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DRIFTED = "Drifted"
    CONNECTED = "Connected"
    PROTECTED = "Protected"


Truth = Literal["True", "False", "Unknown"]


class Condition(Shown):
    """One aspect of an object's state. ``reason`` is CamelCase for scripts, ``message`` a sentence for people."""

    type: ConditionType
    status: Truth
    reason: str
    message: str = ""
    last_transition_time: Moment
    observed_generation: int = 0


class Hold(Shown):
    """A revision that waits for a person."""

    revision: str
    reason: Literal["HistoryRewritten", "MassChangeHeld", "DangerHeld"]
    message: str
    since: Moment


Change = Literal["added", "removed", "changed"]


class ClientChange(Shown):
    """What a revision changed for one client: names of backups, at most ``MAX_NAMED_BACKUPS`` of each sort."""

    client: str
    change: Change
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    others: bool = False
    """Whether something beside its backups changed: directories, host keys, secrets, suspension."""


MAX_CHANGED_CLIENTS = 200
MAX_NAMED_BACKUPS = 50


class RevisionStatus(Shown):
    """One revision of the source as the director judged it."""

    revision: str
    author: str = ""
    subject: str = ""
    committed: Moment | None = None
    seen: Moment
    outcome: Literal["published", "stalled", "held", "superseded"]
    reason: str = ""
    message: str = ""
    changed_clients: int = 0
    """To how many clients something was sent."""
    summary: str = ""
    """What it changed, a line for each backup."""
    changes: tuple[ClientChange, ...] = ()
    """The first ``MAX_CHANGED_CLIENTS`` clients by name. This and ``problems`` only of one revision, not in lists."""
    problems: tuple[Problem, ...] = ()


class SourceStatus(Shown):
    """The Git location of the resources and how the loop stands."""

    url: str = ""
    branch: str = ""
    path: str = ""
    head: str = ""
    """The newest revision seen."""
    revision: str = ""
    """The revision that is published."""
    published: Moment | None = None
    fetched: Moment | None = None
    passed: Moment | None = None
    """When the director last ended a pass, whatever it found."""
    expected: Moment | None = None
    """By when it will have begun another, if it runs."""
    suspended: bool = False
    hold: Hold | None = None
    conditions: tuple[Condition, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Of the head: errors stop it, warnings do not."""


class Phase(StrEnum):
    """The life of a client."""

    PENDING = "pending"
    APPROVED = "approved"
    REVOKED = "revoked"


class Following(StrEnum):
    """How a client stands to its desired state."""

    CURRENT = "current"
    BEHIND = "behind"
    REFUSED = "refused"
    STALE = "stale"
    UNKNOWN = "unknown"
    """Nothing was issued, or nothing was heard."""


class EnvelopeStatus(Shown):
    """What is to be known of a client's signed desired state without opening it."""

    audience: str
    """Fingerprint of the only key that accepts it."""
    signer: str = ""
    """Fingerprint of the director's key."""
    size: int
    """Bytes."""


class ClientStatus(Shown):
    """One client: desired, applied and observed."""

    name: str
    phase: Phase
    fingerprint: str = ""
    approved_by: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    in_source: bool = True
    origin: str = ""
    suspended: bool = False
    connected: bool = False
    last_seen: Moment | None = None
    address: str = ""
    following: Following = Following.UNKNOWN
    desired_generation: int = 0
    desired_revision: str = ""
    desired_digest: str = ""
    issued: Moment | None = None
    """When the desired state was signed. This and ``envelope`` only of one client, not in lists."""
    expires: Moment | None = None
    envelope: EnvelopeStatus | None = None
    applied_generation: int = 0
    applied_revision: str = ""
    applied_digest: str = ""
    refusal: Refusal | None = None
    drift: tuple[Drift, ...] = ()
    versions: Versions = Versions()
    backups: int = 0
    conditions: tuple[Condition, ...] = ()


class PendingClient(Shown):
    """A key that asked to be let in."""

    name: str
    public_key: str
    fingerprint: str
    address: str = ""
    first_seen: Moment
    last_seen: Moment
    config_directory: str = ""
    state_directory: str = ""
    conflict: bool = False
    """The name is already approved with another key."""


class Evidence(Shown):
    """What was seen in one repository for one backup on one client."""

    repository: str
    url: str = ""
    declared: Moment | None = None
    """Since when the backup names this repository."""
    seen: Moment | None = None
    available: bool | None = None
    message: str = ""
    newest: Moment | None = None
    newest_archive: str = ""
    archives: int = 0
    original_size: int = 0
    compressed_size: int = 0
    deduplicated_size: int = 0
    repository_size: int = 0


class RunStatus(Shown):
    """One borgmatic execution."""

    id: str
    client: str
    backup: str
    trigger: Trigger
    started: Moment
    finished: Moment | None = None
    due: Moment | None = None
    outcome: Outcome | None = None
    """None while it runs."""
    exit_code: int | None = None
    error: str = ""
    hint: str = ""
    revision: str = ""
    progress: RunProgress | None = None
    statistics: tuple[RepositoryStatistics, ...] = ()
    log_lines: int = 0


class OptionOrigin(Shown):
    """Where one borgmatic option of a backup was written."""

    option: str
    """Keys and indexes of the file, joined by dots: ``keep_daily``, ``source_directories.2``."""
    place: str = ""
    """``file:line`` in Git; empty when the director itself wrote it."""


class BackupStatus(Shown):
    """One backup on one client: objective, evidence, runs."""

    client: str
    backup: str
    origin: str = ""
    cron: str = ""
    time_zone: str = ""
    rpo: Duration | None = None
    suspended: bool = False
    next_due: Moment | None = None
    running: str = ""
    last_run: RunStatus | None = None
    evidence: tuple[Evidence, ...] = ()
    retention: dict[str, int | str] = Field(default_factory=dict)
    """borgmatic's ``keep_…`` options; empty when nothing is pruned."""
    options: tuple[OptionOrigin, ...] = ()
    """Only of one backup on one client, not in lists."""
    conditions: tuple[Condition, ...] = ()


class RepositoryStatus(Shown):
    """One Borg repository (one url) with everything that uses it."""

    name: str
    url: str
    encryption: str = ""
    size: int = 0
    archives: int = 0
    available: bool | None = None
    message: str = ""
    seen: Moment | None = None
    newest: Moment | None = None
    users: tuple[str, ...] = ()
    """``client/backup`` of each user."""


class ArchiveStatus(Shown):
    """One archive seen in a repository."""

    id: str
    name: str
    client: str
    backup: str
    repository: str
    start: Moment
    original_size: int = 0
    compressed_size: int = 0
    deduplicated_size: int = 0
    files: int = 0


class RestoreCommands(Shown):
    """What to type as root on the machine to get an archive back, or one path of it. Each is one line."""

    extract: str
    list: str
    mount: str
    unmount: str
    browse: str
    restore_databases: str = ""
    """Empty where the backup has none."""


class ArchiveDetail(ArchiveStatus):
    """One archive, with what its client told of what is in it."""

    run: str = ""
    """The run that made it, when it is known."""
    revision: str = ""
    """The revision that run followed."""
    is_newest: bool = False
    """Of its backup in its repository."""
    listed_archives: tuple[str, ...] = ()
    """Ids of the archives of the same backup and repository that were looked into, the newest first."""
    contents: ArchiveContents | None = None
    path: str = ""
    """The part of it that ``commands`` and ``resource`` bring back; empty: all of it."""
    configuration: str = ""
    """borgmatic's file on the machine; empty when the backup is no longer there."""
    commands: RestoreCommands | None = None
    resource: str = ""
    """The same as a ``Restore`` in YAML, for a later version."""


class LogEntry(Shown):
    """One log line of a run; ``number`` counts from 0."""

    number: int
    at: Moment
    level: str
    message: str


class Sample(Shown):
    """What one run put into one repository, and how large the repository was then."""

    at: Moment
    repository: str
    original_size: int = 0
    compressed_size: int = 0
    deduplicated_size: int = 0
    repository_size: int = 0
    duration: float = 0.0


class Growth(Shown):
    """How large repositories were at the end of one day; the sizes are of the newest archives, summed.

    ``repository_size`` is of everything in them.
    """

    day: date
    original_size: int = 0
    compressed_size: int = 0
    deduplicated_size: int = 0
    repository_size: int = 0
    archives: int = 0


class EventRecord(Shown):
    """One entry of the audit trail."""

    id: int
    at: Moment
    reason: str
    actor: str = ""
    """Who did it: ``director``, ``client:NAME``, ``operator:USER``, ``git:AUTHOR``."""
    client: str = ""
    backup: str = ""
    message: str = ""
    detail: str = ""
    """What there is to unfold: the diff of a healed drift."""


class TokenStatus(Shown):
    """A connection token; never the token itself."""

    id: str
    note: str = ""
    created: Moment
    expires: Moment
    uses_left: int
    revoked: bool = False


class LockoutStatus(Shown):
    """A source address that is locked out."""

    address: str
    failures: int
    locked_until: Moment


T = TypeVar("T")


class Page(Shown, Generic[T]):
    """A part of a list. ``next`` asks for what follows; empty at the end."""

    items: tuple[T, ...] = ()
    next: str = ""


class Attention(Shown):
    """One thing that needs a person: most urgent first."""

    level: Literal["critical", "warning", "notice"]
    subject: str
    message: str
    fix: str = ""
    """The file or command that would fix it."""
    link: str = ""
    """Path of the page that tells more."""


class RevisionHeld(Shown):
    """A revision that clients have applied, and how these clients stand."""

    revision: str
    """Empty: clients of whom nothing was heard."""
    clients: int
    following: dict[str, int] = Field(default_factory=dict)


class RefusalShown(Shown):
    """A client that refuses what was issued to it, and why."""

    client: str
    code: str
    message: str
    hint: str = ""


MAX_REVISIONS = 5


class Overview(Shown):
    """The first page in one object."""

    at: Moment
    source: SourceStatus
    clients: int = 0
    connected: int = 0
    following: dict[str, int] = Field(default_factory=dict)
    """``Following`` value → number of clients."""
    revisions: tuple[RevisionHeld, ...] = ()
    """Which revision is where, the most common first; at most ``MAX_REVISIONS``."""
    other_revisions: int = 0
    """Clients with yet other ones."""
    refusals: tuple[RefusalShown, ...] = ()
    """The first few."""
    backups: int = 0
    protected: int = 0
    unprotected: int = 0
    unknown: int = 0
    without_objective: int = 0
    running: int = 0
    drifted: int = 0
    attention: tuple[Attention, ...] = ()
