"""Token buckets, the pace of items, and retries: tables, and laws for any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import Limits
from envd.backends.errors import (
    BY_REASON,
    AuthExpired,
    BackendError,
    Forbidden,
    StoreUnavailable,
    Throttled,
)
from envd.sync.pacing import SLACK, ItemPace, Pace, Retries, Retry, Step, TokenBucket, full_jitter_s


def test_a_burst_goes_at_once_and_then_one_at_a_time() -> None:
    bucket = TokenBucket(2, burst=3)

    waits = [bucket.take(now_s) for now_s in (0, 0, 0, 0, 0.25, 0.5, 0.5, 1.0)]

    assert waits == [0, 0, 0, 0.5, 0.25, 0, 0.5, 0]


def test_a_long_silence_saves_up_no_more_than_a_burst() -> None:
    bucket = TokenBucket(10, burst=4)
    bucket.take(0)

    at_once = sum(bucket.take(86_400) == 0 for _ in range(100))

    assert at_once == 4


def test_without_a_rate_nothing_waits_but_for_a_pause_that_the_store_asked_for() -> None:
    bucket = TokenBucket(0)

    assert [bucket.take(0) for _ in range(100)] == [0] * 100
    bucket.throttled(0, 30)
    assert bucket.take(10) == 20
    assert bucket.take(30) == 0


def test_a_throttled_call_empties_the_bucket_and_halves_the_rate() -> None:
    bucket = TokenBucket(8, burst=8)

    bucket.throttled(0, retry_after_s=5)

    assert bucket.rate_per_s == 4
    assert bucket.take(0) == 5.25
    assert bucket.take(5) == 0.25
    assert bucket.take(5.25) == 0
    assert bucket.take(5.25) == 0.25


def test_calls_that_are_throttled_together_halve_the_rate_once() -> None:
    bucket = TokenBucket(8)

    for now_s in (0, 0.1, 0.2, 0.9):
        bucket.throttled(now_s)

    assert bucket.rate_per_s == 4


def test_a_rate_recovers_by_equal_steps_up_to_the_full_one() -> None:
    bucket = TokenBucket(100)
    bucket.throttled(0)

    rates = []
    for _ in range(60):
        bucket.succeeded()
        rates.append(bucket.rate_per_s)

    assert rates[:3] == [51, 52, 53]
    assert rates[-11:] == [100] * 11


def test_a_rate_never_sinks_to_nothing() -> None:
    bucket = TokenBucket(64)

    for second in range(100):
        bucket.throttled(second)

    assert bucket.rate_per_s == 1


def test_more_than_a_burst_waits_for_a_full_bucket_and_is_owed() -> None:
    bucket = TokenBucket(1, burst=2)

    assert bucket.take(0, 5) == 0
    assert bucket.take(0) == 4
    assert bucket.take(4) == 0
    assert bucket.take(4, 5) == 2


_EVENTS = st.lists(
    st.tuples(
        st.floats(0, 20, allow_subnormal=False),
        st.integers(1, 7),
        st.sampled_from(["take", "take", "take", "throttled", "succeeded"]),
    ),
    max_size=60,
)


@given(rate=st.floats(0.01, 100), burst=st.integers(1, 20), events=_EVENTS)
def test_no_span_of_time_sees_more_than_rate_times_time_and_a_burst(
    rate: float, burst: int, events: list[tuple[float, int, str]]
) -> None:
    bucket, now_s = TokenBucket(rate, burst), 0.0
    taken: list[tuple[float, int]] = []
    for passed_s, tokens, what in events:
        now_s += passed_s
        match what:
            case "throttled":
                bucket.throttled(now_s, passed_s)
            case "succeeded":
                bucket.succeeded()
            case _ if not bucket.take(now_s, tokens):
                taken.append((now_s, tokens))

    for first, (began_s, _) in enumerate(taken):
        for last in range(first, len(taken)):
            span_s = taken[last][0] - began_s
            sizes = [tokens for _, tokens in taken[first : last + 1]]
            assert sum(sizes) <= rate * span_s + max(burst, *sizes) + 2 * SLACK


@given(rate=st.floats(0.01, 1000), burst=st.integers(1, 20), events=_EVENTS)
def test_who_waits_as_told_is_let_through_the_next_time(
    rate: float, burst: int, events: list[tuple[float, int, str]]
) -> None:
    bucket, now_s = TokenBucket(rate, burst), 1e6
    for passed_s, tokens, _ in events:
        now_s += passed_s
        if wait_s := bucket.take(now_s, tokens):
            now_s += wait_s

            assert bucket.take(now_s, tokens) == 0


def test_writes_of_one_item_are_spaced_and_others_are_not_held_up() -> None:
    items = ItemPace(2)

    assert items.take(0, "a") == 0
    assert items.take(0, "b") == 0
    assert items.take(0.25, "a") == 0.25
    assert items.take(0.5, "a") == 0


def test_items_that_hold_nobody_up_are_forgotten() -> None:
    items = ItemPace(1)
    for number in range(100):
        items.take(number, f"item {number}")

    assert len(items) == 1


def test_the_bound_on_items_makes_the_next_one_wait_and_breaks_no_promise() -> None:
    items = ItemPace(0.1, max_items=2)
    items.take(0, "a")
    items.take(4, "b")

    assert items.take(5, "c") == 5
    assert len(items) == 2
    assert items.take(10, "c") == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abcdef")), max_size=80))
def test_two_writes_of_an_item_are_never_closer_than_its_rate_allows(
    asked: list[tuple[float, str]],
) -> None:
    items, now_s = ItemPace(0.5, max_items=3), 0.0
    written: dict[str, float] = {}
    for passed_s, item in asked:
        now_s += passed_s
        if not items.take(now_s, item):
            assert now_s - written.get(item, float("-inf")) >= 2 - 1e-9
            written[item] = now_s
        assert len(items) <= 3


def test_a_pace_is_filled_from_the_limits_of_the_store() -> None:
    pace = Pace(Limits(reads_per_s=4, writes_per_s=2, burst=1, writes_per_item_per_s=1))

    assert (pace.reads_per_s, pace.writes_per_s, pace.concurrency) == (4, 2, 4)
    assert pace.read(0) == 0
    assert pace.read(0) == 0.25
    assert pace.write(0, ["a"]) == 0
    assert pace.write(0, ["b"]) == 0.5


def test_a_write_that_waits_for_its_item_takes_nothing_from_the_others() -> None:
    pace = Pace(Limits(writes_per_s=1, burst=2, writes_per_item_per_s=0.1))
    pace.write(0, ["a"])

    assert pace.write(0, ["a", "b"]) == 10
    assert pace.write(0, ["b"]) == 0


def test_a_throttled_write_slows_writes_only() -> None:
    pace = Pace(Limits(reads_per_s=4, writes_per_s=4))

    pace.answered(0, Throttled("too many", retry_after_s=3), write=True)
    pace.answered(0, Forbidden("no"), write=False)

    assert (pace.reads_per_s, pace.writes_per_s) == (4, 2)
    assert pace.write(0) == 3.5
    pace.answered(0, write=True)
    assert pace.writes_per_s == pytest.approx(2.04)


@pytest.mark.parametrize(("failures", "at_most_s"), [(1, 0.5), (2, 1), (4, 4), (9, 30), (999, 30)])
def test_the_longest_wait_doubles_up_to_the_cap(failures: int, at_most_s: float) -> None:
    assert full_jitter_s(failures, base_s=0.5, cap_s=30, draw=lambda: 1.0) == at_most_s
    assert full_jitter_s(failures, base_s=0.5, cap_s=30, draw=lambda: 0.0) == 0


@pytest.mark.parametrize(
    ("error", "failures", "reopened", "expected"),
    [
        (StoreUnavailable("away"), 1, False, Retry(Step.AGAIN, 0.25)),
        (StoreUnavailable("away"), 3, False, Retry(Step.AGAIN, 1.0)),
        (StoreUnavailable("away"), 5, False, Retry(Step.GIVE_UP)),
        (Throttled("slow"), 1, False, Retry(Step.AGAIN, 0.25)),
        (Throttled("slow", retry_after_s=8), 1, False, Retry(Step.AGAIN, 9.0)),
        (Throttled("slow", retry_after_s=121), 1, False, Retry(Step.GIVE_UP)),
        (AuthExpired("old"), 1, False, Retry(Step.REOPEN)),
        (AuthExpired("old"), 2, True, Retry(Step.GIVE_UP)),
        (AuthExpired("old"), 5, False, Retry(Step.GIVE_UP)),
    ],
)
def test_retries(error: BackendError, failures: int, reopened: bool, expected: Retry) -> None:
    retry = Retries().after(error, failures=failures, draw=lambda: 0.5, reopened=reopened)

    assert retry == expected


@pytest.mark.parametrize("kind", [kind for kind in BY_REASON.values() if kind.is_refusal])
def test_a_refusal_is_never_tried_again(kind: type[BackendError]) -> None:
    assert Retries().after(kind("no"), failures=1, draw=lambda: 0.5) == Retry(Step.GIVE_UP)


@given(
    failures=st.integers(1, 4),
    asked_s=st.floats(0.01, 120),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_no_retry_comes_sooner_than_the_store_asked_for(
    failures: int, asked_s: float, drawn: float
) -> None:
    error = Throttled("slow", retry_after_s=asked_s)

    retry = Retries().after(error, failures=failures, draw=lambda: drawn)

    assert asked_s <= retry.wait_s <= max(30.0, asked_s * 1.25)
