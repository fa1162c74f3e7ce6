"""Reads with a write's token through every way in, on a node that lacks the write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from envd.core.requests import Put, WriteRequest
from envd.node import session_reads
from envd.node.handshake import Peer
from envd.node.session_reads import SessionReads
from envd.node.vectors import VectorFeed
from envd.wire._pb import environment_pb2 as pb
from tests.net.http_world import ENVIRONMENT, http_to
from tests.net.test_unix import unix_to
from tests.net.world import ADMIN, CANARY, READER_TOKEN, TOKEN, Node, grpc_to, refused

ASKER = Peer(1, 1, b"b" * 16, "c1", "call", 1, b"")
FAR_UID = 0x5678


class Beside:
    """A node whose state is old, and a peer that has a write it lacks; `asked` counts its calls."""

    def __init__(self) -> None:
        self.near = Node()
        self.far = Node(uid=FAR_UID)
        self.token = ""
        self.asked = 0
        self.is_there = True
        feed = VectorFeed(self.near.store)
        self.near.coordinator.session_reads = SessionReads(feed, self._holders, self._ask)

    async def write(self) -> None:
        await self.near.put("web/prod", PORT="old")
        puts = (Put("PORT", "new"), Put("SECRET_KEY", CANARY, secret=True))
        answer = await self.far.api.write(ADMIN, WriteRequest("web/prod", puts))
        self.token = answer.token

    def _holders(self, *_: int) -> Sequence[int]:
        return [FAR_UID] if self.is_there else []

    async def _ask(self, _: int, method: str, body: bytes) -> bytes:
        self.asked += 1
        return await session_reads.methods(self.far.coordinator.read)[method](ASKER, body)


@pytest.fixture
async def beside() -> Beside:
    made = Beside()
    await made.write()
    return made


def values_of(message: pb.GetResponse) -> dict[str, str | None]:
    return {
        variable.name: variable.value if variable.HasField("value") else None
        for variable in message.environment.variables
    }


async def test_grpc_get_shows_the_write_of_its_token(beside: Beside) -> None:
    async with grpc_to(beside.near) as rpc:
        masked = pb.GetRequest(environment="web/prod", token=beside.token)
        revealed = pb.GetRequest(environment="web/prod", token=beside.token, reveal=True)
        without = pb.GetRequest(environment="web/prod")

        answers = [
            values_of(await rpc.unary("Get", request, pb.GetResponse))
            for request in (masked, revealed, without)
        ]

    assert answers == [
        {"PORT": "new", "SECRET_KEY": None},
        {"PORT": "new", "SECRET_KEY": CANARY},
        {"PORT": "old"},
    ]
    assert beside.asked == 2


async def test_who_may_not_reveal_is_shown_nothing_by_a_peer_either(beside: Beside) -> None:
    request = pb.GetRequest(environment="web/prod", token=beside.token, reveal=True)

    async with grpc_to(beside.near) as rpc:
        denied = await refused(rpc.unary("Get", request, pb.GetResponse, token=READER_TOKEN))

    assert denied.code() is grpc.StatusCode.PERMISSION_DENIED
    assert beside.asked == 0


async def test_a_batch_shows_the_write_of_its_token_in_each_environment(beside: Beside) -> None:
    request = pb.BatchGetRequest(environments=["web/prod", "no/such"], token=beside.token)

    async with grpc_to(beside.near) as rpc:
        answer = await rpc.unary("BatchGet", request, pb.BatchGetResponse)

    found, missing = answer.results
    assert values_of(found.found)["PORT"] == "new"
    assert missing.error.reason == "ENVIRONMENT_NOT_FOUND"
    assert beside.asked == 2


async def test_a_batch_with_a_token_that_was_reached_is_answered_here(beside: Beside) -> None:
    written = await beside.near.api.write(ADMIN, WriteRequest("web/prod", (Put("A", "1"),)))
    request = pb.BatchGetRequest(environments=["web/prod"], token=written.token)

    async with grpc_to(beside.near) as rpc:
        answer = await rpc.unary("BatchGet", request, pb.BatchGetResponse)

    assert values_of(answer.results[0].found) == {"A": "1", "PORT": "old"}
    assert beside.asked == 0


@pytest.mark.parametrize(
    ("method", "request_of", "response"),
    [
        ("Get", lambda token: pb.GetRequest(environment="web/prod", token=token), pb.GetResponse),
        (
            "BatchGet",
            lambda token: pb.BatchGetRequest(environments=["web/prod"] * 50, token=token),
            pb.BatchGetResponse,
        ),
    ],
)
async def test_a_call_whose_token_nobody_has_fails_as_a_whole(
    beside: Beside, method: str, request_of: Any, response: Any
) -> None:
    beside.is_there = False

    async with grpc_to(beside.near) as rpc:
        failed = await refused(rpc.unary(method, request_of(beside.token), response))
        nonsense = await refused(rpc.unary(method, request_of("rubbish"), response))

    assert failed.code() is grpc.StatusCode.UNAVAILABLE
    assert "can't prove" in str(failed.details())
    assert nonsense.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_rest_shows_the_write_of_its_token(beside: Beside) -> None:
    async with http_to(beside.near) as http:
        shown = await http.ask("GET", f"{ENVIRONMENT}?token={beside.token}&reveal=true")
        without = await http.ask("GET", ENVIRONMENT)
        beside.is_there = False
        stale = await http.ask("GET", f"{ENVIRONMENT}?token={beside.token}")
        nonsense = await http.ask("GET", f"{ENVIRONMENT}?token=rubbish")

    assert shown.document["variables"]["SECRET_KEY"]["value"] == CANARY
    assert shown.headers["ETag"] == f'"{shown.document["revision"]}"'
    assert without.document["variables"]["PORT"]["value"] == "old"
    assert (stale.status, stale.reason) == (503, "STALE")
    assert (nonsense.status, nonsense.reason) == (400, "INVALID_TOKEN")


async def test_the_unix_socket_shows_the_write_of_its_token(beside: Beside, tmp_path: Path) -> None:
    arguments = {"environment": "web/prod", "token": beside.token}

    async with unix_to(beside.near, tmp_path / "s") as local:
        shown = await local.ask("get", arguments, TOKEN)
        beside.is_there = False
        stale = await local.ask("get", arguments, TOKEN)

    assert shown["answer"]["variables"]["PORT"]["value"] == "new"
    assert stale["error"]["reason"] == "STALE"
