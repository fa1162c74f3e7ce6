"""The formulae of membership, against tables worked out by hand from the papers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envd.core.swim.config import (
    LAN,
    WAN,
    SwimConfig,
    confirmations_wanted,
    nack_ms,
    push_pull_interval_ms,
    suspicion_min_ms,
    suspicion_timeout_ms,
    transmit_limit,
)
from envd.core.swim.health import LocalHealth
from envd.core.swim.suspicion import Suspicion


@pytest.mark.parametrize(
    ("config", "members", "least_ms"),
    [
        (LAN, 1, 4_000),
        (LAN, 5, 4_000),
        (LAN, 10, 4_000),
        (LAN, 100, 8_000),
        (LAN, 1_000, 12_000),
        (WAN, 5, 30_000),
        (WAN, 100, 60_000),
    ],
)
def test_a_suspect_has_time_in_proportion_to_the_logarithm_of_the_cluster(
    config: SwimConfig, members: int, least_ms: int
) -> None:
    assert suspicion_min_ms(config, members) == least_ms


@pytest.mark.parametrize(
    ("confirmed", "timeout_ms"), [(0, 24_000), (1, 11_381), (2, 4_000), (3, 4_000)]
)
def test_each_independent_accuser_shortens_the_time(confirmed: int, timeout_ms: int) -> None:
    assert suspicion_timeout_ms(4_000, 24_000, confirmed=confirmed, confirmations=2) == timeout_ms


def test_where_nobody_can_confirm_the_time_is_the_least() -> None:
    assert suspicion_timeout_ms(4_000, 24_000, confirmed=0, confirmations=0) == 4_000
    assert [confirmations_wanted(LAN, members) for members in (2, 3, 4, 100)] == [0, 0, 2, 2]


@pytest.mark.parametrize(("config", "after_ms"), [(LAN, 400), (WAN, 1_600)])
def test_a_helper_says_no_answer_before_the_interval_of_who_asked_ends(
    config: SwimConfig, after_ms: int
) -> None:
    assert nack_ms(config) == after_ms
    assert config.probe_timeout_ms + after_ms < config.probe_interval_ms


@pytest.mark.parametrize(
    ("members", "limit"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12), (999, 12), (1_000, 16)]
)
def test_news_is_sent_in_proportion_to_the_logarithm_of_the_cluster(
    members: int, limit: int
) -> None:
    assert transmit_limit(LAN, members) == limit


@pytest.mark.parametrize(
    ("members", "interval_ms"),
    [(1, 30_000), (32, 30_000), (33, 60_000), (64, 60_000), (65, 90_000), (1_000, 180_000)],
)
def test_exchanges_are_stretched_above_32_members(members: int, interval_ms: int) -> None:
    assert push_pull_interval_ms(LAN, members) == interval_ms


def test_the_same_accuser_does_not_count_twice() -> None:
    suspicion = Suspicion(LAN, 10, witnesses=10, by=1, now_ms=1_000)

    counted = [suspicion.confirm(by) for by in (1, 2, 2, 3, 4)]

    assert counted == [False, True, False, True, False]
    assert suspicion.deadline_ms == 1_000 + 4_000


def test_time_that_this_node_slept_is_given_back_to_the_suspect() -> None:
    suspicion = Suspicion(LAN, 3, witnesses=3, by=1, now_ms=1_000)

    suspicion.delay(500, 1_700)

    assert suspicion.deadline_ms == 1_000 + 4_000 + 500


def test_bad_health_stretches_times_up_to_eight_times() -> None:
    health = LocalHealth(LAN.max_health)
    health.worsen(3)
    stretched = [health.scale(500)]
    health.worsen(100)
    stretched.append(health.scale(500))
    for _ in range(100):
        health.improve()
    stretched.append(health.scale(500))

    assert stretched == [2_000, 4_000, 500]


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_timeout_ms": 1_000},
        {"probe_timeout_ms": 0},
        {"nack_share": 1.0},
        {"gossip_interval_ms": 0},
        {"max_members": 0},
    ],
)
def test_parameters_that_make_no_sense_cannot_be_built(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(LAN, **wrong)
