"""What the simulator holds to be true below a floor, and that each way to break it is found."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from chaos.sim.checkers import Violation
from chaos.sim.checkers.below_floor import BelowFloor
from chaos.sim.checkers.equal_roots import EqualRoots
from chaos.sim.checkers.lost_writes import LostWrites
from chaos.sim.checkers.same_everywhere import Convergence
from chaos.sim.checkers.session_tokens import SessionTokens
from chaos.sim.collection import unforgotten
from chaos.sim.floor_faults import Step, step_of
from chaos.sim.held import Held, together
from chaos.sim.outcome import Outcome, describe
from chaos.sim.truth import Truth
from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.commit import Commit, LogRecord
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.sealing import NO_FLOOR, Floor
from envd.core.stamp import COUNTER_BITS, Stamp
from envd.core.topology import TOPOLOGY, VARIABLE, Topology
from envd.ports import StoredState
from tests.chaos.stores import NAME, OTHER, WHOLE, Node, acknowledged, pair, revision_of, sites
from tests.storage.world import values_of

GONE = dict.fromkeys(WHOLE)
FEW = Retention(1, 0)


class World:
    """Some nodes whose checker hears of all that they make visible, as it comes."""

    def __init__(self, *uids: int, retention: Retention | None = None) -> None:
        self.nodes = {uid: Node(f"n{uid}", uid, retention) for uid in uids}
        self.checker = BelowFloor(lambda wanted: {uid: self.nodes[uid].store for uid in wanted})
        for node in self.nodes.values():
            node.store.subscribe(partial(self.checker.applied, node.seen))

    @property
    def truth(self) -> Truth:
        return self.checker.truth

    async def commit_floor(self, told: int, *members: int) -> Floor:
        """Have one node hear of a topology of these members, with all that there is below it."""
        newest = max(node.writer.hlc for node in self.nodes.values()) + (2 << COUNTER_BITS)
        floor = Floor(newest, self.truth.floor.round + 1)
        topology = Topology(floor.round + 1, sites(members), members[:1], floor=floor)
        for node in self.nodes.values():
            node.writer.hlc = newest
        await self.nodes[told].put({VARIABLE: topology.encode()}, TOPOLOGY)
        return floor

    def look(self, *uids: int) -> None:
        self.checker.looked([self.nodes[uid].seen for uid in uids], 0.0)


async def salvage(node: Node, late: Commit) -> Stamp:
    """Have a node put on record what a commit wrote that came too late."""
    writer, name = node.writer, late.environment
    writer.hlc += 1
    stamp = Stamp(0, writer.hlc, node.seen.uid)
    partition = partition_of(name)
    seq = node.store.last_seq(partition, stamp.node_uid) + 1
    commit = Commit(name, stamp, (), salvages=late)
    head = node.store.head(name)
    assert head is not None
    await node.store.append(LogRecord(partition, stamp.node_uid, seq, commit), head)
    return stamp


# -- what is there -----------------------------------------------------------------------------


async def test_what_a_member_had_is_in_and_what_only_others_had_comes_too_late() -> None:
    world = World(7, OTHER, 9)
    here = await world.nodes[7].put(WHOLE)
    await world.nodes[OTHER].take(world.nodes[7])
    away = await world.nodes[9].put(WHOLE, "a/c")

    await world.commit_floor(7, 7, OTHER)
    after = await world.nodes[9].put(WHOLE, "a/c")

    assert world.truth.is_settled(NAME, here)
    assert world.truth.late("a/c", away) is not None
    assert world.truth.late("a/c", after) is None  # Above the floor it is on its way.
    world.nodes[9].writer.hlc = here.hlc - (2 << COUNTER_BITS)
    late = await world.nodes[9].put(WHOLE, "a/c")
    assert world.truth.late("a/c", late) is not None
    assert world.checker.counts["too late"] == 2


async def test_a_member_that_lacks_what_another_had_had_not_gathered() -> None:
    world = World(7, OTHER)
    await world.nodes[7].put(WHOLE)

    with pytest.raises(Violation, match=f"{OTHER:016x} had not gathered"):
        world.checker.rose(Topology(2, sites([7, OTHER]), (7,), floor=Floor(1 << 62, 1)))


async def test_a_node_whose_disk_went_back_is_not_asked_what_it_gathered() -> None:
    world = World(7, OTHER)
    await world.nodes[OTHER].put(WHOLE, "a/c")
    await world.nodes[7].take(world.nodes[OTHER])
    await world.nodes[7].put(WHOLE)

    world.checker.disk_lost(f"n{OTHER}", {}, 1.0)

    await world.commit_floor(7, 7, OTHER)
    assert world.checker.counts["floors"] == 1


# -- what is shown -----------------------------------------------------------------------------


async def test_a_node_at_the_floor_may_have_collected_what_was_deleted() -> None:
    world = World(7, OTHER, retention=FEW)
    node = world.nodes[7]
    await node.put(WHOLE)
    await node.put(GONE)
    await world.nodes[OTHER].take(node)
    floor = await world.commit_floor(7, 7, OTHER)
    await node.store.raise_floor(floor.hlc)
    await node.store.collect(partition_of(NAME))

    assert node.store.visible(NAME) is None
    world.look(7, OTHER)


async def test_what_was_deleted_and_shows_again_is_found() -> None:
    world = World(7, OTHER, retention=FEW)
    node, other = world.nodes[7], world.nodes[OTHER]
    await node.put(WHOLE)
    written = node.applied[0]
    await node.put(GONE)
    await other.take(node)
    floor = await world.commit_floor(7, 7, OTHER)
    for each in (node, other):
        await each.store.raise_floor(floor.hlc)
        await each.store.collect(partition_of(NAME))
    world.look(7, OTHER)

    await other.store.append(replace(written.record, origin=0, seq=0), written.after)

    assert values_of(other.store, NAME) == WHOLE
    with pytest.raises(Violation, match=f"n{OTHER} shows GROUP_A of {NAME}"):
        world.look(7, OTHER)
    world.look(7)


async def test_a_node_that_went_up_before_it_had_everything_is_found() -> None:
    world = World(7, OTHER, 9)
    await world.nodes[7].put(WHOLE)
    await world.nodes[OTHER].take(world.nodes[7])
    floor = await world.commit_floor(7, 7, OTHER)
    world.look(7, OTHER, 9)

    await world.nodes[9].store.raise_floor(floor.hlc)

    with pytest.raises(Violation, match="n9 is at the floor and lacks GROUP_A"):
        world.look(7, OTHER, 9)


async def test_what_was_written_since_hides_what_was_below_the_floor() -> None:
    world = World(7, OTHER)
    node = world.nodes[7]
    await node.put(WHOLE)
    await world.nodes[OTHER].take(node)
    floor = await world.commit_floor(7, 7, OTHER)
    await node.store.raise_floor(floor.hlc)

    await node.put(dict.fromkeys(WHOLE, "later"))
    await node.writer.commit("a/c", WHOLE)
    await node.writer.commit("a/c", deletes=True)

    world.look(7)


async def test_who_applies_at_its_floor_what_comes_too_late_is_found() -> None:
    world = World(7, OTHER, 9)
    node, away = world.nodes[7], world.nodes[9]
    await node.put(WHOLE)
    await world.nodes[OTHER].take(node)
    await away.put(WHOLE, "a/c")
    late = away.applied[-1].record
    floor = await world.commit_floor(7, 7, OTHER)
    told = node.applied[0]

    world.checker.applied(node.seen, replace(told, record=late))  # It is not at the floor yet.
    await node.store.raise_floor(floor.hlc)

    with pytest.raises(Violation, match="n7 took in"):
        world.checker.applied(node.seen, replace(told, record=late))


# -- what came too late is on record -------------------------------------------------------------


async def too_late() -> tuple[World, Commit]:
    """A write that only a node had that was given up, and the floor is above it."""
    world = World(7, OTHER, 9)
    await world.nodes[7].put(WHOLE)
    await world.nodes[OTHER].take(world.nodes[7])
    stamp = await world.nodes[9].put(dict.fromkeys(WHOLE, "late"))
    floor = await world.commit_floor(7, 7, OTHER)
    late = world.truth.late(NAME, stamp)
    assert late is not None
    for uid in (7, OTHER):
        await world.nodes[uid].store.raise_floor(floor.hlc)
    return world, late


async def test_an_acknowledged_write_that_came_too_late_is_lost_until_it_is_on_record() -> None:
    world, late = await too_late()
    node = world.nodes[7]
    checker = LostWrites(world.truth)
    checker.answered(acknowledged(world.nodes[9], late.stamp, safe=False))
    with pytest.raises(Violation, match="n7 lacks its commit"):
        checker.ended([node.seen])

    await salvage(node, late)

    checker.ended([node.seen])
    assert world.checker.counts["salvaged"] == 1


async def test_what_came_too_late_and_was_overwritten_needs_no_record() -> None:
    world, late = await too_late()
    checker = LostWrites(world.truth)
    checker.answered(acknowledged(world.nodes[9], late.stamp, safe=False))

    await world.nodes[7].put(WHOLE)

    checker.ended([world.nodes[7].seen])


async def test_a_write_at_the_floor_of_a_node_is_not_lost_when_it_is_collected() -> None:
    world = World(7, OTHER, retention=FEW)
    node = world.nodes[7]
    checker = LostWrites(world.truth)
    checker.answered(acknowledged(node, await node.put(WHOLE)))
    checker.answered(acknowledged(node, await node.put(GONE)))
    await world.nodes[OTHER].take(node)
    floor = await world.commit_floor(7, 7, OTHER)
    await node.store.raise_floor(floor.hlc)
    await node.store.collect(partition_of(NAME))

    checker.ended([node.seen])


async def test_a_token_of_a_write_at_or_below_the_floor_promises_nothing() -> None:
    world, late = await too_late()
    node = world.nodes[7]
    checker = SessionTokens(world.truth)
    state = node.store.visible(NAME)
    assert state is not None
    shown = EnvironmentView(NAME, "", state.environment.highest_stamp.hex(), {}, {})
    checker.read_back("n7", "n9", written_at(late.stamp), shown)

    after = Stamp(0, world.truth.floor.hlc + 1, 9)

    with pytest.raises(Violation, match="session tokens"):
        checker.read_back("n7", "n9", written_at(after), shown)


def written_at(stamp: Stamp) -> WriteAnswer:
    return WriteAnswer(NAME, "", stamp.hex(), "")


# -- all are at the floor and have collected -------------------------------------------------------


async def test_nodes_have_forgotten_once_all_are_at_the_floor_and_have_collected() -> None:
    world = World(7, OTHER, retention=FEW)
    node, other = world.nodes[7], world.nodes[OTHER]
    await node.put(WHOLE)
    await node.put(GONE)
    await other.take(node)
    both = [node.seen, other.seen]
    assert unforgotten(both, FEW) == ""
    floor = await world.commit_floor(7, 7, OTHER)
    await other.take(node)

    assert "n7 is at the floor 0" in unforgotten(both, FEW)
    for each in (node, other):
        await each.store.raise_floor(floor.hlc)
    assert f"n7 has something to collect of {NAME}" in unforgotten(both, FEW)
    await node.store.collect(partition_of(NAME))
    assert f"n{OTHER} has something to collect of {NAME}" in unforgotten(both, FEW)
    with pytest.raises(Violation, match="has something to collect"):
        Convergence(FEW).ended(both)
    await other.store.collect(partition_of(NAME))

    assert unforgotten(both, FEW) == ""
    Convergence(FEW).ended(both)


async def test_roots_are_compared_once_both_have_collected_at_the_same_floor() -> None:
    one, other = await pair()
    head = other.store.head(NAME)
    assert head is not None
    await one.store.raise_floor(1)
    await other.store.append(
        replace(other.applied[0].record, origin=0, seq=0, commit=_another(other.applied[0].record)),
        StoredState(head.environment, revision_of(head)),
    )

    EqualRoots().ended([one.seen, other.seen])
    await other.store.raise_floor(1)

    with pytest.raises(Violation, match="agree on the vector"):
        EqualRoots().ended([one.seen, other.seen])


def _another(record: LogRecord) -> Commit:
    return replace(record.commit, stamp=Stamp(0, 5 << 40, 3), changes=())


# -- who begins anew ---------------------------------------------------------------------------


async def test_who_was_in_each_round_has_no_reason_to_begin_anew() -> None:
    world = World(7, OTHER)
    await world.commit_floor(7, 7, OTHER)
    await world.commit_floor(7, 7, OTHER)

    assert not world.checker.may_begin_anew(world.nodes[OTHER].seen)


async def test_whom_a_floor_left_behind_may_begin_anew_until_it_is_there() -> None:
    world = World(7, OTHER, 9)
    await world.commit_floor(7, 7, OTHER)
    struck, joins = world.nodes[OTHER], world.nodes[9]
    floor = await world.commit_floor(7, 7)
    assert world.checker.may_begin_anew(struck.seen)
    assert world.checker.may_begin_anew(joins.seen)

    await joins.store.raise_floor(floor.hlc)
    await world.commit_floor(7, 7, 9)

    assert not world.checker.may_begin_anew(joins.seen)
    assert world.checker.may_begin_anew(struck.seen)


async def test_who_is_struck_has_no_reason_before_a_floor_is_raised_without_it() -> None:
    world = World(7, OTHER)
    floor = await world.commit_floor(7, 7, OTHER)
    struck = Topology(floor.round + 2, sites([7]), (7,), floor=floor)

    await world.nodes[7].put({VARIABLE: struck.encode()}, TOPOLOGY)

    assert world.checker.counts["given up"] == 1
    assert not world.checker.may_begin_anew(world.nodes[OTHER].seen)


# -- faults and figures ----------------------------------------------------------------------------


def test_how_far_a_round_is_is_told_by_the_topology() -> None:
    before = Topology(1, sites([7]), (7,))
    sealing = before.seal(5)
    gathering = sealing.gather()

    told = [step_of(each, NO_FLOOR) for each in (None, before, sealing, gathering)]

    assert told == [Step.NONE, Step.NONE, Step.SEALING, Step.GATHERING]
    assert step_of(gathering.raise_floor(), NO_FLOOR) is Step.RAISED
    assert step_of(gathering.raise_floor(), Floor(5, 2)) is Step.NONE


def test_a_disk_may_be_lost_though_a_node_at_the_floor_lacks_what_came_too_late() -> None:
    late, new = Stamp(0, 4, 9), Stamp(0, 8, 7)
    away = Held({(1, 9): 3}, {"a": frozenset({late, new})})
    here = Held({(1, 7): 1}, {"a": frozenset({new})}, floor=5, origins=frozenset({7}))

    wanted = together([away, here])

    assert here.has(wanted)
    assert not Held(here.vectors, here.commits, floor=3, origins=frozenset({7})).has(wanted)
    assert not Held(here.vectors, here.commits, floor=5).has(wanted)
    assert not Held(here.vectors, {}, floor=5, origins=frozenset({7})).has(wanted)


def test_a_run_tells_what_became_of_the_floor() -> None:
    outcome = Outcome(9, 3)
    assert "the floor" not in "\n".join(describe(outcome))

    outcome.floors.update({"floors": 4, "given up": 1, "too late": 3, "salvaged": 2})
    outcome.events["emptied"] = 1

    told = "\n".join(describe(outcome))
    assert "the floor was raised 4 times: 1 nodes given up, 1 began anew" in told
    assert "3 commits came too late, 2 of them on record" in told
