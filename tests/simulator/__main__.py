"""``make simulate``: as many seeds as one likes, on all processors, or days of life."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.simulator.days import simulate_days
from tests.simulator.simulation import Outcome, simulate

_SHOW_SECONDS = 10.0


def main() -> int:
    """Simulate; 1 when something that must be true was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--days", type=int, default=0, help="live for so many days instead, with one seed")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument(
        "--timeline", action="store_true", help="print all that happened in the first seed, and no more"
    )
    given = parser.parse_args()
    if given.days:
        return _end([simulate_days(given.days, seed=given.start, show=_say)])
    if given.timeline:
        outcome = simulate(given.start)
        _say("\n".join(outcome.timeline))
        return _end([outcome])
    return _end(_all(range(given.start, given.start + given.seeds), workers=given.workers))


def _all(seeds: range, *, workers: int) -> list[Outcome]:
    failed: list[Outcome] = []
    begun = shown = time.monotonic()
    numbers = Outcome(0)
    for count, outcome in enumerate(_outcomes(seeds, workers), start=1):
        for name in ("steps", "executions", "deaths", "dials", "seconds"):
            setattr(numbers, name, getattr(numbers, name) + getattr(outcome, name))
        if not outcome.ok:
            failed.append(outcome)
            _say(outcome.report())
        if time.monotonic() - shown > _SHOW_SECONDS or count == len(seeds):
            shown = time.monotonic()
            rate = count / (shown - begun)
            _say(f"{count} of {len(seeds)} seeds, {rate:.1f} a second, {len(failed)} failed")
    _say(
        f"{numbers.seconds / 86_400:.1f} days of virtual time, {numbers.steps} steps, {numbers.executions} backups,"
        f" {numbers.deaths} deaths, {numbers.dials} connections"
    )
    return failed


def _outcomes(seeds: range, workers: int) -> Iterator[Outcome]:
    if workers < 2:
        yield from map(simulate, seeds)
        return
    with multiprocessing.Pool(workers, maxtasksperchild=20) as pool:
        yield from pool.imap_unordered(simulate, seeds, chunksize=4)


def _end(outcomes: list[Outcome]) -> int:
    failed = [outcome for outcome in outcomes if not outcome.ok]
    for outcome in failed[:1] if len(outcomes) == 1 else ():
        _say(outcome.report())
    if failed:
        _say(f"failed: {' '.join(str(outcome.seed) for outcome in failed)}")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
