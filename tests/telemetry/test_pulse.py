"""The event loop's lag, and the age of what is not flushed."""

from __future__ import annotations

import asyncio

import pytest

from chaos.sim.loop import SimLoop
from envd.telemetry.pulse import INTERVAL_S, FlushLag, Pulse


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ([(1, 0, 0)], 0),
        ([(1, 5, 5), (9, 5, 5)], 0),
        ([(1, 5, 3), (2, 9, 4)], 1),
        ([(1, 5, 3), (2, 9, 4), (3, 9, 5)], 0),
        ([(1, 5, 3), (2, 9, 4), (3, 9, 5), (7, 9, 8)], 4),
        ([(1, 5, 3), (60, 9_000, 3)], 59),
        ([(1, 5, 3), (60, 9_000, 9_000)], 0),
    ],
)
def test_the_flush_lag_is_the_age_of_the_oldest_commit_that_the_state_lacks(
    looks: list[tuple[float, int, int]], seconds: float
) -> None:
    lag = FlushLag()

    for look in looks:
        lag.look(*look)

    assert lag.seconds == seconds


async def test_how_late_a_beat_comes_is_the_event_loops_lag() -> None:
    times = iter((10.0, 10.0 + INTERVAL_S + 0.02, 11.0, 11.0 + INTERVAL_S - 0.001, 12.0))
    pulse = Pulse(lambda: (7, 3), clock=lambda: next(times))

    pulse.start()
    pulse.beat()
    pulse.beat()
    pulse.stop()
    pulse.stop()

    assert sum(pulse.lag.counts) == 2
    assert pulse.lag.total == pytest.approx(0.02)
    assert pulse.flush.seconds == pytest.approx(11.499 - 10.52)


def test_others_look_at_what_is_the_loops_at_every_beat_and_a_fault_of_theirs_ends_none() -> None:
    loop, looks, faults = SimLoop(), [], []

    def look() -> None:
        looks.append(loop.time())
        raise RuntimeError("a defect")

    async def main() -> None:
        loop.set_exception_handler(lambda _, context: faults.append(context))
        pulse = Pulse(lambda: (0, 0), also=look)
        pulse.start()
        await asyncio.sleep(3.5 * INTERVAL_S)
        pulse.stop()

    try:
        loop.simulate(main())
    finally:
        loop.close()

    assert len(looks) == 3
    assert len(faults) == 3
