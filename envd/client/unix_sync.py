"""The calls about stores over the Unix socket: a part of `client.unix` that is loaded when used."""

from __future__ import annotations

from typing import Any, Protocol

from envd.client.connection import APPLIED_TWICE, CHANGED_TWICE
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BackendList,
    BindingList,
    BindingsRequest,
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
from envd.wire import plain_sync as wire


class _Call(Protocol):
    def __call__(self, call: str, request: object, mend: str = "") -> dict[str, Any]: ...


class UnixSync:
    """A SyncConnection on the socket of a UnixConnection."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    def bind(self, request: BindRequest) -> BindingView:
        return wire.binding(self._call("sync_bind", request, CHANGED_TWICE))

    def unbind(self, request: UnbindRequest) -> BindingView:
        return wire.binding(self._call("sync_unbind", request, CHANGED_TWICE))

    def bindings(self, request: BindingsRequest) -> BindingList:
        return wire.binding_list(self._call("sync_bindings", request))

    def pause(self, request: PauseRequest) -> BindingList:
        return wire.binding_list(self._call("sync_pause", request, CHANGED_TWICE))

    def status(self, request: BindingsRequest) -> SyncStatus:
        return wire.sync_status(self._call("sync_status", request))

    def plan(self, request: PlanRequest) -> PlanView:
        return wire.plan(self._call("sync_plan", request))

    def apply(self, request: ApplyRequest) -> AppliedView:
        return wire.applied(self._call("sync_apply", request, APPLIED_TWICE))

    def cost(self, request: BindingsRequest) -> CostView:
        return wire.cost(self._call("sync_cost", request))

    def backends(self) -> BackendList:
        return wire.backend_list(self._call("sync_backends", None))

    def check(self, request: CheckRequest) -> CheckList:
        return wire.check_list(self._call("sync_check", request))

    def fetch(self, request: FetchRequest) -> FetchView:
        return wire.fetched(self._call("sync_fetch", request))
