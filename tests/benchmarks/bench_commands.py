"""Commands that people wait for: ``director validate`` of one file beside borgmatic's own, and ``director --help``.

In turns, the best of each. All may keep their bytecode, as installed programs have theirs: a checkout that was edited
would be compiled anew each time, where the environment forbids it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tests.benchmarks.rows import Options, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROUNDS: Final = 15

_SOURCE: Final = """\
apiVersion: borgmatic.director/v1
kind: Client
metadata: {name: web-1}
---
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {name: nas}
spec: {url: "/srv/${client}", encryption: {mode: none}}
---
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: files}
spec:
  clients: [web-1]
  repositories: [nas]
  borgmatic: {source_directories: [/etc], keep_daily: 7}
"""
_BORGMATIC: Final = """\
source_directories: [/etc]
repositories: [{path: /srv/web-1}]
keep_daily: 7
"""


def measure(options: Options) -> Iterable[Row]:
    """Return what the commands cost, beside their floors."""
    programs = Path(sys.executable).parent
    with TemporaryDirectory(dir=options.folder) as name:
        source, config = Path(name, "source.yaml"), Path(name, "borgmatic.yaml")
        source.write_text(_SOURCE, encoding="utf-8")
        config.write_text(_BORGMATIC, encoding="utf-8")
        config.chmod(0o600)
        validate, borgmatic, shown, python = _best(
            [programs / "director", "validate", source],
            [programs / "borgmatic", "config", "validate", "--config", config],
            [programs / "director", "--help"],
            [sys.executable, "-c", "pass"],
            rounds=3 if options.quick else ROUNDS,
        )
    yield Row(what="command: `director validate` of one file", ours=validate, floor=borgmatic, most_ratio=0.5)
    yield Row(what="command: `director --help`", ours=shown, floor=python, most_ratio=8.0)


def _best(*commands: Sequence[str | Path], rounds: int) -> list[float]:
    """Return the milliseconds of each command."""
    best = [float("inf")] * len(commands)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds):
        for place, command in enumerate(commands):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            best[place] = min(best[place], 1_000 * (time.perf_counter() - started))
    return best
