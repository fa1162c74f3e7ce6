"""Watch tokens, over gRPC, server-sent events and the Unix socket: resumed, begun anew, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from envd.client.rpc import SERVICE
from envd.client.unix import UnixConnection
from envd.core.answers import Changed, Reset, SnapshotEnd, SnapshotItem
from envd.core.errors import InvalidRequest
from envd.core.requests import Put, WatchRequest, WriteRequest
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_streams import event_from
from tests.fuzz.mutations import damaged
from tests.fuzz.victim import Victim, fuzzing

PATIENCE_S = 30
FIRST = {"snapshot", "snapshot-end", "reset", "change"}


@pytest.fixture(scope="module")
def token(daemon: Victim) -> str:
    """A token that resumes."""
    with daemon.node.connection() as connection:
        for event in connection.watch(WatchRequest()):
            if isinstance(event, SnapshotEnd):
                return event.token
    raise AssertionError("the watch ended")


def tokens(right: str) -> st.SearchStrategy[str]:
    version, uid, lsn, mark = right.split(".")
    lsns = st.sampled_from(["0", "1", lsn, "f" * 16, "f" * 17, "00", "-1", "", "1e9", "0x1"])
    uids = st.sampled_from([uid, "0" * 16, "f" * 16, "", uid[:-1]])
    versions = st.sampled_from([version, "0", "2", "", "01"])
    marks = st.sampled_from([mark, "0", "f" * 8, "f" * 9, ""])
    parts = (st.tuples(versions, uids, lsns) | st.tuples(versions, uids, lsns, marks)).map(".".join)
    harmed = damaged(right.encode()).map(lambda raw: raw.decode("utf-8", "replace"))
    return st.just(right) | parts | harmed | st.text(max_size=40)


prefixes = st.sampled_from(["", "web", "web/", "web/prod", "a//b", "A", "..", "sys"])
flags = st.tuples(st.booleans(), st.booleans(), st.booleans())


def change(daemon: Victim) -> None:
    """Something that a watch which could resume has to tell."""
    with daemon.node.connection() as connection:
        connection.write(WriteRequest("web/prod", (Put("A", "again"),)))


def test_any_token_over_grpc(daemon: Victim, token: str) -> None:
    @fuzzing(everyday=60)
    @given(given_token=tokens(token), prefix=prefixes, how=flags)
    def check(given_token: str, prefix: str, how: tuple[bool, bool, bool]) -> None:
        values, reveal, resolve = how
        sent = pb.WatchRequest(
            prefix=prefix, token=given_token, values=values, reveal=reveal, resolve=resolve
        )
        call: grpc.UnaryStreamMultiCallable[bytes, pb.WatchResponse]
        call = channel.unary_stream(f"/{SERVICE}/Watch", None, pb.WatchResponse.FromString)
        metadata = (("authorization", f"Bearer {daemon.token}"),)
        answers = call(sent.SerializeToString(), timeout=PATIENCE_S, metadata=metadata)
        change(daemon)
        try:
            event = event_from(next(answers))
        except grpc.RpcError:
            assert answers.code() is grpc.StatusCode.INVALID_ARGUMENT
        else:
            assert isinstance(event, Reset | SnapshotItem | SnapshotEnd | Changed)
        finally:
            answers.cancel()

    with grpc.insecure_channel(daemon.grpc) as channel:
        check()

    daemon.answers()


def test_any_token_over_server_sent_events(daemon: Victim, token: str) -> None:
    @fuzzing(everyday=60)
    @given(given_token=tokens(token), prefix=prefixes, how=flags, in_header=st.booleans())
    def check(given_token: str, prefix: str, how: tuple[bool, bool, bool], in_header: bool) -> None:
        values, reveal, resolve = (str(flag).lower() for flag in how)
        query = {"prefix": prefix, "values": values, "reveal": reveal, "resolve": resolve}
        headers: dict[str, str | bytes] = {"Authorization": f"Bearer {daemon.token}"}
        if in_header and given_token.isprintable() and given_token == given_token.strip():
            headers["Last-Event-ID"] = given_token.encode()
        else:
            query["token"] = given_token
        with requests.get(
            f"{daemon.http}/v1/watch", query, headers=headers, stream=True, timeout=PATIENCE_S
        ) as response:
            change(daemon)
            assert response.status_code in {200, 400}
            if response.status_code == 200:
                assert next(events(response)) in FIRST

    check()

    daemon.answers()


def events(response: requests.Response) -> Iterator[str]:
    for line in response.iter_lines(chunk_size=1):
        name, _, text = line.decode().partition(": ")
        if name == "event":
            yield text
        elif name == "data":
            json.loads(text)


def test_any_token_over_the_unix_socket(daemon: Victim, token: str) -> None:
    @fuzzing(everyday=60)
    @given(given_token=tokens(token), prefix=prefixes, how=flags)
    def check(given_token: str, prefix: str, how: tuple[bool, bool, bool]) -> None:
        watching = UnixConnection(str(daemon.node.socket))
        answers = watching.watch(WatchRequest(prefix, given_token, *how))
        change(daemon)
        try:
            event = next(answers)
        except InvalidRequest:
            pass
        else:
            assert isinstance(event, Reset | SnapshotItem | SnapshotEnd | Changed)
        finally:
            answers.close()  # type: ignore[attr-defined]
            watching.close()

    check()

    daemon.answers()
