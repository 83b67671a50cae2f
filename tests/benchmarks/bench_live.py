"""Open pages: what two hundred streams cost while nothing happens, and what one write costs when all ask again.

Real sockets at the real dashboard's process. The first row is the issue's bound: under 5 % of a core when idle.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import aiohttp

from reconciler.store import Store
from schema.status import SourceStatus
from tests.benchmarks import seed
from tests.benchmarks.processes import dashboard, split_cores, staying_on
from tests.benchmarks.rows import Options, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.benchmarks.processes import Program

VIEWERS: Final = 200
MOST: Final = 5.0
"""Per cent of a core."""
ROUNDS: Final = 20
TOLD: Final = 5
"""Writes that are only told of: each takes as long as the next look at the store."""
HEARTBEATS: Final = 21.0
"""Seconds in which every stream has its heartbeat."""


def measure(options: Options) -> Iterable[Row]:
    """Return what streams cost while idle and while written to, and what it costs when all pages renew themselves."""
    kept = seed.cached(options.folder, clients=250, runs=50_000)
    mine, others = split_cores()
    with TemporaryDirectory(dir=options.folder) as name, ExitStack() as stack:
        store = Path(name) / "store.sqlite"
        shutil.copy(kept, store)
        stack.enter_context(staying_on(others))
        program, url = stack.enter_context(dashboard(store, cores=mine))
        yield from asyncio.run(_watch(program, url, store, seconds=5.0 if options.quick else HEARTBEATS))


async def _watch(program: Program, url: str, path: Path, *, seconds: float) -> list[Row]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        director = await stack.enter_async_context(await Store.open(path))
        await _asked(program, session, [f"{url}/backups"])
        await _idle(program, 1.0)  # What is left of its start.
        alone = await _idle(program, seconds / 2)
        streams = [await stack.enter_async_context(session.get(f"{url}/live")) for _ in range(VIEWERS)]
        await _told(streams)
        idle = await _idle(program, seconds)
        rows = [Row(what=f"live: {VIEWERS} idle viewers", ours=idle, unit="% of a core", most=MOST)]
        rows.append(Row(what="live: nobody watches", ours=alone, unit="% of a core"))
        before, waited = program.cpu_seconds(), 0.0
        for number in range(TOLD):
            await _write(director, number)
            started = time.perf_counter()
            await _told(streams)
            waited += time.perf_counter() - started
        spent = program.cpu_seconds() - before
        rows.append(Row(what=f"live: to tell {VIEWERS} viewers of a write, processor time", ours=spent / TOLD * 1_000))
        rows.append(Row(what=f"live: from a write until {VIEWERS} are told", ours=waited / TOLD * 1_000, most=2_000))
        one = await _renewal(program, session, url, director=director, viewers=1)
        many = await _renewal(program, session, url, director=director, viewers=VIEWERS)
        floor = await _asked(program, session, [f"{url}/livez"] * VIEWERS * ROUNDS) / ROUNDS
        rows.append(Row(what="live: one viewer's page after a write, processor time", ours=one))
        rows.append(Row(what=f"live: {VIEWERS} viewers' page after a write, the same", ours=many, floor=floor))
        return rows


async def _idle(program: Program, seconds: float) -> float:
    before = program.cpu_seconds()
    await asyncio.sleep(seconds)
    return 100 * (program.cpu_seconds() - before) / seconds


async def _told(streams: Sequence[aiohttp.ClientResponse]) -> None:
    """Read one event of each stream."""
    for stream in streams:
        async for line in stream.content:
            if line.startswith(b"data:"):
                break


async def _write(director: Store, number: int) -> None:
    await director.set_source(SourceStatus(url="https://git.example/backups.git", branch=f"branch-{number}"))


async def _renewal(
    program: Program, session: aiohttp.ClientSession, url: str, *, director: Store, viewers: int
) -> float:
    """Return milliseconds of processor time for a page that ``viewers`` ask for after each write."""
    spent = 0.0
    for number in range(ROUNDS):
        await _write(director, 100 * viewers + number)
        spent += await _asked(program, session, [f"{url}/backups"] * viewers)
    return spent / ROUNDS


async def _asked(program: Program, session: aiohttp.ClientSession, urls: Sequence[str]) -> float:
    """Return milliseconds of processor time, with twenty requests under way at any moment."""
    waiting = list(urls)

    async def viewer() -> None:
        while waiting:
            async with session.get(waiting.pop()) as response:
                response.raise_for_status()
                await response.read()

    before = program.cpu_seconds()
    await asyncio.gather(*(viewer() for _ in range(20)))
    return 1_000 * (program.cpu_seconds() - before)
