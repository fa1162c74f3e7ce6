"""A cluster whose nodes hold different partitions, by a table that a test makes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envd.core.partitions import ANYWHERE, PartitionTable
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from tests.node.machines import Machines

HOLDERS = ("n1", "n2", "n3")
VOTES_S = 10.0


BESIDE_THE_SYSTEM = "many/0485"
"""An environment of users in the partition that has the system's own."""


async def placed(
    machines: Machines,
    rows: Mapping[str, Sequence[str]] | None = None,
    holders: Sequence[str] = HOLDERS,
) -> None:
    """Start all, and have all hold what `rows` say of environments, of all others `holders`.

    The topology of the nodes themselves is settled before, for it would say otherwise.
    """
    await machines.start()

    def all_vote() -> bool:
        known = [each.node.consent.electorate.current for each in machines.cluster.nodes.values()]
        return all(
            each is not None
            and len(each.nodes) == len(machines.cluster.nodes)
            and len(each.voters) == 3
            and not each.joining
            for each in known
        )

    await machines.until(all_vote, VOTES_S)
    follow(machines, table(machines, rows, holders))


def table(
    machines: Machines,
    rows: Mapping[str, Sequence[str]] | None = None,
    holders: Sequence[str] = HOLDERS,
) -> PartitionTable:
    """What `placed` has the nodes follow."""
    uids = {name: node.uid for name, node in machines.cluster.nodes.items()}
    found = [tuple(uids[name] for name in holders)] * PARTITIONS
    for environment, names in (rows or {}).items():
        found[partition_of(environment)] = tuple(uids[name] for name in names)
    found[SYSTEM_PARTITION] = ()
    return PartitionTable({ANYWHERE: len(holders)}, tuple(found))


def follow(machines: Machines, made: PartitionTable, *names: str) -> None:
    """Have these nodes, by default all, know of a table."""
    for name in names or list(machines.cluster.nodes):
        machines.node(name).node.holdings.follow(made)


def count_calls(machines: Machines, name: str) -> list[tuple[int, str]]:
    """The questions that a node asks from now on."""
    asked: list[tuple[int, str]] = []
    replication = machines.node(name).node.replication
    ask = replication.ask

    async def counted(uid: int, method: str, body: bytes, timeout_s: float = 10.0) -> bytes:
        asked.append((uid, method))
        return await ask(uid, method, body, timeout_s)

    replication.ask = counted  # type: ignore[method-assign]
    return asked
