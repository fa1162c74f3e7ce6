"""What callers get from the reconciler of any node, whoever leads; and who may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from chaos.sim.loop import SimLoop
from envd.backends.contract import Backend, Options
from envd.backends.memory import MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.backends.registry import Registry
from envd.core.answers import Identity
from envd.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    EnvdError,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from envd.core.syncing import (
    MAX_LISTED,
    ApplyRequest,
    BindingsRequest,
    BindingView,
    BindRequest,
    CheckRequest,
    FetchRequest,
    PauseRequest,
    PlanRequest,
    UnbindRequest,
)
from envd.sync import binding
from envd.sync.keeping import Keeper
from envd.sync.picture import Looking
from envd.sync.ports import Held
from envd.sync.prices import PriceBook
from envd.sync.pricing import Estimate
from envd.sync.service import Reconciler
from envd.sync.stores import Stores
from tests.sync.world import Environments, LoopClock, Records, bound, fingerprint

ANN = Identity("ann", "token")


class Rights:
    """Who may sync what: by prefix; "reveal" is a right of its own."""

    def __init__(self) -> None:
        self.prefixes = [""]
        self.reveals = True

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        if not self.allows(identity, verb, environment):
            raise Denied(f"{identity.name} may not {verb}")

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        if verb == "reveal":
            return self.reveals
        return any(environment.startswith(prefix) for prefix in self.prefixes)


class Cluster:
    """What nodes share: environments, records, one store a target, and who leads what."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.environments = Environments(self.clock)
        self.records = Records()
        self.stores: dict[str, MemoryStore] = {}
        self.rights = Rights()
        self.leaders: dict[str, int] = {}
        self.nodes: dict[int, Desk] = {}
        self.asked: list[tuple[int, str, str]] = []
        self.silent: set[int] = set()

    def store(self, target: str = "memory:place") -> MemoryStore:
        return self.stores.setdefault(target, MemoryStore(target))


class OpenStores(Stores):
    """Opens the stores of the cluster; all else is that of a registry."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(Registry(lambda: ()), {}, cluster.clock.wall_ms, fingerprint)
        self._cluster = cluster

    async def open(self, binding: BindingView, target: str) -> Backend:
        backend = await super().open(binding, target)
        await backend.close()
        options = Options(
            target,
            "document" if binding.layout == "document" else "per-variable",
            below=binding.environment is None,
            wall_ms=self._cluster.clock.wall_ms,
        )
        return MemoryBackend(options, store=self._cluster.store(target))


class Desk:
    """The reconciler of one node of a cluster."""

    def __init__(self, cluster: Cluster, uid: int) -> None:
        self.cluster = cluster
        self.uid = uid
        cluster.nodes[uid] = self
        looking = Looking(cluster.environments, cluster.records, fingerprint)
        self.keeper = Keeper(
            looking,
            self,
            cluster.clock,
            OpenStores(cluster).open,
            node=f"n{uid}",
            region="",
            estimate=lambda _: Estimate(),
        )
        self.api = Reconciler(
            self.keeper,
            self,
            self,
            OpenStores(cluster),
            cluster.rights,
            PriceBook(),
            uid=uid,
        )
        self.running: asyncio.Task[None] | None = None

    # The port Leading: the first to ask leads until it is cancelled.

    async def lead(self, name: str, ttl_s: float, work: Callable[[Held], Awaitable[None]]) -> None:
        while True:
            if name not in self.cluster.leaders:
                self.cluster.leaders[name] = self.uid
                try:
                    await work(Held(name, 1))
                finally:
                    del self.cluster.leaders[name]
            await asyncio.sleep(ttl_s / 3)

    async def leader(self, name: str) -> tuple[str, int]:
        uid = self.cluster.leaders.get(name, 0)
        return (f"n{uid}", uid) if uid else ("", 0)

    # The reconcilers of other nodes.

    async def ask(
        self, uid: int, method: str, identity: str, body: bytes, *, patience_s: float
    ) -> bytes:
        assert patience_s > 0
        self.cluster.asked.append((uid, method, identity))
        if uid in self.cluster.silent:
            raise Unavailable("no answer came")
        return await self.cluster.nodes[uid].api.answer(method, identity, body)

    async def start(self, *seeded: BindingView) -> None:
        self.running = asyncio.ensure_future(self.keeper.run(seeded))
        await asyncio.sleep(1)

    async def stop(self) -> None:
        assert self.running is not None
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running


def simulate(story: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await story(Cluster())

    loop = SimLoop()
    try:
        loop.simulate(main())
    finally:
        loop.close()


async def two(cluster: Cluster) -> tuple[Desk, Desk]:
    """Two nodes of which the first leads the binding `b`."""
    first, second = Desk(cluster, 1), Desk(cluster, 2)
    await first.start()
    await first.api.bind(ANN, BindRequest(bound(interval_seconds=3600)))
    await asyncio.sleep(60)
    await second.start()
    return first, second


def test_any_node_answers_for_the_one_that_leads() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        cluster.store().edit("A", "1")

        plan = await second.api.plan(ANN, PlanRequest(("b",)))
        done = await second.api.apply(ANN, ApplyRequest(("b",), plan.plan))
        status = await second.api.status(ANN, BindingsRequest())
        cost = await second.api.cost(ANN, BindingsRequest())

        assert cluster.environments.values("web") == {"A": "1"}
        assert [each.result for each in done.operations] == ["applied"]
        assert [method for uid, method, _ in cluster.asked if uid == 1] == [
            *("plan", "apply", "status", "cost")
        ]
        assert {each[2] for each in cluster.asked} == {"ann"}
        assert (status.bindings[0].leader, status.bindings[0].state) == ("n1", "in step")
        assert cost.bindings[0].items == 1
        await first.stop()
        await second.stop()

    simulate(story)


def test_a_plan_of_very_many_operations_is_told_in_short_and_done_whole() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        many = {f"K{number}": "1" for number in range(MAX_LISTED + 10)}
        cluster.environments.set("web", **many)

        made = await second.api.plan(ANN, PlanRequest(("b",)))
        done = await first.api.apply(ANN, ApplyRequest(("b",), made.plan))

        assert (len(made.operations), made.unlisted) == (MAX_LISTED, 10)
        assert (len(done.operations), done.unlisted, done.failed) == (MAX_LISTED, 10, 0)
        assert len(cluster.store().values()) == len(many)
        await first.stop()
        await second.stop()

    simulate(story)


def test_of_a_leader_that_does_not_answer_its_last_word_counts() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        cluster.silent.add(1)

        status = await second.api.status(ANN, BindingsRequest())

        assert ("status" in cluster.asked[-1], status.bindings[0].state) == (True, "in step")
        await first.stop()
        await second.stop()

    simulate(story)


def test_another_node_takes_over_and_whom_it_asks_then_is_itself() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        await first.stop()
        await asyncio.sleep(30)
        cluster.environments.set("web", A="1")
        await asyncio.sleep(5)

        status = await second.api.status(ANN, BindingsRequest())

        assert cluster.store().values() == {"A": "1"}
        assert status.bindings[0].leader == "n2"
        await second.stop()

    simulate(story)


def test_without_a_leader_there_is_a_plan_and_nothing_is_done() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        await first.stop()
        await second.stop()
        cluster.environments.set("web", A="1")

        plan = await second.api.plan(ANN, PlanRequest())
        with pytest.raises(Unavailable) as caught:
            await second.api.apply(ANN, ApplyRequest())
        status = await second.api.status(ANN, BindingsRequest())

        assert [each.action for each in plan.operations] == ["create"]
        assert caught.value.reason == "NO_LEADER"
        assert status.bindings[0].state == "no leader"
        assert cluster.store().calls.writes == 0

    simulate(story)


def test_a_leader_that_is_none_any_more_does_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        await first.stop()
        cluster.leaders["b"] = 1

        with pytest.raises(Unavailable) as caught:
            await second.api.apply(ANN, ApplyRequest())

        assert caught.value.reason == "NO_LEADER"
        await second.stop()

    simulate(story)


def test_the_plans_of_several_bindings_are_one_and_refused_where_any_moved() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        other = bound(name="c", environment="api", targets=("memory:other",))
        await first.api.bind(ANN, BindRequest(other))
        await asyncio.sleep(60)
        cluster.store().edit("A", "1")
        cluster.store("memory:other").edit("B", "1")

        plan = await second.api.plan(ANN, PlanRequest())
        cluster.store("memory:other").edit("C", "1")
        with pytest.raises(Conflict) as caught:
            await second.api.apply(ANN, ApplyRequest(plan=plan.plan))
        again = await second.api.plan(ANN, PlanRequest())
        done = await second.api.apply(ANN, ApplyRequest(plan=again.plan))

        assert caught.value.reason == "PLAN_MOVED"
        assert done.plan == again.plan
        assert cluster.environments.values("api") == {"B": "1", "C": "1"}
        await first.stop()
        await second.stop()

    simulate(story)


def test_a_paused_binding_rests_until_it_is_resumed_and_says_who_paused_it() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        paused = await second.api.pause(ANN, PauseRequest(("b",)))
        await asyncio.sleep(60)
        cluster.environments.set("web", A="1")
        await asyncio.sleep(60)
        written = cluster.store().calls.writes
        status = (await first.api.status(ANN, BindingsRequest())).bindings[0]

        await second.api.pause(ANN, PauseRequest(resume=True))
        await asyncio.sleep(60)

        assert paused.bindings[0].paused_by == "ann"
        assert (written, status.state) == (0, "paused")
        assert cluster.store().values() == {"A": "1"}
        await first.stop()
        await second.stop()

    simulate(story)


def test_what_is_unbound_is_forgotten_and_both_sides_keep_what_they_have() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        cluster.environments.set("web", A="1")
        await asyncio.sleep(60)

        tried = await second.api.unbind(ANN, UnbindRequest("b", dry_run=True))
        still = await second.api.bindings(ANN, BindingsRequest())
        await second.api.unbind(ANN, UnbindRequest("b"))
        await asyncio.sleep(60)

        assert tried.name == "b"
        assert [each.name for each in still.bindings] == ["b"]
        assert not any(cluster.records.documents.values())
        assert cluster.environments.values("web") == cluster.store().values() == {"A": "1"}
        assert not cluster.leaders
        await first.stop()
        await second.stop()

    simulate(story)


def test_only_who_may_sync_what_is_bound_sees_it_and_moves_it() -> None:
    async def story(cluster: Cluster) -> None:
        first, second = await two(cluster)
        cluster.rights.prefixes = ["api"]

        assert (await second.api.bindings(ANN, BindingsRequest())).bindings == ()
        for asked in (
            second.api.plan(ANN, PlanRequest(("b",))),
            second.api.apply(ANN, ApplyRequest(("b",))),
            second.api.unbind(ANN, UnbindRequest("b")),
            second.api.pause(ANN, PauseRequest(("b",))),
            second.api.bind(ANN, BindRequest(bound())),
            second.api.bind(ANN, BindRequest(bound(environment="api"))),
            second.api.backends(ANN),
            second.api.check(ANN, CheckRequest(("memory:place",))),
            second.api.fetch(ANN, FetchRequest("memory:place")),
        ):
            with pytest.raises(Denied):
                await asked
        assert [each.environment for each in await first.keeper.all()] == ["web"]
        await first.stop()
        await second.stop()

    simulate(story)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"name": "No"}, "name"),
        ({"environment": None}, "environment"),
        ({"prefix": ""}, "environment"),
        ({"targets": ()}, "targets"),
        ({"targets": ("memory:a", "memory:a")}, "targets"),
        ({"targets": ("nothing",)}, "targets"),
        ({"direction": "up"}, "direction"),
        ({"conflict_policy": "x"}, "conflict_policy"),
        ({"interval_seconds": 1}, "interval"),
        ({"windows": ("sometimes",)}, "a window is"),
        ({"budget_dollars": -1.0}, "budget"),
        ({"targets": ("unheard-of:place",)}, "unheard-of"),
    ],
)
def test_a_binding_that_cannot_be_is_refused_and_not_kept(
    changed: dict[str, object], why: str
) -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)

        with pytest.raises(EnvdError, match=why):
            await desk.api.bind(ANN, BindRequest(bound(**changed)))

        assert await desk.keeper.all() == []

    simulate(story)


def test_two_bindings_do_not_write_to_one_place() -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)
        await desk.api.bind(ANN, BindRequest(bound()))

        with pytest.raises(InvalidRequest, match="same place"):
            await desk.api.bind(ANN, BindRequest(bound(name="c", environment="api")))
        pulls = bound(name="c", environment="api", direction="pull")
        await desk.api.bind(ANN, BindRequest(pulls))
        tried = await desk.api.bind(ANN, BindRequest(bound(priority=5), dry_run=True))

        assert tried.priority == 5
        assert [(each.name, each.priority) for each in await desk.keeper.all()] == [
            ("b", 100),
            ("c", 100),
        ]

    simulate(story)


def test_a_binding_that_is_not_there_is_not_found() -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)

        for asked in (
            desk.api.plan(ANN, PlanRequest(("b",))),
            desk.api.status(ANN, BindingsRequest(("b",))),
            desk.api.unbind(ANN, UnbindRequest("b")),
        ):
            with pytest.raises(NotFound):
                await asked

    simulate(story)


def test_bindings_of_the_settings_are_kept_but_not_in_place_of_what_people_made() -> None:
    async def story(cluster: Cluster) -> None:
        from dataclasses import replace

        desk = Desk(cluster, 1)
        await desk.api.bind(ANN, BindRequest(bound(priority=1)))
        mine = bound(name="c", environment="api", targets=("memory:other",), origin="file")

        await desk.start(bound(priority=2, origin="file"), mine)
        await desk.stop()
        await desk.start(replace(mine, priority=3))
        await desk.stop()

        kept = {each.name: (each.priority, each.origin) for each in await desk.keeper.all()}
        assert kept == {"b": (1, "api"), "c": (3, "file")}

    simulate(story)


def test_of_two_bindings_of_the_settings_that_write_to_one_place_one_is_kept() -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)

        await desk.start(bound(name="a"), bound(name="b", environment="api"), bound(name="a"))
        await desk.stop()

        assert [each.name for each in await desk.keeper.all()] == ["a"]

    simulate(story)


def test_a_store_that_no_node_can_open_is_told_with_its_reason() -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)
        await desk.keeper.keep(bound(targets=("unheard-of:place",)))
        await desk.start()

        status = (await desk.api.status(ANN, BindingsRequest())).bindings[0]

        assert status.state == "no leader"
        assert "unheard-of" in status.detail
        await desk.stop()

    simulate(story)


def test_values_that_are_fetched_take_the_right_to_reveal() -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)
        cluster.rights.reveals = False

        with pytest.raises(Denied):
            await desk.api.fetch(ANN, FetchRequest("memory:place", reveal=True))

        assert (await desk.api.fetch(ANN, FetchRequest("memory:place"))).variables == ()

    simulate(story)


def test_a_check_tells_of_each_target_and_raises_for_none() -> None:
    async def story(cluster: Cluster) -> None:
        desk = Desk(cluster, 1)

        asked = CheckRequest(("memory:place", "unheard-of:x", "file:/no/x.env"))
        checks = (await desk.api.check(ANN, asked)).checks

        assert [(each.target, each.ok) for each in checks] == [
            ("memory:place", True),
            ("unheard-of:x", False),
            ("file:/no/x.env", False),
        ]
        assert checks[1].hint
        assert "NotSimulated" in checks[2].detail  # As of a backend that raises what it likes.

    simulate(story)


def test_a_binding_comes_back_as_it_was_kept_and_a_damaged_one_is_told() -> None:
    made = bound(name="7-up", windows=("daily 01:00-02:00",), budget_dollars=1.5, paused_by="ann")

    (kept,) = binding.decoded_all({binding.record_key(made.name): binding.encoded(made)})

    assert kept == binding.with_revision(made)
    with pytest.raises(Corrupt):
        binding.decoded("b", '{"v": 1, "targets": "x"}')
