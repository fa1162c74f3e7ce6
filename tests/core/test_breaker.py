"""The circuit breaker, by tables of what happens when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.breaker import Breaker, Circuit

BROKEN = ["fail 0"] * 3
CLOSED, OPEN, HALF = Circuit.CLOSED, Circuit.OPEN, Circuit.HALF_OPEN


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ([], CLOSED),
        (["fail 0", "fail 0"], CLOSED),
        (["fail 0", "fail 0", "succeed 0", "fail 0", "fail 0"], CLOSED),
        (["fail 0", "fail 0", "fail 0"], OPEN),
        (["fail 0", "fail 0", "fail 0", "pass 9"], OPEN),
        (["fail 0", "fail 0", "fail 0", "pass 10"], HALF),
        (["fail 0", "fail 0", "fail 0", "pass 10", "begin"], OPEN),
        (["fail 0", "fail 0", "fail 0", "pass 10", "begin", "succeed 0"], CLOSED),
        (["fail 0", "fail 0", "fail 0", "pass 10", "begin", "fail 0", "pass 19"], OPEN),
        (["fail 0", "fail 0", "fail 0", "pass 10", "begin", "fail 0", "pass 20"], HALF),
        # The pause doubles up to the longest, here 25.
        ([*BROKEN, "pass 10", "begin", "fail 0", "pass 20", "begin", "fail 0", "pass 24"], OPEN),
        ([*BROKEN, "pass 10", "begin", "fail 0", "pass 20", "begin", "fail 0", "pass 25"], HALF),
        # What was under way when it opened changes nothing.
        ([*BROKEN, "fail 0", "fail 0", "fail 0", "pass 10"], HALF),
        # One that took leave and never came back does not keep it open for ever.
        ([*BROKEN, "pass 10", "begin", "pass 10"], HALF),
    ],
)
def test_the_states(happened: list[str], expected: Circuit) -> None:
    breaker = Breaker(3, first_pause_s=10, longest_pause_s=25)
    now_s = 0.0
    for step in happened:
        word, _, number = step.partition(" ")
        match word:
            case "pass":
                now_s += float(number)
            case "fail":
                breaker.failed(now_s)
            case "succeed":
                breaker.succeeded()
            case _:
                breaker.begin(now_s)

    assert breaker.state(now_s) is expected


def test_half_open_lets_one_call_through() -> None:
    breaker = Breaker(1, first_pause_s=10, longest_pause_s=25)
    breaker.failed(0)

    assert [breaker.begin(5), breaker.begin(10), breaker.begin(10)] == [False, True, False]
    assert breaker.wait_s(10) == 10


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100))))
def test_it_is_never_closed_to_calls_for_longer_than_the_longest_pause(
    happened: list[tuple[bool, float]],
) -> None:
    breaker = Breaker(2, first_pause_s=1, longest_pause_s=30)
    now_s = 0.0
    for failed, passed_s in happened:
        now_s += passed_s
        if breaker.begin(now_s):
            if failed:
                breaker.failed(now_s)
            else:
                breaker.succeeded()

    assert breaker.wait_s(now_s) <= 30
    assert breaker.begin(now_s + 30)
