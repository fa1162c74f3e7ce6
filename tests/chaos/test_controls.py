"""Each rule that is switched off is found out, and by the check that is there for it."""

from __future__ import annotations

import pytest

from chaos.sim.controls import CONTROLS
from chaos.sim.run import Run

SEEDS = range(1, 6)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("tie-blind-merge", 3),
        ("ack-before-sync", 3),
        ("drop-a-change", 3),
        ("ask-without-the-token", 7),  # Of a few nodes nearly always the right one is asked.
    ],
)
def test_a_rule_that_is_switched_off_is_found_out(name: str, nodes: int) -> None:
    found = [Run(seed, 0.4, nodes, CONTROLS[name]).go().violation for seed in SEEDS]

    assert any(found)


def test_reads_that_go_to_new_holders_before_these_have_pulled_are_found_out() -> None:
    control = CONTROLS["read-before-pulled"]
    outcomes = (Run(seed, 0.5, 8, control, copies=control.copies).go() for seed in SEEDS)

    found = next(outcome for outcome in outcomes if outcome.violation)

    assert found.invariant == "a partition is readable from its readers"
    assert "is to be read from and lacks" in found.violation


@pytest.mark.parametrize("name", ["zombie-guard-off", "floor-while-bootstrapping"])
def test_a_rule_about_the_floor_that_is_switched_off_is_found_out(name: str) -> None:
    outcomes = (Run(seed, 0.5, control=CONTROLS[name], forgets=True).go() for seed in SEEDS)

    found = next(outcome for outcome in outcomes if outcome.violation)

    assert found.invariant == "4 nothing returns below a committed floor"
