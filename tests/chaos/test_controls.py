"""Each rule that is switched off is found out, and by the check that is there for it."""

from __future__ import annotations

import pytest

from chaos.sim.controls import CONTROLS
from chaos.sim.run import Run

SEEDS = range(1, 6)


@pytest.mark.parametrize("name", ["tie-blind-merge", "ack-before-sync", "drop-a-change"])
def test_a_rule_that_is_switched_off_is_found_out(name: str) -> None:
    found = [Run(seed, 0.4, 3, CONTROLS[name]).go().violation for seed in SEEDS]

    assert any(found)
