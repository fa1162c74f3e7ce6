"""How the thread that flushes leaves the interpreter to others."""

from __future__ import annotations

import pytest

from envd.storage.write_behind import Pace


@pytest.mark.parametrize(
    ("worked_s", "hurry", "slept_s"),
    [
        (0.0005, False, []),
        (0.002, False, [0.006]),
        (0.002, True, []),
        (0.5, False, [0.02]),
    ],
)
def test_it_rests_three_times_as_long_as_it_worked_and_not_for_long(
    worked_s: float, hurry: bool, slept_s: list[float]
) -> None:
    slept: list[float] = []
    times = iter([1.0, 1.0, 1.0 + worked_s, 9.0, 9.0, 9.0, 9.0])
    pace = Pace(lambda: hurry, clock=lambda: next(times), sleep=slept.append)

    pace()
    pace()

    assert slept == pytest.approx(slept_s)
