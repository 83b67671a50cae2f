"""The README's promise: the demo, unattended, checks every outcome and ends with 0."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "demo.py"


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("demo")
def test_the_demo_keeps_every_promise_and_leaves_nothing_behind() -> None:
    # Not below tmp_path: with its own folders it would be too long a path for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        done = subprocess.run(
            [sys.executable, DEMO, "--check"],
            env={**os.environ, "TMPDIR": scratch},
            capture_output=True,
            text=True,
            check=False,
            timeout=540,
        )
        left = list(Path(scratch).iterdir())
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("ok ")]) >= 12
    assert not [line for line in lines if line.startswith("FAILED")]
    assert any(line.startswith("all promises hold") for line in lines)
    assert left == []
