"""``make bench``: runs every ``bench_….py`` here, prints one table, writes it as JSON, and fails when a row misses.

A benchmark is a module ``tests/benchmarks/bench_NAME.py`` with ``measure(options: Options) -> Iterable[Row]``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.benchmarks.rows import Options, Row, table

if TYPE_CHECKING:
    from collections.abc import Sequence

_HERE: Final = Path(__file__).parent
_BUILD: Final = _HERE.parent.parent / "build"
_PREFIX: Final = "bench_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return what the program exits with: 1 when something misses or breaks."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(names()):
        parser.error(f"there is no benchmark '{min(unknown)}'; there are: {', '.join(names())}")
    folder = _BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(quick=asked.quick, folder=folder)
    rows: list[Row] = []
    broken: list[str] = []
    for name in asked.names or names():
        _tell(f"{name} …")
        started = time.perf_counter()
        try:
            rows += importlib.import_module(f"tests.benchmarks.{_PREFIX}{name}").measure(options)
        except Exception:  # noqa: BLE001 - one that breaks must not hide what the others found
            broken.append(name)
            traceback.print_exc()
        _tell(f"{name}: {time.perf_counter() - started:.0f} s")
    sys.stdout.write(table(rows))
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(_report(rows, broken, quick=asked.quick), indent=1) + "\n", encoding="utf-8")
    missed = [row.what for row in rows if not row.reached]
    _tell(f"{len(rows)} rows in {asked.json}" + _list("missed", missed) + _list("broken", broken))
    return 1 if missed or broken else 0


def names() -> list[str]:
    """Return the benchmarks there are."""
    return sorted(path.stem.removeprefix(_PREFIX) for path in _HERE.glob(f"{_PREFIX}*.py"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these, of: {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works")
    parser.add_argument("--json", type=Path, default=_BUILD / "bench.json", metavar="PATH", help="where the rows go")
    return parser


def _report(rows: Sequence[Row], broken: Sequence[str], *, quick: bool) -> dict[str, object]:
    machine = {"python": platform.python_version(), "system": platform.system(), "processors": os.cpu_count()}
    return {"quick": quick, "machine": machine, "broken": list(broken), "rows": [row.as_json() for row in rows]}


def _list(word: str, what: Sequence[str]) -> str:
    return f"; {word}: {', '.join(what)}" if what else ""


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
