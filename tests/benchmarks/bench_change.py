"""One changed file of thousands: from the fetched commit to the signed desired state in the store, ready to be sent.

The real loop with real Git and a real store; only whoever would carry the state to the client is a note of the time.
The floor is what ``bench_build`` measures: the same backups loaded, validated, expanded, rendered and digested from
nothing, without Git, store and signatures.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import structlog

from reconciler import borgmatic_schema, garbage
from reconciler.clock import SystemClock
from reconciler.core.build import build
from reconciler.loop import LoopSettings, Reconciler
from reconciler.source import Source, SourceSettings
from reconciler.store import Store
from schema.envelope import DirectorIdentity
from tests.benchmarks import backups_source
from tests.benchmarks.backups_repository import BackupsRepository
from tests.benchmarks.rows import Options, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.issue import Issued

ROUNDS: Final = 9
"""Of each size, in turns; the median counts."""


class Carrier:
    """The gateway's place: every client is approved by its commit; what is to be sent is only noted."""

    def __init__(self) -> None:
        self._keys: Mapping[str, str] = {}
        self.told = 0.0
        self.clients: list[str] = []

    def audience(self, client: str) -> str | None:
        """Return the approved key."""
        return self._keys.get(client)

    def set_source_clients(self, keys: Mapping[str, str]) -> None:
        """Approve."""
        self._keys = keys

    async def publish(self, issued: Iterable[Issued]) -> None:
        """Note when clients could be sent what is in the store."""
        self.told, self.clients = time.perf_counter(), [one.client for one in issued]


class TimedSource(Source):
    """Notes when the commit was fetched."""

    fetched = 0.0

    async def fetch(self) -> str:
        """Fetch."""
        revision = await super().fetch()
        self.fetched = time.perf_counter()
        return revision


class Director:
    """A loop around one repository."""

    def __init__(self, folder: Path, store: Store, *, backups: int) -> None:
        self.repository = BackupsRepository(folder / "source.git", backups=backups)
        self._source = TimedSource(SourceSettings(url=self.repository.url), state_directory=folder / "state")
        self._carrier = Carrier()
        self._store = store
        self._changed = 0

    async def start(self) -> None:
        """Make the first pass."""
        self._loop = Reconciler(
            source=self._source,
            records=self._store,
            gateway=self._carrier,
            identity=DirectorIdentity.generate(),
            borgmatic_schema=borgmatic_schema.load(),
            clock=SystemClock(),
            settings=LoopSettings(),
            remembered=await self._store.source(),
            issued={},
        )
        await self._pass()

    async def change(self) -> float:
        """Commit a change of one backup and return the seconds until it can be sent."""
        self._changed += 1
        self.repository.change(self._changed * 37 % self.repository.backups, level=4 + self._changed)
        seconds = await self._pass()
        assert len(self._carrier.clients) == 1, self._carrier.clients
        return seconds

    async def _pass(self) -> float:
        result = await self._loop.reconcile()
        assert result.outcome == "published", result
        return self._carrier.told - self._source.fetched


def measure(options: Options) -> Iterable[Row]:
    """Return what one changed file costs of 10,000, beside the cold time, and of 1,000 beside 20,000."""
    garbage.look_seldom()
    sizes = (100, 1_000, 2_000) if options.quick else (1_000, 10_000, 20_000)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        yield from asyncio.run(_measure(folder, sizes))


async def _measure(folder: Path, sizes: tuple[int, int, int]) -> list[Row]:
    few, usual, many = sizes
    cold = _cold(usual)
    took: dict[int, list[float]] = {size: [] for size in sizes}
    directors: dict[int, Director] = {}
    stores: list[Store] = []
    try:
        for size in sizes:
            (folder / str(size)).mkdir()
            stores.append(await Store.open(folder / str(size) / "store.sqlite"))
            directors[size] = Director(folder / str(size), stores[-1], backups=size)
            await directors[size].start()
        for _ in range(ROUNDS + 1):
            for size, director in directors.items():
                took[size].append(await director.change())
    finally:
        for store in stores:
            await store.close()
    middle = {size: 1_000 * statistics.median(times[1:]) for size, times in took.items()}
    return [
        Row(
            what=f"change: one file of {usual:,} backups, fetched to signed, against all of them cold",
            ours=middle[usual],
            floor=cold,
            most_ratio=0.01,
        ),
        Row(
            what=f"change: one file of {many:,} backups against one of {few:,}",
            ours=middle[many],
            floor=middle[few],
            most_ratio=2.0,
        ),
    ]


def _cold(backups: int) -> float:
    """Return the milliseconds of one build from nothing, the best of two."""
    files, schema = backups_source.files(backups), borgmatic_schema.load()
    best = float("inf")
    for _ in range(2):
        gc.collect()
        started = time.perf_counter()
        with garbage.left_alone():
            assert build(files, borgmatic_schema=schema).ok
        best = min(best, 1_000 * (time.perf_counter() - started))
    return best
