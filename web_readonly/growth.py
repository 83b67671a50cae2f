"""How one backup grows, from what each of its runs reported. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schema.status import Growth

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from schema.status import Sample


def by_day(samples: Iterable[Sample]) -> tuple[Growth, ...]:
    """Return the sizes at the end of each day with a run, summed over repositories; ``samples`` oldest first."""
    latest: dict[str, Sample] = {}
    days: dict[date, Growth] = {}
    for sample in samples:
        latest[sample.repository] = sample
        days[sample.at.date()] = Growth(
            day=sample.at.date(),
            original_size=sum(one.original_size for one in latest.values()),
            compressed_size=sum(one.compressed_size for one in latest.values()),
            deduplicated_size=sum(one.deduplicated_size for one in latest.values()),
            repository_size=sum(one.repository_size for one in latest.values()),
        )
    return tuple(days.values())
