"""The dashboard of 5,000 clients, 20,000 backups and a million runs: every page at 20 requests a second on one core.

A director writes meanwhile. Each row is the 99th percentile of one page over all its filters, held against 50 ms; the
floor is a bare server that answers the same bytes to the same requests.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tests.benchmarks import seed
from tests.benchmarks.load import ask, fetch, quantile, transferred
from tests.benchmarks.processes import dashboard, free_port, running, split_cores, staying_on, undisturbed, wait_for
from tests.benchmarks.rows import Options, Row
from tests.benchmarks.visits import one_of_each, plan, read_names
from web_readonly.views import API

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.benchmarks.load import Answered
    from tests.benchmarks.visits import Visit

RATE: Final = 20.0
LONGEST: Final = 50.0
"""Milliseconds that the 99th percentile of a page may take."""
FIRST_PAGE: Final = 60_000
"""Bytes, compressed, with all that the page loads."""
_FLOOR_SHARE: Final = 4
"""The floor gets every fourth request: it has little to tell."""
_LOADED: Final = re.compile(rb'(?:href|src)="(/static/[^"]+)"')


def measure(options: Options) -> Iterable[Row]:
    """Return the rows of all pages, of what they cost, and of the first page's size."""
    size = {"clients": 250, "runs": 50_000} if options.quick else {"clients": 5_000, "runs": 1_000_000}
    number = 400 if options.quick else 4_000
    kept = seed.cached(options.folder, **size)
    mine, others = split_cores()
    with TemporaryDirectory(dir=options.folder) as name, ExitStack() as stack:
        folder = Path(name)
        store = folder / "store.sqlite"
        shutil.copy(kept, store)
        stack.enter_context(staying_on(others))
        names = read_names(store)
        visits, every = plan(names, number=number), one_of_each(names)
        # It shares a core with the load, but does not go before everything else as that does.
        command = [sys.executable, "-m", "tests.benchmarks.writing", str(store)]
        writer = stack.enter_context(running(command, cores=others))
        alone = stack.enter_context(undisturbed())
        program, url = stack.enter_context(dashboard(store, cores=mine))
        again = visits[::_FLOOR_SHARE]
        bodies = asyncio.run(fetch(url, sorted({one.target for one in [*again, *every]})))
        first = asyncio.run(_first_page(url))
        before = program.cpu_seconds()
        answered = asyncio.run(ask(url, [one.target for one in visits], rate=RATE))
        cost = program.cpu_seconds() - before
        writer.check()
        peak = program.peak_bytes()
        floor = _floor(again, bodies, folder=folder, cores=mine)
    yield from _pages(visits, answered, floor)
    yield Row(what="pages: processor time of one request", ours=cost / number * 1_000)
    yield Row(
        what="pages: requests that failed", ours=len(answered.failed), unit="", most=0, note=_few(answered.failed)
    )
    yield Row(
        what="pages: how late the load itself was (p99)",
        ours=1_000 * quantile(answered.late, 0.99),
        note="" if alone else "other programs were in between: as root they would not be",
    )
    yield Row(what="pages: most memory of the dashboard", ours=peak / 2**20, unit="MiB", most=256)
    yield Row(what="pages: first page, compressed, with styles", ours=first / 1_000, unit="kB", most=FIRST_PAGE / 1_000)


def _pages(visits: Sequence[Visit], answered: Answered, floor: Mapping[str, float]) -> Iterator[Row]:
    by_view: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for visit, seconds in zip(visits, answered.seconds, strict=True):
        by_view[visit.view].append((seconds * 1_000, visit.query))
    for view, times in sorted(by_view.items(), key=lambda one: (one[0].startswith(API), one[0])):
        taken = [one for one, _ in times]
        slowest, query = max(times)
        yield Row(
            what=f"{view} (p99)",
            ours=quantile(taken, 0.99),
            floor=floor.get(view),
            most=LONGEST,
            note=f"p50 {quantile(taken, 0.5):.1f}, most {slowest:.1f} ms {query and '?' + query}",
        )


def _floor(visits: Sequence[Visit], bodies: Mapping[str, bytes], *, folder: Path, cores: set[int]) -> dict[str, float]:
    """Return the 99th percentile of the bare server for each view, in milliseconds."""
    index = {}
    for place, (target, body) in enumerate(bodies.items()):
        index[target] = f"{place}.body"
        (folder / f"{place}.body").write_bytes(body)
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    port = free_port()
    with running([sys.executable, "-m", "tests.benchmarks.bare", str(port), str(folder)], cores=cores) as program:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, program)
        answered = asyncio.run(ask(url, [one.target for one in visits], rate=RATE))
    times: dict[str, list[float]] = defaultdict(list)
    for visit, seconds in zip(visits, answered.seconds, strict=True):
        times[visit.view].append(seconds * 1_000)
    return {view: quantile(taken, 0.99) for view, taken in times.items()}


async def _first_page(url: str) -> int:
    size, body = await transferred(url, "/")
    loaded = sorted({name.decode() for name in _LOADED.findall(body)})
    return size + sum([(await transferred(url, target))[0] for target in loaded])


def _few(failed: Sequence[str]) -> str:
    return "; ".join(failed[:3])
