"""What callers ask of the reconciler, on whichever node: the port `SyncApi`.

Bindings are kept by any node. A plan, its application and what a binding costs are its leader's to
tell, so a node that does not lead has that one answer, and tells it who asks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from envd.backends.registry import parse_target
from envd.core.answers import Identity
from envd.core.errors import EnvdError, InvalidRequest, Unavailable, Unsupported
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BackendList,
    BindingCost,
    BindingList,
    BindingsRequest,
    BindingStatus,
    BindingView,
    BindRequest,
    CheckList,
    CheckRequest,
    CostView,
    FetchRequest,
    FetchView,
    PauseRequest,
    PlanRequest,
    PlanView,
    SyncStatus,
    UnbindRequest,
)
from envd.ports import Authorizer
from envd.sync import binding, plan, pricing, windows
from envd.sync.applying import Leave
from envd.sync.keeping import Keeper, Totals
from envd.sync.plan import joined_name
from envd.sync.ports import Leading
from envd.sync.prices import PriceBook
from envd.sync.runner import Runner
from envd.sync.stores import Stores
from envd.wire import plain_sync
from envd.wire.plain import to_plain

SYNC: Final = "sync"
PATIENCE_S: Final = 600.0
"""To do a plan takes as long as the quotas of a store have it take; that a peer died shows."""
STATUS_S: Final = 2.0
"""What a leader last told is nearly as good as what it tells now."""


class Peers(Protocol):
    """The reconcilers of other nodes."""

    async def ask(
        self, uid: int, method: str, identity: str, body: bytes, *, patience_s: float
    ) -> bytes:
        """What that node's `Reconciler.answer` says within so long; raises EnvdError."""
        ...


class Reconciler:
    """The reconciler of one node, for its callers."""

    def __init__(
        self,
        keeper: Keeper,
        leading: Leading,
        peers: Peers,
        stores: Stores,
        authorizer: Authorizer,
        prices: PriceBook,
        *,
        uid: int,
    ) -> None:
        self._keeper = keeper
        self._leading = leading
        self._peers = peers
        self._stores = stores
        self._authorizer = authorizer
        self._prices = prices
        self._uid = uid

    @property
    def totals(self) -> Totals:
        """What this node did, for its metrics."""
        return self._keeper.totals

    def runners(self) -> Mapping[str, Runner]:
        """Those of the bindings that this node leads."""
        return self._keeper.runners()

    # -- bindings --------------------------------------------------------------------------

    async def bind(self, identity: Identity, request: BindRequest) -> BindingView:
        """Make or replace a binding; InvalidRequest where it can't be."""
        wanted = replace(binding.checked(request.binding), origin="api", revision="")
        self._allow(identity, wanted)
        for text in wanted.windows:
            windows.parse(text)
        for target in wanted.targets:
            parse_target(target)
        known = await self._keeper.all()
        binding.check_place(wanted, known)
        for target in wanted.targets:
            await (await self._stores.open(wanted, target)).close()
        before = next((each for each in known if each.name == wanted.name), None)
        if before is not None:
            self._allow(identity, before)
            wanted = replace(wanted, paused_by=before.paused_by)
        if request.dry_run:
            return binding.with_revision(wanted)
        return await self._keeper.keep(wanted)

    async def unbind(self, identity: Identity, request: UnbindRequest) -> BindingView:
        """Remove a binding, and return it as it was."""
        (known,) = await self._keeper.named([request.name])
        self._allow(identity, known)
        if not request.dry_run:
            await self._keeper.forget(known.name)
        return known

    async def bindings(self, identity: Identity, request: BindingsRequest) -> BindingList:
        """The bindings that the caller may see; of those that are named, all or Denied."""
        return BindingList(tuple(await self._seen(identity, request.names)))

    async def pause(self, identity: Identity, request: PauseRequest) -> BindingList:
        """Pause or resume bindings, and return them as they are now."""
        by = "" if request.resume else identity.name
        done = []
        for known in await self._seen(identity, request.names):
            if bool(known.paused_by) == bool(by):
                done.append(known)
            else:
                done.append(await self._keeper.keep(replace(known, paused_by=by)))
        return BindingList(tuple(done))

    async def status(self, identity: Identity, request: BindingsRequest) -> SyncStatus:
        """How bindings do, as their leaders say now; as one last told where it does not answer."""
        wanted = await self._seen(identity, request.names)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._status_of(identity, each)) for each in wanted]
        return SyncStatus(tuple(task.result() for task in tasks))

    async def _status_of(self, identity: Identity, wanted: BindingView) -> BindingStatus:
        if self._keeper.runner(wanted.name) is None:
            _, uid = await self._leading.leader(wanted.name)
            if uid not in (0, self._uid):
                with suppress(EnvdError):
                    asked = {"name": wanted.name}
                    answer = await self._ask(uid, "status", identity, asked, STATUS_S)
                    (said,) = plain_sync.sync_status(answer).bindings
                    return said
        return await self._keeper.status(wanted)

    # -- plans -----------------------------------------------------------------------------

    async def plan(self, identity: Identity, request: PlanRequest) -> PlanView:
        """Compare the two sides now."""
        views = [
            await self._plan_of(identity, each)
            for each in await self._seen(identity, request.names)
        ]
        return _joined(views)

    async def apply(self, identity: Identity, request: ApplyRequest) -> AppliedView:
        """Do a plan; Conflict (PLAN_MOVED) where the state is not that of the plan any more."""
        wanted = await self._seen(identity, request.names)
        plans = {each.name: request.plan for each in wanted}
        if request.plan and len(wanted) != 1:
            made = [await self._plan_of(identity, each) for each in wanted]
            if joined_name([each.plan for each in made]) != request.plan:
                raise plan.moved()
            plans = {each.name: view.plan for each, view in zip(wanted, made, strict=True)}
        views = [
            await self._apply_one(identity, each, plans[each.name], request) for each in wanted
        ]
        return AppliedView(
            joined_name([view.plan for view in views]),
            tuple(operation for view in views for operation in view.operations),
            tuple(held for view in views for held in view.held),
            sum(view.unlisted for view in views),
        ).in_short()

    async def _plan_of(self, identity: Identity, wanted: BindingView) -> PlanView:
        runner = self._keeper.runner(wanted.name)
        if runner is not None:
            return plan.view([await runner.plan()]).in_short()
        _, uid = await self._leading.leader(wanted.name)
        if uid not in (0, self._uid):
            answer = await self._ask(uid, "plan", identity, {"name": wanted.name})
            return plain_sync.plan(answer)
        passing = self._keeper.passing(wanted)
        try:
            return plan.view([await passing.plan()]).in_short()
        finally:
            await passing.close()

    async def _apply_one(
        self, identity: Identity, wanted: BindingView, plan_id: str, request: ApplyRequest
    ) -> AppliedView:
        leave = Leave(request.allow_deletes, request.allow_restart, request.message)
        runner = self._keeper.runner(wanted.name)
        if runner is not None:
            _, view = await runner.apply(leave, wanted=plan_id)
            return view.in_short()
        _, uid = await self._leading.leader(wanted.name)
        if uid in (0, self._uid):
            status = await self._keeper.status(wanted)
            raise Unavailable(
                f"no node leads the binding {wanted.name} now; nothing was done",
                hint=status.detail or "try again in a moment",
                reason="NO_LEADER",
                retry_after_ms=2000,
            )
        asked = {"name": wanted.name, "plan": plan_id, **to_plain(leave)}
        return plain_sync.applied(await self._ask(uid, "apply", identity, asked))

    # -- cost ------------------------------------------------------------------------------

    async def cost(self, identity: Identity, request: BindingsRequest) -> CostView:
        """What bindings cost in a month; those that nobody leads are left out."""
        found: list[BindingCost] = []
        for each in await self._seen(identity, request.names):
            if each.name in self._keeper.runners():
                found += self._costs_here(each.name)
                continue
            _, uid = await self._leading.leader(each.name)
            if uid not in (0, self._uid):
                answer = await self._ask(uid, "cost", identity, {"name": each.name})
                found += plain_sync.cost(answer).bindings
        return pricing.total(found)

    def _costs_here(self, name: str) -> list[BindingCost]:
        runner = self._keeper.runner(name)
        usage = None if runner is None else runner.usage()
        return [] if usage is None else [pricing.binding_cost(usage, self._prices)]

    # -- stores ----------------------------------------------------------------------------

    async def backends(self, identity: Identity) -> BackendList:
        """The kinds of stores that this node knows."""
        self._authorizer.check(identity, SYNC, "")
        return BackendList(self._stores.views())

    async def check(self, identity: Identity, request: CheckRequest) -> CheckList:
        """Probe targets, and those of bindings, all at the same time."""
        self._authorizer.check(identity, SYNC, "")
        asked = [(target, request.credentials) for target in request.targets]
        for each in await self._seen(identity, request.bindings) if request.bindings else ():
            asked += [(target, each.credentials) for target in each.targets]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._stores.check(target, credentials))
                for target, credentials in dict.fromkeys(asked)
            ]
        return CheckList(tuple(task.result() for task in tasks))

    async def fetch(self, identity: Identity, request: FetchRequest) -> FetchView:
        """Read all variables at a target once."""
        self._authorizer.check(identity, SYNC, "")
        if request.reveal:
            self._authorizer.check(identity, "reveal", "")
        return await self._stores.fetch(request.target, request.credentials, reveal=request.reveal)

    # -- between nodes ---------------------------------------------------------------------

    async def answer(self, method: str, identity: str, body: bytes) -> bytes:
        """What another node's reconciler asks of this one, which is to lead what it is about."""
        try:
            asked: dict[str, Any] = json.loads(body)
            name = str(asked["name"])
        except (ValueError, TypeError, KeyError):
            raise InvalidRequest("a node asked for what can't be read") from None
        runner = self._keeper.runner(name)
        if runner is None:
            raise Unavailable(
                f"this node does not lead the binding {name[:64]} any more; nothing was done",
                hint="try again",
                reason="NO_LEADER",
                retry_after_ms=1000,
            )
        match method:
            case "plan":
                answer: object = plan.view([await runner.plan()]).in_short()
            case "apply":
                leave = Leave(
                    int(asked.get("deletes", 0)),
                    bool(asked.get("restart", False)),
                    str(asked.get("message", "")),
                )
                _, view = await runner.apply(leave, wanted=str(asked.get("plan", "")))
                answer = view.in_short()
            case "cost":
                answer = pricing.total(self._costs_here(name))
            case "status":
                answer = SyncStatus((runner.status(),))
            case _:
                raise Unsupported(f"this node does not know {method[:64]!a} of {identity[:64]!a}")
        return json.dumps(to_plain(answer)).encode()

    async def _ask(
        self,
        uid: int,
        method: str,
        identity: Identity,
        asked: Mapping[str, Any],
        patience_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        body = json.dumps(asked).encode()
        said = await self._peers.ask(uid, method, identity.name, body, patience_s=patience_s)
        answer: dict[str, Any] = json.loads(said)
        return answer

    # -- rights ----------------------------------------------------------------------------

    def _allow(self, identity: Identity, wanted: BindingView) -> None:
        self._authorizer.check(identity, SYNC, binding.root(wanted))

    async def _seen(self, identity: Identity, names: Sequence[str]) -> list[BindingView]:
        """The bindings that are meant: named ones raise Denied, of all the others are left out."""
        found = await self._keeper.named(names)
        if names:
            for each in found:
                self._allow(identity, each)
            return found
        return [
            each for each in found if self._authorizer.allows(identity, SYNC, binding.root(each))
        ]


def _joined(views: Sequence[PlanView]) -> PlanView:
    return PlanView(
        joined_name([view.plan for view in views]),
        tuple(operation for view in views for operation in view.operations),
        tuple(held for view in views for held in view.held),
        sum(view.in_step for view in views),
        sum(view.unlisted for view in views),
    ).in_short()
