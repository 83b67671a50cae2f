"""``director`` as it is, with a census of itself: ``python director.py CENSUS run``."""

from __future__ import annotations

import sys
from pathlib import Path

from reconciler.cli import main
from tests.soak import census

if __name__ == "__main__":
    census.write_for_ever(Path(sys.argv.pop(1)))
    main()
