"""What is told of stores, in messages and documents: there and back without loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.backends import errors as stores
from envd.backends.errors import BackendError, Throttled
from envd.core import syncing
from envd.core.errors import InvalidRequest
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
    FetchedVariable,
    FetchRequest,
    FetchView,
    PauseRequest,
    PlanRequest,
    PlanView,
    SyncStatus,
    UnbindRequest,
)
from envd.net.unix import converted
from envd.wire import api_sync, plain_sync
from envd.wire._pb import sync_pb2 as pb
from envd.wire.api_errors import class_of, code_of, error_of, parse_status, status_of
from envd.wire.plain import error_from_plain, error_to_plain, request_to_plain, to_plain

CANARY = "canary-52b9"
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
COUNT = st.integers(0, 2**32 - 1)
AMOUNT = st.floats(0, 1e9)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(int, COUNT)
st.register_type_strategy(float, AMOUNT)


def any_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """A thing of this dataclass with anything in its fields, those with a default too."""
    hints = {field.name: field.type for field in fields(kind)}
    return st.builds(kind, **{name: _any(str(hint)) for name, hint in hints.items()})


def _any(hint: str) -> st.SearchStrategy[Any]:
    plain = {"str": TEXT, "int": COUNT, "float": AMOUNT, "bool": st.booleans()}
    if hint in plain:
        return plain[hint]
    if hint.endswith(" | None"):
        return st.none() | _any(hint.removesuffix(" | None"))
    if hint.startswith("tuple["):
        item = hint.removeprefix("tuple[").removesuffix(", ...]")
        return st.lists(_any(item), max_size=2).map(tuple)
    if hint == "Mapping[str, str]":
        return st.dictionaries(TEXT, TEXT, max_size=2)
    return any_of(getattr(syncing, hint))


ANSWERS: list[tuple[type[Any], Callable[..., Message], Callable[..., Any], Callable[..., Any]]] = [
    (BindingView, api_sync.bound_message, api_sync.bound_from, plain_sync.binding),
    (BindingView, api_sync.unbound_message, api_sync.bound_from, plain_sync.binding),
    (
        BindingList,
        api_sync.binding_list_message,
        api_sync.binding_list_from,
        plain_sync.binding_list,
    ),
    (BindingList, api_sync.paused_message, api_sync.binding_list_from, plain_sync.binding_list),
    (SyncStatus, api_sync.sync_status_message, api_sync.sync_status_from, plain_sync.sync_status),
    (PlanView, api_sync.planned_message, api_sync.planned_from, plain_sync.plan),
    (AppliedView, api_sync.applied_message, api_sync.applied_from, plain_sync.applied),
    (CostView, api_sync.costs_message, api_sync.costs_from, plain_sync.cost),
    (BackendList, api_sync.backends_message, api_sync.backends_from, plain_sync.backend_list),
    (CheckList, api_sync.checks_message, api_sync.checks_from, plain_sync.check_list),
    (FetchView, api_sync.fetched_message, api_sync.fetched_from, plain_sync.fetched),
]
REQUESTS: list[tuple[type[Any], Callable[..., Message], Callable[..., Any]]] = [
    (UnbindRequest, api_sync.unbind_message, api_sync.unbind_from),
    (BindingsRequest, api_sync.bindings_message, api_sync.bindings_from),
    (BindingsRequest, api_sync.status_message, api_sync.bindings_from),
    (BindingsRequest, api_sync.cost_message, api_sync.bindings_from),
    (PauseRequest, api_sync.pause_message, api_sync.pause_from),
    (PlanRequest, api_sync.plan_message, api_sync.plan_from),
    (ApplyRequest, api_sync.apply_message, api_sync.apply_from),
    (CheckRequest, api_sync.check_message, api_sync.check_from),
    (FetchRequest, api_sync.fetch_message, api_sync.fetch_from),
]
BINDING = BindingView("payments", "payments/prod", None, ("aws-ssm:/payments/prod",))


def sent(message: Message) -> Any:
    """A message as it arrives."""
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize(("kind", "to_message", "from_message", "from_plain"), ANSWERS)
@settings(max_examples=25)
@given(data=st.data())
def test_an_answer_comes_back_from_its_message_and_its_document(
    kind: type[Any],
    to_message: Callable[..., Message],
    from_message: Callable[..., Any],
    from_plain: Callable[..., Any],
    data: st.DataObject,
) -> None:
    answer = data.draw(any_of(kind))

    assert from_message(sent(to_message(answer))) == answer
    assert from_plain(json.loads(json.dumps(to_plain(answer)))) == answer


@pytest.mark.parametrize(("kind", "to_message", "from_message"), REQUESTS)
@settings(max_examples=25)
@given(data=st.data())
def test_a_request_comes_back_from_its_message_and_its_document(
    kind: type[Any],
    to_message: Callable[..., Message],
    from_message: Callable[..., Any],
    data: st.DataObject,
) -> None:
    request = data.draw(any_of(kind))

    assert from_message(sent(to_message(request))) == request
    assert converted(json.loads(json.dumps(request_to_plain(request))), kind) == request


@settings(max_examples=25)
@given(any_of(BindRequest))
def test_what_is_to_be_bound_comes_back_with_defaults_for_what_is_empty(
    request_: BindRequest,
) -> None:
    binding = request_.binding
    defaults = BINDING
    whole = replace(
        binding,
        route=binding.route or defaults.route,
        direction=binding.direction or defaults.direction,
        conflict_policy=binding.conflict_policy or defaults.conflict_policy,
        delete_policy=binding.delete_policy or defaults.delete_policy,
        layout=binding.layout or defaults.layout,
        interval_seconds=binding.interval_seconds or defaults.interval_seconds,
        origin=binding.origin or defaults.origin,
    )

    found = api_sync.bind_from(sent(api_sync.bind_message(request_)))

    assert found == replace(request_, binding=whole)
    plain = json.loads(json.dumps(request_to_plain(request_)))
    assert converted(plain, BindRequest) == request_


def test_a_program_says_of_a_binding_only_what_is_not_the_default() -> None:
    message = pb.BindRequest(
        binding=pb.Binding(name="all", prefix="", targets=["file:/var/lib/envd"])
    )

    found = api_sync.bind_from(sent(message)).binding

    assert found == BindingView("all", None, "", ("file:/var/lib/envd",))


def test_a_request_without_a_binding_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no binding"):
        api_sync.bind_from(pb.BindRequest(dry_run=True))


def test_what_a_newer_node_adds_is_passed_over() -> None:
    plain = {**to_plain(BINDING), "colour": "red"}

    assert plain_sync.binding(plain) == BINDING


def test_what_was_fetched_does_not_show_its_values() -> None:
    found = FetchView("file:/x", (FetchedVariable("", "A", "A", CANARY, True),))

    assert CANARY not in repr(found)


def test_a_plan_as_a_document_has_the_shape_of_the_contract() -> None:
    operation = syncing.OperationView("payments", "create", "payments/prod", "A", "new")

    document = to_plain(PlanView("1a", (operation,)))

    assert document["plan"] == "1a"
    assert document["operations"][0].items() >= {
        *{("binding", "payments"), ("action", "create"), ("variable", "A"), ("reason", "new")},
    }


# -- what a store answers instead --------------------------------------------------------

STORE_ERRORS = [kind("m", hint="h") for kind in stores.BY_REASON.values()]


@pytest.mark.parametrize("error", STORE_ERRORS, ids=lambda error: error.reason)
def test_the_error_of_a_store_comes_back_as_it_was(error: BackendError) -> None:
    status = parse_status(status_of(error).SerializeToString())

    assert status is not None
    for again in (error_of(status), error_from_plain(error_to_plain(error))):
        assert type(again) is type(error)
        assert (again.message, again.hint, again.reason) == ("m", "h", error.reason)


@pytest.mark.parametrize("error", STORE_ERRORS, ids=lambda error: error.reason)
def test_the_error_of_a_store_has_a_code_that_says_what_it_means(error: BackendError) -> None:
    expected = {
        "ITEM_NOT_FOUND": "NotFound",
        "STALE_VERSION": "Conflict",
        "SOFT_DELETED": "Conflict",
        "THROTTLED": "Unavailable",
        "AUTH_EXPIRED": "Unavailable",
        "FORBIDDEN": "Denied",
        "NOT_OWNED": "Conflict",
        "INVALID_NAME": "InvalidRequest",
        "NAME_COLLISION": "Conflict",
        "INVALID_VALUE": "InvalidRequest",
        "VALUE_TOO_LARGE": "InvalidRequest",
        "QUOTA_EXCEEDED": "Unavailable",
        "STORE_UNAVAILABLE": "Unavailable",
        "STORE_UNSUPPORTED": "Unsupported",
        "MISSING_LIBRARY": "Unsupported",
    }

    assert class_of(code_of(error), "").__name__ == expected[error.reason]


def test_how_long_a_store_asks_to_wait_comes_back() -> None:
    error = Throttled("m", retry_after_s=1.5)

    for again in (error_of(status_of(error)), error_from_plain(error_to_plain(error))):
        assert isinstance(again, Throttled)
        assert again.retry_after_s == 1.5
