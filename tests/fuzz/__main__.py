"""Fuzz one target after another: ``python -m tests.fuzz [TARGET …] [--seconds N] [--jobs N] [--keep]``.

Each runs in a process of its own with bounds on time and memory for every input. What it finds is written to
``build/fuzz/TARGET/found`` and fails the command; ``python -m tests.fuzz.replay TARGET FILE`` shows it again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz import corpus, targets
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "fuzz"
MEBIBYTES = 1_536
"""What a process may hold: far above what any target needs, far below what would hurt a developer's machine."""
_LINE = re.compile(
    r"#(?P<runs>\d+)\s.*cov: (?P<covered>\d+) ft: (?P<features>\d+) corp: (?P<kept>\d+)/.*rss: (?P<memory>\d+)Mb"
)


@dataclass(frozen=True)
class Result:
    """What came of one target."""

    name: str
    seconds: int
    executions: int
    covered: int
    features: int
    memory: int
    found: tuple[str, ...]


def fuzz(target: Target, *, seconds: int, work: Path = WORK) -> Result:
    """Fuzz one target in a process of its own."""
    place = work / target.name
    inputs, found = place / "inputs", place / "found"
    for folder in (inputs, found):
        folder.mkdir(parents=True, exist_ok=True)
    for data in corpus.inputs(target):
        (inputs / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words = place / "words"
    words.write_text("".join(f"{_quoted(word)}\n" for word in target.words if word), encoding="ascii")
    before = set(found.iterdir())
    started = time.monotonic()
    with (place / "log").open("wb") as log, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [
                sys.executable,
                *("-m", "tests.fuzz.engine", target.name, str(inputs)),
                f"-max_total_time={seconds}",
                f"-max_len={target.most}",
                f"-timeout={target.seconds}",
                f"-rss_limit_mb={MEBIBYTES}",
                f"-artifact_prefix={found}/",
                f"-dict={words}",
                "-len_control=20",
                "-report_slow_units=600",
                "-print_final_stats=1",
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=2 * seconds + 300,  # a busy machine may take minutes to begin
            check=False,
        )
    said = (place / "log").read_text(encoding="utf-8", errors="replace")
    return _result(target, said, round(time.monotonic() - started), [str(one) for one in set(found.iterdir()) - before])


def _result(target: Target, said: str, seconds: int, found: list[str]) -> Result:
    numbers = {"runs": 0, "covered": 0, "features": 0, "memory": 0}
    for match in _LINE.finditer(said):
        numbers = {name: int(match[name]) for name in numbers}
    ended = re.search(r"stat::number_of_executed_units: (\d+)", said)
    if not ended and not found:
        found = [f"the process ended early: {said[-2_000:]}"]
    return Result(
        name=target.name,
        seconds=seconds,
        executions=int(ended[1]) if ended else numbers["runs"],
        covered=numbers["covered"],
        features=numbers["features"],
        memory=numbers["memory"],
        found=tuple(sorted(found)),
    )


def _quoted(word: str) -> str:
    """Return a line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogatepass")) + '"'


def main() -> int:
    """Return 1 when something was found."""
    known = targets.load()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", choices=[*known, []], help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--keep", action="store_true", help="keep new inputs, minimised, in tests/fuzz/corpus")
    parser.add_argument("--json", type=Path, help="append the numbers to this file, a line each")
    options = parser.parse_args()
    chosen = [known[name] for name in options.target or known]
    faults = 0
    with ThreadPoolExecutor(options.jobs) as threads:
        for result in threads.map(lambda target: fuzz(target, seconds=options.seconds), chosen):
            print(  # noqa: T201
                f"{result.name:22} {result.seconds:>5} s {result.executions:>10,} executions "
                f"{result.features:>7,} features {result.memory:>5} MiB  {'FOUND' if result.found else 'nothing'}",
                flush=True,
            )
            for one in result.found:
                print(f"    {one}", flush=True)  # noqa: T201
            faults += bool(result.found)
            if options.json:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
            if options.keep and not result.found:
                corpus.keep(known[result.name], WORK / result.name / "inputs")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
