"""The messages of `envd.v1.SyncService` <-> the core's requests and answers.

The fields of a message have the names of those of its dataclass, so most are carried over by name;
what is no scalar, or may be absent, is told where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from envd.core.errors import InvalidRequest
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BackendList,
    BackendView,
    BindingCost,
    BindingList,
    BindingsRequest,
    BindingStatus,
    BindingView,
    BindRequest,
    CheckList,
    CheckRequest,
    CheckView,
    CostView,
    FetchedVariable,
    FetchRequest,
    FetchView,
    HeldView,
    OperationView,
    PauseRequest,
    PlanRequest,
    PlanView,
    Saving,
    SyncStatus,
    TargetStatus,
    UnbindRequest,
)
from envd.wire._pb import sync_pb2 as pb

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MessageT = TypeVar("MessageT", bound=Message)
ViewT = TypeVar("ViewT", bound="DataclassInstance")
_DEFAULTED = (
    *("route", "direction", "conflict_policy", "delete_policy", "layout"),
    *("interval_seconds", "origin"),
)
"""Of a binding in a request, what is not empty: a program need not say it."""


# -- requests --------------------------------------------------------------------------


def bind_message(request: BindRequest) -> pb.BindRequest:
    """The inverse of `bind_from`; raises ValueError for a number that is out of range."""
    return pb.BindRequest(binding=_binding_message(request.binding), dry_run=request.dry_run)


def bind_from(message: pb.BindRequest) -> BindRequest:
    """What is to be bound, by default where it is not said; InvalidRequest where nothing is."""
    if not message.HasField("binding"):
        raise InvalidRequest("there is no binding in the request", reason="INVALID_ARGUMENT")
    sent = message.binding
    unsaid = [each for each in _DEFAULTED if not getattr(sent, each)]
    if not sent.HasField("priority"):
        unsaid.append("priority")
    defaults: dict[str, Any] = {
        each.name: each.default for each in fields(BindingView) if each.name in unsaid
    }
    return BindRequest(_binding_from(sent, **defaults), message.dry_run)


def unbind_message(request: UnbindRequest) -> pb.UnbindRequest:
    return _message(pb.UnbindRequest, request)


def unbind_from(message: pb.UnbindRequest) -> UnbindRequest:
    return _view(UnbindRequest, message)


def bindings_message(request: BindingsRequest) -> pb.BindingsRequest:
    return _message(pb.BindingsRequest, request)


def status_message(request: BindingsRequest) -> pb.SyncStatusRequest:
    return _message(pb.SyncStatusRequest, request)


def cost_message(request: BindingsRequest) -> pb.CostRequest:
    return _message(pb.CostRequest, request)


def bindings_from(
    message: pb.BindingsRequest | pb.SyncStatusRequest | pb.CostRequest,
) -> BindingsRequest:
    """Which bindings are meant, in any of the three requests that say nothing else."""
    return _view(BindingsRequest, message)


def pause_message(request: PauseRequest) -> pb.PauseRequest:
    return _message(pb.PauseRequest, request)


def pause_from(message: pb.PauseRequest) -> PauseRequest:
    return _view(PauseRequest, message)


def plan_message(request: PlanRequest) -> pb.PlanRequest:
    return _message(pb.PlanRequest, request)


def plan_from(message: pb.PlanRequest) -> PlanRequest:
    return _view(PlanRequest, message)


def apply_message(request: ApplyRequest) -> pb.ApplyRequest:
    """The inverse of `apply_from`; raises ValueError for a number that is out of range."""
    return _message(pb.ApplyRequest, request)


def apply_from(message: pb.ApplyRequest) -> ApplyRequest:
    return _view(ApplyRequest, message)


def check_message(request: CheckRequest) -> pb.CheckRequest:
    return _message(pb.CheckRequest, request)


def check_from(message: pb.CheckRequest) -> CheckRequest:
    return _view(CheckRequest, message)


def fetch_message(request: FetchRequest) -> pb.FetchRequest:
    return _message(pb.FetchRequest, request)


def fetch_from(message: pb.FetchRequest) -> FetchRequest:
    return _view(FetchRequest, message)


# -- bindings --------------------------------------------------------------------------


def bound_message(binding: BindingView) -> pb.BindResponse:
    return pb.BindResponse(binding=_binding_message(binding))


def unbound_message(binding: BindingView) -> pb.UnbindResponse:
    return pb.UnbindResponse(binding=_binding_message(binding))


def bound_from(message: pb.BindResponse | pb.UnbindResponse) -> BindingView:
    """The binding of either answer."""
    return _binding_from(message.binding)


def binding_list_message(listed: BindingList) -> pb.BindingsResponse:
    return pb.BindingsResponse(bindings=map(_binding_message, listed.bindings))


def paused_message(listed: BindingList) -> pb.PauseResponse:
    return pb.PauseResponse(bindings=map(_binding_message, listed.bindings))


def binding_list_from(message: pb.BindingsResponse | pb.PauseResponse) -> BindingList:
    """The bindings of either answer."""
    return BindingList(tuple(map(_binding_from, message.bindings)))


def _binding_message(binding: BindingView) -> pb.Binding:
    return _message(pb.Binding, binding)


def _binding_from(message: pb.Binding, **parts: Any) -> BindingView:
    whole = {name: _if_set(message, name) for name in ("environment", "prefix")}
    return _view(BindingView, message, **whole, **parts)


# -- how they do, and what they cost -----------------------------------------------------


def sync_status_message(status: SyncStatus) -> pb.SyncStatusResponse:
    return pb.SyncStatusResponse(
        bindings=[
            _message(pb.BindingStatus, each, targets=_messages(pb.TargetStatus, each.targets))
            for each in status.bindings
        ]
    )


def sync_status_from(message: pb.SyncStatusResponse) -> SyncStatus:
    return SyncStatus(
        tuple(
            _view(BindingStatus, each, targets=_views(TargetStatus, each.targets))
            for each in message.bindings
        )
    )


def costs_message(cost: CostView) -> pb.CostResponse:
    return pb.CostResponse(
        bindings=[
            _message(pb.BindingCost, each, savings=_messages(pb.Saving, each.savings))
            for each in cost.bindings
        ],
        dollars_month=cost.dollars_month,
    )


def costs_from(message: pb.CostResponse) -> CostView:
    return CostView(
        tuple(
            _view(BindingCost, each, savings=_views(Saving, each.savings))
            for each in message.bindings
        ),
        message.dollars_month,
    )


# -- plans -----------------------------------------------------------------------------


def planned_message(plan: PlanView) -> pb.PlanResponse:
    return pb.PlanResponse(
        plan=plan.plan,
        operations=_messages(pb.PlannedOperation, plan.operations),
        held=_messages(pb.HeldBinding, plan.held),
        in_step=plan.in_step,
        unlisted=plan.unlisted,
    )


def planned_from(message: pb.PlanResponse) -> PlanView:
    return PlanView(
        message.plan,
        _views(OperationView, message.operations),
        _views(HeldView, message.held),
        message.in_step,
        message.unlisted,
    )


def applied_message(applied: AppliedView) -> pb.ApplyResponse:
    return pb.ApplyResponse(
        plan=applied.plan,
        operations=_messages(pb.PlannedOperation, applied.operations),
        held=_messages(pb.HeldBinding, applied.held),
        unlisted=applied.unlisted,
    )


def applied_from(message: pb.ApplyResponse) -> AppliedView:
    return AppliedView(
        message.plan,
        _views(OperationView, message.operations),
        _views(HeldView, message.held),
        message.unlisted,
    )


# -- stores ----------------------------------------------------------------------------


def backends_message(listed: BackendList) -> pb.BackendsResponse:
    return pb.BackendsResponse(backends=_messages(pb.Backend, listed.backends))


def backends_from(message: pb.BackendsResponse) -> BackendList:
    return BackendList(_views(BackendView, message.backends))


def checks_message(checked: CheckList) -> pb.CheckResponse:
    return pb.CheckResponse(checks=_messages(pb.Check, checked.checks))


def checks_from(message: pb.CheckResponse) -> CheckList:
    return CheckList(_views(CheckView, message.checks))


def fetched_message(fetched: FetchView) -> pb.FetchResponse:
    return pb.FetchResponse(
        target=fetched.target,
        variables=_messages(pb.FetchedVariable, fetched.variables),
        skipped=dict(fetched.skipped),
    )


def fetched_from(message: pb.FetchResponse) -> FetchView:
    return FetchView(
        message.target,
        tuple(
            _view(
                FetchedVariable,
                each,
                value=_if_set(each, "value"),
                secret=_if_set(each, "secret"),
            )
            for each in message.variables
        ),
        dict(message.skipped),
    )


# -- by name -----------------------------------------------------------------------------


def _message(kind: type[MessageT], view: DataclassInstance, **parts: Any) -> MessageT:
    """A message with the fields of a view, but for the `parts`; None stays unset."""
    by_name = {each.name: getattr(view, each.name) for each in fields(view)}
    return kind(**{**by_name, **parts})


def _messages(kind: type[MessageT], views: Iterable[DataclassInstance]) -> list[MessageT]:
    return [_message(kind, view) for view in views]


def _view(kind: type[ViewT], message: Message, **parts: Any) -> ViewT:
    """A view with the fields of a message, but for the `parts`; repeated ones are tuples."""
    by_name = {
        each.name: _scalar(getattr(message, each.name))
        for each in fields(kind)
        if each.name not in parts
    }
    return kind(**by_name, **parts)


def _views(kind: type[ViewT], messages: Iterable[Message]) -> tuple[ViewT, ...]:
    return tuple(_view(kind, message) for message in messages)


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else tuple(value)


def _if_set(message: Message, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None
