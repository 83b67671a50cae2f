"""``/metrics`` of a large fleet: what one scrape costs, and how long a page takes while it is made.

Real sockets at the real dashboard's process, which shows the first 10,000 of 20,000 backups one by one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import aiohttp

from tests.benchmarks import seed
from tests.benchmarks.processes import dashboard, split_cores, staying_on
from tests.benchmarks.rows import Options, Row
from web_readonly.metrics import KEPT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.benchmarks.processes import Program

SCRAPES: Final = 3
MOST: Final = 2_000.0
"""Milliseconds of a processor: three per cent of a core when it is scraped once a minute."""


def measure(options: Options) -> Iterable[Row]:
    """Return what a scrape costs, and what somebody who looks meanwhile notices."""
    size = {"clients": 250, "runs": 50_000} if options.quick else {"clients": 5_000, "runs": 1_000_000}
    kept = seed.cached(options.folder, **size)
    mine, others = split_cores()
    with ExitStack() as stack:
        stack.enter_context(staying_on(others))
        program, url = stack.enter_context(dashboard(kept, cores=mine))
        yield from asyncio.run(_scrape(program, url))


async def _scrape(program: Program, url: str) -> list[Row]:
    spent = waited = slowest = 0.0
    series = 0
    async with aiohttp.ClientSession() as session:
        await _get(session, f"{url}/livez")
        for _ in range(SCRAPES):
            before, started = program.cpu_seconds(), time.perf_counter()
            scraping = asyncio.create_task(_get(session, f"{url}/metrics"))
            while not scraping.done():
                asked = time.perf_counter()
                await _get(session, f"{url}/livez")
                slowest = max(slowest, time.perf_counter() - asked)
                await asyncio.sleep(0.02)
            text = await scraping
            waited += time.perf_counter() - started
            spent += program.cpu_seconds() - before
            series = sum(not line.startswith(b"#") for line in text.splitlines())
            # Until it is made anew.
            await asyncio.sleep(KEPT_SECONDS)
    note = f"{series:,} series"
    return [
        Row(what="metrics: one scrape, processor time", ours=spent / SCRAPES * 1_000, most=MOST, note=note),
        Row(what="metrics: one scrape", ours=waited / SCRAPES * 1_000, note=note),
        Row(what="metrics: the slowest other answer meanwhile", ours=slowest * 1_000),
    ]


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as response:
        return await response.read()
