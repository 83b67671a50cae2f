"""Descriptors of simulated processes: all of them are the simulator's, and a number is used again."""

from __future__ import annotations

import os
from random import Random

from tests.simulator.process import Process


def test_what_a_child_inherited_stays_open_when_its_parent_dies(tmp_path):
    parent = Process("web-1", random=Random(1), folder=tmp_path, on_death=lambda *_: None)
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    parent.locked(second)
    os.close(second)

    inherited = parent.gives_away(os.dup(first))
    parent.bury()

    assert inherited == second
    assert os.path.samestat(os.fstat(inherited), (tmp_path / "lock").stat())
    os.close(inherited)
    os.close(first)
