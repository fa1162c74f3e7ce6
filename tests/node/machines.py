"""A few real nodes on simulated machines, for tests that say what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from chaos.sim.chance import Chance
from chaos.sim.cluster import Cluster, Machine
from chaos.sim.loop import SimLoop
from chaos.sim.nodes import EnvdFactory, Settings, SimNode
from chaos.sim.trace import Trace
from envd.core.answers import Identity, WriteAnswer
from envd.core.requests import (
    DeleteRequest,
    Durability,
    HistoryRequest,
    Put,
    ReadRequest,
    Unset,
    WriteRequest,
)

TESTER = Identity("tester", "test")
MEETS_S = 20.0
SOON_S = 1.0
ResultT = TypeVar("ResultT")


class Machines:
    """The cluster under test, in virtual time; names are n1, n2, ..."""

    def __init__(self, loop: SimLoop, count: int, settings: Settings) -> None:
        chance = Chance("machines")
        self.loop = loop
        self.renewed: list[str] = []
        self.emptied: list[str] = []
        self.factory = EnvdFactory(
            loop,
            chance.below("nodes"),
            settings,
            lambda _, __: None,
            lambda machine, _: self.renewed.append(machine),
            emptied=lambda node, _: self.emptied.append(node.machine),
        )
        self.trace = Trace(loop.time)
        self.cluster: Cluster[SimNode] = Cluster(loop, chance, self.trace, self.factory)
        self.factory.cluster = self.cluster
        for number in range(1, count + 1):
            self.cluster.add(f"n{number}")

    def machine(self, name: str) -> Machine:
        return self.cluster.machines[name]

    def node(self, name: str) -> SimNode:
        return self.cluster.nodes[name]

    async def start(self, *names: str) -> None:
        """Start these machines, by default all, and wait until they ship to each other."""
        for name in names or list(self.cluster.machines):
            await self.cluster.start(self.machine(name))
        await self.until(self._all_ship, MEETS_S)

    def _all_ship(self) -> bool:
        nodes = self.cluster.nodes.values()
        return all(
            sum(link.streaming for _, link in each.node.replication.links()) == len(nodes) - 1
            for each in nodes
        )

    async def start_agent(self, name: str) -> None:
        """Start a machine as an agent, and wait until it is fed."""
        self.factory.agents.add(name)
        await self.cluster.start(self.machine(name))
        await self.until(lambda: self.node(name).node.replication.fed_by() is not None, MEETS_S)

    async def until(self, holds: Callable[[], bool], within_s: float = SOON_S) -> float:
        """Wait until something holds; return after how long, or fail."""
        began = self.loop.time()
        while not holds():
            assert self.loop.time() - began <= within_s, f"not within {within_s} virtual seconds"
            await asyncio.sleep(0.01)
        return self.loop.time() - began

    async def write(
        self,
        name: str,
        environment: str,
        *,
        durability: Durability = Durability.DEFAULT,
        operation: str = "",
        unset: str = "",
        **values: str,
    ) -> WriteAnswer:
        request = WriteRequest(
            environment,
            tuple(Put(key, value) for key, value in values.items()),
            (Unset(unset),) if unset else (),
            operation=operation,
            durability=durability,
        )
        return await self.run(name, self.node(name).api.write(TESTER, request))

    async def delete(self, name: str, environment: str) -> WriteAnswer:
        request = DeleteRequest(environment)
        return await self.run(name, self.node(name).api.delete(TESTER, request))

    async def run(self, name: str, asked: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run something as part of the process of a machine."""
        boot = self.machine(name).boot
        assert boot is not None
        return await self.cluster.call(boot.process, asked)

    async def value(self, name: str, environment: str, variable: str) -> str | None:
        request = ReadRequest(environment, reveal=True)
        view = await self.run(name, self.node(name).api.get(TESTER, request))
        found = view.variables.get(variable)
        return None if found is None else found.value

    def shows(self, name: str, environment: str, variable: str, value: str | None) -> bool:
        """Whether a node's state has this value, None for no such variable."""
        state = self.node(name).store.visible(environment)
        entry = state.environment.variables.get(variable) if state else None
        return (entry.value if entry else None) == value

    async def history(self, name: str, environment: str) -> list[str]:
        request = HistoryRequest(environment)
        page = await self.run(name, self.node(name).api.history(TESTER, request))
        return [commit.stamp for commit in page.commits]

    def equal(self) -> bool:
        """Whether all nodes hold the same, by their vectors and by their fingerprints."""
        stores = [each.store for each in self.cluster.nodes.values()]
        vectors = [dict(store.vectors()) for store in stores]
        roots = {store.roots().whole() for store in stores}
        return len(roots) == 1 and all(vector == vectors[0] for vector in vectors)

    def conflicts(self, name: str) -> list[tuple[str, str, str | None, str | None]]:
        found = self.node(name).store.conflicts("", "", 100)
        return [
            (record.environment, record.name, record.kept.value, record.lost.value)
            for record in found
        ]


def simulate(
    story: Callable[[Machines], Awaitable[None]], count: int = 3, settings: Settings | None = None
) -> None:
    """Tell a story about so many machines, in virtual time."""
    loop = SimLoop()

    async def main() -> None:
        await story(Machines(loop, count, settings or Settings()))

    try:
        loop.simulate(main())
    finally:
        loop.close()
