"""Reconcilers on real nodes over simulated machines: one store, several nodes, cuts and deaths."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from envd.backends.contract import Backend, Capability, Limits, Options
from envd.backends.memory import MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.core.digest import value_print
from envd.core.errors import EnvdError
from envd.core.requests import ConflictsRequest, ResolveRequest
from envd.core.syncing import BindingStatus, BindingView
from envd.sync.keeping import Keeper
from envd.sync.picture import Looking
from envd.sync.pricing import Estimate
from tests.node.machines import TESTER, Machines, simulate
from tests.node.placed import placed
from tests.node.syncing import syncing
from tests.node.test_serial import voting
from tests.sync.world import LoopClock, bound

ENVIRONMENT = "web"
NO_STAMPS = Capability.POSTCHECK | Capability.LIST_VALUES


class Kept:
    """The same store, kept in step by a reconciler on each of these machines."""

    def __init__(self, machines: Machines, *, capabilities: Capability = NO_STAMPS) -> None:
        self.machines = machines
        self.store = MemoryStore("place")
        self.capabilities = capabilities
        self.clock = LoopClock()
        self.keepers: dict[str, Keeper] = {}

    async def start(self, *names: str) -> None:
        for name in names:
            boot = self.machines.machine(name).boot
            assert boot is not None
            keeper = self._keeper(name)
            self.keepers[name] = keeper
            boot.process.spawn(self._run(keeper), name=f"sync {name}")

    async def _run(self, keeper: Keeper) -> None:
        with suppress(asyncio.CancelledError):
            await keeper.run()

    def _keeper(self, name: str) -> Keeper:
        parts = syncing(self.machines, name)
        fingerprint = partial(value_print, digest_key=b"k" * 32)

        async def opened(binding: BindingView, target: str) -> Backend:
            options = Options(target, below=binding.environment is None, wall_ms=self.clock.wall_ms)
            limits = Limits(batch=100, get_batch=100, page_items=100)
            return MemoryBackend(
                options, store=self.store, capabilities=self.capabilities, limits=limits
            )

        return Keeper(
            Looking(parts.environments, parts.records, fingerprint),
            parts.leading,
            self.clock,
            opened,
            node=name,
            region="",
            estimate=lambda _: Estimate(),
        )

    async def bind(self, name: str, binding: BindingView) -> None:
        await self.machines.run(name, self.keepers[name].keep(binding))

    def leaders(self) -> list[str]:
        return [name for name, keeper in self.keepers.items() if keeper.runner("b") is not None]

    async def status(self, name: str) -> BindingStatus:
        async def asked() -> BindingStatus:
            (wanted,) = await self.keepers[name].all()
            return await self.keepers[name].status(wanted)

        return await self.machines.run(name, asked())

    async def shows(self, name: str, **values: str) -> None:
        """Wait until a node has these values, and no other."""
        await self.machines.until(lambda: self.values_of(name) == values, 90.0)

    async def stores(self, **values: str) -> None:
        await self.machines.until(lambda: self.store.values() == values, 90.0)

    def values_of(self, name: str) -> dict[str, str]:
        state = self.machines.node(name).store.visible(ENVIRONMENT)
        if state is None:
            return {}
        return {
            key: entry.value
            for key, entry in state.environment.variables.items()
            if entry.value is not None
        }


async def three(machines: Machines) -> Kept:
    """Three nodes, the binding `b`, both sides in step."""
    await voting(machines)
    kept = Kept(machines)
    await kept.start("n1", "n2", "n3")
    await kept.bind("n1", bound(interval_seconds=5))
    await machines.write("n2", ENVIRONMENT, A="1", B="1")
    await kept.stores(A="1", B="1")
    return kept


def test_an_edit_on_any_node_and_one_in_the_store_reach_everybody() -> None:
    async def story(machines: Machines) -> None:
        kept = await three(machines)

        await machines.write("n3", ENVIRONMENT, A="2")
        kept.store.edit("B", "2")

        await kept.stores(A="2", B="2")
        for name in ("n1", "n2", "n3"):
            await kept.shows(name, A="2", B="2")
        assert len(kept.leaders()) == 1
        assert machines.conflicts("n1") == []

    simulate(story)


def test_a_leader_in_a_minority_rests_and_the_majority_goes_on() -> None:
    async def story(machines: Machines) -> None:
        kept = await three(machines)
        (leader,) = kept.leaders()
        others = [name for name in ("n1", "n2", "n3") if name != leader]

        machines.cluster.network.partition([leader], others)
        await machines.until(lambda: leader not in kept.leaders(), 30.0)
        await machines.write(leader, ENVIRONMENT, A="minority")
        await machines.until(lambda: len(kept.leaders()) == 1, 60.0)
        kept.store.edit("B", "majority")
        await kept.shows(others[0], A="1", B="majority")
        in_the_cut = kept.store.values()
        machines.cluster.network.heal()

        await kept.stores(A="minority", B="majority")
        for name in ("n1", "n2", "n3"):
            await kept.shows(name, A="minority", B="majority")
        assert in_the_cut == {"A": "1", "B": "majority"}

    simulate(story)


def test_both_sides_of_a_cut_and_the_store_edit_one_variable_and_nothing_is_lost() -> None:
    async def story(machines: Machines) -> None:
        kept = await three(machines)
        (leader,) = kept.leaders()
        others = [name for name in ("n1", "n2", "n3") if name != leader]
        machines.cluster.network.partition([leader], others)
        await machines.until(lambda: len(kept.leaders()) == 1 != kept.leaders().count(leader), 60.0)

        await machines.write(leader, ENVIRONMENT, A="minority")
        await machines.write(others[0], ENVIRONMENT, A="majority")
        kept.store.edit("A", "store")
        await asyncio.sleep(30)
        machines.cluster.network.heal()
        await machines.until(machines.equal, 60.0)
        await asyncio.sleep(30)

        (value,) = {kept.values_of(name)["A"] for name in ("n1", "n2", "n3")}
        assert kept.store.values()["A"] == value
        lost = {(name, lost) for _, name, _, lost in machines.conflicts("n1")}
        assert lost | {("A", value)} == {("A", "minority"), ("A", "majority"), ("A", "store")}
        assert machines.conflicts("n1") == machines.conflicts("n3")

    simulate(story)


def test_when_the_leader_dies_another_takes_over_and_writes_nothing_twice() -> None:
    async def story(machines: Machines) -> None:
        kept = await three(machines)
        (leader,) = kept.leaders()
        others = [name for name in ("n1", "n2", "n3") if name != leader]
        writes = kept.store.calls.writes

        machines.cluster.crash(machines.machine(leader))
        del kept.keepers[leader]
        await machines.until(lambda: len(kept.leaders()) == 1, 60.0)
        await asyncio.sleep(20)

        assert kept.store.calls.writes == writes
        await machines.write(others[0], ENVIRONMENT, A="2")
        await kept.stores(A="2", B="1")
        assert (await kept.status(others[1])).leader in others

    simulate(story)


def test_a_conflict_that_waits_is_the_same_on_every_node_and_settled_on_any() -> None:
    async def story(machines: Machines) -> None:
        await voting(machines)
        kept = Kept(machines)
        await machines.write("n1", ENVIRONMENT, A="here")
        kept.store.edit("A", "there")
        await kept.start("n1", "n2", "n3")
        await kept.bind("n2", bound(interval_seconds=5))
        await machines.until(lambda: len(machines.conflicts("n3")) == 1, 60.0)

        request = ConflictsRequest(ENVIRONMENT, reveal=True)
        page = await machines.run("n3", machines.node("n3").api.conflicts(TESTER, request))
        (conflict,) = page.conflicts
        take = ResolveRequest(ENVIRONMENT, "A", conflict.id)
        await machines.run("n3", machines.node("n3").api.resolve(TESTER, take))

        assert conflict.lost.actor == "store memory:place"
        await kept.shows("n1", A="there")
        await asyncio.sleep(20)
        assert kept.store.values() == {"A": "there"}
        assert machines.conflicts("n1") == []

    simulate(story)


def test_with_partitions_a_node_that_holds_nothing_of_it_leads_as_well() -> None:
    async def story(machines: Machines) -> None:
        await placed(machines, {ENVIRONMENT: ("n1", "n2")})
        kept = Kept(machines)
        await kept.start("n4")
        await kept.bind("n4", bound(interval_seconds=5))
        await machines.write("n1", ENVIRONMENT, A="1", B="1")
        await kept.stores(A="1", B="1")

        kept.store.edit("A", "2")
        await kept.shows("n2", A="2", B="1")
        await machines.write("n2", ENVIRONMENT, B="here")
        kept.store.edit("B", "there")
        await asyncio.sleep(20)

        value = kept.values_of("n1")["B"]
        assert kept.store.values() == {"A": "2", "B": value}
        lost = [str(lost) for _, _, _, lost in machines.conflicts("n1")]
        assert sorted([*lost, value]) == ["here", "there"]

    simulate(story, 4)


def test_a_binding_that_cannot_reach_its_records_does_nothing_to_the_store() -> None:
    async def story(machines: Machines) -> None:
        kept = await three(machines)
        writes = kept.store.calls.writes
        (leader,) = kept.leaders()
        for name in ("n1", "n2", "n3"):
            if name != leader:
                machines.cluster.crash(machines.machine(name))
                del kept.keepers[name]
        await machines.until(lambda: kept.leaders() == [], 60.0)

        with suppress(EnvdError):
            await machines.write(leader, ENVIRONMENT, A="alone")
        await asyncio.sleep(60)

        assert kept.store.calls.writes == writes

    simulate(story)
