"""How large repositories are, counted anew from the evidence and kept by day: the newest count of a day stands.

Counting all is one statement over current state (a few hundredths of a second for 25,000 rows), done at most once a
minute and only when a report may have changed sizes. So no count goes wrong for good, whatever is undeclared or lost.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

_SIZES: Final = ("original_size", "compressed_size", "deduplicated_size", "repository_size", "archives")
_MOST: Final = 2**62


def _sum(name: str) -> str:
    # What clients say may be near the largest number there is, and a sum of integers would then fail.
    return f"CAST(min(total({name}), {_MOST}) AS INTEGER)"


_SUMS: Final = ", ".join(_sum(name) for name in _SIZES)
_OF_PLACE: Final = ", ".join(
    f"{'max(repository_size)' if name == 'repository_size' else _sum(name)} AS {name}" for name in _SIZES
)
_COUNT: Final = f"""
WITH places AS (SELECT repository, url, {_OF_PLACE} FROM evidence GROUP BY repository, url)
INSERT INTO growth (day, repository, url, {", ".join(_SIZES)})
SELECT :day, repository, url, {", ".join(_SIZES)} FROM places
UNION ALL SELECT :day, repository, '', {_SUMS} FROM places GROUP BY repository
UNION ALL SELECT :day, '', '', {_SUMS} FROM places WHERE true
ON CONFLICT (day, repository, url) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _SIZES)}
WHERE ({", ".join(_SIZES)}) <> ({", ".join(f"excluded.{name}" for name in _SIZES)})
"""  # noqa: S608 - made of the names above


def count(connection: Connection, *, at: datetime) -> None:
    """Keep the sizes of every repository, of all at one name, and of all, as they are on the day of ``at``."""
    connection.exec_driver_sql(_COUNT, {"day": at.astimezone(UTC).date().isoformat()})
