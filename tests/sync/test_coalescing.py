"""When a binding runs: batches of changes, intervals, and waits after failures."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.sync.coalescing import LONGEST_RETRY_S, Schedule


def idle(interval_s: float = 60, *, drawn: float = 0.5) -> Schedule:
    """A schedule whose first run ended well at 0."""
    schedule = Schedule(interval_s, 0, draw=lambda: drawn)
    schedule.began(0)
    schedule.ended(0, ok=True)
    return schedule


def test_the_first_run_is_due_soon_and_not_at_the_same_time_for_all() -> None:
    first = Schedule(60, 100, draw=lambda: 0.0)
    other = Schedule(60, 100, draw=lambda: 0.5)

    assert (first.next_run(100), other.next_run(100)) == (100, 103)


@pytest.mark.parametrize(("drawn", "expected_s"), [(0.0, 54), (0.5, 60), (1.0, 66)])
def test_without_changes_it_runs_an_interval_after_the_last_end_give_or_take_a_tenth(
    drawn: float, expected_s: float
) -> None:
    schedule = idle(drawn=drawn)

    assert schedule.next_run(0) == pytest.approx(expected_s)


def test_one_change_goes_out_after_a_quiet_second() -> None:
    schedule = idle()

    schedule.changed(20)

    assert schedule.next_run(20) == 21


def test_fifty_changes_in_ten_seconds_are_one_batch() -> None:
    schedule = idle()
    runs: list[float] = []
    for number in range(51):
        now_s = 5 + number / 5
        if schedule.next_run(now_s) <= now_s:
            runs.append(now_s)
            schedule.began(now_s)
            schedule.ended(now_s, ok=True)
        if number < 50:
            schedule.changed(now_s)

    assert runs == [15]
    assert schedule.waiting_since_s is None


def test_nothing_is_due_while_a_run_is_under_way_and_what_changes_then_goes_next() -> None:
    schedule = idle()
    schedule.changed(10)
    schedule.began(11)
    schedule.changed(12)

    assert schedule.next_run(12) == math.inf
    assert schedule.waiting_since_s == 12
    schedule.ended(30, ok=True)
    assert schedule.next_run(30) == 30


def test_after_a_failure_changes_wait_for_the_retry_which_takes_them_along() -> None:
    schedule = idle()
    schedule.began(60)
    schedule.ended(61, ok=False)

    schedule.changed(61)

    assert schedule.next_run(61) == 62.5
    schedule.began(62.5)
    schedule.ended(63, ok=True)
    assert schedule.next_run(63) == 123
    assert schedule.failures == 0


@pytest.mark.parametrize(
    ("failures", "shortest_s", "longest_s"),
    [(1, 1, 2), (2, 2, 4), (5, 16, 32), (8, 128, 256), (9, 150, 300), (10_000, 150, 300)],
)
def test_waits_after_failures_double_up_to_five_minutes(
    failures: int, shortest_s: float, longest_s: float
) -> None:
    waits_s = []
    for drawn in (0.0, 1.0):
        schedule = idle(drawn=drawn)
        for _ in range(failures):
            schedule.ended(0, ok=False)
        waits_s.append(schedule.next_run(0))

    assert waits_s == [shortest_s, longest_s]


_STEPS = st.lists(
    st.tuples(st.floats(0, 30), st.sampled_from(["change", "change", "pass", "fail", "succeed"])),
    max_size=60,
)


@given(steps=_STEPS, drawn=st.floats(0, 1, exclude_max=True), interval_s=st.floats(1, 600))
def test_it_never_starves_and_never_gathers_for_longer_than_the_bound(
    steps: list[tuple[float, str]], drawn: float, interval_s: float
) -> None:
    schedule = Schedule(interval_s, 0, draw=lambda: drawn)
    now_s, last_end_s = 0.0, 0.0
    for passed_s, what in steps:
        now_s += passed_s
        match what:
            case "change":
                schedule.changed(now_s)
            case "fail" | "succeed":
                schedule.began(now_s)
                schedule.ended(now_s, ok=what == "succeed")
                last_end_s = now_s

        due_s = schedule.next_run(now_s)
        bound_s = LONGEST_RETRY_S if schedule.failures else 1.1 * interval_s
        assert due_s <= max(now_s, last_end_s + bound_s + 1e-6)
        if not schedule.failures and schedule.waiting_since_s is not None:
            assert due_s <= max(now_s, schedule.waiting_since_s + 10)


@given(changes_s=st.lists(st.floats(0, 20), min_size=1, max_size=60), drawn=st.floats(0, 0.99))
def test_runs_for_changes_are_apart_by_at_least_the_quiet_time(
    changes_s: list[float], drawn: float
) -> None:
    schedule = idle(3_600, drawn=drawn)
    runs: list[float] = []
    before_s = 0.0
    for change_s in [*sorted(changes_s), 100.0]:
        due_s = schedule.next_run(before_s)
        before_s = change_s
        if due_s <= change_s:
            runs.append(due_s)
            schedule.began(due_s)
            schedule.ended(due_s, ok=True)
        if change_s < 100:
            schedule.changed(change_s)

    assert runs
    assert schedule.waiting_since_s is None
    assert all(late - early >= 1 - 1e-9 for early, late in pairwise(runs))
