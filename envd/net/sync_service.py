"""`envd.v1.SyncService` over the reconciler, and the same calls on the Unix socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from envd.core.answers import Identity
from envd.core.errors import Unsupported
from envd.core.syncing import (
    ApplyRequest,
    BindingsRequest,
    BindRequest,
    CheckRequest,
    FetchRequest,
    PauseRequest,
    PlanRequest,
    UnbindRequest,
)
from envd.net.grpc_calls import Calls, Handler
from envd.sync.api import SyncApi
from envd.wire import api_sync as wire
from envd.wire._pb import sync_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["SyncService"].full_name


class SyncService:
    """The methods; `handlers` is what a server registers. Without `sync` it refuses all."""

    def __init__(self, sync: SyncApi | None, calls: Calls) -> None:
        self._sync = sync
        self._calls = calls

    def handlers(self) -> Mapping[str, Handler]:
        """One handler for each method of the service."""
        unary = self._calls.unary
        return {
            "Bind": unary("SyncBind", pb.BindRequest.FromString, self._bind),
            "Unbind": unary("SyncUnbind", pb.UnbindRequest.FromString, self._unbind),
            "Bindings": unary("SyncBindings", pb.BindingsRequest.FromString, self._bindings),
            "Pause": unary("SyncPause", pb.PauseRequest.FromString, self._pause),
            "Status": unary("SyncStatus", pb.SyncStatusRequest.FromString, self._status),
            "Plan": unary("SyncPlan", pb.PlanRequest.FromString, self._plan),
            "Apply": unary("SyncApply", pb.ApplyRequest.FromString, self._apply),
            "Cost": unary("SyncCost", pb.CostRequest.FromString, self._cost),
            "Backends": unary("SyncBackends", pb.BackendsRequest.FromString, self._backends),
            "Check": unary("SyncCheck", pb.CheckRequest.FromString, self._check),
            "Fetch": unary("SyncFetch", pb.FetchRequest.FromString, self._fetch),
        }

    async def _bind(self, identity: Identity, message: pb.BindRequest) -> pb.BindResponse:
        request = wire.bind_from(message)
        return wire.bound_message(await offered(self._sync).bind(identity, request))

    async def _unbind(self, identity: Identity, message: pb.UnbindRequest) -> pb.UnbindResponse:
        request = wire.unbind_from(message)
        return wire.unbound_message(await offered(self._sync).unbind(identity, request))

    async def _bindings(
        self, identity: Identity, message: pb.BindingsRequest
    ) -> pb.BindingsResponse:
        request = wire.bindings_from(message)
        return wire.binding_list_message(await offered(self._sync).bindings(identity, request))

    async def _pause(self, identity: Identity, message: pb.PauseRequest) -> pb.PauseResponse:
        request = wire.pause_from(message)
        return wire.paused_message(await offered(self._sync).pause(identity, request))

    async def _status(
        self, identity: Identity, message: pb.SyncStatusRequest
    ) -> pb.SyncStatusResponse:
        request = wire.bindings_from(message)
        return wire.sync_status_message(await offered(self._sync).status(identity, request))

    async def _plan(self, identity: Identity, message: pb.PlanRequest) -> pb.PlanResponse:
        request = wire.plan_from(message)
        return wire.planned_message(await offered(self._sync).plan(identity, request))

    async def _apply(self, identity: Identity, message: pb.ApplyRequest) -> pb.ApplyResponse:
        request = wire.apply_from(message)
        return wire.applied_message(await offered(self._sync).apply(identity, request))

    async def _cost(self, identity: Identity, message: pb.CostRequest) -> pb.CostResponse:
        request = wire.bindings_from(message)
        return wire.costs_message(await offered(self._sync).cost(identity, request))

    async def _backends(self, identity: Identity, _: pb.BackendsRequest) -> pb.BackendsResponse:
        return wire.backends_message(await offered(self._sync).backends(identity))

    async def _check(self, identity: Identity, message: pb.CheckRequest) -> pb.CheckResponse:
        request = wire.check_from(message)
        return wire.checks_message(await offered(self._sync).check(identity, request))

    async def _fetch(self, identity: Identity, message: pb.FetchRequest) -> pb.FetchResponse:
        request = wire.fetch_from(message)
        return wire.fetched_message(await offered(self._sync).fetch(identity, request))


def offered(sync: SyncApi | None) -> SyncApi:
    """Raise Unsupported where the node has no reconciler."""
    if sync is None:
        raise Unsupported(
            "this node keeps nothing in step with stores",
            hint="set cloud.enabled = true in its settings, and start it again",
            reason="CLOUD_DISABLED",
        )
    return sync


def socket_calls(
    sync: SyncApi | None,
) -> Mapping[str, tuple[type[Any] | None, Callable[[Identity, Any], Awaitable[object]]]]:
    """The calls of the Unix socket: what each takes, and what performs it."""

    async def backends(identity: Identity, _: object) -> object:
        return await offered(sync).backends(identity)

    def call(name: str) -> Callable[[Identity, Any], Awaitable[object]]:
        async def perform(identity: Identity, request: object) -> object:
            method: Callable[[Identity, object], Awaitable[object]] = getattr(offered(sync), name)
            return await method(identity, request)

        return perform

    return {
        "sync_bind": (BindRequest, call("bind")),
        "sync_unbind": (UnbindRequest, call("unbind")),
        "sync_bindings": (BindingsRequest, call("bindings")),
        "sync_pause": (PauseRequest, call("pause")),
        "sync_status": (BindingsRequest, call("status")),
        "sync_plan": (PlanRequest, call("plan")),
        "sync_apply": (ApplyRequest, call("apply")),
        "sync_cost": (BindingsRequest, call("cost")),
        "sync_backends": (None, backends),
        "sync_check": (CheckRequest, call("check")),
        "sync_fetch": (FetchRequest, call("fetch")),
    }
