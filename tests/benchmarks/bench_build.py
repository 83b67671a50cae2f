"""Thousands of backups from nothing: loaded, validated, expanded, rendered and digested.

The floor reads the same bytes with libyaml (PyYAML's C loader, the fastest that is safe to use and knows lines and
columns) and checks them with jsonschema-rs against our published schema, and does nothing else. In turns, the best of
each: whatever else the machine does, it does to both. Garbage is looked for as seldom as in a director, by both, and
not at all while we build, as the loop does it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import jsonschema_rs
import yaml

import schema
from reconciler import borgmatic_schema, garbage
from reconciler.core.build import build
from tests.benchmarks import backups_source
from tests.benchmarks.rows import Options, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reconciler.core.catalogue import SourceFile

ROUNDS: Final = 3
FILES: Final = 100
"""That borgmatic itself validates, each by a process of its own, as it must be done without a director."""


def measure(options: Options) -> Iterable[Row]:
    """Return what a cold build costs, beside reading alone, and beside borgmatic's own validation of each file."""
    backups = 1_000 if options.quick else 10_000
    garbage.look_seldom()
    files = backups_source.files(backups)
    borgmatic = borgmatic_schema.load()
    published = json.loads(Path(schema.__path__[0], "json", "v1", "all.json").read_text(encoding="utf-8"))
    is_valid = jsonschema_rs.validator_for(published).is_valid

    def ours() -> None:
        with garbage.left_alone():
            assert build(files, borgmatic_schema=borgmatic).ok

    def floor() -> None:
        assert all(is_valid(yaml.load(file.data, yaml.CSafeLoader)) for file in files)

    built, read = _best(ours, floor)
    alone = _validations(files, 5 if options.quick else FILES, folder=options.folder)
    yield Row(what=f"build: {backups:,} backups cold", ours=built, floor=read, most_ratio=4.0)
    yield Row(
        what="build: `borgmatic config validate`, each file, against us, each backup",
        ours=alone,
        floor=built / backups,
        least_ratio=100.0,
    )


def _best(*functions: Callable[[], None]) -> list[float]:
    """Return the milliseconds of processor time of each."""
    best = [float("inf")] * len(functions)
    for _ in range(ROUNDS):
        for place, function in enumerate(functions):
            gc.collect()
            started = time.process_time()
            function()
            best[place] = min(best[place], 1_000 * (time.process_time() - started))
    return best


def _validations(files: Sequence[SourceFile], count: int, *, folder: Path) -> float:
    """Return the milliseconds of one validation by borgmatic of what we render, the mean of ``count`` files."""
    built = build(files, borgmatic_schema=borgmatic_schema.load())
    texts = (file.content for content in built.contents.values() for file in content.files if file.place == "config")
    with TemporaryDirectory(dir=folder) as name:
        paths = []
        for number, text in zip(range(count), texts, strict=False):
            paths.append(Path(name, f"{number}.yaml"))
            paths[-1].write_text(text, encoding="utf-8")
            paths[-1].chmod(0o600)
        program = Path(sys.executable).with_name("borgmatic")
        started = time.perf_counter()
        for path in paths:
            subprocess.run([program, "config", "validate", "--config", path], check=True, capture_output=True)
        return 1_000 * (time.perf_counter() - started) / len(paths)
