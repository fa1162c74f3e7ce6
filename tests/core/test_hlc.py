"""The hybrid clock: stamps grow whatever the wall clock does, and nobody pulls it far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.hlc import BOUND_AHEAD_MS, MAX_PULL_MS, SALT_BITS, HybridClock, bound_for
from envd.core.stamp import COUNTER_BITS, Stamp

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
UID = 7


def at(ms: int, counter: int = 0) -> int:
    return (ms << COUNTER_BITS) + counter


wall_times = st.integers(NOW_MS - HOUR_MS, NOW_MS + HOUR_MS)
foreign_hlcs = st.builds(at, wall_times, st.integers(0, (1 << COUNTER_BITS) - 1))
foreign_stamps = st.builds(Stamp, st.integers(0, 2), foreign_hlcs, st.integers(1, 9))
steps = st.tuples(st.sampled_from(("tick", "above", "observe")), wall_times, foreign_stamps)


@given(st.lists(steps, max_size=20))
def test_the_clock_strictly_grows_whatever_wall_clock_and_peers_do(
    drawn: list[tuple[str, int, Stamp]],
) -> None:
    clock = HybridClock(UID)
    last_given = -1

    for verb, now_ms, foreign in drawn:
        before = clock.last
        if verb == "observe":
            clock.observe(foreign, now_ms)
            assert before <= clock.last <= max(before, at(now_ms + MAX_PULL_MS))
            continue
        hlc = clock.tick(now_ms) if verb == "tick" else clock.stamp_above(foreign, now_ms).hlc
        assert hlc > last_given
        assert hlc > before
        assert hlc >= at(now_ms)
        assert clock.last == hlc
        last_given = hlc


@given(st.integers(0, at(NOW_MS + HOUR_MS)), foreign_stamps, wall_times)
def test_a_stamp_above_is_above_and_the_clock_follows_it(
    last: int, highest: Stamp, now_ms: int
) -> None:
    clock = HybridClock(UID, last)

    stamp = clock.stamp_above(highest, now_ms)

    assert stamp > highest
    assert stamp.hlc == max(at(now_ms), last + 1, highest.hlc + 1)
    assert (stamp.era, stamp.node_uid) == (highest.era, UID)
    assert clock.last == stamp.hlc


@pytest.mark.parametrize(
    ("last", "now_ms", "expected"),
    [
        pytest.param(0, 5, at(5), id="wall-clock-ahead"),
        pytest.param(at(5), 5, at(5, 1), id="same-millisecond"),
        pytest.param(at(5, 0xFFFF), 5, at(6), id="counter-runs-over-into-the-next-millisecond"),
        pytest.param(at(HOUR_MS), 0, at(HOUR_MS, 1), id="wall-clock-an-hour-back"),
        pytest.param(0, 0, 1, id="the-very-first"),
    ],
)
def test_a_tick_is_the_wall_clock_or_the_next_after_the_last(
    last: int, now_ms: int, expected: int
) -> None:
    clock = HybridClock(UID, last)

    assert clock.tick(now_ms) == expected


@pytest.mark.parametrize(
    ("last", "highest", "expected"),
    [
        pytest.param(0, Stamp(0, at(9), 3), Stamp(0, at(9, 1), UID), id="faster-node"),
        pytest.param(0, Stamp(0, at(4), 9), Stamp(0, at(5), UID), id="older"),
        pytest.param(0, Stamp(0, at(5), 1), Stamp(0, at(5, 1), UID), id="equal-hlc-lower-uid"),
        pytest.param(0, Stamp(0, at(5), 9), Stamp(0, at(5, 1), UID), id="equal-hlc-higher-uid"),
        pytest.param(0, Stamp(3, at(4), 9), Stamp(3, at(5), UID), id="the-environments-era"),
        pytest.param(at(8), Stamp(0, at(6), 9), Stamp(0, at(8, 1), UID), id="own-clock-highest"),
    ],
)
def test_a_commit_goes_right_above_its_environment(
    last: int, highest: Stamp, expected: Stamp
) -> None:
    clock = HybridClock(UID, last)

    assert clock.stamp_above(highest, 5) == expected


@pytest.mark.parametrize(
    ("last", "remote_ms", "expected"),
    [
        pytest.param(0, NOW_MS - 1, at(NOW_MS - 1), id="behind-the-wall-clock"),
        pytest.param(0, NOW_MS + 500, at(NOW_MS + 500), id="at-the-limit"),
        pytest.param(0, NOW_MS + 501, at(NOW_MS + 500), id="past-the-limit"),
        pytest.param(0, NOW_MS + HOUR_MS, at(NOW_MS + 500), id="an-hour-ahead"),
        pytest.param(at(NOW_MS + 900), NOW_MS + HOUR_MS, at(NOW_MS + 900), id="never-back"),
    ],
)
def test_a_foreign_stamp_pulls_at_most_half_a_second_past_the_wall_clock(
    last: int, remote_ms: int, expected: int
) -> None:
    clock = HybridClock(UID, last)

    clock.observe(Stamp(0, at(remote_ms), 9), NOW_MS)

    assert clock.last == expected


@given(st.integers(0, at(NOW_MS)))
def test_the_durable_bound_is_a_second_ahead(hlc: int) -> None:
    assert BOUND_AHEAD_MS == 1000
    assert bound_for(hlc) - hlc == at(1000)


def test_a_clock_restarted_from_its_bound_goes_on_above_every_stamp_it_gave() -> None:
    clock = HybridClock(UID)
    bound = bound_for(clock.tick(NOW_MS))
    given_before = [clock.tick(NOW_MS + 999) for _ in range(3)]

    restarted = HybridClock(UID, bound)

    assert max(given_before) <= bound
    assert restarted.tick(NOW_MS - HOUR_MS) > max(given_before)


def test_two_starts_from_one_bound_give_no_stamp_twice_though_the_clock_was_set_back() -> None:
    lost, back = HybridClock(7, 5 << 16, salt=100), HybridClock(7, 5 << 16, salt=101)

    given = {clock.tick(now_ms) for clock in (lost, back) for now_ms in (3, 4, 5, *range(900, 905))}

    assert len(given) == 2 * 8


def test_a_salt_moves_a_clock_by_half_a_second_at_most() -> None:
    salt = (1 << SALT_BITS) - 1

    assert HybridClock(7, 5 << 16, salt=salt).tick(0) < (5 + 513) << 16
    assert HybridClock(7, salt=salt).tick(1000) < 1001 << 16
