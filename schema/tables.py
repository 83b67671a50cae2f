"""The store's tables (SQLAlchemy Core), the same on SQLite and PostgreSQL.

Written by ``reconciler.store``, read by ``web_readonly.reader``; migrations live in ``reconciler/migrations``.

Only what was observed or issued is kept here: losing all of it loses no backup. Tables named for current state hold
one row per object and are overwritten; ``revisions``, ``runs``, ``run_logs``, ``samples``, ``growth`` and ``events``
are history and are trimmed by age. Times are UTC in ISO 8601 with microseconds (text sorts as time, and both engines
agree).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Dialect

SCHEMA_VERSION = "0003"
"""The newest migration: what the store migrates to, and the only one that the reader understands."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

_MOMENT_LENGTH, _WHOLE_LENGTH = 27, 20
"""Of ``2026-11-23T18:00:00.000000Z``, and without the microseconds; with another offset than ``Z`` it is longer."""

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite autoincrements only INTEGER keys, which hold 64 bits there anyway."""


def moment_text(value: datetime) -> str:
    """Return an aware datetime as ``2026-11-23T18:00:00.000000Z``: of one length, so that text sorts as time."""
    utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:26] + "Z"


def moment_texts(values: Iterable[datetime]) -> list[str]:
    """Return ``moment_text`` of each, for log lines: thousands a second, in a fifth of the time."""
    values = tuple(values)
    texts: list[str] = from_json(to_json(values))
    return [
        text
        if len(text) == _MOMENT_LENGTH
        else f"{text[:19]}.000000Z"
        if len(text) == _WHOLE_LENGTH
        else moment_text(value)
        for text, value in zip(texts, values, strict=True)
    ]


class UtcText(TypeDecorator[datetime]):
    """An aware datetime, stored as sortable text."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Datetime → text."""
        return None if value is None else moment_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Text → datetime."""
        return None if value is None else datetime.fromisoformat(value)


meta = Table("meta", metadata, Column("key", String(64), primary_key=True), Column("value", JSON, nullable=False))
"""Single values: ``source`` (SourceStatus without conditions), ``director`` (started, version), ``suspended``
(object → who), ``acknowledged`` (revisions), ``trimmed`` (up to which start the log lines of runs are gone)."""

# --- Source -----------------------------------------------------------------------------------------------------------

revisions = Table(
    "revisions",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("revision", String(64), nullable=False, unique=True),
    Column("author", Text, nullable=False, default=""),
    Column("subject", Text, nullable=False, default=""),
    Column("committed", UtcText),
    Column("seen", UtcText, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(64), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("changed_clients", Integer, nullable=False, default=0),
    Column("summary", Text, nullable=False, default=""),
    Column("problems", JSON, nullable=False),  # schema.errors.Problem, with excerpts of the files
    Column("changes", JSON, nullable=False, default=list),  # schema.status.ClientChange; last, lists need not read it
)

conditions = Table(
    "conditions",
    metadata,
    Column("object", String(160), primary_key=True),  # "source", "client/NAME", "backup/CLIENT/NAME"
    Column("type", String(16), primary_key=True),
    Column("status", String(8), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("last_transition_time", UtcText, nullable=False),
    Column("observed_generation", BigInteger, nullable=False, default=0),
    sqlite_with_rowid=False,
)

# --- Trust ------------------------------------------------------------------------------------------------------------

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("note", Text, nullable=False, default=""),
    Column("created", UtcText, nullable=False),
    Column("expires", UtcText, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
)

pending = Table(
    "pending",
    metadata,
    Column("public_key", String(128), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("address", String(64), nullable=False, default=""),
    Column("first_seen", UtcText, nullable=False),
    Column("last_seen", UtcText, nullable=False),
    Column("config_directory", Text, nullable=False, default=""),
    Column("state_directory", Text, nullable=False, default=""),
)

approvals = Table(
    "approvals",
    metadata,
    Column("public_key", String(128), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("at", UtcText, nullable=False),
    Index("ix_approvals_name", "name"),
)
"""Approvals by command; those by commit stand in Git and are never copied here."""

revocations = Table(
    "revocations",
    metadata,
    Column("public_key", String(128), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("revoked_by", Text, nullable=False),
    Column("at", UtcText, nullable=False),
)
"""A revoked key stays out, also when it stands in Git."""

lockouts = Table(
    "lockouts",
    metadata,
    Column("address", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("window_start", UtcText, nullable=False),
    Column("locked_until", UtcText),
)

# --- Clients and backups: current state -------------------------------------------------------------------------------

clients = Table(
    "clients",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("public_key", String(128), nullable=False, default=""),
    Column("labels", JSON, nullable=False),
    Column("origin", Text, nullable=False, default=""),
    Column("suspended", Boolean, nullable=False, default=False),
)
"""The clients of the published revision."""

issued = Table(
    "issued",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("audience", String(128), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("digest", String(80), nullable=False),
    Column("revision", String(64), nullable=False),
    Column("issued", UtcText, nullable=False),
    Column("expires", UtcText, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("content", JSON, nullable=False),  # schema.desired.Content, for the pages and for diffs
    # The content that the client had applied when this one was issued: what a page compares it with until it follows.
    Column("former_digest", String(80), nullable=False, default=""),
    Column("former", JSON(none_as_null=True)),
    # What is asked of every client at once: without it, each would cost a walk past its envelope.
    Index("ix_issued_heads", "client", "generation", "digest", "revision", "expires"),
)
"""The newest signed desired state of each client."""

observed = Table(
    "observed",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("public_key", String(128), nullable=False, default=""),
    Column("connected", Boolean, nullable=False, default=False),
    Column("address", String(64), nullable=False, default=""),
    Column("last_seen", UtcText),
    Column("reported", UtcText),
    Column("generation", BigInteger, nullable=False, default=0),
    Column("digest", String(80), nullable=False, default=""),
    Column("revision", String(64), nullable=False, default=""),
    Column("expires", UtcText),
    Column("stale", Boolean, nullable=False, default=False),
    Column("refused", BigInteger, nullable=False, default=0),  # the generation it refuses; 0: none
    Column("drifted", Integer, nullable=False, default=0),  # differences that are not healed
    Column(
        "state", JSON(none_as_null=True)
    ),  # schema.observed.StateReport; the last column, so that lists need not read past it
    # What is asked of every client at once, as in ``issued``; without ``last_seen``, which changes all the time.
    Index("ix_observed_heads", "client", "digest", "refused", "stale", "expires", "connected", "drifted", "revision"),
)

outboxes = Table(
    "outboxes",
    metadata,
    Column("public_key", String(128), primary_key=True),
    Column("epoch", String(32), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("at", UtcText, nullable=False),
    Column("mark", String(128), nullable=False, default="", server_default=""),
    sqlite_with_rowid=False,
)
"""How far each client's outbox is stored: what makes reports exactly-once. ``mark`` tells the report of that number."""

backups = Table(
    "backups",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("backup", String(64), primary_key=True),
    Column("origin", Text, nullable=False, default=""),
    Column("cron", Text, nullable=False, default=""),
    Column("time_zone", String(64), nullable=False, default=""),
    Column("rpo", Integer),
    Column("suspended", Boolean, nullable=False, default=False),
    Column("repositories", JSON, nullable=False),  # [{name, url, encryption}]
    Column("first_seen", UtcText, nullable=False),
    Column("next_due", UtcText),
    Column("running", String(32), nullable=False, default=""),
    Column("last_run", String(32), nullable=False, default=""),
    Column("last_outcome", String(16), nullable=False, default=""),
    Column("last_finished", UtcText),
    Column("last_success", UtcText),
    # The oldest, over all repositories, of each one's newest archive: what the objective is held against.
    Column("newest_archive", UtcText),
    # Until when the objective holds in every repository: its newest archive (before the first: declared) + rpo.
    Column("protected_until", UtcText),
    Index("ix_backups_backup", "backup"),
    # All that is asked of every backup at once: the pages count from this index alone.
    Index("ix_backups_protected_until", "protected_until", "rpo", "suspended", "newest_archive", "running"),
    # What starts next, over all clients; and how many start when, of each schedule.
    Index("ix_backups_next_due", "next_due", "running", "suspended"),
    Index("ix_backups_cron_time_zone_next_due", "cron", "time_zone", "next_due", "suspended"),
    sqlite_with_rowid=False,
)
"""The backups of the published revision, with what pages ask for."""

definitions = Table(
    "definitions",
    metadata,
    Column("backup", String(64), primary_key=True),
    Column("retention", JSON, nullable=False, default=dict),  # {"keep_daily": 7, …} of the effective configuration
    Column("options", JSON, nullable=False, default=list),  # [[option path, "file:line"], …]; last: lists skip it
)
"""What is the same on every client that runs a backup: a line that moves changes one row, not one for each client.

In no digest and in no envelope: where an option was written is no reason to send a machine anything."""

evidence = Table(
    "evidence",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("backup", String(64), primary_key=True),
    Column("repository", String(64), primary_key=True),
    Column("url", Text, nullable=False, default=""),
    Column("declared", UtcText, nullable=False),  # since when the backup names it: the first archive has one objective
    Column("seen", UtcText),
    Column("available", Boolean),
    Column("message", Text, nullable=False, default=""),
    Column("repository_id", String(128), nullable=False, default=""),
    Column("encryption", String(64), nullable=False, default=""),
    Column("newest", UtcText),
    Column("newest_archive", Text, nullable=False, default=""),
    Column("archives", BigInteger, nullable=False, default=0),
    Column("original_size", BigInteger, nullable=False, default=0),
    Column("compressed_size", BigInteger, nullable=False, default=0),
    Column("deduplicated_size", BigInteger, nullable=False, default=0),
    Column("repository_size", BigInteger, nullable=False, default=0),
    # Repositories are listed from this index alone, however many backups share one.
    Index(
        "ix_evidence_repository_url",
        *("repository", "url", "seen", "available", "newest", "archives", "repository_size", "encryption"),
    ),
    sqlite_with_rowid=False,
)
"""One row for each repository that a published backup declares. The sizes are of the newest archive, but
``repository_size`` is of everything in it."""

archives = Table(
    "archives",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("backup", String(64), primary_key=True),
    Column("repository", String(64), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("name", Text, nullable=False),
    Column("start", UtcText, nullable=False),
    Column("original_size", BigInteger, nullable=False, default=0),
    Column("compressed_size", BigInteger, nullable=False, default=0),
    Column("deduplicated_size", BigInteger, nullable=False, default=0),
    Column("files", BigInteger, nullable=False, default=0),
    Index("ix_archives_start", "start"),
    Index("ix_archives_backup_start", "backup", "start"),
    Index("ix_archives_repository_start", "repository", "start"),
    # Of many archives of a backup few, or none, may be in one repository.
    Index("ix_archives_backup_repository_start", "backup", "repository", "start"),
    sqlite_with_rowid=False,
)

contents = Table(
    "contents",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("backup", String(64), primary_key=True),
    Column("repository", String(64), primary_key=True),
    Column("archive", String(128), primary_key=True),  # its id
    Column("start", UtcText, nullable=False),  # of the archive: the newest few are kept
    Column("report", LargeBinary, nullable=False),  # schema.observed.ArchiveContents as JSON, compressed by zlib
)
"""What is in the newest archives of each backup and repository, in short; gone when the archive is."""

# --- History ----------------------------------------------------------------------------------------------------------

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("client", String(64), nullable=False),
    Column("backup", String(64), nullable=False),
    Column("trigger", String(16), nullable=False),
    Column("started", UtcText, nullable=False),
    Column("finished", UtcText),
    Column("due", UtcText),
    Column("outcome", String(16)),
    Column("exit_code", Integer),
    Column("error", Text, nullable=False, default=""),
    Column("hint", Text, nullable=False, default=""),
    Column("revision", String(64), nullable=False, default=""),
    Column("progress", JSON(none_as_null=True)),
    Column("statistics", JSON(none_as_null=True)),
    Column("log_lines", Integer, nullable=False, default=0),
    Index("ix_runs_started", "started"),
    Index("ix_runs_client_started", "client", "started"),
    Index("ix_runs_backup_started", "backup", "started"),
    Index("ix_runs_outcome_started", "outcome", "started"),
    # Of many runs of a backup few, or none, may have ended like that.
    Index("ix_runs_backup_outcome_started", "backup", "outcome", "started"),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", UtcText, nullable=False),
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
    sqlite_with_rowid=False,
)

samples = Table(
    "samples",
    metadata,
    Column("client", String(64), primary_key=True),
    Column("backup", String(64), primary_key=True),
    Column("repository", String(64), primary_key=True),
    Column("at", UtcText, primary_key=True),
    Column("original_size", BigInteger, nullable=False, default=0),
    Column("compressed_size", BigInteger, nullable=False, default=0),
    Column("deduplicated_size", BigInteger, nullable=False, default=0),
    Column("repository_size", BigInteger, nullable=False, default=0),
    Column("duration", Float, nullable=False, default=0.0),
    Index("ix_samples_at", "at"),
    sqlite_with_rowid=False,
)
"""One point per run and repository: how sizes grow."""

growth = Table(
    "growth",
    metadata,
    Column("day", String(10), primary_key=True),  # of the director's clock, in UTC
    Column("repository", String(64), primary_key=True),
    Column("url", Text, primary_key=True),
    Column("original_size", BigInteger, nullable=False, default=0),
    Column("compressed_size", BigInteger, nullable=False, default=0),
    Column("deduplicated_size", BigInteger, nullable=False, default=0),
    Column("repository_size", BigInteger, nullable=False, default=0),
    Column("archives", BigInteger, nullable=False, default=0),
    Index("ix_growth_repository_url_day", "repository", "url", "day"),
    sqlite_with_rowid=False,
)
"""How large each Borg repository was on each day, as it was last known on that day: ``evidence``, summed by url.

Rows without a url are the sum over all urls of that repository, the row without a repository is the sum over all: pages
read one range of days, however many repositories there are."""

events = Table(
    "events",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("at", UtcText, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("actor", Text, nullable=False, default=""),
    Column("client", String(64), nullable=False, default=""),
    Column("backup", String(64), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),  # a diff, or the like, to be unfolded
    Index("ix_events_at", "at"),
    # What happened last is asked for first, of all and of each: an index gives it in order.
    Index("ix_events_client", "client", "at"),
    Index("ix_events_reason", "reason", "at"),
    Index("ix_events_actor", "actor", "at"),
)
