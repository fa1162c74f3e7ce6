"""One binding over time: quiet while nothing changes, gathering what does, and patient in outages.

Time is virtual: a day takes a second or two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from chaos.sim.loop import SimLoop
from envd.backends.contract import Backend, Capability, Limits, Op, Options, Outcome
from envd.backends.errors import Forbidden, MissingLibrary, StoreUnavailable
from envd.backends.memory import CAPABILITIES, MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.backends.outcomes import unsuccessful
from envd.core.errors import Conflict, EnvdError, OutcomeUnknown, Unavailable
from envd.core.syncing import BindingStatus, BindingView
from envd.sync.applying import Leave
from envd.sync.picture import Looking
from envd.sync.ports import Held
from envd.sync.pricing import Estimate, Usage
from envd.sync.runner import Runner, Spent
from tests.sync.world import Environments, LoopClock, Records, bound, fingerprint

DAY_S = 86_400
SLOW = Limits(reads_per_s=1, writes_per_s=2, burst=5, page_items=10, batch=1)


class Closing(MemoryBackend):
    """A backend that tells whether it was closed, and refuses writes of some variables."""

    closed = False
    refuses: frozenset[str] = frozenset()

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        refused = {op.key: unsuccessful(op, Forbidden("not that one")) for op in self._bad(ops)}
        rest = [op for op in ops if op.key not in refused]
        done = {each.op.key: each for each in await super().apply(rest, idempotency=idempotency)}
        return [refused.get(op.key) or done[op.key] for op in ops]

    def _bad(self, ops: Sequence[Op]) -> list[Op]:
        return [op for op in ops if op.key.variable in self.refuses]

    async def close(self) -> None:
        self.closed = True


class Desk:
    """A runner with its world, on a loop whose time is virtual."""

    def __init__(
        self,
        binding: BindingView,
        *,
        limits: Limits | None = None,
        capabilities: Capability = CAPABILITIES & ~Capability.WATCH,
    ) -> None:
        self.clock = LoopClock()
        self.environments = Environments(self.clock)
        self.records = Records()
        self.stores: dict[str, MemoryStore] = {}
        self.limits = limits or Limits(page_items=100, batch=100, get_batch=100)
        self.capabilities = capabilities
        self.told: list[BindingStatus] = []
        self.spent: list[Spent] = []
        self.problem: EnvdError | None = None
        self.spends = Estimate()
        self.opening_s = 0.0
        self.refuses: frozenset[str] = frozenset()
        self.opened: list[Closing] = []
        looking = Looking(self.environments, self.records, fingerprint)
        self.runner = Runner(
            binding,
            looking,
            self.clock,
            self._open,
            node="n1",
            tell=self._tell,
            note=self.spent.append,
            estimate=lambda _: self.spends,
        )

    @property
    def store(self) -> MemoryStore:
        return self.at("memory:place")

    def at(self, target: str) -> MemoryStore:
        return self.stores.setdefault(target, MemoryStore(target))

    async def _open(self, binding: BindingView, target: str) -> Backend:
        if self.problem is not None:
            raise self.problem
        options = Options(target, below=binding.environment is None, wall_ms=self.clock.wall_ms)
        await asyncio.sleep(self.opening_s)
        self.opened.append(
            Closing(
                options, store=self.at(target), capabilities=self.capabilities, limits=self.limits
            )
        )
        self.opened[-1].refuses = self.refuses
        return self.opened[-1]

    async def _tell(self, status: BindingStatus) -> None:
        self.told.append(status)

    async def led_for(self, seconds: float, during: Callable[[], Awaitable[None]]) -> None:
        """Lead for so long, while something else happens."""
        leading = asyncio.ensure_future(self.runner.lead(Held("b", 1)))
        other = asyncio.ensure_future(during())
        await asyncio.sleep(seconds)
        await other
        leading.cancel()
        with suppress(asyncio.CancelledError):
            await leading


async def nothing() -> None:
    """Nobody does anything."""


def simulate(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    loop = SimLoop()
    try:
        loop.simulate(main())
    finally:
        loop.close()


def test_an_idle_day_writes_nothing_anywhere_and_reads_what_was_predicted() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=60), limits=Limits(page_items=20, batch=100))
        desk.environments.set("web", **{f"K{number}": "1" for number in range(50)})
        await desk.runner.apply(Leave())
        calls, updates = replace(desk.store.calls), desk.records.updates

        await desk.led_for(DAY_S, nothing)

        pages = desk.store.calls.pages - calls.pages
        predicted = DAY_S / 60 * 3
        assert desk.store.calls.writes == calls.writes
        assert desk.store.calls.gets == calls.gets
        assert (desk.records.updates, desk.environments.commits) == (updates, 0)
        assert 0.9 * predicted <= pages <= 1.1 * predicted
        assert len(desk.told) <= DAY_S / 600 + 2

    simulate(work())


def test_fifty_changes_in_ten_seconds_are_one_batch() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=3600))

        async def people() -> None:
            await asyncio.sleep(60)
            for number in range(50):
                desk.environments.set("web", **{f"K{number}": "1"})
                await asyncio.sleep(0.19)

        await desk.led_for(120, people)

        writing = [spent for spent in desk.spent if spent.operations]
        assert len(writing) == 1
        assert len(writing[0].operations) == 50
        assert desk.store.calls.puts == 50

    simulate(work())


def test_a_change_is_in_the_store_within_two_seconds() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=3600))

        async def people() -> None:
            await asyncio.sleep(60)
            desk.environments.set("web", A="1")
            await asyncio.sleep(2)
            assert desk.store.values() == {"A": "1"}

        await desk.led_for(70, people)

    simulate(work())


def test_an_hour_without_the_store_costs_envd_nothing_and_is_made_up_within_the_quotas() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=60), limits=SLOW)
        states: list[BindingStatus] = []

        async def people() -> None:
            await asyncio.sleep(30)
            desk.store.fail("page", StoreUnavailable("cut off"), times=100_000)
            for number in range(360):
                desk.environments.set("web", **{f"K{number % 100}": f"{number}"})
                await asyncio.sleep(10)
                states.append(desk.runner.status())
            desk.store.heal()

        await desk.led_for(3600 + 30 + 600, people)

        circuits = {status.targets[0].circuit for status in states}
        assert {"open"} <= circuits
        assert any(status.state == "failing" and "cut off" in status.detail for status in states)
        assert max(status.targets[0].errors for status in states) < 120
        assert desk.store.values() == desk.environments.values("web")
        assert desk.store.calls.puts == 100
        assert desk.runner.status().state == "in step"

    simulate(work())


def test_what_the_store_refuses_holds_up_nothing_else_and_is_told() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=60))
        desk.refuses = frozenset({"BAD"})
        desk.environments.set("web", BAD="1")

        async def people() -> None:
            await asyncio.sleep(1800)
            desk.environments.set("web", GOOD="1")
            await asyncio.sleep(2)
            assert desk.store.values() == {"GOOD": "1"}

        await desk.led_for(1900, people)

        status = desk.runner.status()
        assert (status.state, status.drift) == ("behind", 1)
        assert "not that one" in status.detail
        assert len(desk.spent) <= 35

    simulate(work())


def test_the_quota_holds_when_much_is_to_be_written() -> None:
    async def work() -> None:
        desk = Desk(bound(), limits=SLOW)
        desk.environments.set("web", **{f"K{number}": "1" for number in range(100)})
        began_s = desk.clock.monotonic_s()

        await desk.runner.apply(Leave())

        took_s = desk.clock.monotonic_s() - began_s
        assert (100 - 5) / 2 <= took_s < 60
        assert len(desk.store.values()) == 100

    simulate(work())


def test_a_long_run_tells_how_far_it_is() -> None:
    async def work() -> None:
        desk = Desk(bound(), limits=SLOW)
        desk.environments.set("web", **{f"K{number}": "1" for number in range(100)})
        desk.store.edit("THEIRS", "1")
        running = asyncio.ensure_future(desk.runner.apply(Leave()))
        seen = []
        while not running.done():
            await asyncio.sleep(5)
            status = desk.runner.status()
            seen.append((status.run_done, status.run_total))
        await running

        under_way = [each for each in seen if each[1]]
        assert {total for _, total in under_way} == {101}
        assert under_way == sorted(set(under_way))
        assert len(under_way) > 5
        assert seen[-1] == (0, 0)

    simulate(work())


def test_a_plan_that_was_overtaken_is_refused_and_nothing_is_done() -> None:
    async def work() -> None:
        desk = Desk(bound())
        desk.environments.set("web", A="1")
        made = await desk.runner.plan()
        desk.environments.set("web", A="2")

        with pytest.raises(Conflict) as caught:
            await desk.runner.apply(Leave(), wanted=made.id)

        assert caught.value.reason == "PLAN_MOVED"
        assert desk.store.calls.writes == 0

    simulate(work())


def test_a_plan_is_done_just_as_it_was_shown() -> None:
    async def work() -> None:
        desk = Desk(bound(), limits=Limits(batch=1))
        desk.environments.set("web", A="1", B="1")
        desk.store.edit("C", "1")
        made = await desk.runner.plan()

        _, view = await desk.runner.apply(Leave(), wanted=made.id)

        shown = [(each.decision.action, each.key.variable) for each in made.operations]
        did = [(each.action, each.variable) for each in view.operations]
        assert [(action.value if action else "", name) for action, name in shown] == did
        assert desk.store.calls.writes == sum(each.side == "store" for each in view.operations)

    simulate(work())


def test_an_apply_that_is_asked_for_goes_together_with_the_runs_by_the_interval() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=60), limits=SLOW)
        desk.environments.set("web", **{f"K{number}": "1" for number in range(20)})

        async def people() -> None:
            await asyncio.sleep(30)
            desk.environments.set("web", **{f"K{number}": "2" for number in range(20)})
            asking = asyncio.ensure_future(desk.runner.apply(Leave()))
            await asyncio.sleep(2)
            desk.environments.set("web", A="1")
            await asking

        await desk.led_for(200, people)

        assert desk.store.values() == desk.environments.values("web")
        assert len(desk.spent) >= 4

    simulate(work())


@pytest.mark.parametrize("how", [{"suspended": True}, {"paused_by": "ann"}])
def test_a_binding_that_rests_does_nothing(how: dict[str, object]) -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=5, **how))
        desk.environments.set("web", A="1")

        await desk.led_for(600, nothing)

        assert desk.store.calls.reads == 0
        assert desk.runner.status().state in ("suspended", "paused")

    simulate(work())


def test_outside_its_windows_a_binding_waits() -> None:
    async def work() -> None:
        # The clock of the tests begins at 22:13:20 UTC on a Tuesday, 1,000 s before this loop.
        desk = Desk(bound(interval_seconds=60, windows=("daily 01:00-02:00",)))
        desk.environments.set("web", A="1")

        await desk.led_for(3600, nothing)
        waiting = (desk.store.calls.reads, desk.runner.status().state)
        await desk.led_for(2 * 3600, nothing)

        assert waiting == (0, "waiting")
        assert desk.store.values() == {"A": "1"}

    simulate(work())


def test_when_the_first_target_is_away_the_next_is_used_and_later_the_first_again() -> None:
    async def work() -> None:
        targets = ("memory:first", "memory:second")
        desk = Desk(bound(targets=targets, direction="push", interval_seconds=30))
        desk.environments.set("web", A="1")
        desk.at("memory:first").fail("page", StoreUnavailable("away"), times=100_000)
        desk.at("memory:first").fail("probe", StoreUnavailable("away"), times=100_000)

        await desk.led_for(600, nothing)
        second = dict(desk.at("memory:second").values())
        desk.at("memory:first").heal()
        await desk.led_for(1200, nothing)

        assert second == {"A": "1"}
        assert desk.at("memory:first").values() == {"A": "1"}
        assert next(each for each in desk.runner.status().targets if each.in_use).target == (
            "memory:first"
        )

    simulate(work())


def test_a_store_that_cannot_be_opened_is_told_with_its_mend() -> None:
    async def work() -> None:
        desk = Desk(bound())
        desk.problem = MissingLibrary("it needs boto3", hint="pip install 'x[aws]'")

        with pytest.raises(Unavailable, match="boto3"):
            await desk.runner.apply(Leave())

        assert desk.runner.status().state == "failing"

    simulate(work())


def test_a_target_that_would_be_restarted_waits_for_consent() -> None:
    async def work() -> None:
        desk = Desk(bound(), capabilities=CAPABILITIES | Capability.RESTARTS_TARGET)
        desk.environments.set("web", A="1")

        _, refused = await desk.runner.apply(Leave())
        written = desk.store.calls.writes
        _, done = await desk.runner.apply(Leave(restart=True))

        assert refused.held[0].reason == "RESTARTS"
        assert [each.result for each in refused.operations] == ["not tried"]
        assert written == 0
        assert [each.result for each in done.operations] == ["applied"]

    simulate(work())


def test_what_the_store_has_is_taken_while_a_write_to_it_waits_for_consent() -> None:
    async def work() -> None:
        desk = Desk(bound(), capabilities=CAPABILITIES | Capability.RESTARTS_TARGET)
        desk.environments.set("web", A="1")
        desk.store.edit("THEIRS", "1")

        _, view = await desk.runner.apply(Leave())

        assert [(each.variable, each.result) for each in view.operations] == [
            ("A", "not tried"),
            ("THEIRS", "applied"),
        ]
        assert desk.environments.values("web") == {"A": "1", "THEIRS": "1"}
        assert desk.store.values() == {"THEIRS": "1"}

    simulate(work())


def test_after_a_change_of_target_the_store_that_is_used_is_followed() -> None:
    async def work() -> None:
        targets = ("memory:first", "memory:second")
        desk = Desk(bound(targets=targets, interval_seconds=3600), capabilities=CAPABILITIES)

        async def people() -> None:
            desk.at("memory:first").fail("page", StoreUnavailable("cut off"), times=100_000)
            desk.environments.set("web", A="1")
            await asyncio.sleep(1800)
            assert desk.at("memory:second").values() == {"A": "1"}
            desk.at("memory:second").edit("A", "2")
            await asyncio.sleep(5)
            assert desk.environments.values("web") == {"A": "2"}

        await desk.led_for(1900, people)

    simulate(work())


def test_over_its_budget_a_binding_writes_nothing_where_that_is_wanted() -> None:
    async def work() -> None:
        desk = Desk(bound(budget_dollars=1.0, budget_stops=True))
        desk.environments.set("web", A="1")
        desk.spends = Estimate(2.0, keeping=2.0)

        _, view = await desk.runner.apply(Leave())

        assert view.held[0].reason == "OVER_BUDGET"
        assert desk.store.calls.writes == 0
        assert desk.runner.status().state == "over budget"

    simulate(work())


@pytest.mark.parametrize("may_stop", [False, True])
def test_near_its_budget_or_by_a_guess_of_minutes_a_binding_warns_and_goes_on(
    may_stop: bool,
) -> None:
    async def work() -> None:
        desk = Desk(bound(budget_dollars=1.0, budget_stops=may_stop))
        desk.environments.set("web", A="1")
        desk.spends = Estimate(2.0)

        _, view = await desk.runner.apply(Leave())

        status = desk.runner.status()
        assert [each.result for each in view.operations] == ["applied"]
        assert (status.state, status.dollars_month) == ("in step", 2.0)
        assert "the budget is $1.00" in status.detail
        assert "sync cost" in status.hint

    simulate(work())


def test_the_cost_is_of_what_was_counted() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=60))
        desk.environments.set("web", A="1", LONG="x" * 500)

        usages: list[Usage | None] = []

        async def look() -> None:
            await asyncio.sleep(3600)
            usages.append(desk.runner.usage())

        await desk.led_for(3601, look)

        (usage,) = usages
        assert usage is not None
        assert (usage.items, usage.environments, usage.value_bytes) == (2, 1, 500)
        assert 50 <= usage.traffic.scan_reads <= 75
        assert usage.traffic.measured_s == pytest.approx(3600, rel=0.01)

    simulate(work())


def test_what_somebody_asked_for_ends_with_the_leadership() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=3600), limits=SLOW)
        leading = asyncio.ensure_future(desk.runner.lead(Held("b", 1)))
        await asyncio.sleep(60)
        desk.environments.set("web", **{f"K{number}": "1" for number in range(60)})
        asking = asyncio.ensure_future(desk.runner.apply(Leave()))
        await asyncio.sleep(10)

        leading.cancel()
        await asyncio.wait((leading,))
        written = desk.store.calls.writes
        with pytest.raises(OutcomeUnknown, match="does not lead"):
            await asking
        await asyncio.sleep(60)

        assert 0 < written < 60
        assert desk.store.calls.writes == written
        with pytest.raises(Unavailable, match="does not lead"):
            await desk.runner.plan()

    simulate(work())


def test_of_a_target_that_was_opened_twice_at_a_time_one_is_let_go() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=5), capabilities=CAPABILITIES)
        desk.opening_s = 1.0

        await desk.led_for(60, nothing)

        assert len(desk.opened) == 2
        assert all(each.closed for each in desk.opened)

    simulate(work())


def test_a_braked_binding_looks_again_by_its_interval_and_takes_changes_along() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=3600))
        desk.environments.set("web", **{f"K{number}": "1" for number in range(30)})
        await desk.runner.apply(Leave())
        for number in range(10):
            desk.store.remove(f"K{number}")
        looked: list[int] = []

        async def people() -> None:
            await asyncio.sleep(DAY_S / 2)
            looked.append(desk.store.calls.pages)
            assert desk.runner.status().state == "braked"
            desk.environments.set("web", K29="2")
            await asyncio.sleep(5)
            assert desk.store.values()["K29"] == "2"

        await desk.led_for(DAY_S / 2 + 10, people)

        assert looked[0] < 20

    simulate(work())


def test_a_plan_that_moved_on_holds_up_nothing() -> None:
    async def work() -> None:
        desk = Desk(bound(interval_seconds=3600))
        desk.environments.set("web", A="1")

        async def people() -> None:
            await asyncio.sleep(60)
            for _ in range(8):
                with pytest.raises(Conflict):
                    await desk.runner.apply(Leave(), wanted="another")
            desk.environments.set("web", A="2")
            with pytest.raises(Conflict):
                await desk.runner.apply(Leave(), wanted="another")
            await asyncio.sleep(5)
            assert desk.store.values() == {"A": "2"}

        await desk.led_for(100, people)

    simulate(work())


def test_what_waits_for_consent_is_no_more_than_what_would_be_written() -> None:
    async def work() -> None:
        capabilities = CAPABILITIES | Capability.RESTARTS_TARGET
        desk = Desk(bound(direction="push"), capabilities=capabilities)
        desk.environments.set("web", A="1")
        desk.store.edit("FOREIGN", "1")

        _, view = await desk.runner.apply(Leave())

        assert [(each.variable, each.result) for each in view.operations] == [
            ("A", "not tried"),
            ("FOREIGN", ""),
        ]
        assert desk.runner.status().drift == 1
        assert desk.runner.status().state == "behind"

    simulate(work())


def _foreign(desk: Desk) -> None:
    desk.store.edit("FOREIGN", "1")


def _drifted(desk: Desk) -> None:
    desk.store.edit("A", "theirs")


def _clashed(desk: Desk) -> None:
    desk.environments.set("web", A="here")
    desk.store.edit("A", "there")


def _deleted_there(desk: Desk) -> None:
    desk.store.remove("A")


def _deleted_here(desk: Desk) -> None:
    desk.environments.unset("web", "A")
    desk.store.edit("A", "theirs")


@pytest.mark.parametrize(
    ("how", "happens", "told"),
    [
        ({"direction": "push"}, _foreign, ("skip", "FOREIGN")),
        ({"direction": "push", "conflict_policy": "store"}, _drifted, ("skip", "A")),
        ({"direction": "pull", "conflict_policy": "envd"}, _clashed, ("skip", "A")),
        ({"conflict_policy": "manual"}, _clashed, ("conflict", "A")),
        ({"direction": "push"}, _deleted_here, ("skip", "A")),
        ({"delete_policy": "never"}, _deleted_there, ("skip", "A")),
    ],
)
def test_what_is_left_as_it_is_is_told_each_time_and_read_but_once(
    how: dict[str, object], happens: Callable[[Desk], None], told: tuple[str, str]
) -> None:
    async def work() -> None:
        reads = CAPABILITIES & ~Capability.LIST_VALUES & ~Capability.WATCH
        desk = Desk(bound(interval_seconds=60, **how), capabilities=reads)
        desk.environments.set("web", A="1")
        desk.store.edit("A", "1")
        await desk.runner.apply(Leave())
        happens(desk)
        for _ in range(2):
            await desk.runner.apply(Leave())
        gets = desk.store.calls.gets

        for _ in range(5):
            _, view = await desk.runner.apply(Leave())

            assert [(each.action, each.variable) for each in view.operations] == [told]
        assert desk.store.calls.gets == gets

    simulate(work())


def test_what_was_left_as_it_was_is_looked_at_anew_once_it_changes() -> None:
    async def work() -> None:
        reads = CAPABILITIES & ~Capability.LIST_VALUES & ~Capability.WATCH
        desk = Desk(bound(conflict_policy="manual"), capabilities=reads)
        desk.environments.set("web", A="here")
        desk.store.edit("A", "there")
        for _ in range(3):
            await desk.runner.apply(Leave())

        desk.environments.set("web", A="there")
        _, view = await desk.runner.apply(Leave())

        assert not view.operations

    simulate(work())


def test_a_foreign_value_is_never_read_where_nothing_comes_of_it() -> None:
    async def work() -> None:
        reads = CAPABILITIES & ~Capability.LIST_VALUES & ~Capability.WATCH
        desk = Desk(bound(direction="push"), capabilities=reads)
        desk.store.edit("FOREIGN", "1")

        await desk.runner.apply(Leave())

        assert desk.store.calls.gets == 0

    simulate(work())
