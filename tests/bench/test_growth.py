"""What grows with the data is told from what a cache took, and from what other programs took."""

from __future__ import annotations

import pytest

from bench.growth import Look, per_million, slowing


def look(done: int, *, at_s: float, cpu_s: float = 0.0, anon_mb: float = 0.0) -> Look:
    return Look(at_s, done, [0.0], [anon_mb], [0.0], [cpu_s], [0.0])


def test_a_rate_that_stays_is_one_that_does_not_slow() -> None:
    looks = [look(n * 100, at_s=n * 2.0, cpu_s=n * 1.0) for n in range(11)]

    assert slowing(looks) == pytest.approx((1.0, 1.0))


def test_work_that_grows_with_the_data_is_told_though_the_looks_are_uneven() -> None:
    done = [0, 10, 150, 400, 430, 700, 860, 1000]
    looks = [look(n, at_s=n * n / 1000, cpu_s=float(n)) for n in done]

    slower, dearer = slowing(looks)

    assert slower == pytest.approx(3.0, rel=0.2)  # (1 - 0.64) / (0.16 - 0.04)
    assert dearer == pytest.approx(1.0)


def test_what_a_cache_takes_in_the_first_half_is_no_growth() -> None:
    looks = [look(n * 100_000, at_s=n, anon_mb=min(n, 3) * 70.0) for n in range(11)]

    assert per_million(looks, [one.anon_mb for one in looks]) == pytest.approx([0.0])


def test_what_grows_to_the_end_is_told_by_the_million() -> None:
    looks = [look(n * 100_000, at_s=n, anon_mb=200 + n * 4.0) for n in range(11)]

    assert per_million(looks, [one.anon_mb for one in looks]) == pytest.approx([40.0])


def test_one_look_tells_of_no_growth() -> None:
    looks = [look(0, at_s=0.0), look(10, at_s=1.0, anon_mb=50.0)]

    assert per_million(looks, [one.anon_mb for one in looks]) == [0.0]
