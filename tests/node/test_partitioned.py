"""Streams, copies and repair where not every node holds everything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from envd.core.errors import Unavailable
from envd.core.partitions import ANYWHERE, PartitionTable, first_table
from envd.core.requests import Durability
from envd.core.ring import SYSTEM_PARTITION, partition_of
from tests.node.machines import Machines, simulate

NAME = "web/prod"
PLACE = partition_of(NAME)
SETTLED_S = 5.0
"""Until the nodes agree on who votes; then nothing replaces the table that a test made."""


def uids(machines: Machines, *names: str) -> tuple[int, ...]:
    return tuple(machines.node(name).uid for name in names)


def held(machines: Machines, names: Sequence[str]) -> PartitionTable:
    """A table by which these nodes hold everything."""
    return first_table(uids(machines, *names), {ANYWHERE: len(names)})


def follow(machines: Machines, table: PartitionTable) -> None:
    """Have all nodes go by this table from now on."""
    for node in machines.cluster.nodes.values():
        node.node.holdings.follow(table)


async def placed(machines: Machines, *names: str) -> None:
    """Start all, and let these hold everything."""
    await machines.start()
    await asyncio.sleep(SETTLED_S)
    follow(machines, held(machines, names))


def digest(machines: Machines, name: str) -> int:
    return machines.node(name).store.roots().partitions[PLACE]


def vector(machines: Machines, name: str) -> dict[int, int]:
    found = machines.node(name).store.vectors()
    return {origin: seq for (partition, origin), seq in found.items() if partition == PLACE}


def test_a_write_goes_to_who_holds_its_partition_and_to_nobody_else() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, "n1", "n2", "n3")

        answer = await machines.write("n1", NAME, A="1")
        await machines.until(lambda: digest(machines, "n3") == digest(machines, "n1") != 0, 5.0)
        await asyncio.sleep(60)  # Neither relays nor comparisons bring it to n4.

        assert answer.acknowledged >= 2
        assert digest(machines, "n4") == 0
        assert machines.node("n4").store.visible(NAME) is None
        assert not machines.node("n4").node.repairer.figures.divergences

    simulate(story, 4)


def test_a_copy_counts_only_on_who_holds_the_partition() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, "n1", "n2", "n3")
        machines.cluster.network.partition(["n1", "n4"], ["n2", "n3"])
        await asyncio.sleep(3)

        answer = await machines.write("n1", NAME, A="1")
        assert (answer.acknowledged, answer.detached) == (1, True)
        with pytest.raises(Unavailable, match="no other storage node"):
            await machines.write("n1", NAME, durability=Durability.STRICT, A="2")

        machines.cluster.network.heal()
        await machines.until(lambda: machines.shows("n3", NAME, "A", "1"), 20.0)
        await asyncio.sleep(5)
        answer = await machines.write("n1", NAME, durability=Durability.STRICT, A="3")
        assert answer.acknowledged >= 2

    simulate(story, 4)


def test_the_only_holder_waits_for_nobody() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, "n1")
        began = machines.loop.time()

        answer = await machines.write("n1", NAME, durability=Durability.STRICT, A="1")

        assert (answer.acknowledged, answer.detached) == (1, False)
        assert machines.loop.time() - began < 0.5
        await asyncio.sleep(30)
        assert machines.node("n2").store.visible(NAME) is None

    simulate(story, 3)


def test_who_gains_a_partition_takes_its_writes_at_once_and_is_equal_once_it_pulled() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, "n1", "n2", "n3")
        await machines.write("n1", NAME, A="1")
        await machines.write("n2", NAME, B="1")
        await machines.until(lambda: vector(machines, "n3") == vector(machines, "n1"))
        table = held(machines, ["n1", "n2", "n3"])
        follow(machines, table.begin({PLACE: uids(machines, "n2", "n3", "n4")}, 1))

        await machines.write("n1", NAME, C="1")
        await machines.until(lambda: machines.shows("n4", NAME, "C", "1"))
        assert machines.shows("n4", NAME, "A", None)
        gainer = machines.node("n4").node
        uid = machines.node("n2").uid

        async def ask(method: str, body: bytes) -> bytes:
            return await gainer.replication.ask(uid, method, body)

        await machines.run("n4", gainer.repairer.catch_up(uid, ask, {PLACE}, connects=False))
        await machines.until(lambda: digest(machines, "n4") == digest(machines, "n1"), 5.0)
        assert vector(machines, "n4") == vector(machines, "n2")
        follow(machines, table.begin({PLACE: uids(machines, "n2", "n3", "n4")}, 1).advance([PLACE]))
        pulls = dict(gainer.repairer.figures.pulls)
        await machines.write("n1", NAME, D="1")
        await machines.until(lambda: machines.shows("n4", NAME, "D", "1"))
        assert vector(machines, "n4") == vector(machines, "n1")
        assert gainer.repairer.figures.pulls.get("catch_up") == pulls["catch_up"]

    simulate(story, 4)


def test_what_comes_to_a_former_holder_stays_there_without_its_name() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, "n1", "n2", "n4")
        await machines.write("n1", NAME, A="1")
        await machines.until(lambda: machines.shows("n4", NAME, "A", "1"))
        table = held(machines, ["n1", "n2", "n3"])
        for name in ("n2", "n3", "n4"):  # n1 has not heard of it.
            machines.node(name).node.holdings.follow(table)
        machines.node("n4").store.forget_origin(machines.node("n1").uid)

        answer = await machines.write("n1", NAME, B="1")

        await machines.until(lambda: machines.shows("n4", NAME, "B", "1"))
        assert answer.acknowledged >= 2
        assert machines.node("n1").uid not in vector(machines, "n4")

    simulate(story, 4)


def test_nodes_compare_what_both_of_them_hold() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(SETTLED_S)
        other = "web/test"
        assert partition_of(other) != PLACE
        rows = list(held(machines, ["n1", "n2"]).holders)
        rows[partition_of(other)] = uids(machines, "n1", "n3")
        follow(machines, PartitionTable({ANYWHERE: 2}, tuple(rows)))
        await machines.write("n1", NAME, A="1")
        await machines.write("n1", other, A="2")
        await machines.until(lambda: machines.shows("n2", NAME, "A", "1"))
        await machines.until(lambda: machines.shows("n3", other, "A", "2"))
        await asyncio.sleep(90)

        for name, lacks in (("n2", other), ("n3", NAME)):
            assert machines.node(name).store.visible(lacks) is None
            assert not machines.node(name).node.repairer.figures.divergences
        # What one of them lost is found and pulled all the same.
        taken = machines.node("n1").node.holdings.common(machines.node("n2").uid)
        assert taken is not None
        assert PLACE in taken
        assert partition_of(other) not in taken

    simulate(story, 3)


def test_an_agent_is_fed_by_as_few_as_have_everything_and_goes_on_when_one_of_them_dies() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2", "n3", "n4")
        await asyncio.sleep(SETTLED_S)
        rows = list(held(machines, ["n1", "n2"]).holders)
        rows = [row if at % 2 else uids(machines, "n3", "n4") for at, row in enumerate(rows)]
        rows[SYSTEM_PARTITION] = ()
        table = PartitionTable({ANYWHERE: 2}, tuple(rows))
        follow(machines, table)
        names = ("web/prod", "web/test")
        assert [partition_of(name) % 2 for name in names] == [0, 1]
        for name in names:
            await machines.write("n1", name, A="1")
        await machines.start_agent("n5")
        follow(machines, table)
        await machines.until(
            lambda: all(machines.shows("n5", name, "A", "1") for name in names), 10.0
        )

        for name in names:
            await machines.write("n1", name, A="2")
        await machines.until(lambda: all(machines.shows("n5", name, "A", "2") for name in names))
        fed_by = {machines.node("n5").node.replication.fed_by() for _ in range(4)}
        assert len(fed_by) == 2

        for member in fed_by:
            assert member is not None
            if member.name in ("n3", "n4"):
                machines.cluster.crash(machines.machine(member.name))
        await machines.until(lambda: len(machines.cluster.nodes) == 4)
        await asyncio.sleep(10)
        for name in names:
            await machines.write("n1", name, A="3")
        await machines.until(
            lambda: all(machines.shows("n5", name, "A", "3") for name in names), 10.0
        )

    simulate(story, 5)
