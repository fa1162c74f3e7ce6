"""Waits before the next attempt: the formula, by table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.client.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "expected_s"),
    [(1, 0.05), (2, 0.1), (3, 0.2), (6, 1.6), (7, 2.0), (100, 2.0), (10_000, 2.0)],
)
def test_the_longest_wait_doubles_up_to_the_cap(failures: int, expected_s: float) -> None:
    assert Backoff(draw=lambda: 1.0).delay_s(failures) == pytest.approx(expected_s)
    assert Backoff(draw=lambda: 0.0).delay_s(failures) == 0


@given(
    failures=st.integers(1, 50), asked_ms=st.integers(0, 60_000), drawn=st.floats(0, 1, width=32)
)
def test_a_wait_is_never_shorter_than_the_node_asked_for(
    failures: int, asked_ms: int, drawn: float
) -> None:
    delay_s = Backoff(draw=lambda: drawn).delay_s(failures, asked_ms)

    assert asked_ms / 1000 <= delay_s <= max(2.0, asked_ms / 1000 * 1.25)


def test_it_gives_up_after_its_attempts() -> None:
    backoff = Backoff(attempts=3)

    assert [backoff.gives_up(failures) for failures in (1, 2, 3, 4)] == [False, False, True, True]


def test_two_clients_do_not_wait_alike() -> None:
    first, second = Backoff(), Backoff()

    assert [first.delay_s(8) for _ in range(5)] != [second.delay_s(8) for _ in range(5)]
