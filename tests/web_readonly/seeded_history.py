"""Of the seeded store: where options were written, what revisions changed, and four months of growing repositories."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from reconciler.core.issue import DefinitionRow
from reconciler.store.engine import open_engine
from schema.errors import ExcerptLine
from schema.status import ClientChange
from schema.tables import growth

if TYPE_CHECKING:
    from pathlib import Path

DAYS = 120
_SIZES = ("original_size", "compressed_size", "deduplicated_size", "repository_size", "archives")


def definition(backup: str) -> DefinitionRow:
    """What `seeded.CONFIGURATION` would have been written as."""
    profile, own = "profiles/standard.yaml", f"backups/{backup}.yaml"
    return DefinitionRow(
        backup=backup,
        retention={"keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6},
        options=(
            ("repositories", f"{own}:6"),
            ("repositories.0", "repositories/vault.yaml:1"),
            ("archive_name_format", ""),
            ("compression", f"{profile}:6"),
            ("keep_daily", f"{profile}:7"),
            ("keep_weekly", f"{profile}:8"),
            ("keep_monthly", f"{profile}:9"),
            ("source_directories", f"{own}:12"),
            ("source_directories.0", f"{own}:13"),
            ("source_directories.1", f"{own}:14"),
            ("source_directories.2", f"{own}:15"),
            ("mariadb_databases", f"{own}:16"),
            ("mariadb_databases.0", f"{own}:17"),
            ("mariadb_databases.0.name", f"{own}:17"),
            ("mariadb_databases.0.password", f"{own}:18"),
        ),
    )


def excerpt(first: int, *lines: str) -> tuple[ExcerptLine, ...]:
    return tuple(ExcerptLine(number=number, text=text) for number, text in enumerate(lines, first))


def changed(backup: str, *clients: str) -> tuple[ClientChange, ...]:
    return tuple(ClientChange(client=name, change="changed", changed=(backup,)) for name in clients)


def seed_growth(path: Path, *, now: datetime) -> None:
    """Four months up to now, a little less each day back; a cleanup thirty days ago made all of it smaller."""
    engine = open_engine(path)
    with engine.begin() as connection:
        today = connection.execute(select(growth).where(growth.c.day == f"{now:%Y-%m-%d}")).mappings().all()
        connection.execute(delete(growth).where(growth.c.day != f"{now:%Y-%m-%d}"))
        rows = []
        for back in range(1, DAYS):
            share = 1 - 0.004 * back + (0.11 if back > 30 else 0)
            sizes = [{name: int(row[name] * share) for name in _SIZES} for row in today]
            day = {"day": f"{now - timedelta(days=back):%Y-%m-%d}"}
            rows += [{**row, **smaller, **day} for row, smaller in zip(today, sizes, strict=True)]
        connection.execute(insert(growth), rows)
    engine.dispose()
