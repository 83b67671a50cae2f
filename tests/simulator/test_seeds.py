"""Three hundred fleets and what happens to them. `make simulate SEEDS=… SEED_START=…` lives through any others."""

from __future__ import annotations

import pytest

from tests.simulator.simulation import simulate

SEEDS = 300
TOGETHER = 10
"""So many in one test: few enough that the workers share them evenly."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
def test_ten_fleets_keep_every_promise_whatever_happens_to_them(first):
    for seed in range(first, first + TOGETHER):
        outcome = simulate(seed)
        assert outcome.ok, outcome.report()
