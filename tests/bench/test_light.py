"""The lean gRPC client: its bytes, and what it takes for a failure of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from bench.light import DATA, CallFailed, Light, frame, literal

LARGE = 1 << 20


class Echo(grpc.GenericRpcHandler):
    """Answers a message with itself, an empty one with an error; /stream/ each of a stream."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        if details.method.startswith("/stream/"):
            return grpc.stream_stream_rpc_method_handler(_each)
        return grpc.unary_unary_rpc_method_handler(_one)


async def _one(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    if not request:
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing to say")
    given = dict(context.invocation_metadata() or ())
    return request + str(given.get("authorization", "")).encode()


async def _each(
    requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[bytes, bytes]
) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_call_brings_its_metadata_and_gets_its_answer(address: str) -> None:
    light = await Light.open(address, [("authorization", "Bearer t")])

    answers = await asyncio.gather(*(light.call("/e/E", b"%d " % n) for n in range(50)))

    assert answers == [b"%d Bearer t" % n for n in range(50)]
    await light.close()


async def test_an_error_in_grpc_is_a_failure_and_the_next_call_goes_on(address: str) -> None:
    light = await Light.open(address)

    with pytest.raises(CallFailed, match="/e/E was answered by an error"):
        await light.call("/e/E", b"")

    assert await light.call("/e/E", b"x") == b"x"
    await light.close()


async def test_what_is_larger_than_every_window_arrives(address: str) -> None:
    light = await Light.open(address)

    answer = await light.call("/e/E", b"x" * LARGE)

    assert answer == b"x" * LARGE
    await light.close()


async def test_a_stream_gives_its_answers_in_order_and_ends_once_it_is_finished(
    address: str,
) -> None:
    light = await Light.open(address)
    got: list[bytes] = []
    over = asyncio.Event()
    stream = light.begin("/stream/S", got.append, over.set)

    for n in range(20):
        light.send(stream, b"%d" % n * 10_000)
    light.finish(stream)
    await over.wait()

    assert got == [b"%d" % n * 10_000 for n in range(20)]
    await light.close()


async def test_a_connection_that_ends_fails_its_calls_and_takes_no_more(address: str) -> None:
    light = await Light.open(address)
    over = asyncio.Event()
    light.begin("/stream/S", lambda _: None, over.set)

    await light.close()
    await over.wait()

    with pytest.raises(CallFailed, match="closed"):
        await light.call("/e/E", b"x")


def test_a_frame_has_its_length_kind_flags_and_stream() -> None:
    assert frame(DATA, 1, 5, b"abc") == b"\0\0\3\0\1\0\0\0\5abc"


@pytest.mark.parametrize(
    ("size", "prefix"),
    [
        (126, b"\x7e"),
        (127, b"\x7f\x00"),
        (127 + 127, b"\x7f\x7f"),
        (127 + 128, b"\x7f\x80\x01"),
        (1337 + 127, b"\x7f\xb9\x0a"),
    ],
)
def test_a_length_is_an_integer_of_seven_bits(size: int, prefix: bytes) -> None:
    """The last one is the example of RFC 7541, C.1.2, of another prefix."""
    assert literal("n", "v" * size) == b"\0\1n" + prefix + b"v" * size
