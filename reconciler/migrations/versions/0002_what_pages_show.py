"""What the pages show: where options come from, what revisions changed, details of events, sizes day by day."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and tables; fill ``growth`` from what runs reported."""
    op.create_table(
        "contents",
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("archive", sa.String(length=128), nullable=False),
        sa.Column("start", sa.String(length=27), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("client", "backup", "repository", "archive", name=op.f("pk_contents")),
    )
    op.create_table(
        "definitions",
        sa.Column("backup", sa.String(length=64), nullable=False),
        sa.Column("retention", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("backup", name=op.f("pk_definitions")),
    )
    op.create_table(
        "growth",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("original_size", sa.BigInteger(), nullable=False),
        sa.Column("compressed_size", sa.BigInteger(), nullable=False),
        sa.Column("deduplicated_size", sa.BigInteger(), nullable=False),
        sa.Column("repository_size", sa.BigInteger(), nullable=False),
        sa.Column("archives", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "repository", "url", name=op.f("pk_growth")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_growth_repository_url_day", "growth", ["repository", "url", "day"], unique=False)
    op.create_index("ix_backups_next_due", "backups", ["next_due", "running", "suspended"], unique=False)
    op.create_index(
        "ix_backups_cron_time_zone_next_due",
        "backups",
        ["cron", "time_zone", "next_due", "suspended"],
        unique=False,
    )
    for column in ("client", "reason"):
        op.drop_index(f"ix_events_{column}", "events")
    for column in ("client", "reason", "actor"):
        op.create_index(f"ix_events_{column}", "events", [column, "at"], unique=False)
    op.drop_index("ix_evidence_repository_url", "evidence")
    op.create_index(
        "ix_evidence_repository_url",
        "evidence",
        ["repository", "url", "seen", "available", "newest", "archives", "repository_size", "encryption"],
        unique=False,
    )
    op.create_index(
        "ix_observed_heads",
        "observed",
        ["client", "digest", "refused", "stale", "expires", "connected", "drifted", "revision"],
        unique=False,
    )
    op.create_index("ix_archives_backup_repository_start", "archives", ["backup", "repository", "start"], unique=False)
    op.create_index("ix_runs_backup_outcome_started", "runs", ["backup", "outcome", "started"], unique=False)
    op.add_column("revisions", sa.Column("changes", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("issued", sa.Column("former_digest", sa.String(length=80), nullable=False, server_default=""))
    op.add_column("issued", sa.Column("former", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("events", sa.Column("detail", sa.Text(), nullable=False, server_default=""))
    _fill_growth(op.get_bind())


_SIZES = ("original_size", "compressed_size", "deduplicated_size", "repository_size")
_DAYS = 120
"""A million samples take about ten seconds, and the director waits for them once."""


def _fill_growth(connection: sa.Connection) -> None:
    """Count the last days from the samples up to each one's end; how many archives there were nobody knows: 0."""
    urls = {(one[0], one[1], one[2]): one[3] for one in connection.exec_driver_sql(_URLS)}
    newest = connection.exec_driver_sql("SELECT max(at) FROM samples").scalar()
    if newest is None:
        return
    since = (datetime.fromisoformat(newest) - timedelta(days=_DAYS)).date().isoformat()
    known: dict[tuple[str, str, str], tuple[int, ...]] = {}
    day = ""
    for client, backup, repository, at, *sizes in connection.exec_driver_sql(_SAMPLES, (since,)):
        if day and at[:10] != day:
            _keep_day(connection, day, known, urls)
        day = at[:10]
        known[client, backup, repository] = tuple(sizes)
    _keep_day(connection, day, known, urls)


_URLS = "SELECT client, backup, repository, url FROM evidence"
_SAMPLES = f"SELECT client, backup, repository, at, {', '.join(_SIZES)} FROM samples WHERE at >= ? ORDER BY at"  # noqa: S608
_KEEP = f"""
INSERT INTO growth (day, repository, url, {", ".join(_SIZES)}, archives) VALUES (?, ?, ?, ?, ?, ?, ?, 0)
"""  # noqa: S608


def _keep_day(
    connection: sa.Connection,
    day: str,
    known: dict[tuple[str, str, str], tuple[int, ...]],
    urls: dict[tuple[str, str, str], str],
) -> None:
    places: dict[tuple[str, str], list[int]] = {}
    for key, (original, compressed, deduplicated, whole) in known.items():
        if key not in urls:
            continue  # no longer declared, and at which url it was is not known any more
        sums = places.setdefault((key[2], urls[key]), [0, 0, 0, 0])
        sums[:3] = sums[0] + original, sums[1] + compressed, sums[2] + deduplicated
        sums[3] = max(sums[3], whole)
    totals: dict[tuple[str, str], list[int]] = {}
    for (repository, _), sums in places.items():
        for total in ((repository, ""), ("", "")):
            totals[total] = [one + other for one, other in zip(totals.get(total, [0, 0, 0, 0]), sums, strict=True)]
    rows = [(day, *place, *(min(size, _MOST) for size in sums)) for place, sums in (places | totals).items()]
    if rows:
        connection.exec_driver_sql(_KEEP, rows)


_MOST = 2**62
