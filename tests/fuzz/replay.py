"""Inputs once more: ``python -m tests.fuzz.replay [TARGET [FILE …]]``; without files everything that is kept.

A process of its own, for a fault may end the interpreter: each target's name is printed before its inputs run, and
faulthandler says where it ended. ``tests/fuzz/test_corpus.py`` runs it in ``make test``.
"""

from __future__ import annotations

import faulthandler
import sys
import traceback
from pathlib import Path

from tests.fuzz import corpus, targets
from tests.fuzz.target import Target, prepare_process

SECONDS = 20.0
"""For one input, after which the process ends and says where it was."""


def replay(target: Target, inputs: list[bytes]) -> int:
    """Run inputs, and return how many broke the promise."""
    faults = 0
    for data in inputs:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            target.run(data)
        except Exception:  # noqa: BLE001 - whatever it is, the promise is broken
            faults += 1
            print(f"{target.name} broke its promise with {data[:2_000]!r}")  # noqa: T201
            traceback.print_exc(file=sys.stdout)
        finally:
            faulthandler.cancel_dump_traceback_later()
    return faults


def main() -> int:
    """Return 1 when a promise was broken."""
    faulthandler.enable()
    prepare_process()
    known = targets.load()
    name, files = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    faults = 0
    for target in [known[name]] if name else known.values():
        inputs = [Path(file).read_bytes() for file in files] or corpus.inputs(target)
        print(f"{target.name}: {len(inputs)} inputs", flush=True)  # noqa: T201
        faults += replay(target, inputs)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
