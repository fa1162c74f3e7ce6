"""Nothing acknowledged is lost: SIGKILL in the middle of many concurrent writes, often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from envd.core.requests import HistoryRequest, ReadRequest
from envd.wire._pb import environment_pb2 as pb
from tests.e2e.node import Node

ROUNDS = 20
WRITES = 10_000
ENVIRONMENTS = 200
_BATCH = 50


async def write_until(node: Node, address: str, round_: int, enough: int) -> set[int]:
    """Send WRITES commits, kill the node when `enough` are acknowledged; return which were.

    Commit n of a round sets A and B of one environment to the same text.
    """
    token = (node.data / "admin.token").read_text().strip()
    acknowledged: set[int] = set()

    async def requests() -> AsyncIterator[pb.WriteStreamRequest]:
        for start in range(0, WRITES, _BATCH):
            yield pb.WriteStreamRequest(
                items=[item(round_, n) for n in range(start, start + _BATCH)]
            )

    async with grpc.aio.insecure_channel(address) as channel:
        write_stream = channel.stream_stream(
            "/envd.v1.EnvironmentService/WriteStream",
            request_serializer=pb.WriteStreamRequest.SerializeToString,
            response_deserializer=pb.WriteStreamResponse.FromString,
        )
        call = write_stream(requests(), metadata=(("authorization", f"Bearer {token}"),))
        try:
            async for response in call:
                acknowledged |= {done.id for done in response.items if done.HasField("done")}
                if len(acknowledged) >= enough and node.process is not None:
                    node.kill()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    return acknowledged


def item(round_: int, n: int) -> pb.WriteStreamRequest.Item:
    text = f"{round_}-{n}"
    write = pb.WriteRequest(
        environment=f"r{round_}/e{n % ENVIRONMENTS}",
        puts=[pb.Put(name=f"A{n}", value=text), pb.Put(name=f"B{n}", value=text)],
    )
    return pb.WriteStreamRequest.Item(id=n, write=write)


def check(node: Node, round_: int, acknowledged: set[int]) -> None:
    """Every acknowledged commit is there, and no commit is half there."""
    with node.connection() as connection:
        found: dict[str, str | None] = {}
        for e in range(ENVIRONMENTS):
            name = f"r{round_}/e{e}"
            if any(n % ENVIRONMENTS == e for n in acknowledged):
                view = connection.get(ReadRequest(name))
                found |= {key: variable.value for key, variable in view.variables.items()}
                assert connection.history(HistoryRequest(name, limit=1)).commits
    halves = {key[1:] for key in found if (f"A{key[1:]}" in found) != (f"B{key[1:]}" in found)}
    lost = {n for n in acknowledged if found.get(f"A{n}") != f"{round_}-{n}"}
    assert (lost, halves) == (set(), set())


@pytest.mark.parametrize("rounds", [ROUNDS])
async def test_sigkill_in_a_burst_of_writes_loses_nothing_acknowledged(
    stopped: Node, rounds: int
) -> None:
    for round_ in range(rounds):
        ready = stopped.start()
        enough = 1 + (WRITES - 1) * round_ // rounds

        acknowledged = await write_until(stopped, ready["listen"], round_, enough)
        if stopped.process is not None:
            stopped.kill()
        stopped.start()

        assert len(acknowledged) >= enough
        await asyncio.to_thread(check, stopped, round_, acknowledged)
        stopped.stop()
