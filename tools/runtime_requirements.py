"""Print the part of requirements.lock that the base and the [director] extra need: the lock without its dev tools.

The Dockerfile calls it: `python tools/runtime_requirements.py requirements.lock`. It goes by the `# via` lines,
asks no index and changes no hash. The standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DECLARED = "borgmatic-director (pyproject.toml)"
"""How the lock names a package that pyproject.toml asks for, but not as a development tool."""


def entries(lock: str) -> dict[str, str]:
    """Return the text of each package's entry, by the package's name."""
    starts = [match.start() for match in re.finditer(r"^[a-z0-9]", lock, re.MULTILINE)]
    texts = [lock[start:end] for start, end in zip(starts, [*starts[1:], len(lock)], strict=True)]
    return {text.split("==")[0]: text for text in texts}


def required_by(entry: str) -> set[str]:
    """Return who asks for the package, from the comment that ends its entry."""
    lines = [line.strip(" #") for line in entry.splitlines() if line.lstrip().startswith("#")]
    return {line.removeprefix("via").strip() for line in lines} - {""}


def runtime(lock: str) -> str:
    """Return the entries that something needs to run: those declared, then what they need, until nothing is added."""
    every = entries(lock)
    needed: set[str] = set()
    while True:
        found = {name for name, text in every.items() if required_by(text) & (needed | {DECLARED})}
        if found == needed:
            return "".join(text for name, text in every.items() if name in needed)
        needed = found


if __name__ == "__main__":
    sys.stdout.write(runtime(Path(sys.argv[1]).read_text(encoding="utf-8")))
