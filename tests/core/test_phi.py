"""Phi against values worked out from the normal distribution, and what a window forgets."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.phi import PhiDetector, phi


@pytest.mark.parametrize(
    ("silence_ms", "expected"),
    [
        (0, 0.0098813),  # 2 deviations below the mean: -log10(0.97725)
        (200, 0.30103),  # the mean: -log10(1/2)
        (300, 0.79955),  # one deviation: -log10(0.158655)
        (400, 1.64302),
        (500, 2.86967),
        (761.2, 8.0),  # 5.612 deviations
        (1200, 23.11805),  # 10 deviations: 7.6199e-24
    ],
)
def test_phi_is_the_logarithm_of_the_chance_of_such_a_silence(
    silence_ms: float, expected: float
) -> None:
    assert phi(silence_ms, 200, 100) == pytest.approx(expected, abs=2e-3)


@given(st.floats(0, 1_000), st.floats(1, 500), st.floats(1, 200))
def test_phi_agrees_with_the_normal_distribution(
    silence_ms: float, mean_ms: float, deviation_ms: float
) -> None:
    later = 1 - NormalDist(mean_ms, deviation_ms).cdf(silence_ms)

    if later > 1e-9:
        assert phi(silence_ms, mean_ms, deviation_ms) == pytest.approx(-math.log10(later), abs=1e-6)


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_phi_grows_with_silence_and_is_always_finite(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))

    assert 0 <= phi(shorter, 200, 100) <= phi(longer, 200, 100) < math.inf


def test_the_formula_for_the_far_tail_joins_the_near_one() -> None:
    near, far = (200 + 100 * math.sqrt(2) * x for x in (19.999999, 20.000001))

    assert phi(near, 200, 100) == pytest.approx(phi(far, 200, 100), rel=1e-5)


def beating(times: int, every_ms: float = 200, **settings: float) -> PhiDetector:
    detector = PhiDetector(**settings)  # type: ignore[arg-type]
    for beat in range(times):
        detector.heartbeat(beat * every_ms)
    return detector


def test_a_regular_peer_is_suspected_after_the_mean_and_some_deviations() -> None:
    detector = beating(100)
    last_ms = 99 * 200

    assert not detector.suspects(last_ms + 760)
    assert detector.suspects(last_ms + 762)


def test_before_the_first_heartbeat_nobody_is_suspected() -> None:
    assert PhiDetector().phi(1e9) == 0


def test_an_irregular_peer_is_given_more_time() -> None:
    irregular = PhiDetector()
    at_ms = 0.0
    for beat in range(100):
        at_ms += 50 if beat % 2 else 650
        irregular.heartbeat(at_ms)

    assert not irregular.suspects(at_ms + 1_500)
    assert irregular.suspects(at_ms + 2_500)


def test_an_outage_teaches_nothing() -> None:
    detector = beating(100)
    before = detector.phi(99 * 200 + 500)

    detector.heartbeat(99 * 200 + 60_000)

    assert detector.phi(99 * 200 + 60_500) == before


def test_the_window_forgets() -> None:
    slow_then_fast = PhiDetector(window=10)
    at_ms = 0.0
    for every_ms in [600.0] * 50 + [200.0] * 50:
        at_ms += every_ms
        slow_then_fast.heartbeat(at_ms)

    assert slow_then_fast.phi(at_ms + 500) == pytest.approx(phi(500, 200, 100))


@pytest.mark.parametrize("wrong", [{"window": 1}, {"min_deviation_ms": 0}])
def test_a_detector_that_could_not_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="phi needs"):
        PhiDetector(**wrong)
