"""One target under libFuzzer, in this process: ``python -m tests.fuzz.engine TARGET [libFuzzer's options]``.

``python -m tests.fuzz`` starts it, for a fault may end the interpreter. Only our own code is instrumented: what it
covers is what libFuzzer looks for.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import signal
import sys
from pathlib import Path
from random import Random

from tests.fuzz import mutation, targets
from tests.fuzz.target import prepare_process

OURS = ["schema", "reconciler", "client", "web_readonly"]
_BLIND = 4
"""One change in this many is libFuzzer's own, bytes for bytes."""


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    name, *options = sys.argv[1:]
    atheris = importlib.import_module("atheris")  # which `make fuzz` installs, and no type checker needs
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    prepare_process()
    with atheris.instrument_imports(include=OURS):
        target = targets.load()[name]
        pool = target.seeds()
        for seed in pool:
            target.run(seed)  # imports what is imported late

    def text(value: str) -> str:
        changed: bytes = atheris.Mutate(value.encode("utf-8", "replace"), len(value) + 32)
        return changed.decode("utf-8", "replace")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(_BLIND):
            changed = mutation.change(
                data, random=random, separator=target.separator, words=target.words, pool=pool, text=text
            )
            if changed is not None and len(changed) <= most:
                return changed
        return bytes(atheris.Mutate(data, most))

    prefix = next((one.partition("=")[2] for one in options if one.startswith("-artifact_prefix=")), "found-")

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except Exception:
            # libFuzzer writes it down itself, but not from every way in which Python ends.
            Path(f"{prefix}broken-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *options], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
