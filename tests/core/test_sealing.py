"""When a round begins and ends, and how a topology goes through one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envd.core.partitions import first_table
from envd.core.placement import Site
from envd.core.sealing import Floor, FloorPace, Sealed, Sealing, is_done, may_begin, next_floor
from envd.core.stamp import COUNTER_BITS
from envd.core.topology import Topology, decode

HOUR_MS = 3_600_000
SITES = tuple(Site(uid, f"z{uid}", "eu") for uid in (1, 2, 3))
PLAIN = Topology(7, SITES, (1, 2, 3))


@pytest.mark.parametrize(
    ("at_h", "now_h", "to_h"), [(12, 14, 13), (12, 13.9, None), (0, 14.5, 13.5), (15, 14, None)]
)
def test_it_is_time_once_the_floor_is_old_enough(
    at_h: float, now_h: float, to_h: float | None
) -> None:
    floor = Floor(int(at_h * HOUR_MS) << COUNTER_BITS, 3)
    expected = None if to_h is None else int(to_h * HOUR_MS) << COUNTER_BITS
    assert next_floor(floor, FloorPace(), int(now_h * HOUR_MS)) == expected


def test_a_round_begins_where_all_are_at_the_floor() -> None:
    told = {1: Sealed(5), 2: Sealed(5)}
    assert may_begin(Floor(5, 1), 9, (1, 2), told)
    assert not may_begin(Floor(5, 1), 9, (1, 2, 3), told)
    assert not may_begin(Floor(5, 1), 9, (1, 2, 3), {**told, 3: Sealed(4)})
    assert may_begin(Floor(5, 1), 9, (1, 2, 3), {**told, 3: Sealed(8)})
    assert not may_begin(Floor(5, 1), 8, (1, 2, 3), {**told, 3: Sealed(8)})


def test_a_step_is_done_when_all_did_it_in_this_round() -> None:
    sealing = Sealing(9, 4, gathering=False)
    told = {1: Sealed(5, 4, 3), 2: Sealed(5, 4, 4)}
    assert is_done(sealing, (1, 2), told)
    assert not is_done(sealing._replace(gathering=True), (1, 2), told)
    assert not is_done(sealing, (1, 2), {1: Sealed(5, 4), 2: Sealed(5, 3)})
    assert not is_done(sealing, (1, 2, 3), told)


def test_a_topology_goes_through_a_round() -> None:
    sealed = PLAIN.seal(9)
    gathering = sealed.gather()
    raised = gathering.raise_floor()

    assert sealed.sealing == Sealing(9, 8, gathering=False)
    assert gathering.sealing == Sealing(9, 8, gathering=True)
    assert (raised.epoch, raised.floor, raised.sealing) == (10, Floor(9, 8), None)
    for each in (PLAIN, sealed, gathering, raised):
        assert decode(each.encode()) == each


def test_who_comes_ends_a_round_and_who_goes_does_not() -> None:
    sealed = PLAIN.seal(9)
    assert sealed.with_nodes((*SITES, Site(4, "z4", "eu"))).sealing is None
    assert replace(sealed, voters=(1,)).with_nodes(SITES[:2]).sealing == sealed.sealing


def test_what_moves_ends_a_round() -> None:
    table = first_table((1, 2, 3), {"": 2})
    sealed = PLAIN.with_table(table).seal(9)
    assert sealed.with_table(table).sealing is not None
    assert sealed.with_table(table.begin({0: (1, 2)}, sealed.epoch + 1)).sealing is None


def test_what_is_made_up_keeps_the_floor() -> None:
    raised = PLAIN.seal(9).gather().raise_floor()
    assert raised.seal(12).recovered(SITES[0]).floor == raised.floor
    assert raised.seal(12).recovered(SITES[0]).sealing is None
