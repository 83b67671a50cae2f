"""No promise is broken by what fuzzing has kept, nor by a few thousand fresh changes to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import corpus, mutation, targets
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
_CHEAP = [one for one in targets.load().values() if not one.name.startswith(("http-", "git-", "build"))]
"""Targets that need neither a server nor a program, thousands of inputs a second."""


def test_everything_that_was_kept_keeps_its_promise_and_no_input_ends_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.replay"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, f"{done.stdout[-6_000:]}\n{done.stderr[-3_000:]}"
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == list(targets.load())


def test_every_target_says_what_it_promises_and_starts_somewhere():
    for target in targets.load().values():
        assert target.promise
        assert target.seeds()
        assert all(len(seed) <= target.most for seed in target.seeds()), target.name


def test_the_kept_inputs_are_few_and_belong_to_a_target():
    kept = [path for path in corpus.FOLDER.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in kept) < 2 * 1024 * 1024
    assert {path.parent.name for path in kept} <= set(targets.load())


@pytest.mark.parametrize("target", _CHEAP, ids=lambda one: one.name)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 2**32), times=st.integers(1, 8))
def test_changed_inputs_keep_the_promise(target: Target, number: int, times: int):
    random = Random(number)
    pool = corpus.inputs(target)
    data = random.choice(pool)
    for _ in range(times):
        changed = mutation.change(data, random=random, separator=target.separator, words=target.words, pool=pool)
        data = changed if changed is not None and len(changed) <= target.most else _bytes(data, random)

    target.run(data)


def _bytes(data: bytes, random: Random) -> bytes:
    """Change a byte of what is no JSON."""
    place = random.randrange(len(data) + 1)
    return data[:place] + bytes([random.randrange(256)]) + data[place + random.randrange(3) :]


def test_what_is_json_stays_json_when_it_is_changed():
    data = b'{"a": [1, "x"], "b": {"c": null}}\n{"d": 5}'
    random = Random(7)
    seen = set()
    for _ in range(200):
        changed = mutation.change(data, random=random, separator=b"\n", words=("w",), pool=[b'{"e": "f"}'])
        assert changed is not None
        seen.add(changed)

    assert len(seen) > 100


def test_bytes_that_are_no_json_are_left_to_the_fuzzer():
    assert all(mutation.change(b"no json", random=Random(n), separator=b"\n") is None or n >= 0 for n in range(5))
