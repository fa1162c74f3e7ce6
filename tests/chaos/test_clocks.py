"""The simulated clocks."""

from __future__ import annotations

import pytest

from chaos.sim.clocks import EPOCH_MS, SimClock

HOUR_MS = 3_600_000


class Now:
    """Virtual seconds that a test sets."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.parametrize("by_ms", [5 * HOUR_MS, -5 * HOUR_MS])
def test_a_jump_moves_the_wall_clock_and_never_the_intervals(by_ms: int) -> None:
    clock = SimClock(Now())
    wall_ms, monotonic_ms = clock.wall_ms(), clock.monotonic_ms()

    clock.jump(by_ms)

    assert clock.wall_ms() - wall_ms == by_ms
    assert clock.monotonic_ms() == monotonic_ms


def test_drift_grows_with_time() -> None:
    now = Now()
    clock = SimClock(now, drift_ppm=200)
    before = clock.offset_ms()

    now.s += 10_000

    assert clock.offset_ms() - before == pytest.approx(2000)


def test_a_clock_that_was_mended_is_right() -> None:
    now = Now()
    clock = SimClock(now, offset_ms=-7000, drift_ppm=50)

    clock.mend()
    now.s += 1000

    assert clock.wall_ms() == clock.true_ms() == EPOCH_MS + 1_100_000


def test_monotonic_time_counts_from_the_start_of_the_machine() -> None:
    assert SimClock(Now(), booted_s=90.0).monotonic_ms() == 10_000
