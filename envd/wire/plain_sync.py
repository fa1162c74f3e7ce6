"""What is told of stores as JSON documents: the inverses of `wire.plain.to_plain`.

They are the documents of the Unix socket and of `--output json`. Fields that a newer node adds are
passed over. Standard library only, as in `wire.plain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from envd.core.syncing import (
    AppliedView,
    BackendList,
    BackendView,
    BindingCost,
    BindingList,
    BindingStatus,
    BindingView,
    CheckList,
    CheckView,
    CostView,
    FetchedVariable,
    FetchView,
    HeldView,
    OperationView,
    PlanView,
    Saving,
    SyncStatus,
    TargetStatus,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AnswerT = TypeVar("AnswerT", bound="DataclassInstance")
_Plain = dict[str, Any]


def binding(plain: _Plain) -> BindingView:
    """The inverse of `to_plain` for a BindingView."""
    return _made(BindingView, plain)


def binding_list(plain: _Plain) -> BindingList:
    """The inverse of `to_plain` for a BindingList."""
    return BindingList(tuple(map(binding, plain["bindings"])))


def sync_status(plain: _Plain) -> SyncStatus:
    """The inverse of `to_plain` for a SyncStatus."""
    return SyncStatus(
        tuple(
            _made(BindingStatus, each, targets=_all(TargetStatus, each["targets"]))
            for each in plain["bindings"]
        )
    )


def plan(plain: _Plain) -> PlanView:
    """The inverse of `to_plain` for a PlanView."""
    return _made(PlanView, plain, **_operations(plain))


def applied(plain: _Plain) -> AppliedView:
    """The inverse of `to_plain` for an AppliedView."""
    return _made(AppliedView, plain, **_operations(plain))


def _operations(plain: _Plain) -> _Plain:
    return {
        "operations": _all(OperationView, plain["operations"]),
        "held": _all(HeldView, plain["held"]),
    }


def cost(plain: _Plain) -> CostView:
    """The inverse of `to_plain` for a CostView."""
    bindings = tuple(
        _made(BindingCost, each, savings=_all(Saving, each["savings"]))
        for each in plain["bindings"]
    )
    return _made(CostView, plain, bindings=bindings)


def backend_list(plain: _Plain) -> BackendList:
    """The inverse of `to_plain` for a BackendList."""
    return BackendList(_all(BackendView, plain["backends"]))


def check_list(plain: _Plain) -> CheckList:
    """The inverse of `to_plain` for a CheckList."""
    return CheckList(_all(CheckView, plain["checks"]))


def fetched(plain: _Plain) -> FetchView:
    """The inverse of `to_plain` for a FetchView."""
    return _made(FetchView, plain, variables=_all(FetchedVariable, plain["variables"]))


def _all(kind: type[AnswerT], plains: list[_Plain]) -> tuple[AnswerT, ...]:
    return tuple(_made(kind, each) for each in plains)


def _made(kind: type[AnswerT], plain: _Plain, **parts: Any) -> AnswerT:
    """An answer of the known fields, but for the `parts`; lists are tuples."""
    known = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in plain.items()
        if name in kind.__dataclass_fields__
    }
    return kind(**{**known, **parts})
