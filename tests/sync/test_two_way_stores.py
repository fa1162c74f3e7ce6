"""Two sides and one binding over real backends: `two_sides` with each store that can be two-way.

ENVD_TWO_WAY_EXAMPLES=200 tries so many new examples of each; without it the same few run each time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.sync.sides_of_stores import STORES, InAStore, StoreHarness

EXAMPLES = int(os.environ.get("ENVD_TWO_WAY_EXAMPLES", "0"))
_USUAL = 40
ROUNDS = settings(
    max_examples=EXAMPLES or _USUAL,
    stateful_step_count=25,
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("store", STORES)
def test_both_sides_end_equal_and_nothing_is_lost(
    store: str, request: pytest.FixtureRequest
) -> None:
    made = STORES[store](request)

    class Here(InAStore):
        def make(self) -> StoreHarness:
            return made()

    run_state_machine_as_test(Here, settings=ROUNDS)
