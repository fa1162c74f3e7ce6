"""Channels between two real servers: order, back-pressure, ends, strangers and rubbish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envd.core.errors import Unauthenticated, Unavailable
from envd.net.grpc_server import GrpcServer
from envd.net.peer_channel import MAX_FRAME_BYTES, MAX_STRANGER_FRAME_BYTES, MESSAGE_BYTES, SERVICE
from envd.net.peer_service import PeerService
from envd.net.peer_transport import GrpcPeerTransport
from envd.ports import PeerChannel
from envd.wire._pb import peer_pb2 as pb
from tests.net.world import ANY_PORT, PATIENCE_S, TOKEN, FakeAccess, Node, bearer, until

Serve = Callable[[PeerChannel], Awaitable[None]]
PATH = f"/{SERVICE}/Connect"


@dataclass
class Peer:
    """A node's server and its transport; `accepted` are the channels that others opened to it."""

    transport: GrpcPeerTransport
    server: GrpcServer
    address: str = ""
    accepted: asyncio.Queue[PeerChannel] = field(default_factory=asyncio.Queue)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self, channel: PeerChannel) -> None:
        """Hand the channel to the test, and serve it until the test says to leave."""
        self.accepted.put_nowait(channel)
        await self.leave.wait()

    async def opened(self) -> PeerChannel:
        async with asyncio.timeout(PATIENCE_S):
            return await self.accepted.get()


@asynccontextmanager
async def peer(serve: Serve | None = None, *, max_strangers: int = 64) -> AsyncIterator[Peer]:
    node = Node()
    transport = GrpcPeerTransport(PeerService(max_strangers=max_strangers))
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT, peers=transport.service)
    one = Peer(transport, server)
    transport.on_channel(serve or one.keep)
    one.address = f"127.0.0.1:{await server.start()}"
    try:
        yield one
    finally:
        one.leave.set()
        await transport.close()
        node.api.stop()
        await server.stop(0)


@dataclass
class Pair:
    """Two nodes, and the two ends of a channel between them."""

    a: Peer
    b: Peer
    dialed: PeerChannel
    accepted: PeerChannel


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with peer() as a, peer() as b, asyncio.timeout(PATIENCE_S):
        dialed = await a.transport.dial(b.address)
        accepted = await b.opened()
        yield Pair(a, b, dialed, accepted)


async def exhausted(channel: PeerChannel) -> None:
    """Read to the end, which raises."""
    while True:
        await channel.receive()


def stranger(connection: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """A stream as anybody may open it, with an admin's token."""
    connect: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = connection.stream_stream(PATH)
    return connect(metadata=bearer(TOKEN))


async def unavailable(work: Awaitable[object]) -> str:
    """The reason why it fails."""
    with pytest.raises(Unavailable) as caught:
        await work
    return caught.value.reason


async def test_frames_go_both_ways_in_order(pair: Pair) -> None:
    frames = [b"%d" % number for number in range(100)]

    async def talk(channel: PeerChannel) -> list[bytes]:
        async def speak() -> None:
            for frame in frames:
                await channel.send(frame)

        speaking = asyncio.create_task(speak())
        heard = [await channel.receive() for _ in frames]
        await speaking
        return heard

    here, there = await asyncio.gather(talk(pair.dialed), talk(pair.accepted))

    assert here == there == frames


@pytest.mark.parametrize("size", [0, 1, MESSAGE_BYTES, MESSAGE_BYTES + 1, 9 * MESSAGE_BYTES + 7])
async def test_a_trusted_peer_may_send_frames_of_any_size(pair: Pair, size: int) -> None:
    pair.dialed.trusted()
    pair.accepted.trusted()
    frame = bytes(range(256)) * (size // 256 + 1)

    there = asyncio.create_task(pair.dialed.send(frame[:size]))
    got = await pair.accepted.receive()
    back = asyncio.create_task(pair.accepted.send(got))
    again = await pair.dialed.receive()
    await asyncio.gather(there, back)

    assert again == frame[:size]


async def test_a_frame_above_the_bound_is_the_senders_mistake(pair: Pair) -> None:
    with pytest.raises(ValueError, match="at most"):
        await pair.dialed.send(bytes(MAX_FRAME_BYTES + 1))


async def test_a_sender_waits_while_the_other_side_does_not_read(pair: Pair) -> None:
    pair.accepted.trusted()
    frame, sent = bytes(MESSAGE_BYTES), 0

    async def speak() -> None:
        nonlocal sent
        for _ in range(64):
            await pair.dialed.send(frame)
            sent += 1

    speaking = asyncio.create_task(speak())
    await stands_still(lambda: sent)
    waiting_at = sent
    heard = [await pair.accepted.receive() for _ in range(64)]
    await speaking

    assert waiting_at < 32
    assert heard == [frame] * 64


async def test_sends_of_many_tasks_queue_up_in_order(pair: Pair) -> None:
    frames = [b"%d" % number * 5000 for number in range(50)]

    sends = [asyncio.create_task(pair.accepted.send(frame)) for frame in frames]
    heard = [await pair.dialed.receive() for _ in frames]
    await asyncio.gather(*sends)

    assert heard == frames


@pytest.mark.parametrize("dialer", [True, False])
async def test_who_stops_waiting_for_a_frame_loses_none(pair: Pair, dialer: bool) -> None:
    here, there = (pair.dialed, pair.accepted) if dialer else (pair.accepted, pair.dialed)
    for _ in range(3):
        waiting = asyncio.create_task(here.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})

    await there.send(b"one")
    await there.send(b"two")

    assert [await here.receive(), await here.receive()] == [b"one", b"two"]


@pytest.mark.parametrize("dialer", [True, False])
async def test_a_send_that_is_cancelled_leaves_the_channel_whole(pair: Pair, dialer: bool) -> None:
    here, there = (pair.dialed, pair.accepted) if dialer else (pair.accepted, pair.dialed)
    there.trusted()
    sent, frame = 0, bytes(MESSAGE_BYTES)

    async def fill() -> None:
        nonlocal sent
        while True:
            await here.send(frame)
            sent += 1

    filling = asyncio.create_task(fill())
    await stands_still(lambda: sent)
    queued = asyncio.create_task(here.send(b"never"))
    await asyncio.sleep(0)
    queued.cancel()
    filling.cancel()
    await asyncio.wait({queued, filling})
    last = asyncio.create_task(here.send(b"last"))
    heard = [await there.receive() for _ in range(sent + 2)]
    await last

    assert heard == [*[frame] * (sent + 1), b"last"]


@pytest.mark.parametrize("dialer", [True, False])
async def test_what_was_sent_before_a_close_arrives(pair: Pair, dialer: bool) -> None:
    here, there = (pair.dialed, pair.accepted) if dialer else (pair.accepted, pair.dialed)
    await here.send(b"a refusal")
    await here.send(b"with words")

    here.close()
    here.close()

    assert [await there.receive(), await there.receive()] == [b"a refusal", b"with words"]
    assert await unavailable(there.receive()) == "PEER_CLOSED"
    assert await unavailable(there.receive()) == "PEER_CLOSED"
    assert await unavailable(there.send(b"x")) == "PEER_CLOSED"
    assert await unavailable(here.send(b"x")) == "CHANNEL_CLOSED"
    assert await unavailable(here.receive()) == "CHANNEL_CLOSED"


@pytest.mark.parametrize("dialer", [True, False])
async def test_a_close_wakes_who_waits_on_this_side(pair: Pair, dialer: bool) -> None:
    here = pair.dialed if dialer else pair.accepted
    there = pair.accepted if dialer else pair.dialed
    sent = 0

    async def fill() -> None:
        nonlocal sent
        while True:
            await here.send(bytes(MESSAGE_BYTES))
            sent += 1

    receiving, filling = asyncio.create_task(here.receive()), asyncio.create_task(fill())
    await stands_still(lambda: sent)

    here.close()

    assert await unavailable(receiving) == "CHANNEL_CLOSED"
    assert await unavailable(filling) == "CHANNEL_CLOSED"
    there.trusted()
    assert await unavailable(exhausted(there)) in {"PEER_CLOSED", "PEER_LOST"}


async def test_a_channel_ends_when_its_serving_returns(pair: Pair) -> None:
    pair.b.leave.set()

    assert await unavailable(pair.dialed.receive()) == "PEER_CLOSED"
    assert await unavailable(pair.accepted.receive()) == "CHANNEL_CLOSED"


async def test_a_server_that_stops_ends_its_channels(pair: Pair) -> None:
    receiving = asyncio.create_task(pair.dialed.receive())
    serving = asyncio.create_task(pair.accepted.receive())
    await asyncio.sleep(0)

    stopping = asyncio.create_task(pair.b.server.stop(PATIENCE_S))
    reasons = await unavailable(receiving), await unavailable(serving)
    pair.b.leave.set()
    await stopping

    assert reasons == ("PEER_CLOSED", "CHANNEL_CLOSED")
    assert await unavailable(pair.a.transport.dial(pair.b.address)) == "PEER_UNREACHABLE"


async def test_a_transport_that_closes_ends_what_it_dialed(pair: Pair) -> None:
    receiving = asyncio.create_task(pair.accepted.receive())

    closing = asyncio.create_task(pair.a.transport.close())

    assert await unavailable(receiving) == "PEER_CLOSED"
    pair.b.leave.set()
    await closing
    assert await unavailable(pair.dialed.receive()) == "CHANNEL_CLOSED"


async def test_what_serves_a_channel_may_fail_in_any_way() -> None:
    async def serve(channel: PeerChannel) -> None:
        match await channel.receive():
            case b"stranger":
                raise Unauthenticated("who are you", reason="OTHER_SECRET")
            case _:
                raise RuntimeError("a mistake")

    async with peer(serve) as b, peer() as a, asyncio.timeout(PATIENCE_S):
        for said in (b"stranger", b"else"):
            channel = await a.transport.dial(b.address)
            await channel.send(said)
            assert await unavailable(channel.receive()) == "PEER_CLOSED"

        assert b.transport.service.faults == 1


# -- dialing ---------------------------------------------------------------------------


async def test_a_dial_fails_at_once_where_nobody_listens() -> None:
    async with peer() as a:
        for address in ("127.0.0.1:1", "[::1]:1", "no-such-host.invalid:7420"):
            with pytest.raises(Unavailable, match="can't be reached") as caught:
                await a.transport.dial(address)
            assert caught.value.reason == "PEER_UNREACHABLE"


@pytest.mark.parametrize("address", ["", "x", "unix:/tmp/x", "127.0.0.1", ":1", "a b:7", "[::1:7"])
async def test_what_is_no_address_is_not_dialed(address: str) -> None:
    async with peer() as a:
        assert await unavailable(a.transport.dial(address)) == "PEER_UNREACHABLE"


async def test_a_dial_gives_up_on_who_takes_the_connection_and_says_nothing() -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    transport = GrpcPeerTransport(connect_s=0.05)
    listener = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with listener:
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"

        assert await unavailable(transport.dial(address)) == "PEER_UNREACHABLE"
        await transport.close()
        for writer in held:
            writer.close()


async def test_a_dial_says_that_a_server_takes_no_peers() -> None:
    node = Node()
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT)
    port = await server.start()
    transport = GrpcPeerTransport()

    with pytest.raises(Unavailable, match="takes no peers: UNIMPLEMENTED") as caught:
        await transport.dial(f"127.0.0.1:{port}")

    assert (caught.value.reason, bool(caught.value.hint)) == ("PEER_REFUSED", True)
    await transport.close()
    await server.stop(0)


async def test_a_node_that_serves_no_peers_yet_refuses_for_now() -> None:
    node, transport = Node(), GrpcPeerTransport()
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT, peers=transport.service)
    port = await server.start()

    with pytest.raises(Unavailable, match="takes no peers now"):
        await transport.dial(f"127.0.0.1:{port}")

    await transport.close()
    await server.stop(0)


# -- strangers -------------------------------------------------------------------------


@pytest.mark.parametrize("dialer", [True, False])
async def test_a_stranger_may_not_send_large_frames(pair: Pair, dialer: bool) -> None:
    here, there = (pair.dialed, pair.accepted) if dialer else (pair.accepted, pair.dialed)

    await there.send(bytes(MAX_STRANGER_FRAME_BYTES))
    fits = await here.receive()
    await there.send(bytes(MAX_STRANGER_FRAME_BYTES + 1))

    assert len(fits) == MAX_STRANGER_FRAME_BYTES
    assert await unavailable(here.receive()) == "PEER_GARBLED"
    with pytest.raises(Unavailable):
        await there.receive()


async def test_one_stranger_too_many_ends_the_oldest_and_no_trusted_peer() -> None:
    async with peer(max_strangers=2) as b, peer() as a, asyncio.timeout(PATIENCE_S):
        dialed = []
        accepted = []
        for _ in range(4):
            dialed.append(await a.transport.dial(b.address))
            accepted.append(await b.opened())
            if len(accepted) == 1:
                accepted[0].trusted()

        assert await unavailable(dialed[1].receive()) == "PEER_CLOSED"
        for number in (0, 2, 3):
            await dialed[number].send(b"still here")
            assert await accepted[number].receive() == b"still here"
        b.leave.set()


async def test_no_token_lets_anybody_skip_the_handshake(pair: Pair) -> None:
    async with grpc.aio.insecure_channel(pair.b.address) as connection:
        call = stranger(connection)
        accepted = await pair.b.opened()
        await call.write(pb.Frame(data=bytes(MAX_STRANGER_FRAME_BYTES + 1)).SerializeToString())

        assert await unavailable(accepted.receive()) == "PEER_GARBLED"
        call.cancel()


async def test_a_peer_that_vanishes_is_told_from_one_that_closes(pair: Pair) -> None:
    async with grpc.aio.insecure_channel(pair.b.address) as connection:
        call = stranger(connection)
        accepted = await pair.b.opened()
        await call.write(pb.Frame(data=b"hello").SerializeToString())
        assert await accepted.receive() == b"hello"
        waiting = asyncio.create_task(accepted.receive())
        await asyncio.sleep(0)

        call.cancel()

        assert await unavailable(waiting) == "PEER_LOST"
        assert await unavailable(accepted.send(b"x")) == "PEER_LOST"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_rubbish_ends_its_channel_and_nothing_else(raw: bytes) -> None:
    async def run() -> None:
        async with peer() as b, asyncio.timeout(PATIENCE_S):
            async with grpc.aio.insecure_channel(b.address) as connection:
                call = stranger(connection)
                accepted = await b.opened()
                await call.write(raw)
                await call.done_writing()
                ends = {"PEER_GARBLED", "PEER_CLOSED", "PEER_LOST"}
                assert await unavailable(exhausted(accepted)) in ends
                call.cancel()
            assert b.transport.service.faults == 0

    asyncio.run(run())


async def test_strangers_that_come_and_go_at_once_leave_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with peer() as b, asyncio.timeout(PATIENCE_S):
        b.leave.set()
        async with grpc.aio.insecure_channel(b.address) as connection:
            for turns in range(60):
                call = stranger(connection)
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
            last = stranger(connection)
            await last.initial_metadata()
        await until(lambda: not b.transport.service.open_channels)

    assert [record.getMessage() for record in caplog.records] == []


async def test_parts_of_nothing_do_not_keep_a_reader_busy(pair: Pair) -> None:
    async with grpc.aio.insecure_channel(pair.b.address) as connection:
        call = stranger(connection)
        accepted = await pair.b.opened()
        await call.write(pb.Frame(more=True).SerializeToString())

        assert await unavailable(accepted.receive()) == "PEER_GARBLED"
        call.cancel()


async def stands_still(count: Callable[[], int]) -> None:
    """Wait until a count that grows has stopped: no more gets through for a long while."""
    seen, still = -1, 0

    def rested() -> bool:
        nonlocal seen, still
        still = still + 1 if count() == seen else 0
        seen = count()
        return still > 3000

    await until(rested)
