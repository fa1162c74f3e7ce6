"""Answers as JSON documents and back: the shapes of REST, of `--output json` and of the socket.

Each dataclass of `core.answers` and `core.requests` is an object with its fields; enums are
their values, tuples are lists. Fields that a newer node adds to an answer are passed over.
Standard library only, since `envctl` starts with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from envd.core import errors
from envd.core.answers import (
    Changed,
    ChangeView,
    CommitView,
    ConflictPage,
    ConflictSide,
    ConflictView,
    EnvironmentView,
    Heartbeat,
    HistoryPage,
    ListedEnvironment,
    ListPage,
    Membership,
    MemberView,
    PeerView,
    PlaceView,
    Reset,
    SalvagedView,
    SeedView,
    SnapshotEnd,
    SnapshotItem,
    Status,
    TopologyView,
    VariableView,
    VoterView,
    WatchEvent,
    WriteAnswer,
)
from envd.core.errors import EnvdError, Unavailable
from envd.core.requests import Consistency

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AnswerT = TypeVar("AnswerT", bound="DataclassInstance")


def to_plain(value: object) -> Any:
    """Return dicts, lists, text, numbers and None for an answer or a request."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def request_to_plain(value: object) -> Any:
    """A request, without the fields that are at their default.

    So a newer client asks an older node in words it knows, unless it means what that node
    does not know, which it refuses.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: request_to_plain(item)
            for field in fields(value)
            if (item := getattr(value, field.name)) != field.default
        }
    if isinstance(value, tuple):
        return [request_to_plain(item) for item in value]
    return to_plain(value)


def environment_view(plain: dict[str, Any]) -> EnvironmentView:
    """The inverse of `to_plain` for an EnvironmentView."""
    variables = {name: _made(VariableView, view) for name, view in plain["variables"].items()}
    level = Consistency(plain["level"])
    return _made(EnvironmentView, {**plain, "variables": variables, "level": level})


def write_answer(plain: dict[str, Any]) -> WriteAnswer:
    """The inverse of `to_plain` for a WriteAnswer."""
    return _made(WriteAnswer, plain)


def list_page(plain: dict[str, Any]) -> ListPage:
    """The inverse of `to_plain` for a ListPage."""
    listed = tuple(_made(ListedEnvironment, item) for item in plain["environments"])
    return _made(ListPage, {**plain, "environments": listed})


def commit_view(plain: dict[str, Any]) -> CommitView:
    """The inverse of `to_plain` for a CommitView."""
    resolves = tuple(plain.get("resolves", ()))
    late = plain.get("salvages")
    salvages = None if late is None else _made(SalvagedView, {**late, "changes": _changes(late)})
    known = {"changes": _changes(plain), "resolves": resolves, "salvages": salvages}
    return _made(CommitView, {**plain, **known})


def _changes(plain: dict[str, Any]) -> tuple[ChangeView, ...]:
    return tuple(_made(ChangeView, change) for change in plain["changes"])


def history_page(plain: dict[str, Any]) -> HistoryPage:
    """The inverse of `to_plain` for a HistoryPage."""
    return _made(HistoryPage, {**plain, "commits": tuple(map(commit_view, plain["commits"]))})


def conflict_page(plain: dict[str, Any]) -> ConflictPage:
    """The inverse of `to_plain` for a ConflictPage."""
    return _made(ConflictPage, {**plain, "conflicts": tuple(map(_conflict, plain["conflicts"]))})


def _conflict(plain: dict[str, Any]) -> ConflictView:
    sides = {side: _made(ConflictSide, plain[side]) for side in ("kept", "lost")}
    return _made(ConflictView, {**plain, **sides})


def status(plain: dict[str, Any]) -> Status:
    """The inverse of `to_plain` for a Status."""
    return _made(Status, plain)


def membership(plain: dict[str, Any]) -> Membership:
    """The inverse of `to_plain` for a Membership."""
    return Membership(
        tuple(_made(MemberView, each) for each in plain["members"]),
        tuple(_made(PeerView, each) for each in plain["peers"]),
        tuple(_made(SeedView, each) for each in plain["seeds"]),
    )


def topology(plain: dict[str, Any]) -> TopologyView:
    """The inverse of `to_plain` for a TopologyView."""
    nodes = tuple(_made(VoterView, each) for each in plain["nodes"])
    place = plain.get("place")
    if place is not None:
        rows = {name: tuple(place[name]) for name in ("holders", "writers")}
        place = _made(PlaceView, {**place, **rows})
    return _made(TopologyView, {**plain, "nodes": nodes, "place": place})


def watch_event_to_plain(event: WatchEvent) -> dict[str, Any]:
    """An event with its kind: {"event": "changed", "commit": {...}, "token": "...", ...}."""
    plain = {"event": _EVENTS[type(event)], **to_plain(event)}
    return _unless_whole(plain) if isinstance(event, Heartbeat | SnapshotEnd) else plain


def snapshot_end_to_plain(event: SnapshotEnd) -> dict[str, Any]:
    """The end of a snapshot; of one that is whole nothing but the token."""
    return _unless_whole(to_plain(event))


def _unless_whole(plain: dict[str, Any]) -> dict[str, Any]:
    if not plain["partial"]:
        del plain["partial"], plain["partial_reason"]
    return plain


def watch_event(plain: dict[str, Any]) -> WatchEvent:
    """The inverse of `watch_event_to_plain`; an event of a newer node counts as a heartbeat."""
    match plain["event"]:
        case "reset":
            return _made(Reset, plain)
        case "snapshot":
            return SnapshotItem(environment_view(plain["state"]))
        case "snapshot_end":
            return _made(SnapshotEnd, plain)
        case "changed":
            state = plain.get("state")
            view = None if state is None else environment_view(state)
            commit = commit_view(plain["commit"])
            return Changed(commit, plain["token"], view, plain.get("through", ""))
        case _:
            partial, why = plain.get("partial", False), plain.get("partial_reason", "")
            return Heartbeat(plain.get("token", ""), partial, why)


# The words of the protobuf messages.
_EVENTS: Final[Mapping[type[object], str]] = MappingProxyType(
    {
        Heartbeat: "heartbeat",
        Reset: "reset",
        SnapshotItem: "snapshot",
        SnapshotEnd: "snapshot_end",
        Changed: "changed",
    }
)


def _made(kind: type[AnswerT], plain: dict[str, Any]) -> AnswerT:
    known = kind.__dataclass_fields__
    return kind(**{name: value for name, value in plain.items() if name in known})


def error_to_plain(error: EnvdError) -> dict[str, Any]:
    """An error as a document; `error_from_plain` raises the same class again."""
    return {
        "kind": type(error).__name__,
        "reason": error.reason,
        "message": error.message,
        "hint": error.hint,
        "retry_after_ms": _retry_after_ms(error),
    }


def _retry_after_ms(error: EnvdError) -> int:
    """Of an Unavailable, and of a store that has enough of us (`backends.errors.Throttled`)."""
    if isinstance(error, Unavailable):
        return error.retry_after_ms
    return round(getattr(error, "retry_after_s", 0.0) * 1000)


def error_from_plain(plain: dict[str, Any]) -> EnvdError:
    """The error that a document tells of; an unknown kind becomes an EnvdError."""
    message, hint, reason = plain["message"], plain["hint"], plain["reason"]
    kind, after_ms = plain["kind"], int(plain["retry_after_ms"])
    found = getattr(errors, kind, None)
    if found is None:
        from envd.backends import errors as stores

        found = getattr(stores, kind, None)
        if found is stores.Throttled:
            return stores.Throttled(message, hint=hint, retry_after_s=after_ms / 1000)
    if found is Unavailable:
        return Unavailable(message, hint=hint, reason=reason, retry_after_ms=after_ms)
    if not (isinstance(found, type) and issubclass(found, EnvdError)):
        found = EnvdError
    return found(message, hint=hint, reason=reason)
