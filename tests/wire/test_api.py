"""The public API's messages: round trips, golden bytes, and what a message can't mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from envd.core.answers import (
    Changed,
    ChangeView,
    CommitView,
    EnvironmentView,
    Heartbeat,
    HistoryPage,
    ListedEnvironment,
    ListPage,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    Status,
    VariableView,
    WatchEvent,
    WriteAnswer,
)
from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    EnvdError,
    InvalidRequest,
    KeyFileError,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    SettingsError,
    StartupError,
    StorageError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    Consistency,
    DeleteRequest,
    Durability,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    RollbackRequest,
    Seen,
    Unset,
    WatchRequest,
    WriteRequest,
)
from envd.core.stamp import Stamp
from envd.node.views import exported_from
from envd.wire import api, api_streams
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import (
    MAX_TEXT_BYTES,
    class_named,
    class_of,
    code_of,
    error_of,
    error_of_item,
    is_ours,
    item_error,
    parse_status,
    status_of,
)
from envd.wire.framing import encode_frame
from envd.wire.plain import request_to_plain, to_plain, watch_event, watch_event_to_plain

Golden = Callable[[str, bytes], bytes]
CANARY = "canary-93c2"

# -- one known thing of each kind ------------------------------------------------------

STAMP = Stamp(1, 1_700_000_000_000 << 16, 0xA1).hex()
REVISION = "00112233445566778899aabbccddeeff"
WRITE = WriteRequest(
    environment="team/app/prod",
    puts=(
        Put("PORT", "8080"),
        Put("KEY", "schlüssel", secret=True),
        Put("OPEN", "", secret=False),
        Put("owner", "team-app", kind=Kind.METADATA),
    ),
    unsets=(Unset("OLD"), Unset("labels", Kind.METADATA)),
    replace=True,
    if_revision=REVISION,
    must_exist=True,
    message="why",
    operation="op-1",
    durability=Durability.STRICT,
)
VIEW = EnvironmentView(
    environment="team/app/prod",
    revision=REVISION,
    stamp=STAMP,
    metadata={"owner": "team-app"},
    variables={
        "KEY": VariableView(None, True, True, STAMP, "eu", "node-1"),
        "PORT": VariableView("8080", False, False, STAMP, "eu", "node-1"),
        "ZERO": VariableView("", False, False, STAMP, "", "00000000000000b2", "team/base"),
    },
    level=Consistency.SESSION,
    lag_bound_ms=7,
    bases={"team/base": REVISION},
)
STATE = replace(VIEW, level=Consistency.EVENTUAL, lag_bound_ms=0)
WRITTEN = WriteAnswer("team/app/prod", REVISION, STAMP, "1.7b.00000000000000a1.7", 2, True, "local")
COMMIT = CommitView(
    id=f"team/app/prod@{STAMP}",
    environment="team/app/prod",
    revision=REVISION,
    stamp=STAMP,
    time="2023-11-14T22:13:20.000Z",
    node="node-1",
    region="eu",
    actor="admin",
    message="why",
    changes=(ChangeView("PORT", "set"), ChangeView("owner", "unset", metadata=True)),
)
PAGE = HistoryPage("team/app/prod", (COMMIT, replace(COMMIT, deleted=True)), STAMP, trimmed=True)
STATUS = Status("n", "a1", "c", "0.1", 3, 4, 5, 6, True, "/data", "admin", "token")
EVENTS: list[WatchEvent] = [
    Heartbeat("00000000000000a1.7"),
    Reset("too late"),
    SnapshotItem(STATE),
    SnapshotEnd("00000000000000a1.7"),
    Changed(COMMIT, "00000000000000a1.8"),
    Changed(
        COMMIT, "00000000000000a1.8", replace(VIEW, level=Consistency.EVENTUAL, lag_bound_ms=0)
    ),
    Changed(
        COMMIT,
        "00000000000000a1.8",
        replace(STATE, bases={}, unresolved="there is no environment team/base"),
        "team/base",
    ),
    Heartbeat("2.00000000000000a1.01.7", partial=True, partial_reason="n3 does not answer"),
    SnapshotEnd("2.00000000000000a1.01.7", partial=True, partial_reason="n3 does not answer"),
]
IMPORT = WriteRequest(
    environment="team/app/prod",
    puts=(Put("PORT", "8080"), Put("KEY", "geheim", secret=True)),
    replace=True,
    bulk=True,
    if_revision=REVISION,
    must_not_exist=True,
    message="moved",
    operation="op-1",
)


def encoded(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def import_message(request: WriteRequest) -> pb.ImportRequest:
    """A write as an import of one environment."""
    columns = pb.VariableColumns(
        names=[put.name for put in request.puts],
        values=[put.value for put in request.puts],
        secret=[at for at, put in enumerate(request.puts) if put.secret],
    )
    item = pb.ImportRequest.Item(
        environment=request.environment,
        variables=columns,
        prune=request.replace,
        if_revision=request.if_revision,
        operation=request.operation,
        must_not_exist=request.must_not_exist,
        metadata={"owner": "ann", "created": "2020-01-01T00:00:00.000Z"},
    )
    return pb.ImportRequest(environments=[item], message=request.message)


# -- golden bytes ----------------------------------------------------------------------

GOLDEN: dict[str, Callable[[], bytes]] = {
    "api-write-request": lambda: encoded(api.write_message(WRITE)),
    "api-write-response": lambda: encoded(api.written_message(WRITTEN)),
    "api-get-response": lambda: encoded(api.get_message(VIEW)),
    "api-watch-changed": lambda: encoded(api_streams.event_message(EVENTS[5], values=True)),
    "api-watch-through": lambda: encoded(api_streams.event_message(EVENTS[6], values=True)),
    "api-watch-request": lambda: encoded(
        api_streams.watch_message(WatchRequest("team", "t", True, True, True))
    ),
    "api-export-item": lambda: encoded(
        api_streams.export_item(exported_from(replace(VIEW, unresolved="why")))
    ),
    "api-watch-gone": lambda: encoded(api_streams.event_message(EVENTS[4], values=True)),
    "api-watch-snapshot": lambda: encoded(api_streams.event_message(EVENTS[2], values=False)),
    "api-import-request": lambda: encoded(import_message(IMPORT)),
    "api-history-response": lambda: encoded(api.history_page_message(PAGE)),
    "api-status-detail": lambda: encoded(
        status_of(Unavailable("busy", hint="wait", reason="OVERLOADED", retry_after_ms=100))
    ),
    "socket-write": lambda: encode_frame(
        {"call": "write", "arguments": request_to_plain(WRITE), "token": "t"}
    ),
    "rest-environment": lambda: json.dumps(to_plain(VIEW), ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_goes_over_the_wire_stays_as_it_is(name: str, golden: Golden) -> None:
    made = GOLDEN[name]()

    assert made == golden(name, made)


# -- round trips -----------------------------------------------------------------------


def test_a_write_comes_back_as_it_was() -> None:
    seen = replace(WRITE, seen=(Seen("KEY", ""), Seen("PORT", STAMP)))

    assert api.write_from(api.write_message(WRITE)) == WRITE
    assert api.write_from(api.write_message(seen)) == seen
    assert api.write_from(pb.WriteRequest(environment="e")) == WriteRequest("e")


@pytest.mark.parametrize(
    "request_",
    [
        ReadRequest("e"),
        ReadRequest("e", ("A", "B"), True, "@~1", Consistency.STRONG, "t", 0),
        ReadRequest("e", consistency=Consistency.SESSION, max_lag_ms=4_294_967_295),
    ],
)
def test_a_read_comes_back_as_it_was(request_: ReadRequest) -> None:
    assert api.read_from(api.read_message(request_)) == request_


def test_the_other_requests_come_back_as_they_were() -> None:
    delete = DeleteRequest("e", REVISION, "why", "op", Durability.LOCAL)
    rollback = RollbackRequest("e", "@deleted", ("A",), REVISION, "why", "op", Durability.STRICT)
    history = HistoryRequest("e", "A", STAMP, 5)
    listing = ListRequest("team", "team/a", 10)
    watch = WatchRequest("team", "t", True, True, True)

    assert api.delete_from(api.delete_message(delete)) == delete
    assert api.rollback_from(api.rollback_message(rollback)) == rollback
    assert api.history_from(api.history_message(history)) == history
    assert api.list_from(api.list_message(listing)) == listing
    assert api_streams.watch_from(api_streams.watch_message(watch)) == watch


def test_answers_come_back_as_they_were() -> None:
    page = ListPage((ListedEnvironment("e", REVISION, 3),), "e", True, "partition 7 is away")

    assert api.get_from(api.get_message(VIEW)) == VIEW
    assert api.written_from(api.written_message(WRITTEN)) == WRITTEN
    assert api.page_from(api.page_message(page)) == page
    assert api.history_page_from(api.history_page_message(PAGE)) == PAGE
    assert api.status_from(api.status_message(STATUS)) == STATUS


@pytest.mark.parametrize("event", EVENTS, ids=[str(at) for at in range(len(EVENTS))])
def test_events_come_back_as_they_were(event: WatchEvent) -> None:
    assert api_streams.event_from(api_streams.event_message(event, values=True)) == event


@pytest.mark.parametrize("event", EVENTS, ids=[str(at) for at in range(len(EVENTS))])
def test_events_come_back_from_json_as_they_were(event: WatchEvent) -> None:
    plain = json.loads(json.dumps(watch_event_to_plain(event)))

    assert watch_event(plain) == event
    assert ("partial" in plain) == getattr(event, "partial", False)


def test_an_event_of_a_newer_version_counts_as_a_heartbeat() -> None:
    assert api_streams.event_from(pb.WatchResponse(token="t")) == Heartbeat("t")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
puts = st.builds(Put, texts, texts, st.none() | st.booleans())


@given(puts=st.lists(puts, max_size=4), unsets=st.lists(texts, max_size=3), message=texts)
def test_any_write_of_variables_comes_back_as_it_was(
    puts: list[Put], unsets: list[str], message: str
) -> None:
    write = WriteRequest("e", tuple(puts), tuple(map(Unset, unsets)), message=message)

    sent = api.write_message(write).SerializeToString()

    assert api.write_from(pb.WriteRequest.FromString(sent)) == write


@given(puts=st.lists(st.builds(Put, texts, texts, st.sampled_from([None, True])), max_size=5))
def test_any_import_comes_back_as_it_was(puts: list[Put]) -> None:
    write = WriteRequest("e", tuple(puts), bulk=True, message="why")

    message = import_message(write)

    (item,) = message.environments
    owner = Put("owner", "ann", kind=Kind.METADATA)
    wanted = replace(write, puts=(*write.puts, owner))
    assert api_streams.import_item_from(item, message.message) == wanted


def test_the_results_of_items_come_back_as_they_were() -> None:
    error = Conflict("m", hint="h", reason="STALE_REVISION")

    done = api_streams.import_result_from(api_streams.import_result("e", WRITTEN))
    failed = api_streams.import_result_from(api_streams.import_result("e", error))

    assert done == WRITTEN
    assert isinstance(failed, Conflict)
    assert (failed.message, failed.hint, failed.reason) == ("m", "h", "STALE_REVISION")


def test_a_masked_value_is_absent_and_an_empty_one_is_not() -> None:
    message = api.environment_message(VIEW)

    assert [variable.HasField("value") for variable in message.variables] == [False, True, True]


# -- what a message can't mean ---------------------------------------------------------


@pytest.mark.parametrize("number", [-1, 4, 99])
def test_an_enum_number_that_is_none_is_refused(number: int) -> None:
    for read in (api.consistency_from, api.durability_from):
        with pytest.raises(InvalidRequest):
            read(number)


def test_an_unset_enum_is_the_default() -> None:
    assert api.consistency_from(0) is Consistency.EVENTUAL
    assert api.durability_from(0) is Durability.DEFAULT


@pytest.mark.parametrize("before", [b"x", b"x" * 19, b"x" * 21, b"x" * 4096])
def test_a_stamp_of_another_length_is_refused(before: bytes) -> None:
    with pytest.raises(InvalidRequest):
        api.history_from(pb.HistoryRequest(environment="e", before=before))


@pytest.mark.parametrize(
    "columns",
    [
        pb.VariableColumns(names=["A"], values=[]),
        pb.VariableColumns(names=[], values=[CANARY]),
        pb.VariableColumns(names=["A"], values=[CANARY], secret=[1]),
        pb.VariableColumns(names=[], values=[], secret=[0]),
        pb.VariableColumns(names=["A"], values=[CANARY], secret=[0, 4_294_967_295]),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(columns: pb.VariableColumns) -> None:
    item = pb.ImportRequest.Item(environment="e", variables=columns)

    with pytest.raises(InvalidRequest) as caught:
        api_streams.import_item_from(item, "")

    assert CANARY not in str(caught.value)


@given(raw=st.binary(max_size=200))
def test_whatever_message_arrives_is_read_or_refused(raw: bytes) -> None:
    for kind, read in READERS:
        try:
            message = kind.FromString(raw)
        except Exception:  # noqa: BLE001 - not a message: not our matter here
            continue
        try:
            read(message)
        except InvalidRequest:
            continue


READERS: list[tuple[type[Message], Callable[..., object]]] = [
    (pb.GetRequest, api.read_from),
    (pb.ListRequest, api.list_from),
    (pb.WriteRequest, api.write_from),
    (pb.DeleteRequest, api.delete_from),
    (pb.RollbackRequest, api.rollback_from),
    (pb.HistoryRequest, api.history_from),
    (pb.WatchRequest, api_streams.watch_from),
    (pb.ImportRequest.Item, lambda item: api_streams.import_item_from(item, "")),
    (pb.GetResponse, api.get_from),
    (pb.HistoryResponse, api.history_page_from),
    (pb.WatchResponse, api_streams.event_from),
]


# -- pages that fit --------------------------------------------------------------------


def test_a_page_of_history_ends_before_it_is_too_large_and_can_be_continued() -> None:
    stamps = [Stamp(0, hlc, 1).hex() for hlc in (9, 8, 7)]
    commits = tuple(replace(COMMIT, stamp=stamp, message="x" * 1000) for stamp in stamps)
    page = HistoryPage("e", commits, next="", trimmed=True)

    message = api.history_page_message(page, max_bytes=2600)

    assert len(message.commits) == 2
    assert message.next.hex() == stamps[1]
    assert message.trimmed


def test_a_single_commit_is_told_however_large() -> None:
    message = api.history_page_message(HistoryPage("e", (COMMIT,)), max_bytes=1)

    assert len(message.commits) == 1
    assert message.next == b""


# -- errors ----------------------------------------------------------------------------

ERRORS: list[EnvdError] = [
    kind("m", hint="h", reason=reason)
    for kind, reason in [
        (EnvdError, ""),
        (InvalidRequest, "INVALID_NAME"),
        (LimitExceeded, ""),
        (NotFound, "VARIABLE_NOT_FOUND"),
        (Conflict, "ALREADY_EXISTS"),
        (Conflict, "STALE_REVISION"),
        (Unauthenticated, "TOKEN_NEEDED"),
        (Denied, ""),
        (Unavailable, "STOPPING"),
        (Unavailable, "OVERLOADED"),
        (OutcomeUnknown, ""),
        (Unsupported, ""),
        (StartupError, ""),
        (SettingsError, ""),
        (StorageError, ""),
        (Corrupt, ""),
        (KeyFileError, ""),
    ]
]
IDS = [f"{type(error).__name__}-{error.reason}" for error in ERRORS]


@pytest.mark.parametrize("error", ERRORS, ids=IDS)
def test_an_error_comes_back_from_its_status_as_it_was(error: EnvdError) -> None:
    status = parse_status(status_of(error).SerializeToString())

    assert status is not None
    again = error_of(status)
    assert is_ours(status)
    assert type(again) is type(error)
    assert (again.message, again.hint, again.reason) == ("m", "h", error.reason)


@pytest.mark.parametrize(
    "error", [error for error in ERRORS if not isinstance(error, StartupError)]
)
def test_the_error_of_an_item_comes_back_with_its_class(error: EnvdError) -> None:
    again = error_of_item(item_error(error))

    assert type(again) is type(error)
    assert (again.message, again.hint, again.reason) == ("m", "h", error.reason)


def test_the_delay_of_a_retry_comes_back() -> None:
    again = error_of(status_of(Unavailable("m", retry_after_ms=1500)))

    assert isinstance(again, Unavailable)
    assert again.retry_after_ms == 1500


def test_a_class_that_the_tree_may_grow_has_the_code_of_its_parent() -> None:
    class Newer(NotFound):
        pass

    assert code_of(Newer("m")) == code_of(NotFound("m"))


def test_a_code_or_name_that_is_none_stands_for_no_class() -> None:
    assert class_of(99, "") is EnvdError
    assert class_named("Exception") is None
    assert class_named("annotations") is None
    assert class_named("") is None


def test_a_status_of_something_else_is_told_apart() -> None:
    status = status_of(NotFound("m"))
    status.details[0].value = status.details[0].value.replace(b"envd", b"else")

    error = error_of(status)

    assert not is_ours(status)
    assert type(error) is NotFound
    assert error.reason == "NOT_FOUND"


@given(raw=st.binary(max_size=100))
def test_whatever_a_status_holds_it_is_an_error(raw: bytes) -> None:
    status = parse_status(raw)
    for broken in (status_of(NotFound("m")), status_of(Unavailable("m", retry_after_ms=1))):
        broken.details[-1].value = raw
        assert isinstance(error_of(broken), EnvdError)
    if status is not None:
        assert isinstance(error_of(status), EnvdError)


def test_long_and_broken_texts_are_made_to_fit() -> None:
    status = status_of(NotFound("é" * 5000, hint="\ud800" + "x" * 5000))

    assert len(status.message.encode()) == MAX_TEXT_BYTES
    assert error_of(status).hint.startswith("?x")
