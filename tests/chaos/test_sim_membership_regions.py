"""Membership between regions: what an operator is told of it, by seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from chaos.sim.membership_regions import World, cut_off_ms, found_ms, informed_ms, toll
from chaos.sim.swarm import PEACE, TROUBLE

SEEDS = (1, 2, 3)
FAR_MS = 80


def world(count: int, seed: int, places: int = 3) -> World:
    return World(count, places, FAR_MS, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_news_crosses_in_about_one_way(seed: int) -> None:
    here_ms, elsewhere_ms = informed_ms(world(15, seed))

    assert here_ms <= 1_000
    assert elsewhere_ms <= 1_000


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_dead_member_is_found_by_its_own_region_and_soon_known_in_the_others(
    seed: int, gateway: bool
) -> None:
    here_ms, elsewhere_ms = found_ms(world(15, seed), gateway=gateway)

    assert here_ms <= 13_000
    assert elsewhere_ms - here_ms <= 1_000


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_region_of_two_the_other_regions_confirm_what_the_only_witness_says(seed: int) -> None:
    here_ms, elsewhere_ms = found_ms(world(4, seed, places=2), gateway=True)

    assert here_ms <= 20_000
    assert elsewhere_ms - here_ms <= 1_000


@pytest.mark.parametrize(("count", "within_ms"), [(9, 75_000), (30, 110_000)])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_region_that_is_cut_off_is_down_within_two_minutes_and_back_in_seconds(
    seed: int, count: int, within_ms: int
) -> None:
    first_ms, all_ms, healed_ms = cut_off_ms(world(count, seed))

    assert first_ms >= 30_000
    assert all_ms <= within_ms
    assert healed_ms <= 10_000


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("count", "places"), [(4, 2), (9, 3)])
def test_small_regions_keep_well_nodes_alive_in_trouble(count: int, places: int, seed: int) -> None:
    assert toll(world(count, seed, places), TROUBLE, 60_000).well == 0


def test_regions_cost_less_between_places_than_one_that_spans_them() -> None:
    split = world(15, 1)

    with_regions = toll(split, PEACE, 60_000)
    as_one = toll(replace(split, named=False), PEACE, 60_000)

    assert with_regions.deaths == as_one.deaths == 0
    assert with_regions.across * 3 < as_one.across


def test_one_seed_gives_one_report_in_every_process() -> None:
    reports = {_reported(hash_seed) for hash_seed in ("0", "1")}

    assert len(reports) == 1
    assert "| region cut off: all are down for all |" in reports.pop()


def _reported(hash_seed: str) -> str:
    words = ["--nodes", "6", "--regions", "3", "--seed", "7", "--seconds", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "chaos.sim.membership", *words],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
