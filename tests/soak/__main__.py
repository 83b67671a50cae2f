"""``make soak MINUTES=20 CLIENTS=500``: a real director and real clients, asked, pushed to and disturbed all the time.

Every half minute a line: memory, open files, threads, tasks and sizes on disk of the director and of the process that
holds all the clients. Exits 1 when something grew, broke, or was not delivered at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp

from tests.e2e.fleet import until
from tests.soak import measures
from tests.soak.fleet import SoakFleet
from tests.soak.measures import Moment

VISITORS: Final = 3
VIEWERS: Final = 5
VISIT_SECONDS: Final = 1.0
VIEW_SECONDS: Final = 45.0
PUSH_SECONDS: Final = 45.0
EVERYTHING: Final = 5
"""Every so many pushes, one changes every backup."""
SETTLE_SECONDS: Final = 300.0
LINES: Final = 40
_LINK: Final = re.compile(r'href="(/[^"#]*)"')


def main(arguments: Sequence[str] | None = None) -> int:
    """Return what the program exits with."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--real", type=int, default=2, help="how many of them run the real borgmatic and Borg")
    parser.add_argument("--folder", type=Path, help="where everything is kept; without it, nothing is")
    asked = parser.parse_args(arguments)
    with TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_soak(folder, minutes=asked.minutes, clients=asked.clients, real=asked.real))


async def _soak(folder: Path, *, minutes: float, clients: int, real: int) -> int:
    with SoakFleet(folder) as fleet:
        began = time.monotonic()
        fleet.begin(clients=clients, real=real)
        _tell(f"{clients} clients are enrolled and approved after {time.monotonic() - began:.0f} s")
        try:
            await asyncio.to_thread(until, "all follow", fleet.all_follow, seconds=SETTLE_SECONDS)
            _tell(f"all follow after {time.monotonic() - began:.0f} s\n{measures.HEAD}")
            await asyncio.to_thread(until, "a census", fleet.all_counted, seconds=SETTLE_SECONDS)
            moments = await _watch(fleet, seconds=minutes * 60)
            wrong = [str(trend) for trend in measures.trends(moments) if not trend.is_flat]
            for trend in measures.trends(moments):
                _tell(str(trend))
            wrong += measures.too_long(moments, clients=clients)
            await asyncio.to_thread(until, "all follow the newest", fleet.all_follow, seconds=SETTLE_SECONDS)
            wrong += fleet.end()
        except AssertionError as error:
            wrong = [str(error)]
        for name in ("director", "clients"):
            _tell("\n".join(f"{name}: {text}" for text in fleet.complaints(name)[-LINES:]))
    for text in wrong:
        _tell(f"WRONG: {text}")
    return 1 if wrong else 0


async def _watch(fleet: SoakFleet, *, seconds: float) -> list[Moment]:
    """Disturb the fleet and measure it."""
    moments: list[Moment] = []
    every = min(30.0, seconds / 12)
    began = time.monotonic()
    async with aiohttp.ClientSession(fleet.dashboard, connector=aiohttp.TCPConnector(limit=0)) as session:
        disturbing = [
            *(asyncio.create_task(_visit(session, Random(number))) for number in range(VISITORS)),
            *(asyncio.create_task(_view(session)) for _ in range(VIEWERS)),
            asyncio.create_task(_push(fleet)),
        ]
        while (passed := time.monotonic() - began) < seconds:
            await asyncio.sleep(min(every, seconds - passed))
            moment = await asyncio.to_thread(fleet.measure, time.monotonic() - began)
            moments.append(moment)
            _tell(measures.line(moment))
            for task in disturbing:
                if task.done():
                    task.result()
        for task in disturbing:
            task.cancel()
        await asyncio.gather(*disturbing, return_exceptions=True)
    return moments


async def _visit(session: aiohttp.ClientSession, random: Random) -> None:
    """Follow links at random."""
    path = "/"
    while True:
        async with session.get(path) as answer:
            text = await answer.text(errors="replace")
            # What a link of a former page leads to may be gone by now.
            assert answer.status < 500, f"{path}: {answer.status}"
        links = _LINK.findall(text)
        path = random.choice(links).replace("&amp;", "&") if links and random.random() < 0.9 else "/"
        await asyncio.sleep(VISIT_SECONDS)


async def _view(session: aiohttp.ClientSession) -> None:
    """Keep a page open, and come back again and again."""
    while True:
        try:
            async with asyncio.timeout(VIEW_SECONDS), session.get("/live") as stream:
                async for _ in stream.content:
                    pass
        except TimeoutError:
            continue


async def _push(fleet: SoakFleet) -> None:
    """Push a change of one backup; now and then of all."""
    number = 0
    while True:
        await asyncio.sleep(PUSH_SECONDS)
        number += 1
        await asyncio.to_thread(fleet.change, number, everything=number % EVERYTHING == 0)


def _tell(text: str) -> None:
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
