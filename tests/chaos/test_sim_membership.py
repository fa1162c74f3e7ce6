"""Membership in clusters of machines: the promises of the papers, by seeds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chaos.sim.membership import (
    PLAIN,
    detected_ms,
    expected_bytes,
    expected_detection_ms,
    expected_informed_ms,
    informed_ms,
    trouble,
)
from chaos.sim.swarm import PEACE, TROUBLE
from envd.core.swim.config import LAN

SEEDS = (1, 2, 3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [5, 40])
def test_a_change_is_known_about_as_fast_as_rumours_spread(count: int, seed: int) -> None:
    assert informed_ms(count, seed) <= 2 * expected_informed_ms(LAN, count)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [3, 5, 40])
def test_a_killed_node_is_found_in_the_time_that_the_formulae_give(count: int, seed: int) -> None:
    first_ms, known_ms = detected_ms(count, seed)

    least_ms, most_ms = expected_detection_ms(LAN, count)
    probes_ms = LAN.probe_interval_ms * (count - 1)
    assert least_ms - 2.582 * LAN.probe_interval_ms <= first_ms <= most_ms + probes_ms
    assert known_ms - first_ms <= 3_000


@pytest.mark.parametrize("seed", SEEDS)
def test_in_peace_nobody_is_declared_down(seed: int) -> None:
    assert trouble(10, seed, PEACE, 60_000).deaths == 0


def test_lifeguard_keeps_well_nodes_alive_where_swim_alone_does_not() -> None:
    with_it = sum(trouble(16, seed, TROUBLE, 60_000).well for seed in SEEDS)
    without = sum(trouble(16, seed, TROUBLE, 60_000, PLAIN).well for seed in SEEDS)

    assert with_it * 10 <= without
    assert without >= 10


def test_peace_costs_what_pings_and_exchanges_cost() -> None:
    spent = trouble(10, 1, PEACE, 60_000).bytes

    assert spent == pytest.approx(expected_bytes(LAN, 10, 10 * 110), rel=0.15)


def test_one_seed_gives_one_report_in_every_process() -> None:
    reports = {_reported(hash_seed) for hash_seed in ("0", "1")}

    assert len(reports) == 1
    assert "| 99 % informed of a leave |" in reports.pop()


def _reported(hash_seed: str) -> str:
    words = ["-m", "chaos.sim.membership", "--nodes", "5", "--seed", "7", "--seconds", "5"]
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
