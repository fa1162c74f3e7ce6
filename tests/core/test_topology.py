"""Who votes: the text of a topology, its transitions, and who should vote next."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.errors import Corrupt
from envd.core.partitions import Move, Stage, first_table
from envd.core.paxos import Quorum
from envd.core.placement import Site
from envd.core.stamp import ZERO, Stamp
from envd.core.topology import (
    MOST_VOTERS,
    RECOVERED_EPOCHS,
    TABLE,
    TOPOLOGY,
    VARIABLE,
    Topology,
    decode,
    founded,
    to_strike,
    topology_in,
    wanted_voters,
)

ONE, TWO, THREE, FOUR = (Site(uid, f"z{uid}", "eu") for uid in (1, 2, 3, 4))
KNOWN = Topology(7, (ONE, TWO, Site((1 << 64) - 1, "z\u00fc", "")), (1,), (1, 2), (2,))
TEXT = (
    '{"epoch":7,"nodes":[{"uid":"0000000000000001","zone":"z1","region":"eu"},'
    '{"uid":"0000000000000002","zone":"z2","region":"eu"},'
    '{"uid":"ffffffffffffffff","zone":"z\\u00fc","region":""}],'
    '"voters":["0000000000000001"],'
    '"joining":["0000000000000001","0000000000000002"],"leaving":["0000000000000002"]}'
)

HELD = replace(first_table((1, 2), {"": 2}), moves={7: Move(Stage.READ_NEW, (2, 3), 6)})

sites = st.builds(
    Site, st.integers(1, 8), st.sampled_from(("a", "b", "c")), st.sampled_from(("", "eu"))
)
node_sets = st.lists(sites, min_size=1, max_size=8, unique_by=lambda site: site.uid).map(
    lambda found: tuple(sorted(found, key=lambda site: site.uid))
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    nodes = draw(node_sets)
    uids = st.sampled_from([site.uid for site in nodes])
    some = st.sets(uids, max_size=5).map(lambda found: tuple(sorted(found)))
    voters = draw(st.sets(uids, min_size=1, max_size=5))
    return Topology(draw(st.integers(1, 99)), nodes, tuple(sorted(voters)), draw(some), draw(some))


# -- the text ----------------------------------------------------------------------------------


def test_the_text_of_a_known_topology_never_changes() -> None:
    assert KNOWN.encode() == TEXT
    assert decode(TEXT) == KNOWN


@given(topologies())
def test_a_topology_that_was_written_is_read_back(topology: Topology) -> None:
    assert decode(topology.encode()) == topology


def test_fields_that_a_newer_version_adds_are_passed_over() -> None:
    fields = json.loads(TEXT)

    assert decode(json.dumps(fields | {"witnesses": ["x"]})) == KNOWN


def without(name: str) -> dict[str, Any]:
    fields = json.loads(TEXT)
    del fields[name]
    return dict(fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "null",
        "7",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(json.loads(TEXT) | {"voters": []}),
        json.dumps(json.loads(TEXT) | {"voters": ["0000000000000009"]}),
        json.dumps(json.loads(TEXT) | {"joining": ["0000000000000009"]}),
        json.dumps(json.loads(TEXT) | {"voters": [1]}),
        json.dumps(json.loads(TEXT) | {"voters": ["not a uid"]}),
        json.dumps(json.loads(TEXT) | {"nodes": [1]}),
        json.dumps(json.loads(TEXT) | {"nodes": [{"uid": "1"}]}),
        json.dumps(json.loads(TEXT) | {"epoch": None}),
        json.dumps(json.loads(TEXT) | {"epoch": "soon"}),
        json.dumps(json.loads(TEXT) | {"epoch": float("inf")}),
        *(json.dumps(without(name)) for name in ("epoch", "nodes", "voters", "joining", "leaving")),
    ],
)
def test_what_is_no_topology_is_refused(text: str) -> None:
    with pytest.raises(Corrupt) as refused:
        decode(text)

    assert refused.value.__cause__ is None


def holding(value: str | None, *tables: str | None) -> Environment:
    puts = [Change(Kind.VARIABLE, VARIABLE, value, False, ZERO)]
    puts += [Change(Kind.VARIABLE, TABLE, table, False, ZERO) for table in tables]
    return Environment(TOPOLOGY).apply(Commit(TOPOLOGY, Stamp(1, 1, 1), tuple(puts)))


def test_an_environment_holds_a_topology_or_none() -> None:
    assert topology_in(Environment(TOPOLOGY)) is None
    assert topology_in(holding(None)) is None
    assert topology_in(holding(TEXT)) == KNOWN
    with pytest.raises(Corrupt):
        topology_in(holding("rubbish"))


def test_a_table_is_a_variable_of_its_own() -> None:
    with_table = replace(KNOWN, table=HELD)

    assert with_table.encode() == TEXT
    assert topology_in(holding(TEXT, HELD.encode())) == with_table
    assert topology_in(holding(TEXT, None)) == KNOWN
    with pytest.raises(Corrupt):
        topology_in(holding(TEXT, "rubbish"))
    assert topology_in(holding(None, HELD.encode())) is None


# -- its transitions ---------------------------------------------------------------------------


def test_a_cluster_begins_with_one_voter() -> None:
    topology = founded(ONE)

    assert topology == Topology(1, (ONE,), (1,))
    assert topology.quorum == topology.own_quorum == Quorum((frozenset({1}),))


def test_who_votes_must_be_a_node() -> None:
    for voters, joining in (((), ()), ((9,), ()), ((1,), (9,))):
        with pytest.raises(ValueError, match="voters"):
            Topology(1, (ONE,), voters, joining)


def test_voters_go_over_in_two_steps() -> None:
    alone = Topology(1, (ONE, TWO, THREE), (1,))

    joint = alone.begin((1, 2, 3))
    over = joint.finish()

    assert [alone.epoch, joint.epoch, over.epoch] == [1, 2, 3]
    assert joint.quorum == Quorum((frozenset({1}), frozenset({1, 2, 3})))
    assert joint.own_quorum == alone.own_quorum
    assert over.quorum == over.own_quorum == Quorum((frozenset({1, 2, 3}),))
    assert joint.abandon() == Topology(3, alone.nodes, (1,))


def test_a_voter_stays_a_node_though_it_is_not_named() -> None:
    joint = Topology(1, (ONE, TWO, THREE), (1,), (2,), leaving=(2, 3))

    changed = joint.with_nodes([FOUR])

    assert changed == Topology(2, (ONE, TWO, FOUR), (1,), (2,), leaving=(2,))


def test_a_node_that_moved_is_where_it_is_now() -> None:
    moved = Site(1, "elsewhere", "us")

    assert founded(ONE).with_nodes([moved, TWO]).nodes == (moved, TWO)


def test_who_is_about_to_leave_is_marked_and_unmarked() -> None:
    topology = Topology(1, (ONE, TWO, THREE), (1,), leaving=(3,))

    marked = topology.with_leaving(2, leaves=True)

    assert (marked.epoch, marked.leaving) == (2, (2, 3))
    assert marked.with_leaving(2, leaves=True).leaving == (2, 3)
    assert marked.with_leaving(2, leaves=False).leaving == (3,)
    assert topology.with_leaving(1, leaves=False).leaving == (3,)


def test_who_is_left_of_lost_voters_votes_alone_far_ahead() -> None:
    topology = Topology(5, (ONE, TWO, THREE), (1, 2, 3), (2,), leaving=(1,))

    made = topology.recovered(THREE)

    assert made == Topology(5 + RECOVERED_EPOCHS, (THREE,), (3,))


def meet(one: Quorum, other: Quorum) -> bool:
    """Whether any two quorums of these have a member in common."""
    everybody = sorted(one.members | other.members)
    choices = [
        set(some) for size in range(len(everybody) + 1) for some in combinations(everybody, size)
    ]
    ones = [some for some in choices if one.is_met(some)]
    return all(a & b for a in ones for b in choices if other.is_met(b))


@given(topologies(), st.data())
def test_the_quorums_of_an_epoch_and_of_the_next_one_meet(
    topology: Topology, data: st.DataObject
) -> None:
    uids = [site.uid for site in topology.nodes]
    others = data.draw(st.lists(st.sampled_from(uids), min_size=1, max_size=5, unique=True))
    plain = topology.abandon()
    joint = plain.begin(others)
    steps = [
        (plain, joint),
        (joint, joint.finish()),
        (joint, joint.abandon()),
        (joint, joint.with_nodes([])),
        (joint, joint.with_leaving(others[0], leaves=True)),
        (plain, plain.with_nodes(topology.nodes[:1])),
    ]

    assert all(after.epoch == before.epoch + 1 for before, after in steps)
    assert all(meet(before.quorum, after.quorum) for before, after in steps)


def test_a_recovered_topology_meets_nobody_it_is_for_when_they_are_lost() -> None:
    topology = Topology(5, (ONE, TWO, THREE), (1, 2, 3))

    assert not meet(topology.quorum, topology.recovered(THREE).quorum)


# -- the table ---------------------------------------------------------------------------------


def test_a_new_table_is_a_new_epoch_and_who_votes_does_not_change() -> None:
    topology = Topology(5, (ONE, TWO, THREE), (1, 2), (2, 3), leaving=(1,))

    changed = topology.with_table(HELD)

    assert changed == replace(topology, epoch=6, table=HELD)
    assert changed.quorum == topology.quorum


def test_every_change_of_who_votes_keeps_the_table() -> None:
    topology = Topology(5, (ONE, TWO, THREE), (1,), (2,), table=HELD)

    for changed in (
        topology.with_leaving(1, leaves=True),
        topology.begin((2,)),
        topology.finish(),
        topology.abandon(),
        topology.with_nodes([ONE, TWO, THREE]),
    ):
        assert changed.table is HELD


def test_nodes_that_hold_partitions_are_struck_one_at_a_time_and_voters_not_at_all() -> None:
    nodes = (ONE, TWO, THREE, FOUR)
    whole = Topology(5, nodes, (1,))
    held = replace(whole, table=first_table((2, 3, 4), {"": 3}))
    everybody = {1, 2, 3, 4, 9}

    assert to_strike(whole, everybody) == {2, 3, 4}
    assert to_strike(held, everybody) == {2}
    assert to_strike(held, {1}) == to_strike(held, ()) == frozenset()
    assert to_strike(replace(held, joining=(2,)), everybody) == {3}
    before = held.table
    while gone := to_strike(held, {2, 3}):
        held = held.with_nodes(site for site in held.nodes if site.uid not in gone)
        assert before is not None
        assert held.table is not None
        (old,), (new,) = before.quorum(0).groups, held.table.quorum(0).groups
        majorities = [
            [set(some) for some in combinations(group, len(group) // 2 + 1)] for group in (old, new)
        ]
        assert all(one & other for one in majorities[0] for other in majorities[1])
        before = held.table
    assert [site.uid for site in held.nodes] == [1, 4]


def test_who_is_struck_is_struck_from_the_table_too() -> None:
    topology = Topology(5, (ONE, TWO, THREE), (1,), table=HELD)

    struck = topology.with_nodes([ONE, TWO])

    assert struck.nodes == (ONE, TWO)
    assert struck.table == HELD.without([3])
    assert struck.table.uids() == {1, 2}


def test_who_makes_up_a_topology_keeps_the_nodes_that_hold_something() -> None:
    topology = Topology(5, (ONE, TWO, THREE), (1, 2, 3), leaving=(1,), table=HELD)

    made = topology.recovered(FOUR)

    assert made == Topology(5 + RECOVERED_EPOCHS, (ONE, TWO, THREE, FOUR), (4,), table=HELD)


# -- who should vote ---------------------------------------------------------------------------


def nodes_in(zones: str) -> tuple[Site, ...]:
    return tuple(Site(uid, zone) for uid, zone in enumerate(zones, 1))


@pytest.mark.parametrize(
    ("zones", "voters", "able", "lost", "leaving", "expected"),
    [
        pytest.param("a", {1}, {1}, (), (), (1,), id="one-node"),
        pytest.param("aa", {1}, {1, 2}, (), (), (1,), id="two-nodes-one-votes"),
        pytest.param("aaa", {1}, {1, 2, 3}, (), (), (1, 2, 3), id="three-nodes"),
        pytest.param("aaaa", {1, 2, 3}, {1, 2, 3, 4}, (), (), (1, 2, 3), id="four-nodes"),
        pytest.param("a" * 5, {1, 2, 3}, set(range(1, 6)), (), (), (1, 2, 3, 4, 5), id="five"),
        pytest.param("a" * 6, {1, 2, 3, 4, 5}, set(range(1, 7)), (), (), (1, 2, 3, 4, 5), id="six"),
        pytest.param("a" * 7, {3}, set(range(1, 8)), (), (), (1, 2, 3, 4, 5), id="seven"),
        pytest.param("aaabc", {1}, {1, 2, 3, 4, 5}, (), (), (1, 2, 3, 4, 5), id="all-are-needed"),
        pytest.param("aabc", {1}, {1, 2, 3, 4}, (), (), (1, 3, 4), id="zones-of-their-own"),
        pytest.param("aaab", {1}, {1, 2, 3, 4}, (), (), (1, 2, 4), id="as-many-zones-as-there-are"),
        pytest.param("aaa", {1}, {1, 2}, (), (), (1,), id="the-third-can-not-be-reached"),
        pytest.param("aaaa", {1, 2, 3}, {1, 2, 4}, (), (), (1, 2, 3), id="away-for-a-while"),
        pytest.param("aaaa", {1, 2, 3}, {1, 2, 4}, {3}, (), (1, 2, 4), id="lost-with-a-spare"),
        pytest.param("aaa", {1, 2, 3}, {1, 2}, {3}, (), (1, 2, 3), id="lost-without-a-spare"),
        pytest.param("aaaa", {1, 2, 3}, {1, 2}, {3, 4}, (), (1, 2, 3), id="the-spare-is-lost-too"),
        pytest.param(
            "aaaa", {1, 2, 3}, {1, 2, 3, 4}, (), {3}, (1, 2, 4), id="leaving-with-a-spare"
        ),
        pytest.param("aaa", {1, 2, 3}, {1, 2, 3}, (), {1}, (2,), id="leaving-makes-it-two-nodes"),
        pytest.param("aa", {1}, {1, 2}, (), {1}, (2,), id="the-only-voter-leaves"),
        pytest.param("aaa", {1, 2, 3}, {1, 2, 3}, (), {1, 2, 3}, (), id="all-leave"),
        pytest.param("aa", {1, 2}, {1, 2}, (), (), (1,), id="fewer-nodes-fewer-voters"),
        pytest.param("aa", {1, 2}, {2}, (), (), (2,), id="who-can-be-reached-stays"),
        pytest.param(
            "a" * 5, {1, 2, 3, 4, 5}, {3, 4}, (), (), (1, 2, 3, 4, 5), id="none-is-struck"
        ),
        pytest.param("a" * 5, {1, 2, 3}, {1, 2, 3, 4}, (), (), (1, 2, 3), id="none-for-the-fifth"),
        pytest.param("aab", {1}, {1, 2, 3}, {2}, (), (1, 2, 3), id="able-is-not-lost"),
    ],
)
def test_who_should_vote(
    zones: str,
    voters: set[int],
    able: set[int],
    lost: set[int],
    leaving: set[int],
    expected: tuple[int, ...],
) -> None:
    topology = Topology(1, nodes_in(zones), tuple(sorted(voters)), (), tuple(sorted(leaving)))

    assert wanted_voters(topology, able, lost) == expected


@pytest.mark.parametrize(
    ("zones", "voters", "able", "gone", "expected"),
    [
        pytest.param("aaa", {1, 2, 3}, {1, 2}, {3}, (1,), id="two-are-left"),
        pytest.param("aaaa", {1, 2, 3}, {1, 2, 4}, {3}, (1, 2, 4), id="another-takes-its-place"),
        pytest.param("a" * 5, {1, 2, 3, 4, 5}, {1, 2, 3}, {4, 5}, (1, 2, 3), id="three-are-left"),
        pytest.param("aaa", {1, 2, 3}, {1}, {3}, (1,), id="who-is-away-may-come-back"),
        pytest.param("aaa", {1}, {1, 2}, {3}, (1,), id="it-did-not-vote"),
    ],
)
def test_who_does_not_come_back_counts_no_more(
    zones: str, voters: set[int], able: set[int], gone: set[int], expected: tuple[int, ...]
) -> None:
    topology = Topology(1, nodes_in(zones), tuple(sorted(voters)))

    assert wanted_voters(topology, able, gone, gone) == expected


@given(topologies(), st.data())
def test_whoever_should_vote_is_a_node_that_stays_and_they_are_not_too_many(
    topology: Topology, data: st.DataObject
) -> None:
    uids = st.sets(st.sampled_from([site.uid for site in topology.nodes]))
    able, lost = data.draw(uids), data.draw(uids)

    wanted = wanted_voters(topology, able, lost)

    staying = {site.uid for site in topology.nodes} - set(topology.leaving)
    assert set(wanted) <= staying
    assert len(wanted) <= MOST_VOTERS
    assert list(wanted) == sorted(set(wanted))
    if staying & (able | set(topology.voters)):
        assert wanted


@given(topologies(), st.data())
def test_who_should_vote_is_settled_once_they_do(topology: Topology, data: st.DataObject) -> None:
    able = data.draw(st.sets(st.sampled_from([site.uid for site in topology.nodes]), min_size=1))
    wanted = wanted_voters(topology, able)
    if not wanted:
        return

    over = topology.begin(wanted).finish()

    assert wanted_voters(over, able) == wanted
