"""etcd through its gRPC API v3.

Its messages are described here by the few field names and numbers that the cases use, and made
at run time; a variable is the key ENVIRONMENT/NAME. Reads are linearizable, its default: on one
node envd's are too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.channels import Channels
from bench.compiled import GrpcRequest, H2load
from bench.payload import (
    BATCH,
    COMMIT_NAMES,
    LOADED,
    NAMES,
    SETS,
    VARIABLES,
    NotReady,
    Operation,
    Variant,
    drawn,
    value,
)

_SHAPES: Final[Mapping[str, str]] = {
    "KeyValue": "key=1:bytes version=4:int64 value=5:bytes",
    "PutRequest": "key=1:bytes value=2:bytes",
    "RangeRequest": "key=1:bytes range_end=2:bytes limit=3:int64 serializable=7:bool",
    "RangeResponse": "kvs=2:KeyValue* more=3:bool count=4:int64",
    "RequestOp": "request_range=1:RangeRequest request_put=2:PutRequest",
    "ResponseOp": "response_range=1:RangeResponse",
    "TxnRequest": "success=2:RequestOp*",
    "TxnResponse": "succeeded=2:bool responses=3:ResponseOp*",
    "WatchCreateRequest": "key=1:bytes range_end=2:bytes",
    "WatchRequest": "create_request=1:WatchCreateRequest",
    "Event": "kv=2:KeyValue",
    "WatchResponse": "created=3:bool canceled=4:bool events=11:Event*",
    "StatusRequest": "",
    "ResponseHeader": "cluster_id=1:uint64 member_id=2:uint64",
    "StatusResponse": "header=1:ResponseHeader leader=4:uint64",
}
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bytes": _FIELD.TYPE_BYTES,
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
    "bool": _FIELD.TYPE_BOOL,
}
_PACKAGE: Final = "envd.bench.etcd"
PUT: Final = "/etcdserverpb.KV/Put"
RANGE: Final = "/etcdserverpb.KV/Range"
TXN: Final = "/etcdserverpb.KV/Txn"
WATCH: Final = "/etcdserverpb.Watch/Watch"
STATUS: Final = "/etcdserverpb.Maintenance/Status"
_IN_FLIGHT: Final = 64
_PAGE: Final = 2_000


def messages() -> dict[str, Any]:
    """The message classes by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="envd_bench_etcd.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _SHAPES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            key, _, rest = field.partition("=")
            number, _, kind = rest.partition(":")
            one = kind.rstrip("*")
            made = message.field.add(
                name=key,
                number=int(number),
                label=_FIELD.LABEL_REPEATED if one != kind else _FIELD.LABEL_OPTIONAL,
            )
            made.type = _SCALARS.get(one, _FIELD.TYPE_MESSAGE)
            if one not in _SCALARS:
                made.type_name = f".{_PACKAGE}.{one}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _SHAPES
    }


class EtcdClient:
    """The cases' operations for one etcd."""

    lacks: Mapping[str, str] = {"read-live-1": "it has no mapping that a watch keeps current"}

    def __init__(self, address: str) -> None:
        self._channels = Channels(address)
        self._pb = messages()
        self.variants: Mapping[str, Sequence[Variant]] = {
            "set": (Variant("put", self._sets, H2load(address, self._one_set)),),
            "set-batched": (
                Variant("plain put", self._sets),
                Variant("txn of 100", self._set_txns),
            ),
            "get": (Variant("range of a key", self._gets, H2load(address, self._one_get)),),
            "commit": (Variant("txn of 100", self._commits),),
            "read": (Variant("range of a prefix", self._reads),),
            "read-batched": (
                Variant("plain ranges", self._reads),
                Variant("txn of 100 ranges", self._read_txns),
            ),
        }

    async def answers(self) -> None:
        (call,) = await self._channels.unary(RANGE, 1)
        try:
            await call(self._range(b"none"))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise NotReady from error
            raise

    async def flush_lag_s(self) -> float | None:
        return None

    async def close(self) -> None:
        await self._channels.close()

    # -- messages ----------------------------------------------------------------------

    def _range(self, key: bytes, end: bytes = b"", limit: int = 0) -> bytes:
        return raw_of(self._pb["RangeRequest"](key=key, range_end=end, limit=limit))

    def _puts(self, keys: Sequence[tuple[str, str]]) -> bytes:
        return puts_of(self._pb, keys)

    # -- operations --------------------------------------------------------------------

    async def _sets(self, callers: int) -> Sequence[Operation]:
        put = self._pb["PutRequest"]

        def message(n: int) -> bytes:
            key = f"set/e{n % SETS}/A".encode()
            return raw_of(put(key=key, value=value("A", n).encode()))

        return await self._unary(PUT, callers, message, 1)

    def random_sets(self, prefix: str, environments: int) -> Variant:
        put, draw = self._pb["PutRequest"], drawn(environments)

        def message(n: int) -> bytes:
            name = NAMES[n % VARIABLES]
            key = f"{prefix}/e{draw()}/{name}".encode()
            return raw_of(put(key=key, value=value(name, n).encode()))

        async def begin(callers: int) -> Sequence[Operation]:
            return await self._unary(PUT, callers, message, 1)

        return Variant("plain put", begin)

    async def _one_set(self) -> GrpcRequest:
        key = b"set/e0/A"
        message = raw_of(self._pb["PutRequest"](key=key, value=value("A", 0).encode()))
        (call,) = await self._channels.unary(PUT, 1)

        async def written() -> int:
            (found,) = await self._found(self._range(key))
            version: int = found.version
            return version

        return GrpcRequest(PUT, message, (), len(await call(message)), written)

    async def _one_get(self) -> GrpcRequest:
        message = self._range(f"load/e0/{NAMES[7]}".encode())
        (call,) = await self._channels.unary(RANGE, 1)
        assert len(await self._found(message)) == 1
        return GrpcRequest(RANGE, message, (), len(await call(message)))

    async def _found(self, message: bytes) -> Sequence[Any]:
        (call,) = await self._channels.unary(RANGE, 1)
        answer = self._pb["RangeResponse"].FromString(await call(message))
        found: Sequence[Any] = answer.kvs
        return found

    async def _set_txns(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            numbers = range(n * BATCH, (n + 1) * BATCH)
            return self._puts([(f"set/e{k % SETS}/A", value("A", k)) for k in numbers])

        return await self._unary(TXN, callers, message, BATCH)

    async def _gets(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            return self._range(f"load/e{n % LOADED}/{NAMES[7]}".encode())

        return await self._unary(RANGE, callers, message, 1)

    async def _commits(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            return self._puts(
                [(f"commit/e{n % SETS}/{name}", value(name, n)) for name in COMMIT_NAMES]
            )

        return await self._unary(TXN, callers, message, len(COMMIT_NAMES))

    async def _reads(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            return self._range(*below(f"load/e{n % LOADED}/"))

        return await self._unary(RANGE, callers, message, VARIABLES)

    async def _read_txns(self, callers: int) -> Sequence[Operation]:
        of_range, operation = self._pb["RangeRequest"], self._pb["RequestOp"]

        def message(n: int) -> bytes:
            spans = [below(f"load/e{k % LOADED}/") for k in range(n * BATCH, (n + 1) * BATCH)]
            ranges = [operation(request_range=of_range(key=a, range_end=b)) for a, b in spans]
            return raw_of(self._pb["TxnRequest"](success=ranges))

        (first,) = await self._channels.unary(TXN, 1)
        found = self._pb["TxnResponse"].FromString(await first(message(0)))
        assert sum(len(one.response_range.kvs) for one in found.responses) == BATCH * VARIABLES
        return await self._unary(TXN, callers, message, BATCH * VARIABLES)

    async def _unary(
        self, method: str, callers: int, message: Callable[[int], bytes], units: int
    ) -> Sequence[Operation]:
        def operation(call: Callable[[bytes], Awaitable[bytes]]) -> Operation:
            async def run(n: int) -> int:
                await call(message(n))
                return units

            return run

        return [operation(call) for call in await self._channels.unary(method, callers)]

    # -- bulk and events ---------------------------------------------------------------

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        keys = [(f"{prefix}/e{n}/{name}", value(name, n)) for n in numbers for name in NAMES]
        messages = [self._puts(keys[at : at + BATCH]) for at in range(0, len(keys), BATCH)]
        del keys

        async def run() -> None:
            (call,) = await self._channels.unary(TXN, 1)
            left = iter(messages)

            async def caller() -> None:
                for message in left:
                    await call(message)

            async with asyncio.TaskGroup() as group:
                for _ in range(_IN_FLIGHT):
                    group.create_task(caller())

        return run

    async def export(self, prefix: str) -> int:
        (call,) = await self._channels.unary(RANGE, 1)
        key, end = below(f"{prefix}/")
        count = 0
        while True:
            raw = await call(self._range(key, end, _PAGE))
            page = self._pb["RangeResponse"].FromString(raw)
            count += len(page.kvs)
            if not page.more:
                return count
            key = page.kvs[-1].key + b"\0"

    async def propagation(self, count: int) -> Sequence[float]:
        key, end = below("watch/")
        create = self._pb["WatchCreateRequest"](key=key, range_end=end)
        request = raw_of(self._pb["WatchRequest"](create_request=create))
        done = asyncio.Event()

        async def requests() -> AsyncIterator[bytes]:
            yield request
            await done.wait()

        parse = self._pb["WatchResponse"].FromString
        call = self._channels.both_streams(WATCH)(requests())
        events = aiter(call)
        assert parse(await anext(events)).created
        (put,) = await self._channels.unary(PUT, 1)
        times = []
        for n in range(count):
            message = raw_of(self._pb["PutRequest"](key=b"watch/e/A", value=value("A", n).encode()))
            start = time.perf_counter()
            writing = asyncio.ensure_future(put(message))
            assert parse(await anext(events)).events[0].kv.value.startswith(b"%012d" % n)
            times.append(time.perf_counter() - start)
            await writing
        done.set()
        call.cancel()
        return times


def puts_of(pb: Mapping[str, Any], keys: Sequence[tuple[str, str]]) -> bytes:
    """One transaction that puts so many keys."""
    put, operation = pb["PutRequest"], pb["RequestOp"]
    puts = [operation(request_put=put(key=key.encode(), value=text.encode())) for key, text in keys]
    return raw_of(pb["TxnRequest"](success=puts))


def below(prefix: str) -> tuple[bytes, bytes]:
    """The key range of a prefix that ends with a slash."""
    return prefix.encode(), (prefix[:-1] + "0").encode()  # "0" follows "/"


def raw_of(message: Any) -> bytes:
    """A message as it is sent."""
    raw: bytes = message.SerializeToString()
    return raw
