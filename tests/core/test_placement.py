"""Where partitions lie: apart, even, and moved no more than need be."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.placement import Site, Table, assign, assign_regions, loads, moved, zone_most
from envd.core.ring import PARTITIONS

COPIES = 3


def sites(count: int, zones: int = 1, first: int = 0) -> list[Site]:
    return [Site((n + 1) << 40, f"z{n % zones}") for n in range(first, first + count)]


def zones_of(table: Table, nodes: list[Site]) -> list[list[str]]:
    zone = {site.uid: site.zone for site in nodes}
    return [[zone[uid] for uid in holders] for holders in table]


def unevenness(table: Table, nodes: list[Site]) -> float:
    load = loads(table)
    return max(load.values()) / (sum(load.values()) / len(nodes))


def test_few_nodes_hold_everything() -> None:
    assert {frozenset(holders) for holders in assign(sites(2), COPIES)} == {
        frozenset(site.uid for site in sites(2))
    }


@pytest.mark.parametrize(("count", "zones"), [(4, 1), (7, 3), (8, 1), (9, 3), (12, 4), (10, 2)])
def test_each_partition_has_its_copies_on_nodes_of_their_own(count: int, zones: int) -> None:
    nodes = sites(count, zones)

    table = assign(nodes, COPIES)

    assert len(table) == PARTITIONS
    assert all(len(set(holders)) == COPIES for holders in table)
    most = 1 if zones >= COPIES else 2 if zones == 2 else COPIES
    assert all(max(Counter(held).values()) <= most for held in zones_of(table, nodes))


@pytest.mark.parametrize("count", range(8, 13))
@pytest.mark.parametrize("zones", [1, 3, 4])
def test_loads_are_even_and_stay_so_when_nodes_come_and_go(count: int, zones: int) -> None:
    nodes = sites(count, zones)
    table = assign(nodes, COPIES)
    more = [*nodes, Site(99 << 40, "z0")]
    fewer = nodes[1:]

    joined, left = assign(more, COPIES, table), assign(fewer, COPIES, table)

    # Zones of unequal size can't be as even; a new table is as even as can be.
    assert unevenness(table, nodes) <= 1.01 or zones > 1
    assert unevenness(joined, more) <= 1.05 * unevenness(assign(more, COPIES), more)
    assert unevenness(left, fewer) <= 1.05 * unevenness(assign(fewer, COPIES), fewer)
    # What must move: the share of the one that comes, or of the one that goes.
    assert moved(table, joined) <= COPIES * PARTITIONS / (count + 1)
    assert moved(table, left) <= 1.05 * loads(table)[nodes[0].uid]


def test_many_changes_in_a_row_leave_it_even() -> None:
    nodes = sites(8)
    table = assign(nodes, COPIES)
    chance = random.Random(3)
    for number in range(100, 130):
        nodes = [*nodes, Site(number << 40, "z0")] if len(nodes) < 9 else nodes
        nodes.remove(chance.choice(nodes))
        table = assign(nodes, COPIES, table)

        assert unevenness(table, nodes) <= 1.05


def test_where_nothing_changed_nothing_moves() -> None:
    nodes = sites(9, 3)
    table = assign(nodes, COPIES)

    assert assign(nodes, COPIES, table) == table


def test_the_order_in_which_nodes_are_named_does_not_matter() -> None:
    nodes = sites(9, 3)
    shuffled = random.Random(1).sample(nodes, len(nodes))

    assert assign(shuffled, COPIES) == assign(nodes, COPIES)


def test_a_zone_that_is_lost_leaves_copies_and_gets_them_back() -> None:
    nodes = sites(9, 3)
    table = assign(nodes, COPIES)
    rest = [site for site in nodes if site.zone != "z0"]

    without = assign(rest, COPIES, table)
    again = assign(nodes, COPIES, without)

    assert all(set(then) & set(now) for then, now in zip(table, without, strict=True))
    assert all(len(set(held)) == COPIES for held in zones_of(again, nodes))
    assert unevenness(again, nodes) <= 1.05


def test_every_node_is_preferred_for_about_its_share() -> None:
    first = Counter(holders[0] for holders in assign(sites(8), COPIES))

    assert min(first.values()) > 0.8 * PARTITIONS / 8


def test_the_copies_of_a_lost_node_come_from_all_others() -> None:
    nodes = sites(8)
    table = assign(nodes, COPIES)
    others = Counter(uid for held in table if nodes[0].uid in held for uid in held)

    assert len(others) == len(nodes)
    assert min(others.values()) > 0.5 * COPIES * PARTITIONS / 8 * 2 / 7


def test_each_region_has_copies_of_its_own() -> None:
    nodes = [Site(n << 40, f"z{n % 2}", "eu" if n % 2 else "us") for n in range(1, 11)]
    region = {site.uid: site.region for site in nodes}

    table = assign_regions(nodes, {"eu": 3, "us": 2})
    more = assign_regions([*nodes, Site(99 << 40, "z0", "us")], {"eu": 3, "us": 2}, table)

    for held in (*table, *more):
        assert Counter(region.get(uid, "us") for uid in held) == {"eu": 3, "us": 2}
    assert moved(table, more) <= 1.2 * 2 * PARTITIONS / 6


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=10),
    st.integers(1, 4),
    st.lists(st.booleans(), min_size=10, max_size=10),
)
def test_whatever_comes_and_goes_a_table_is_whole(
    zones: list[int], copies: int, stays: list[bool]
) -> None:
    nodes = [Site((n + 1) << 40, f"z{zone}") for n, zone in enumerate(zones)]
    table = assign(nodes, copies)
    rest = [site for site, stay in zip(nodes, stays, strict=False) if stay]
    for here in (nodes, rest):
        if not here:
            continue
        table = assign(here, copies, table)
        wanted = min(copies, len(here))
        most = zone_most(Counter(site.zone for site in here).values(), wanted)
        for held in table:
            assert len(set(held)) == wanted
            assert set(held) <= {site.uid for site in here}
        if copies < len(here):
            assert all(max(Counter(one).values()) <= most for one in zones_of(table, here))


@pytest.mark.parametrize(
    ("sizes", "copies", "most"), [((3, 3, 3), 3, 1), ((1, 9), 3, 2), ((1, 9), 4, 3), ((8,), 3, 3)]
)
def test_a_zone_has_as_few_copies_as_the_sizes_of_zones_allow(
    sizes: tuple[int, ...], copies: int, most: int
) -> None:
    nodes = [
        Site((z * 20 + n + 1) << 40, f"z{z}") for z, size in enumerate(sizes) for n in range(size)
    ]

    table = assign(nodes, copies)

    assert zone_most(sizes, copies) == most
    assert max(max(Counter(one).values()) for one in zones_of(table, nodes)) == most
