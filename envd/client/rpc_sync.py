"""The calls about stores over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import Message

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
from envd.wire import api_sync as wire
from envd.wire._pb import sync_pb2 as pb

SYNC: Final = pb.DESCRIPTOR.services_by_name["SyncService"].full_name


class _Call(Protocol):
    def __call__(
        self, method: str, build: Callable[[], Message], service: str = ..., mend: str = ""
    ) -> bytes: ...


class GrpcSync:
    """A SyncConnection on the channel of a GrpcConnection."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    def bind(self, request: BindRequest) -> BindingView:
        raw = self._call("Bind", lambda: wire.bind_message(request), SYNC, CHANGED_TWICE)
        return wire.bound_from(pb.BindResponse.FromString(raw))

    def unbind(self, request: UnbindRequest) -> BindingView:
        raw = self._call("Unbind", lambda: wire.unbind_message(request), SYNC, CHANGED_TWICE)
        return wire.bound_from(pb.UnbindResponse.FromString(raw))

    def bindings(self, request: BindingsRequest) -> BindingList:
        raw = self._call("Bindings", lambda: wire.bindings_message(request), SYNC)
        return wire.binding_list_from(pb.BindingsResponse.FromString(raw))

    def pause(self, request: PauseRequest) -> BindingList:
        raw = self._call("Pause", lambda: wire.pause_message(request), SYNC, CHANGED_TWICE)
        return wire.binding_list_from(pb.PauseResponse.FromString(raw))

    def status(self, request: BindingsRequest) -> SyncStatus:
        raw = self._call("Status", lambda: wire.status_message(request), SYNC)
        return wire.sync_status_from(pb.SyncStatusResponse.FromString(raw))

    def plan(self, request: PlanRequest) -> PlanView:
        raw = self._call("Plan", lambda: wire.plan_message(request), SYNC)
        return wire.planned_from(pb.PlanResponse.FromString(raw))

    def apply(self, request: ApplyRequest) -> AppliedView:
        raw = self._call("Apply", lambda: wire.apply_message(request), SYNC, APPLIED_TWICE)
        return wire.applied_from(pb.ApplyResponse.FromString(raw))

    def cost(self, request: BindingsRequest) -> CostView:
        raw = self._call("Cost", lambda: wire.cost_message(request), SYNC)
        return wire.costs_from(pb.CostResponse.FromString(raw))

    def backends(self) -> BackendList:
        raw = self._call("Backends", pb.BackendsRequest, SYNC)
        return wire.backends_from(pb.BackendsResponse.FromString(raw))

    def check(self, request: CheckRequest) -> CheckList:
        raw = self._call("Check", lambda: wire.check_message(request), SYNC)
        return wire.checks_from(pb.CheckResponse.FromString(raw))

    def fetch(self, request: FetchRequest) -> FetchView:
        raw = self._call("Fetch", lambda: wire.fetch_message(request), SYNC)
        return wire.fetched_from(pb.FetchResponse.FromString(raw))
