"""A state machine over both sides of a binding, for every kind of store that can be two-way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from envd.backends.contract import Capability
from envd.backends.errors import StoreUnavailable
from envd.backends.memory import CAPABILITIES
from envd.core.errors import EnvdError
from envd.core.syncing import BindingView
from envd.sync import applying
from envd.sync.applying import Leave
from envd.sync.layouts import Place
from envd.sync.merge import ENVD
from envd.sync.picture import Picture
from envd.sync.plan import Plan
from tests.sync.world import START_MS, StillClock, World, bound

AHEAD_MS = 4_000_000_000_000
"""A clock of ours that is ahead of every store's; START_MS is behind."""
NAMES = st.sampled_from(["AA", "BB", "CC", "DD"])
VALUES = st.sampled_from(["1", "2", "3"])
ALLOWED = Leave(deletes=99, restart=True)


class TwoSides(RuleBasedStateMachine):
    """Edits on both sides, cuts, crashes and lost anchors; in the end both sides are equal.

    Each edit has a value of its own, so that none can be taken for another. What an edit of one
    side replaced is known; what both sides edited since they were last equal is a true conflict.
    """

    capabilities = CAPABILITIES
    layout = "per-variable"

    @initialize(policy=st.sampled_from(["lww", "envd", "store"]), is_ahead=st.booleans())
    def begin(self, policy: str, is_ahead: bool) -> None:
        self.runner = asyncio.Runner()
        self.world = self.make_world(StillClock(AHEAD_MS if is_ahead else START_MS))
        self.binding: BindingView = bound(conflict_policy=policy, layout=self.layout)
        self.edits = 0
        self.written: set[tuple[str, str]] = set()
        self.replaced: set[tuple[str, str]] = set()
        self.anchors_lost = False
        self.known_records: set[tuple[str, str | None]] = set()
        self.replaced_here: set[tuple[str, str | None]] = set()

    def make_world(self, clock: StillClock) -> World:
        return World(capabilities=self.capabilities, clock=clock)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have something done in the loop that is the same from beginning to end."""
        return self.runner.run(work)

    def _value(self) -> str:
        self.edits += 1
        return f"v{self.edits}"

    @rule(name=NAMES)
    def edit_here(self, name: str) -> None:
        before = self.world.environments.values("web").get(name)
        if before is not None:
            self.replaced.add((name, before))
            self.replaced_here.add((name, before))
        value = self._value()
        self.world.environments.set("web", **{name: value})
        self.written.add((name, value))

    @rule(name=NAMES)
    def edit_there(self, name: str) -> None:
        before = self.there().get(name)
        if before is not None:
            self.replaced.add((name, before))
        value = self._value()
        self.edit(name, value)
        self.written.add((name, value))

    @rule(name=NAMES)
    def unset_here(self, name: str) -> None:
        before = self.world.environments.values("web").get(name)
        if before is not None:
            self.replaced.add((name, before))
            self.replaced_here.add((name, before))
            self.world.environments.unset("web", name)

    @rule(name=NAMES)
    def remove_there(self, name: str) -> None:
        before = self.there().get(name)
        if before is not None:
            self.replaced.add((name, before))
            self.remove(name)

    @rule()
    def compare(self) -> None:
        try:
            self.run(self.world.run(self.binding, ALLOWED))
        except EnvdError:
            return

    @rule(done=st.booleans())
    def lose_the_answer_to_a_write(self, done: bool) -> None:
        self.fail_write(done=done)

    @rule(name=NAMES)
    def edit_in_the_very_moment(self, name: str) -> None:
        if Capability.POSTCHECK in self.capabilities and self.layout == "per-variable":
            self.edit_meanwhile(name, self._value())

    @rule(name=NAMES)
    def edit_here_and_there_in_the_very_moment(self, name: str) -> None:
        """What seldom comes together by itself."""
        self.edit_here(name)
        self.edit_in_the_very_moment(name)
        self.compare()

    @rule()
    def cut_off_the_store_once(self) -> None:
        self.fail_listing()

    @rule()
    def restart(self) -> None:
        """What is only in the memory of the node that leads is gone."""
        self.world.left.clear()

    @rule(calls=st.integers(0, 9), loses_answer=st.booleans())
    def cut_off_the_cluster_while_a_plan_is_done(self, calls: int, loses_answer: bool) -> None:
        self.spare_the_moment()

        async def cut() -> None:
            made, pictured, place = await self.world.plan(self.binding)
            self._may_lose_anchors(made)
            reach = self.world.reach
            reach.calls, reach.loses_answer = calls, loses_answer
            try:
                await self._apply(made, pictured, place)
            finally:
                reach.calls, reach.loses_answer = None, False

        with suppress(EnvdError):
            self.run(cut())

    @rule()
    def crash_before_the_anchors_are_kept(self) -> None:
        async def crash() -> None:
            made, pictured, place = await self.world.plan(self.binding)
            update = self.world.records.update
            calls = 0

            async def dies(name: str, puts: dict[str, str], unsets: Any = ()) -> None:
                nonlocal calls
                calls += 1
                if calls > 2:
                    raise asyncio.CancelledError
                await update(name, puts, unsets)

            self._may_lose_anchors(made)
            records = self.world.looking.records
            records.update = dies  # type: ignore[method-assign]
            try:
                await self._apply(made, pictured, place)
            except asyncio.CancelledError:
                pass
            finally:
                records.update = update  # type: ignore[method-assign]

        with suppress(EnvdError):
            self.run(crash())

    def _may_lose_anchors(self, made: Plan) -> None:
        """Of what is taken and not noted nobody knows: edited here, it is a conflict."""
        takes = any(each.decision.side == ENVD for each in made.operations)
        self.anchors_lost = self.anchors_lost or takes

    async def _apply(self, made: Plan, pictured: Picture, place: Place) -> None:
        world = self.world
        await applying.apply(made, pictured, place, world.looking, ALLOWED, world.clock.wall_ms())

    @rule()
    def lose_the_anchors(self) -> None:
        self.world.records.lose()
        self.anchors_lost = True

    @invariant()
    def only_true_conflicts_are_on_record(self) -> None:
        """What was replaced here knowingly is no loss; without anchors nobody knows."""
        records = {
            (each.variable, each.lost) for each in self.world.environments.on_record.values()
        }
        if not self.anchors_lost:
            assert not (records - self.known_records) & self.replaced_here
        self.known_records |= records

    @invariant()
    def nothing_is_thrown_away(self) -> None:
        """Every value that was ever written and not replaced by its own side is somewhere."""
        here = set(self.world.environments.values("web").items())
        there = set(self.there().items())
        on_record = {(name, value) for name, value in self.world.environments.lost("web")}
        deleted = self.replaced
        for edit in self.written - deleted:
            assert edit in here | there | on_record, edit

    def teardown(self) -> None:
        try:
            self._end_equal()
        finally:
            self.close()

    def _end_equal(self) -> None:
        world = self.world
        self.heal()
        for _ in range(4):
            self.run(world.run(self.binding, ALLOWED))
            for conflict in set(world.environments.on_record) - world.environments.settled:
                world.environments.settle(conflict)
        final = self.run(world.run(self.binding, ALLOWED))
        self.nothing_is_thrown_away()
        skipped = {each.variable for each in final.operations if each.action == "skip"}
        here, there = world.environments.values("web"), self.there()
        assert {name: here[name] for name in here.keys() - skipped} == {
            name: there[name] for name in there.keys() - skipped
        }
        assert not [each for each in final.operations if each.action != "skip"]
        writes = self.writes()
        self.run(world.run(self.binding, ALLOWED))
        assert self.writes() == writes

    # The store, as those who edit it see it. Other kinds of stores say it in their own way.

    def heal(self) -> None:
        """Have nothing go wrong any more."""
        self.world.store.heal()

    def close(self) -> None:
        """Let go of the store."""
        self.runner.close()

    def fail_write(self, *, done: bool) -> None:
        """Have the next write not be answered, whether it is `done` or not."""
        self.world.store.fail("put", StoreUnavailable("no answer"), done=done)

    def fail_listing(self) -> None:
        """Have the next listing not be answered."""
        self.world.store.fail("page", StoreUnavailable("cut off"))

    def spare_the_moment(self) -> None:
        """Have nobody edit right before a write, if what that overtakes could not go on record."""

    def edit_meanwhile(self, name: str, value: str) -> None:
        """Edit a variable right before envd's next write of it."""
        self.world.store.meanwhile(name, value)

    def writes(self) -> int:
        """A number that changes with each write of envd's."""
        return self.world.store.calls.writes

    def there(self) -> dict[str, str]:
        return dict(self.world.store.values())

    def edit(self, name: str, value: str) -> None:
        self.world.store.edit(name, value)

    def remove(self, name: str) -> None:
        self.world.store.remove(name)
