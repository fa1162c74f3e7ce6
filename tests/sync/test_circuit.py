"""Which answers of a store open its circuit."""

from __future__ import annotations

import pytest

from envd.backends.errors import (
    BY_REASON,
    AuthExpired,
    BackendError,
    Forbidden,
    StoreUnavailable,
    Throttled,
)
from envd.core.breaker import Circuit
from envd.sync.circuit import FAILURES_IN_A_ROW, StoreCircuit, is_failure


@pytest.mark.parametrize("kind", BY_REASON.values())
def test_only_what_tells_that_the_store_cannot_be_used_now_counts(
    kind: type[BackendError],
) -> None:
    assert is_failure(kind("it went wrong")) is (kind in (StoreUnavailable, Throttled, AuthExpired))


def test_failures_in_a_row_open_it_and_one_good_probe_closes_it() -> None:
    circuit = StoreCircuit()
    for _ in range(FAILURES_IN_A_ROW):
        circuit.answered(0, StoreUnavailable("no answer"))

    assert circuit.state(4.9) is Circuit.OPEN
    assert not circuit.begin(4.9)
    assert circuit.wait_s(4) == 1
    assert circuit.begin(5)
    circuit.answered(5.1)
    assert circuit.state(5.1) is Circuit.CLOSED


def test_a_refusal_between_failures_is_an_answer_and_keeps_it_closed() -> None:
    circuit = StoreCircuit()

    for _ in range(FAILURES_IN_A_ROW):
        circuit.answered(0, StoreUnavailable("no answer"))
        circuit.answered(0, Forbidden("no"))

    assert circuit.state(0) is Circuit.CLOSED
