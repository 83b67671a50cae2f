"""The real ``director`` command, from this checkout. A module so that the benchmark measures the code beside it."""

from __future__ import annotations

from reconciler.cli import main

if __name__ == "__main__":
    main(prog_name="director")
