"""A real node in memory, who may use it, and the ways into it on free ports of the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from envd.core.answers import Identity, Status, WriteAnswer
from envd.core.commit import LogRecord
from envd.core.errors import Denied, Unauthenticated, Unavailable
from envd.core.requests import Put, WriteRequest
from envd.net.cluster_service import SERVICE as CLUSTER
from envd.net.environment_service import SERVICE
from envd.net.grpc_server import MAX_MESSAGE_BYTES, GrpcLimits, GrpcServer
from envd.node.api import EnvironmentApi
from envd.node.cluster_view import Cluster
from envd.node.coordinator import Coordinator
from envd.node.drafting import Wish
from envd.node.views import NodeIdentity
from envd.node.watch import WatchHub
from envd.ports import Authorizer, StoredState
from envd.settings.units import Address
from envd.storage.memory import MemoryStore
from tests.cut_off import CutOff

TOKEN = "token-of-the-admin"
READER_TOKEN = "token-of-the-reader"
NODE_UID = 0x1234
ADMIN = Identity("admin", "token")
CANARY = "canary-41f7"
ANY_PORT = Address("127.0.0.1", 0)
PATIENCE_S = 30
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")


class StillClock:
    """Both clocks stand."""

    def wall_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_ms(self) -> int:
        return 0


class FakeAccess:
    """Knows an admin and a reader by token, and one user by uid."""

    def __init__(self, own_uid: int | None = None) -> None:
        self._own_uid = own_uid

    def by_token(self, token: str) -> Identity:
        name = {TOKEN: "admin", READER_TOKEN: "reader"}.get(token)
        if name is None:
            raise Unauthenticated("a token is needed", hint="use --token", reason="TOKEN_NEEDED")
        return Identity(name, "token")

    def by_peer(self, uid: int) -> Identity:
        if uid != self._own_uid:
            raise Unauthenticated("this user needs a token", reason="TOKEN_NEEDED")
        return Identity(f"uid:{uid}", "socket")


class FakeAuthorizer:
    """The reader may read, list and see history; all others may do everything."""

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        if not self.allows(identity, verb, environment):
            raise Denied(f"{identity.name} may not {verb}", reason="RIGHT_MISSING")

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        return identity.name != "reader" or verb in {"read", "list", "history"}


class RaisingAuthorizer(FakeAuthorizer):
    """Whatever is asked, raises `error`: so a node can be made to fail in any way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        raise self._error


class HeldStore(MemoryStore):
    """Commits are applied at once, and answered as durable once the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.appended: list[str] = []

    def append(
        self, record: LogRecord, after: StoredState, encoded: bytes = b""
    ) -> asyncio.Future[int]:
        self.appended.append(record.commit.environment)
        return asyncio.ensure_future(self._held(super().append(record, after, encoded)))

    async def _held(self, durable: Awaitable[int]) -> int:
        await self.gate.wait()
        return await durable


@dataclass
class Node:
    """One node, without any way in."""

    store: MemoryStore = field(default_factory=MemoryStore)
    authorizer: Authorizer = field(default_factory=FakeAuthorizer)
    heartbeat_s: float = 60.0
    max_watches: int = 10
    cluster: Cluster | None = None
    uid: int = NODE_UID
    confirmed: list[str] = field(default_factory=list)
    is_cut_off: bool = False
    hub: WatchHub = field(init=False)
    coordinator: Coordinator = field(init=False)
    api: EnvironmentApi = field(init=False)
    cut_off: CutOff = field(init=False)

    def __post_init__(self) -> None:
        identity = NodeIdentity(self.uid, "node-1", "eu")
        self.hub = WatchHub(
            self.store, self.uid, heartbeat_s=self.heartbeat_s, max_watches=self.max_watches
        )
        self.coordinator = Coordinator(self.store, StillClock(), identity, b"d" * 32)
        self.cut_off = CutOff(self.coordinator, self.store)
        self.api = EnvironmentApi(
            self.coordinator,
            self.hub,
            self.authorizer,
            self._status,
            self.cluster,
            self.cut_off.gathering,
        )

    def vote(self) -> None:
        """Have serial environments, as a node that votes alone: what it drafts is chosen."""
        coordinator = self.coordinator

        async def choose(wish: Wish) -> WriteAnswer:
            name = wish.request.environment
            draft = coordinator.draft(wish, coordinator.drafter.head(name))
            assert draft is not None, "the tests change something"
            return await coordinator.finish(wish.request, draft)

        async def confirm(environment: str) -> None:
            self.confirmed.append(environment)
            if self.is_cut_off:
                raise Unavailable("no majority", hint="see", reason="NO_QUORUM")

        coordinator.chained, coordinator.confirmed = choose, confirm

    async def put(self, environment: str, **values: str) -> str:
        """Set variables, secret where the name says so; return the new revision."""
        puts = tuple(
            Put(name, value, True if "SECRET" in name else None) for name, value in values.items()
        )
        answer = await self.api.write(ADMIN, WriteRequest(environment, puts))
        return answer.revision

    def _status(self, identity: Identity) -> Status:
        return Status(
            node="node-1",
            node_uid=f"{NODE_UID:016x}",
            cluster="default",
            version="0.0.1",
            generation=3,
            environments=self.store.environment_count(),
            storage_bytes=77,
            uptime_seconds=12,
            insecure=False,
            data_dir="/data",
            identity=identity.name,
            authenticated_by=identity.via,
        )


@dataclass
class Rpc:
    """A node behind a gRPC server, and a channel to it."""

    node: Node
    server: GrpcServer
    port: int
    channel: grpc.aio.Channel

    async def unary(
        self,
        method: str,
        request: Message,
        response: type[ResponseT],
        *,
        token: str = TOKEN,
        deadline_s: float = PATIENCE_S,
    ) -> ResponseT:
        """One call of EnvironmentService."""
        call = unary_call(self.channel, f"/{service_of(method)}/{method}", response.FromString)
        return await call(request.SerializeToString(), metadata=bearer(token), timeout=deadline_s)

    async def raw(self, method: str, raw: bytes, metadata: grpc.aio.Metadata) -> bytes:
        """One call of EnvironmentService with any bytes."""
        call = unary_call(self.channel, f"/{service_of(method)}/{method}", bytes)
        return await call(raw, metadata=metadata)

    def out_stream(
        self, method: str, request: Message, response: type[ResponseT], *, token: str = TOKEN
    ) -> grpc.aio.UnaryStreamCall[bytes, ResponseT]:
        """One call that answers with a stream."""
        call = stream_call(self.channel, f"/{service_of(method)}/{method}", response.FromString)
        return call(request.SerializeToString(), metadata=bearer(token))

    def streams(
        self, method: str, response: type[ResponseT], *, token: str = TOKEN
    ) -> grpc.aio.StreamStreamCall[Message, ResponseT]:
        """One call with streams both ways."""
        call: grpc.aio.StreamStreamMultiCallable[Message, ResponseT] = self.channel.stream_stream(
            f"/{service_of(method)}/{method}", _serialize, response.FromString
        )
        return call(metadata=bearer(token))


_OF_CLUSTER = {"Status", "Members", "Join", "Leave", "Remove", "Topology", "Recover"}


def service_of(method: str) -> str:
    return CLUSTER if method in _OF_CLUSTER else SERVICE


def unary_call(
    channel: grpc.aio.Channel, path: str, parse: Callable[[bytes], ResultT]
) -> grpc.aio.UnaryUnaryMultiCallable[bytes, ResultT]:
    return channel.unary_unary(path, bytes, parse)


def stream_call(
    channel: grpc.aio.Channel, path: str, parse: Callable[[bytes], ResultT]
) -> grpc.aio.UnaryStreamMultiCallable[bytes, ResultT]:
    return channel.unary_stream(path, bytes, parse)


def channel_to(target: str) -> grpc.aio.Channel:
    """A channel that takes messages as large as the server sends."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
        ],
    )


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def bearer(token: str) -> grpc.aio.Metadata:
    pairs = (("authorization", f"Bearer {token}"),) if token else ()
    return grpc.aio.Metadata(*pairs)


@asynccontextmanager
async def grpc_to(node: Node, limits: GrpcLimits | None = None) -> AsyncIterator[Rpc]:
    """Serve `node` over gRPC while inside."""
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT, limits)
    port = await server.start()
    server.set_serving(True)
    try:
        async with channel_to(f"127.0.0.1:{port}") as channel:
            yield Rpc(node, server, port, channel)
    finally:
        node.api.stop()
        await server.stop(0)


async def until(claim: Callable[[], bool]) -> None:
    """Let everything else run until `claim` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - whatever it waits for, no one tells of it
            await asyncio.sleep(0)


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error of a call that must not succeed."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")
