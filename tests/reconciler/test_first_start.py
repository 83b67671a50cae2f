"""A first start that is killed before any step: the next one starts over or finishes, and nothing is left over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.steps import ROOT

PROGRAM = Path(__file__).parent / "programs/first_start.py"
ONE_BY_ONE = 10
"""So many steps at the begin make the lock and the key, and at the end the certificate; between is one migration."""
STRIDE = 20

Start = Callable[[Path, int], str]


@pytest.fixture
def start() -> Iterator[Start]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin, process.stdout

    def one(folder: Path, number: int) -> str:
        to.write(f"{folder} {number}\n")
        to.flush()
        return back.readline().strip()

    with closing(back), closing(to):
        yield one
        to.close()
        process.wait(30)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def kill_and_start(start: Start, folder: Path, number: int) -> bool:
    """Start, killed before that step, and start again; whether there was such a step."""
    killed = start(folder, number) == "killed"
    key = (folder / "identity").read_text() if (folder / "identity").exists() else None
    again = start(folder, 0)
    assert " " in again, f"killed before step {number}, it does not start any more"
    assert key in {None, (folder / "identity").read_text()}, "another key was made"
    assert files(folder) == ["identity", "lock", "store.sqlite", "tls.crt", "tls.key"]
    assert start(folder, 0) == again
    return killed


def test_a_first_start_that_was_killed_before_any_step_is_made_good_by_the_next(start, tmp_path):
    last = 1
    while start(tmp_path / f"count-{last}", last) == "killed":
        last += STRIDE
    while start(tmp_path / f"count-{last}", last) != "killed":
        last -= 1
    numbers = {*range(1, ONE_BY_ONE), *range(ONE_BY_ONE, last, STRIDE), *range(max(1, last - ONE_BY_ONE), last + 1)}
    assert sum(kill_and_start(start, tmp_path / str(number), number) for number in sorted(numbers)) > ONE_BY_ONE
