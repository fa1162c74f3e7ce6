"""One binding, kept in step by the node that leads it.

A run looks at both sides, makes a plan and does it. Runs follow the interval, and changes of either
side, which are gathered; a paused binding does nothing, and one outside its windows waits. What
callers ask for, a plan or its application, goes through the same run, one at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from envd.backends.contract import Backend, Capability, Key, PriceSheet
from envd.backends.errors import BackendError
from envd.core.breaker import Circuit
from envd.core.errors import Conflict, EnvdError, Unavailable
from envd.core.syncing import (
    AppliedView,
    BindingStatus,
    BindingView,
    HeldView,
    OperationView,
    TargetStatus,
)
from envd.core.times import iso_time
from envd.sync import applying, picture, plan, windows
from envd.sync.applying import Leave
from envd.sync.binding import binds, root, scope
from envd.sync.coalescing import Schedule
from envd.sync.layouts import Place, place_of
from envd.sync.merge import STORE, Left
from envd.sync.paced import CIRCUIT_OPEN, Paced
from envd.sync.picture import Looking, Picture
from envd.sync.plan import Plan
from envd.sync.ports import Clock, Held
from envd.sync.pricing import BudgetCheck, Estimate, Traffic, Usage, check_budget
from envd.sync.routing import Facts, Route, choose
from envd.sync.term import Term

OpenBackend = Callable[[BindingView, str], Awaitable[Backend]]
"""(binding, target) -> a backend that is open; raises BackendError or InvalidRequest."""
Tell = Callable[[BindingStatus], Awaitable[None]]
Called = Callable[[str, PriceSheet, bool, int, str], None]
"""(backend, its prices, whether it wrote, how many calls, "ok" or a reason)."""
NO_TARGET: Final = "NO_TARGET"
RESTS_S: Final = 3600.0
TELLS_S: Final = 600.0
"""So often a status that stays the same is told again."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run came to, for the counts of a node."""

    operations: Sequence[OperationView]
    errors: int


class Runner:
    """One binding on the node that leads it, or that is asked for a plan."""

    def __init__(
        self,
        binding: BindingView,
        looking: Looking,
        clock: Clock,
        open_backend: OpenBackend,
        *,
        region: str = "",
        node: str = "",
        tell: Tell | None = None,
        note: Callable[[Spent], None] = lambda _: None,
        estimate: Callable[[Usage], Estimate] = lambda _: Estimate(),
        called: Called = lambda _backend, _prices, _write, _calls, _code: None,
    ) -> None:
        """`tell` gets the status whenever there is news; `estimate` tells what a month costs;
        `called` is told of calls to stores as they end."""
        self.binding = binding
        self._looking = looking
        self._clock = clock
        self._open_backend = open_backend
        self._region = region
        self._node = node
        self._tell = tell
        self._note = note
        self._estimate = estimate
        self._called = called
        self._backends: dict[str, Paced] = {}
        self._one_at_a_time = asyncio.Lock()
        self._term = Term(binding.name)
        self._schedule = Schedule(binding.interval_seconds, clock.monotonic_s(), draw=clock.random)
        self._windows = [windows.parse(text) for text in binding.windows]
        self._awake = asyncio.Event()
        self._moved = asyncio.Event()
        self._in_use = ""
        self._status = BindingStatus(binding.name, "behind", leader=node)
        self._told: tuple[BindingStatus, float] | None = None
        self._sizes = picture.Sizes()
        self._left: dict[str, Mapping[Key, Left]] = {}
        self._run_done = self._run_total = 0

    # -- leading ---------------------------------------------------------------------------

    async def lead(self, held: Held) -> None:
        """Keep the binding in step for as long as this node leads; ends by cancellation only."""
        _log.info("sync.leading", extra={"binding": self.binding.name, "token": held.token})
        self._term = Term(self.binding.name)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_environments())
                group.create_task(self._follow_store())
                group.create_task(self._run_for_ever())
        finally:
            await self.close()

    async def close(self) -> None:
        """End what is under way, for another node may lead by now, and let go of the backends."""
        await self._term.end()
        backends, self._backends = self._backends, {}
        for backend in backends.values():
            with suppress(BackendError):
                await backend.close()

    async def _run_for_ever(self) -> None:
        while True:
            await self._until_due()
            try:
                await self.apply(Leave())
            except EnvdError as error:
                extra = {"binding": self.binding.name, "reason": error.reason}
                _log.warning("sync.failed", extra={**extra, "detail": error.message})

    async def _until_due(self) -> None:
        """Wait until there is something to do, and it may be done now."""
        while True:
            self._awake.clear()
            wait_s = self._wait_s()
            if wait_s <= 0:
                return
            await self._tell_if_new()
            sleeping = asyncio.ensure_future(self._clock.sleep(wait_s))
            waking = asyncio.ensure_future(self._awake.wait())
            try:
                await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sleeping, waking):
                    task.cancel()
                await asyncio.wait((sleeping, waking))

    def _wait_s(self) -> float:
        """How long until the next run; RESTS_S at most, which whatever happens ends."""
        binding, now_s = self.binding, self._clock.monotonic_s()
        wait_s = min(RESTS_S, self._schedule.next_run(now_s) - now_s)  # One may be under way.
        if binding.suspended or binding.paused_by:
            state = "suspended" if binding.suspended else "paused"
            self._status = replace(self._status, state=state, next_run="")
            return RESTS_S
        wall_ms = self._clock.wall_ms()
        opens_ms = windows.next_open_ms(self._windows, wall_ms + int(wait_s * 1000))
        waits_s = (opens_ms - wall_ms) / 1000
        self._status = replace(self._status, next_run=iso_time(opens_ms))
        if self._windows and waits_s > max(0.0, wait_s) + 1.0:
            self._status = replace(self._status, state="waiting")
        return max(0.0, wait_s, waits_s if self._windows else 0.0)

    async def _follow_environments(self) -> None:
        """Have changes here be taken along soon."""
        while True:
            with suppress(EnvdError):
                async for name in self._looking.environments.changes(root(self.binding)):
                    if not name or binds(self.binding, name):
                        self._changed()
            await self._clock.sleep(5.0)

    async def _follow_store(self) -> None:
        """Have changes in the store that is used, if it tells of them, be taken along soon."""
        while True:
            self._moved.clear()
            following = asyncio.ensure_future(self._follow(self._in_use or self.binding.targets[0]))
            moving = asyncio.ensure_future(self._moved.wait())
            try:
                await asyncio.wait((following, moving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (following, moving):
                    task.cancel()
                await asyncio.wait((following, moving))
            if not following.cancelled():
                following.result()

    async def _follow(self, target: str) -> None:
        while True:
            with suppress(BackendError, EnvdError):
                backend = await self._backend(target)
                if Capability.WATCH not in backend.capabilities:
                    await self._moved.wait()
                    return
                async for _ in backend.watch(scope(self.binding), None):
                    self._changed()
            await self._clock.sleep(30.0)

    def _changed(self) -> None:
        self._schedule.changed(self._clock.monotonic_s())
        self._awake.set()

    # -- runs ------------------------------------------------------------------------------

    async def plan(self) -> Plan:
        """Compare both sides now. Raises BackendError, EnvdError; nothing is changed."""
        return await self._term.during(self._plan())

    async def apply(self, leave: Leave, *, wanted: str = "") -> tuple[Plan, AppliedView]:
        """Make a plan and do it; with `wanted` only where it is still the plan of that name.

        Raises Conflict (PLAN_MOVED) else, BackendError and EnvdError where nothing could be done,
        OutcomeUnknown where this node ceased to lead meanwhile.
        """
        return await self._term.during(self._apply(leave, wanted))

    async def _plan(self) -> Plan:
        async with self._one_at_a_time:
            made, _, _ = await self._planned()
            return made

    async def _apply(self, leave: Leave, wanted: str) -> tuple[Plan, AppliedView]:
        async with self._one_at_a_time:
            self._schedule.began(self._clock.monotonic_s())
            done = False
            try:
                made, pictured, place = await self._planned()
                if wanted and made.id != wanted:
                    raise plan.moved()
                view = await self._done(made, pictured, place, leave)
                done = applying.is_whole(view.operations)
                self._took_in(made, view)
            except (BackendError, EnvdError) as error:
                done = self._failed(error)
                raise
            finally:
                self._schedule.ended(self._clock.monotonic_s(), done)
                self._awake.set()
                await self._tell_if_new()
            return made, view

    async def _planned(self) -> tuple[Plan, Picture, Place]:
        target = await self._choose()
        backend = await self._backend(target)
        place = place_of(self.binding, backend, self._looking.fingerprint)
        left = self._left.get(target, {})
        pictured = await picture.take(self._looking, self.binding, target, place, left)
        self._sizes = picture.sizes(pictured, documents=place.has_documents)
        made = plan.make(pictured, place, self._looking.fingerprint)
        self._left = {target: made.left}
        return made, pictured, place

    async def _done(self, made: Plan, pictured: Picture, place: Place, leave: Leave) -> AppliedView:
        held = self._held_back(made, place, leave)
        withheld = "" if held is None else held.detail
        wall_ms = self._clock.wall_ms()
        try:
            done = await applying.apply(
                made,
                pictured,
                place,
                self._looking,
                leave,
                wall_ms,
                self._has_done,
                withheld=withheld,
            )
        finally:
            self._has_done(0, 0)
        views = tuple(done)
        self._note(Spent(views, 0))
        lifted = made.brakes() and not made.brakes(leave.deletes)
        remaining = [each for each in made.held if not (lifted and each.reason == "BRAKE")]
        return AppliedView(made.id, views, tuple(filter(None, (*remaining, held))))

    def _has_done(self, done: int, writes: int) -> None:
        self._run_done, self._run_total = done, writes

    def _held_back(self, made: Plan, place: Place, leave: Leave) -> HeldView | None:
        """Why a plan's writes to the store are not done."""
        binding = self.binding
        writes = any(each.decision.side == STORE for each in made.operations)
        if not writes:
            return None
        if Capability.RESTARTS_TARGET in place.capabilities and not leave.restart:
            return HeldView(
                binding.name,
                "RESTARTS",
                f"a write to {made.target} restarts what runs there",
                f"envctl sync apply {binding.name} --allow-restart",
            )
        budget = self._budget()
        if budget.stops:
            return HeldView(binding.name, "OVER_BUDGET", budget.detail, _COSTS)
        return None

    # -- targets ---------------------------------------------------------------------------

    async def _choose(self) -> str:
        """The target to use now; raises Unavailable where none can be."""
        facts = [await self._facts(target) for target in self.binding.targets]
        route = Route(self.binding.route)
        now_s = self._clock.monotonic_s()
        chosen = choose(route, facts, self._in_use, now_s, region=self._region)
        if not chosen.target:
            waits_s = min((each.closed_for_s() for each in self._backends.values()), default=0.0)
            raise Unavailable(
                f"no store of {self.binding.name} can be used now: {self._last_error()}",
                hint=f"envctl sync status {self.binding.name}",
                reason=NO_TARGET,
                retry_after_ms=int(waits_s * 1000),
            )
        if self._in_use and chosen.target != self._in_use:
            extra = {"binding": self.binding.name, "target": chosen.target}
            _log.warning("sync.target_changed", extra={**extra, "why": chosen.reason})
        if chosen.target != self._in_use:
            self._in_use = chosen.target
            self._moved.set()
        return chosen.target

    async def _facts(self, target: str) -> Facts:
        try:
            backend = await self._backend(target)
        except EnvdError as error:
            self._status = replace(self._status, detail=error.message, hint=error.hint)
            return Facts(target, usable=False)
        now_s = self._clock.monotonic_s()
        several = len(self.binding.targets) > 1
        if several and target != self._in_use and backend.wellness.wants_probe(now_s):
            await backend.probe()
        return Facts(
            target,
            usable=backend.circuit is not Circuit.OPEN,
            well_since_s=backend.wellness.well_since_s,
            round_trip_ms=backend.wellness.round_trip_ms,
            dollars_month=self._spends().dollars_month if target == self._in_use else None,
            region=backend.prices.region,
        )

    async def _backend(self, target: str) -> Paced:
        known = self._backends.get(target)
        if known is None:
            opened = await self._open_backend(self.binding, target)
            called = partial(self._called, target.partition(":")[0], opened.prices)
            paced = Paced(opened, self._clock, called=called)
            known = self._backends.setdefault(target, paced)
            if known is not paced:  # Another one opened it meanwhile.
                with suppress(BackendError):
                    await paced.close()
        return known

    @property
    def backends(self) -> Mapping[str, Paced]:
        """The backends that are open, by target."""
        return self._backends

    def _last_error(self) -> str:
        errors = [each.counts.last_error for each in self._backends.values()]
        return next(filter(None, errors), self._status.detail or "none could be opened")

    def _spends(self) -> Estimate:
        """The estimated cost of a month."""
        usage = self.usage()
        return Estimate() if usage is None else self._estimate(usage)

    def _budget(self) -> BudgetCheck:
        """How that stands to the binding's budget."""
        usage = self.usage()
        return check_budget(
            self._spends(),
            self.binding.budget_dollars,
            may_stop=self.binding.budget_stops,
            measured_s=0.0 if usage is None else usage.traffic.measured_s,
            stopped=self._status.state == _HELD["OVER_BUDGET"],
        )

    def usage(self) -> Usage | None:
        """What it has in the store that it uses, and what it did there; None before it looked."""
        backend = self._backends.get(self._in_use)
        if backend is None:
            return None
        binding, counts = self.binding, backend.counts
        measured_s = self._clock.monotonic_s() - counts.since_s
        return Usage(
            binding.name,
            self._in_use,
            self._in_use.partition(":")[0],
            backend.prices,
            self._sizes.items,
            self._sizes.environments,
            Traffic(counts.scan_reads, counts.other_reads, counts.writes, measured_s),
            layout=binding.layout,
            interval_s=binding.interval_seconds,
            region=backend.prices.region,
            secrets=self._sizes.secrets,
            value_bytes=self._sizes.value_bytes,
            document_bytes=self._sizes.document_bytes,
            limit_bytes=backend.limits.max_value_bytes,
            budget_dollars=binding.budget_dollars,
        )

    # -- status ----------------------------------------------------------------------------

    def status(self) -> BindingStatus:
        """How it does, as of now."""
        now_s = self._clock.monotonic_s()
        since_s = self._schedule.waiting_since_s
        lag_s = self._status.lag_s if since_s is None else max(0.0, now_s - since_s)
        return replace(
            self._status,
            lag_s=round(lag_s, 3),
            targets=tuple(map(self._target_status, self.binding.targets)),
            run_done=self._run_done,
            run_total=self._run_total,
        )

    def _target_status(self, target: str) -> TargetStatus:
        backend = self._backends.get(target)
        if backend is None:
            return TargetStatus(target, target == self._in_use, Circuit.CLOSED.value)
        counts = backend.counts
        closed_s = backend.closed_for_s()
        until = iso_time(self._clock.wall_ms() + int(closed_s * 1000)) if closed_s else ""
        return TargetStatus(
            target,
            target == self._in_use,
            backend.circuit.value,
            counts.reads,
            counts.writes,
            counts.errors,
            counts.throttled,
            round(backend.wellness.round_trip_ms or 0.0, 1),
            counts.last_error,
            until,
        )

    def _took_in(self, made: Plan, view: AppliedView) -> None:
        """The status after a run that came to its end."""
        now = iso_time(self._clock.wall_ms())
        waiting = sum(each.result == applying.WAITS for each in view.operations)
        failed = [each for each in view.operations if each.result in _FAILURES]
        if view.held:
            state = _HELD.get(view.held[0].reason, "behind")
            detail, hint = view.held[0].detail, view.held[0].hint
        elif failed:
            state, hint = "behind", ""
            detail = f"{failed[0].variable}: {failed[0].detail}"
        else:
            state, detail = "in step", self._budget().detail
            hint = _COSTS if detail else ""
        self._status = BindingStatus(
            self.binding.name,
            state,
            self._node,
            last_success=self._status.last_success if failed else now,
            last_try=now,
            drift=len(failed),
            conflicts=waiting,
            detail=detail,
            hint=hint,
            dollars_month=round(self._spends().dollars_month, 2),
        )

    def _failed(self, error: EnvdError) -> bool:
        """The status after a run that could do nothing; returns whether that is no failure.

        Whose plan moved on is told so; what changed is then still to be taken along.
        """
        if isinstance(error, Conflict) and error.reason == "PLAN_MOVED":
            self._schedule.changed(self._clock.monotonic_s())
            return True
        self._note(Spent((), 1))
        is_away = error.reason in (CIRCUIT_OPEN, NO_TARGET)  # The status itself tells of that.
        self._status = replace(
            self._status,
            state="failing",
            last_try=iso_time(self._clock.wall_ms()),
            detail=self._last_error() if is_away else error.message,
            hint="" if is_away else error.hint,
        )
        return False

    async def _tell_if_new(self) -> None:
        """Tell the status where something of it is news, or where nothing was told for long."""
        if self._tell is None:
            return
        now_s = self._clock.monotonic_s()
        status = self.status()
        if self._told is not None:
            told, when_s = self._told
            if _news(status) == _news(told) and now_s - when_s < TELLS_S:
                return
        self._told = (status, now_s)
        with suppress(EnvdError):
            await self._tell(replace(status, told=iso_time(self._clock.wall_ms())))


_COSTS: Final = "see: envctl sync cost"
_HELD: Final = {"BRAKE": "braked", "OVER_BUDGET": "over budget"}
_FAILURES: Final = frozenset(("failed", "rejected", "conflict", applying.NOT_TRIED))


def _news(status: BindingStatus) -> tuple[object, ...]:
    """What of a status is worth telling at once: not what grows with every run."""
    circuits = tuple((each.target, each.in_use, each.circuit) for each in status.targets)
    return (status.state, status.leader, status.drift, status.conflicts, status.detail, circuits)
