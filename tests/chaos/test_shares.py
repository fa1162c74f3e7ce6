"""What checkers make of clusters in which not every node holds everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from chaos.sim import shares
from chaos.sim.checkers import Violation
from chaos.sim.checkers.adjacent_quorums import AdjacentQuorums
from chaos.sim.checkers.equal_roots import EqualRoots
from chaos.sim.checkers.lost_writes import LostWrites
from chaos.sim.checkers.readable import PATIENCE_S, Dropped, Readable
from chaos.sim.checkers.same_everywhere import Convergence, SameHistory
from chaos.sim.checkers.whole_commits import GROUP
from chaos.sim.held import Held, are_enough
from chaos.sim.moving_faults import taking_part
from envd.core.partitions import ANYWHERE, Move, PartitionTable, Stage, first_table
from envd.core.ring import SYSTEM_PARTITION, partition_of
from envd.core.stamp import Stamp
from envd.core.topology import Topology
from tests.chaos.stores import NAME, WHOLE, Node, acknowledged, sightings, sites

PLACE = partition_of(NAME)
ONE, TWO, THREE, FOUR = UIDS = (1, 2, 3, 4)


def topology(
    epoch: int = 1, moves: Mapping[int, Move] | None = None, holders: tuple[int, ...] = (ONE, TWO)
) -> Topology:
    first = first_table(holders, {ANYWHERE: len(holders)})
    table = replace(first, moves=moves or {}, waiting=0)
    return Topology(epoch, sites(UIDS), (ONE,), table=table)


def moving(stage: Stage, epoch: int, to: tuple[int, ...] = (TWO, THREE)) -> Topology:
    return topology(epoch, {PLACE: Move(stage, to, 5)})


async def cluster(known: Topology, *, equal: bool = True) -> tuple[Node, Node, Node]:
    """Three nodes with this topology; the first two hold NAME, equally or not."""
    one, two, three = (Node(f"n{uid}", uid) for uid in (ONE, TWO, THREE))
    await one.go_by(known)
    await two.take(one)
    await three.take(one)
    await one.put(WHOLE)
    if equal:
        await hand_over(one, two)
    return one, two, three


async def hand_over(one: Node, other: Node) -> None:
    """Have another node take what one has of NAME."""
    stand_in = Node("x", ONE)
    stand_in.applied = [each for each in one.applied if each.record.commit.environment == NAME]
    await other.take(stand_in)


# -- who is to hold what -----------------------------------------------------------------------


async def test_without_a_table_each_node_is_to_have_everything() -> None:
    node = Node("n1", ONE)

    known = shares.of([node.seen])

    assert known.table is None
    assert known.has_all(9, PLACE)
    assert known.read_by(9) is None
    assert known.unsettled([node.seen]) == ""


async def test_the_newest_topology_that_any_node_has_says_who_has_what() -> None:
    old, new = Node("n1", ONE), Node("n2", TWO)
    await old.go_by(topology(1))
    await new.go_by(moving(Stage.READ_NEW, 2))

    known = shares.of(sightings(old, new))

    assert known.topology is not None
    assert known.topology.epoch == 2
    assert [known.has_all(uid, PLACE) for uid in (ONE, TWO, THREE)] == [False, True, True]
    assert known.has_all(THREE, SYSTEM_PARTITION)
    read = known.read_by(ONE)
    assert read is not None
    assert PLACE not in read
    assert SYSTEM_PARTITION in read
    assert len(read) == 4095
    assert known.read_by(THREE) == frozenset({PLACE, SYSTEM_PARTITION})
    assert shares.own(old.store).topology == topology(1)


async def test_it_is_settled_once_nothing_moves_and_nobody_has_what_is_not_its_own() -> None:
    one, two, three = await cluster(topology())
    nodes = sightings(one, two, three)

    assert shares.of(nodes).unsettled(nodes) == ""
    assert "too few copies" in shares.of(nodes).unsettled(sightings(one, three))
    await three.put(WHOLE)
    assert "n3 has something" in shares.of(nodes).unsettled(nodes)
    await one.go_by(moving(Stage.USE_NEW, 2))
    assert "on their way" in shares.of(nodes).unsettled(nodes)


def test_who_takes_part_in_a_move_gives_gets_or_goes_on() -> None:
    table = moving(Stage.STREAMING, 5).table

    assert table is not None
    assert taking_part(table, Stage.STREAMING) == {ONE, TWO, THREE}
    assert taking_part(table, Stage.USE_NEW) == set()


def test_a_disk_may_be_lost_when_each_has_what_it_is_to_have_and_two_are_to_have_it() -> None:
    stamp = Stamp(0, 1, ONE)
    wanted = Held({(PLACE, ONE): 2}, {NAME: frozenset({stamp})})
    mine = replace(wanted, partitions=frozenset({PLACE}))
    nothing = Held({}, partitions=frozenset({PLACE + 1}))

    assert are_enough([mine, mine, nothing], wanted, 2)
    assert not are_enough([mine, nothing], wanted, 2)
    assert not are_enough([mine, mine, replace(nothing, partitions=None)], wanted, 2)
    assert not are_enough([mine, mine, replace(mine, vectors={(PLACE, ONE): 1})], wanted, 2)
    assert not are_enough([mine, mine, replace(mine, commits={})], wanted, 2)
    assert are_enough([mine, mine, replace(mine, commits={}, bases={NAME: stamp})], wanted, 2)


# -- what is equal where -----------------------------------------------------------------------


async def test_who_holds_an_environment_shows_the_same_and_the_others_nothing() -> None:
    nodes = sightings(*await cluster(topology()))

    Convergence().ended(nodes)
    SameHistory().ended(nodes)
    EqualRoots().ended(nodes)

    one, two, three = await cluster(topology(), equal=False)
    with pytest.raises(Violation, match="differ in a/b"):
        Convergence().ended(sightings(one, two, three))
    with pytest.raises(Violation, match="another history of a/b"):
        SameHistory().ended(sightings(one, two, three))


async def test_an_environment_that_none_of_the_nodes_holds_is_seen() -> None:
    one, two, three = await cluster(topology())
    gone = topology(2, holders=(FOUR,))
    assert gone.table is not None
    known = replace(gone, table=replace(gone.table, copies={ANYWHERE: 0}))
    await one.go_by(known)
    checker = LostWrites()
    checker.answered(acknowledged(one, one.writer.stamps[1]))

    with pytest.raises(Violation, match="no node that there is has all of a/b"):
        checker.ended(sightings(one, two, three))


async def test_an_acknowledged_write_must_be_on_each_holder_and_on_no_other_node() -> None:
    one, two, three = await cluster(topology())
    checker = LostWrites()
    checker.answered(acknowledged(one, one.writer.stamps[-1]))
    checker.ended(sightings(one, two, three))

    checker.answered(acknowledged(one, await one.put(WHOLE)))

    with pytest.raises(Violation, match="n2 lacks its commit"):
        checker.ended(sightings(one, two, three))


async def test_roots_are_compared_where_both_are_to_have_all() -> None:
    one, other = Node("n1", ONE), Node("n2", ONE)
    await one.go_by(topology())
    await one.put(WHOLE)
    await other.put(dict.fromkeys(GROUP, "another"))
    other.seen = replace(other.seen, uid=THREE)

    EqualRoots().ended(sightings(one, other))

    other.seen = replace(other.seen, uid=TWO)
    with pytest.raises(Violation, match="equal roots"):
        EqualRoots().ended(sightings(one, other))


# -- 6 -----------------------------------------------------------------------------------------


def applied_by(node: Node, checker: AdjacentQuorums | Readable) -> None:
    checker.applied(node.seen, node.applied[-1])


async def test_deciders_that_go_over_in_stages_meet() -> None:
    node, checker = Node("n1", ONE), AdjacentQuorums()
    table = topology().table
    assert table is not None
    known = topology(1)
    steps = [known]
    table = table.begin({PLACE: (THREE, FOUR)}, 2)
    steps.append(known := known.with_table(table))
    for _ in Stage:
        table = table.advance([PLACE])
        steps.append(known := known.with_table(table))

    for step in steps:
        await node.go_by(step)
        applied_by(node, checker)

    assert steps[-1].table is not None
    assert steps[-1].table.holders[PLACE] == (THREE, FOUR)


async def test_deciders_that_are_others_at_once_need_not_meet() -> None:
    for first, second in ((1, 2), (2, 1)):
        node, checker = Node("n1", ONE), AdjacentQuorums()
        held = {1: topology(1), 2: topology(2, holders=(THREE, FOUR))}
        await node.go_by(held[first])
        applied_by(node, checker)
        await node.go_by(held[second])

        with pytest.raises(Violation, match="need not meet"):
            applied_by(node, checker)


async def test_voters_that_are_others_at_once_need_not_meet() -> None:
    checker = AdjacentQuorums()
    checker.look("n1", Topology(1, sites(UIDS), (ONE, TWO, THREE)))
    checker.look("n1", Topology(2, sites(UIDS), (ONE, TWO, THREE), (FOUR,)))

    with pytest.raises(Violation, match="the voters of topologies 2 and 3"):
        checker.look("n1", Topology(3, sites(UIDS), (THREE,)))


async def test_one_epoch_is_one_topology_unless_a_disk_took_votes_back() -> None:
    checker = AdjacentQuorums()
    checker.look("n1", Topology(3, sites(UIDS), (ONE,)))
    checker.look("n2", Topology(3, sites(UIDS), (ONE,)))
    with pytest.raises(Violation, match="another topology"):
        checker.look("n3", Topology(3, sites(UIDS), (TWO,)))

    node = Node("n1", ONE)
    checker.disk_lost("n2", {}, 3.0)
    await node.go_by(topology(3))
    applied_by(node, checker)


async def test_an_epoch_that_is_made_up_stands_for_itself() -> None:
    checker = AdjacentQuorums()
    lost = Topology(3, sites(UIDS), (ONE, TWO, THREE))

    checker.look("n1", lost)
    checker.look("n4", lost.recovered(sites([FOUR])[0]))


# -- who is read from has everything -----------------------------------------------------------


@pytest.mark.parametrize("pulled", [True, False])
async def test_who_begins_to_be_read_from_has_pulled(pulled: bool) -> None:
    one, two, three = await cluster(topology(4))
    checker = Readable(lambda: sightings(one, two, three))
    await one.go_by(moving(Stage.STREAMING, 5))
    applied_by(one, checker)
    if pulled:
        await hand_over(one, three)
    await two.go_by(moving(Stage.READ_NEW, 6))

    if pulled:
        applied_by(two, checker)
    else:
        with pytest.raises(Violation, match="n3 is to be read from and lacks 1 commits"):
            applied_by(two, checker)


async def test_what_too_few_old_holders_had_need_not_be_pulled() -> None:
    """Of three a majority is pulled from, so what one of them alone has may be missed."""
    one, two, three = await cluster(topology(4), equal=False)
    old = (ONE, TWO, FOUR)

    def at(stage: Stage, epoch: int) -> Topology:
        return topology(epoch, {PLACE: Move(stage, (TWO, THREE), 5)}, old)

    checker = Readable(lambda: sightings(one, two, three))
    await one.go_by(at(Stage.STREAMING, 5))
    applied_by(one, checker)
    await one.go_by(at(Stage.READ_NEW, 6))

    applied_by(one, checker)


async def test_who_is_read_from_has_each_acknowledged_write_after_a_while() -> None:
    one, two, three = await cluster(topology(), equal=False)
    checker = Readable(lambda: sightings(one, two, three))
    checker.answered(acknowledged(one, one.writer.stamps[-1]))
    nodes = sightings(one, two, three)

    checker.looked(nodes, 100.0)
    checker.looked(nodes, 100.0 + PATIENCE_S)
    with pytest.raises(Violation, match="n2 is read from and lacks"):
        checker.looked(nodes, 101.0 + PATIENCE_S)

    again = Readable(lambda: nodes)
    again.answered(acknowledged(one, one.writer.stamps[-1], safe=False))
    again.looked(nodes, 100.0)
    again.disk_lost("n1", {"n2": two.seen}, 0.0)
    again.looked(nodes, 101.0 + PATIENCE_S)


async def test_a_partition_that_nobody_may_be_read_from_of_is_seen() -> None:
    one, two, three = await cluster(topology())
    nobody = topology(2)
    assert nobody.table is not None
    rows = list(nobody.table.holders)
    rows[PLACE] = ()
    table = PartitionTable({ANYWHERE: 2}, tuple(rows))
    await one.go_by(replace(nobody, table=table))
    checker = Readable(lambda: sightings(one, two, three))
    checker.answered(acknowledged(one, one.writer.stamps[-1]))

    with pytest.raises(Violation, match="nobody may be read from"):
        checker.looked(sightings(one, two, three), 1.0)


# -- what is let go of -------------------------------------------------------------------------


async def test_what_is_dropped_is_on_the_disk_of_one_that_gets_its_writes() -> None:
    one, two, three = await cluster(topology())
    known, lost = Stamp(0, 1, ONE), Stamp(0, 2, ONE)
    there = {
        ONE: Held({}, {NAME: frozenset({known})}),
        FOUR: Held({}, {NAME: frozenset({lost})}),
    }
    checker = Dropped(lambda: sightings(one, two, three), lambda _: there)

    checker.dropped("n3", PLACE, {NAME: frozenset({known})})
    with pytest.raises(Violation, match="no holder has it"):
        checker.dropped("n3", PLACE, {NAME: frozenset({known, lost})})
    there[TWO] = Held({}, {}, {NAME: lost})
    checker.dropped("n3", PLACE, {NAME: frozenset({known, lost})})

    assert checker.count == 3


async def test_where_each_node_holds_everything_nothing_is_dropped() -> None:
    node = Node("n1", ONE)
    checker = Dropped(lambda: [node.seen], lambda _: {})

    with pytest.raises(Violation, match="every node holds it"):
        checker.dropped("n1", PLACE, {})
