"""Whole clusters in which not every node holds everything: how they grow, shrink and mend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from chaos.sim.nodes import Settings
from envd.core.commit import Kind
from envd.core.errors import Unavailable
from envd.core.members import MemberState
from envd.core.partitions import PartitionTable, Stage
from envd.core.requests import LeaveRequest, Put, WriteRequest
from envd.core.ring import PARTITIONS, partition_of
from envd.core.topology import Topology
from envd.node.cluster import ASKED_S
from envd.node.node import Node
from tests.node.machines import TESTER, Machines, simulate

NAMES = [f"team/app{number}/prod" for number in range(30)]
MOVES_S = 120.0
TWO = Settings(copies=2)
THREE = Settings(copies=3)


def nodes(machines: Machines) -> Iterator[Node]:
    return (each.node for _, each in sorted(machines.cluster.nodes.items()))


def topology(machines: Machines) -> Topology | None:
    """The newest one that any node knows."""
    known = [node.consent.electorate.current for node in nodes(machines)]
    return max((each for each in known if each), key=lambda each: each.epoch, default=None)


def table(machines: Machines) -> PartitionTable:
    newest = topology(machines)
    assert newest is not None
    assert newest.table is not None
    return newest.table


def has_table(machines: Machines) -> bool:
    newest = topology(machines)
    return newest is not None and newest.table is not None


def at_rest(machines: Machines) -> bool:
    """Whether all partitions are where they should be, and nowhere else."""
    if not has_table(machines):
        return False
    now = table(machines)
    if now.moves or now.waiting or now.under_replicated(now.uids()):
        return False
    return not any(node.consent.kept() for node in nodes(machines))


def holders(machines: Machines, name: str) -> set[str]:
    """The nodes that are to hold an environment."""
    row = table(machines).holders[partition_of(name)]
    return {at for at, each in machines.cluster.nodes.items() if each.uid in row}


def check_places(machines: Machines, copies: int, value: str = "1") -> None:
    """Each environment is whole on its holders, and there is nothing of it elsewhere."""
    for name in NAMES:
        having = {
            at
            for at, each in machines.cluster.nodes.items()
            if each.store.visible(name) is not None
        }
        assert having == holders(machines, name)
        assert len(having) == copies
        assert all(machines.shows(at, name, "PORT", value) for at in having)


async def fill(machines: Machines, at: str = "n1", value: str = "1") -> None:
    for name in NAMES:
        await machines.write(at, name, PORT=value)


async def spread(machines: Machines, *names: str) -> None:
    """Start these nodes, with some environments, and wait until all is spread over them."""
    await machines.start(*names)
    await fill(machines, min(machines.cluster.nodes))
    await machines.until(lambda: at_rest(machines), MOVES_S)


async def until_stage(machines: Machines, stage: Stage) -> None:
    await machines.until(lambda: has_table(machines) and stage in table(machines).stages(), MOVES_S)


def in_stage(machines: Machines, stage: Stage) -> tuple[int, tuple[int, ...]]:
    """A partition in this stage, and those that are to get it."""
    now = table(machines)
    at = next(at for at, move in sorted(now.moves.items()) if move.stage is stage)
    return at, tuple(uid for uid in now.moves[at].to if uid not in now.holders[at])


async def remove(machines: Machines, uid: int) -> None:
    """Strike a node once it is down."""
    membership = machines.node("n1").node.membership

    def is_down() -> bool:
        member = membership.member(uid)
        return member is not None and member.state is MemberState.DOWN

    await machines.until(is_down, 60.0)
    membership.remove(uid)


def name_of(machines: Machines, uid: int) -> str:
    return next(name for name, each in machines.cluster.nodes.items() if each.uid == uid)


def test_eight_nodes_that_join_one_by_one_keep_three_copies_of_everything() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1")
        await fill(machines)
        for number in range(2, 9):
            await machines.start(f"n{number}")

        await machines.until(lambda: at_rest(machines), MOVES_S)

        check_places(machines, 3)
        loads = table(machines).loads()
        assert len(loads) == 8
        assert max(loads.values()) <= 1.05 * loads.total() / 8

    simulate(story, 8, THREE)


def test_seven_nodes_hold_everything_where_nothing_else_is_said() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(30)

        assert not has_table(machines)

    simulate(story, 7)


def test_a_further_node_takes_its_share_and_no_more_moves() -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3")
        before = table(machines).holders

        await machines.start("n4")
        await machines.until(lambda: table(machines).moves != {}, MOVES_S)
        await machines.until(lambda: at_rest(machines), MOVES_S)

        check_places(machines, 2)
        now = table(machines)
        gained = sum(len(set(row) - set(old)) for row, old in zip(now.holders, before, strict=True))
        assert gained <= 1.2 * 2 * PARTITIONS / 4
        assert now.loads()[machines.node("n4").uid] == gained

    simulate(story, 4, TWO)


def test_a_node_leaves_once_others_hold_what_it_held() -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3", "n4")
        leaver = machines.node("n4")
        request = LeaveRequest(f"{leaver.uid:016x}")

        with pytest.raises(Unavailable, match="partitions are still here") as told:
            await machines.run("n4", leaver.api.cluster.leave(TESTER, request))
        await machines.run("n4", leaver.leave())

        assert told.value.reason == "DRAINING"
        assert not any(map(leaver.store.visible, NAMES))
        assert leaver.uid not in table(machines).uids()
        machines.cluster.crash(machines.machine("n4"))
        await machines.until(lambda: at_rest(machines), MOVES_S)
        check_places(machines, 2)

    simulate(story, 4, TWO)


def test_a_node_that_nobody_asks_to_leave_any_more_stays() -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3", "n4")
        leaver = machines.node("n4")
        machines.cluster.network.partition(["n3"], ["n1", "n2", "n4"])
        request = LeaveRequest(f"{leaver.uid:016x}")

        with pytest.raises(Unavailable, match="still here"):
            await machines.run("n4", leaver.api.cluster.leave(TESTER, request))
        await asyncio.sleep(ASKED_S + 5)

        assert leaver.node.coordinator.refuse_writes is None
        machines.cluster.network.heal()
        await machines.until(lambda: at_rest(machines), MOVES_S)
        assert table(machines).loads()[leaver.uid] > 1000
        check_places(machines, 2)

    simulate(story, 4, TWO)


def test_a_node_that_can_not_hand_over_says_how_far_it_got_and_stays() -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3")
        leaver = machines.node("n3")
        leaving = asyncio.ensure_future(machines.run("n3", leaver.node.hand_over()))
        await until_stage(machines, Stage.STREAMING)
        machines.cluster.network.partition(["n3"], ["n1", "n2"])

        with pytest.raises(Unavailable, match=r"of [0-9,]+ partitions are still here"):
            await leaving

        machines.cluster.network.heal()
        await machines.until(lambda: not getattr(topology(machines), "leaving", ()), 60.0)
        await machines.until(lambda: at_rest(machines), MOVES_S)
        check_places(machines, 2)

    simulate(story, 3, TWO)


def test_what_a_dead_node_held_is_copied_to_the_one_that_replaces_it() -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3")
        dead = machines.node("n3").uid
        machines.cluster.crash(machines.machine("n3"))
        await machines.start("n4")
        await remove(machines, dead)
        await machines.until(lambda: dead not in table(machines).uids(), 60.0)
        await machines.until(lambda: at_rest(machines), MOVES_S)

        check_places(machines, 2)
        up = {each.uid for each in machines.cluster.nodes.values()}
        assert table(machines).under_replicated(up) == 0

    simulate(story, 4, TWO)


def test_moves_go_on_under_another_governor() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await fill(machines)
        await until_stage(machines, Stage.READ_NEW)
        newest = topology(machines)
        assert newest is not None
        governor = name_of(machines, min(newest.voters))

        machines.cluster.crash(machines.machine(governor))
        await asyncio.sleep(15)
        moved = table(machines).stages()
        await machines.start(governor)
        await machines.until(lambda: at_rest(machines), 2 * MOVES_S)

        assert moved
        check_places(machines, 2)

    simulate(story, 4, TWO)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_target_that_dies_on_the_way_goes_on_once_it_is_back(stage: Stage) -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3")
        await machines.start("n4")
        await until_stage(machines, stage)
        _, targets = in_stage(machines, stage)
        name = name_of(machines, targets[0])

        machines.cluster.crash(machines.machine(name))
        await fill(machines, "n1" if name != "n1" else "n2", value="2")
        await asyncio.sleep(20)
        await machines.start(name)
        await machines.until(lambda: at_rest(machines), 2 * MOVES_S)

        await machines.until(
            lambda: all(
                machines.shows(at, each, "PORT", "2")
                for each in NAMES
                for at in holders(machines, each)
            ),
            60.0,
        )
        check_places(machines, 2, "2")

    simulate(story, 4, TWO)


def test_a_target_that_is_gone_for_good_gets_nothing() -> None:
    async def story(machines: Machines) -> None:
        await spread(machines, "n1", "n2", "n3")
        await machines.start("n4")
        await until_stage(machines, Stage.STREAMING)
        dead = machines.node("n4").uid

        machines.cluster.crash(machines.machine("n4"))
        await remove(machines, dead)
        await machines.until(lambda: dead not in table(machines).uids(), 60.0)
        await machines.until(lambda: at_rest(machines), MOVES_S)

        check_places(machines, 2)

    simulate(story, 4, TWO)


def test_writes_during_moves_are_on_all_holders_afterwards() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await fill(machines)
        await machines.until(lambda: has_table(machines), MOVES_S)
        value = 1
        while not at_rest(machines):
            value += 1
            await fill(machines, f"n{value % 4 + 1}", value=str(value))
            await asyncio.sleep(0.5)

        await machines.until(lambda: at_rest(machines), MOVES_S)

        assert value > 20
        check_places(machines, 2, str(value))

    simulate(story, 4, TWO)


def test_a_serial_environment_keeps_its_chain_over_its_moves() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        mode = WriteRequest(NAMES[0], (Put("mode", "serial", kind=Kind.METADATA),))
        await machines.run("n1", machines.node("n1").api.write(TESTER, mode))
        await machines.until(lambda: has_table(machines), MOVES_S)
        stamps, value = [], 0
        while not at_rest(machines):
            value += 1
            answer = await machines.write("n1", NAMES[0], COUNT=str(value))
            stamps.append(answer.stamp)
            await asyncio.sleep(0.3)

        kept = sorted(holders(machines, NAMES[0]))
        await machines.until(
            lambda: all(machines.shows(at, NAMES[0], "COUNT", str(value)) for at in kept), 10.0
        )

        assert value > 20
        for at in kept:
            history = await machines.history(at, NAMES[0])
            assert history == stamps[: -len(history) - 1 : -1]

    simulate(story, 4, TWO)
