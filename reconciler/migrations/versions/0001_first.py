"""The first schema of the store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "approvals",
        sa.Column("public_key", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_name", "approvals", ["name"], unique=False)
    op.create_table(
        "archives",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("start", sa.String(length=27), nullable=False),
        sa.Column("original_size", sa.BigInteger(), nullable=False),
        sa.Column("compressed_size", sa.BigInteger(), nullable=False),
        sa.Column("deduplicated_size", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client", "backup", "repository", "id", name=op.f("pk_archives")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_archives_backup_start", "archives", ["backup", "start"], unique=False)
    op.create_index("ix_archives_repository_start", "archives", ["repository", "start"], unique=False)
    op.create_index("ix_archives_start", "archives", ["start"], unique=False)
    op.create_table(
        "backups",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("rpo", sa.Integer(), nullable=True),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column("repositories", sa.JSON(), nullable=False),
        sa.Column("first_seen", sa.String(length=27), nullable=False),
        sa.Column("next_due", sa.String(length=27), nullable=True),
        sa.Column("running", sa.String(length=32), nullable=False),
        sa.Column("last_run", sa.String(length=32), nullable=False),
        sa.Column("last_outcome", sa.String(length=16), nullable=False),
        sa.Column("last_finished", sa.String(length=27), nullable=True),
        sa.Column("last_success", sa.String(length=27), nullable=True),
        sa.Column("newest_archive", sa.String(length=27), nullable=True),
        sa.Column("protected_until", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("client", "backup", name=op.f("pk_backups")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_backups_backup", "backups", ["backup"], unique=False)
    op.create_index(
        "ix_backups_protected_until",
        "backups",
        ["protected_until", "rpo", "suspended", "newest_archive", "running"],
        unique=False,
    )
    op.create_table(
        "clients",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.String(length=128), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_clients")),
    )
    op.create_table(
        "conditions",
        sa.Column("object", sa.String(length=160), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("last_transition_time", sa.String(length=27), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("object", "type", name=op.f("pk_conditions")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_at", "events", ["at"], unique=False)
    op.create_index("ix_events_client", "events", ["client"], unique=False)
    op.create_index("ix_events_reason", "events", ["reason"], unique=False)
    op.create_table(
        "evidence",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("declared", sa.String(length=27), nullable=False),
        sa.Column("seen", sa.String(length=27), nullable=True),
        sa.Column("available", sa.Boolean(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("repository_id", sa.String(length=128), nullable=False),
        sa.Column("encryption", sa.String(length=64), nullable=False),
        sa.Column("newest", sa.String(length=27), nullable=True),
        sa.Column("newest_archive", sa.Text(), nullable=False),
        sa.Column("archives", sa.BigInteger(), nullable=False),
        sa.Column("original_size", sa.BigInteger(), nullable=False),
        sa.Column("compressed_size", sa.BigInteger(), nullable=False),
        sa.Column("deduplicated_size", sa.BigInteger(), nullable=False),
        sa.Column("repository_size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client", "backup", "repository", name=op.f("pk_evidence")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_evidence_repository_url", "evidence", ["repository", "url"], unique=False)
    op.create_table(
        "issued",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("audience", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("issued", sa.String(length=27), nullable=False),
        sa.Column("expires", sa.String(length=27), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_issued")),
    )
    op.create_index(
        "ix_issued_heads", "issued", ["client", "generation", "digest", "revision", "expires"], unique=False
    )
    op.create_table(
        "lockouts",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("window_start", sa.String(length=27), nullable=False),
        sa.Column("locked_until", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_lockouts")),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "observed",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.String(length=128), nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("last_seen", sa.String(length=27), nullable=True),
        sa.Column("reported", sa.String(length=27), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.String(length=27), nullable=True),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.Column("drifted", sa.Integer(), nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_observed")),
    )
    op.create_table(
        "outboxes",
        sa.Column("public_key", sa.String(length=128), nullable=False),
        sa.Column("epoch", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("public_key", "epoch", name=op.f("pk_outboxes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pending",
        sa.Column("public_key", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("first_seen", sa.String(length=27), nullable=False),
        sa.Column("last_seen", sa.String(length=27), nullable=False),
        sa.Column("config_directory", sa.Text(), nullable=False),
        sa.Column("state_directory", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_pending")),
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("committed", sa.String(length=27), nullable=True),
        sa.Column("seen", sa.String(length=27), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("changed_clients", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint("revision", name=op.f("uq_revisions_revision")),
    )
    op.create_table(
        "revocations",
        sa.Column("public_key", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("revoked_by", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_revocations")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("trigger", sa.String(length=16), nullable=False),
        sa.Column("started", sa.String(length=27), nullable=False),
        sa.Column("finished", sa.String(length=27), nullable=True),
        sa.Column("due", sa.String(length=27), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("progress", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("statistics", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("log_lines", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index("ix_runs_backup_started", "runs", ["backup", "started"], unique=False)
    op.create_index("ix_runs_client_started", "runs", ["client", "started"], unique=False)
    op.create_index("ix_runs_outcome_started", "runs", ["outcome", "started"], unique=False)
    op.create_index("ix_runs_started", "runs", ["started"], unique=False)
    op.create_table(
        "samples",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("original_size", sa.BigInteger(), nullable=False),
        sa.Column("compressed_size", sa.BigInteger(), nullable=False),
        sa.Column("deduplicated_size", sa.BigInteger(), nullable=False),
        sa.Column("repository_size", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("client", "backup", "repository", "at", name=op.f("pk_samples")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_samples_at", "samples", ["at"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.Column("expires", sa.String(length=27), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    op.create_table(
        "run_logs",
        sa.Column("run", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_run_logs_run"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "number", name=op.f("pk_run_logs")),
        sqlite_with_rowid=False,
    )
