"""envd through its gRPC API, and through its Python client where a case is about that."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import aiohttp
import grpc

import envd
from bench.channels import BothStreams, Channels, Metadata, Unary
from bench.compiled import GrpcRequest, H2load
from bench.live import LiveReads
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
from envd.wire._pb import environment_pb2 as pb

SERVICE: Final = "/envd.v1.EnvironmentService/"
IMPORT_BATCH: Final = 50
_METRICS: Final = aiohttp.ClientTimeout(5)
_FIGURE: Final = re.compile(r"^([a-z]\w*(?:\{.*\})?) (\S+)$", re.MULTILINE)
STREAM: Final = "batched: one WriteStream"
CLIENT: Final = "batched: client.set"


class NodeClient:
    """The cases' operations for one envd; every call carries its token, as in production."""

    lacks: Mapping[str, str] = {}

    def __init__(self, address: str, http: str, token: Callable[[], str]) -> None:
        self._address = address
        self._http = http
        self._channels = Channels(address)
        self._clients: list[envd.Client] = []
        self._live: list[LiveReads] = []
        self._token = token
        self._probes = 0
        self.variants: Mapping[str, Sequence[Variant]] = {
            "set": (Variant("Write", self._sets, H2load(address, self._one_set)),),
            "set-batched": (
                Variant(STREAM, self._batched_sets),
                Variant(CLIENT, self._client_sets),
            ),
            "get": (Variant("Get of a variable", self._gets, H2load(address, self._one_get)),),
            "read-live": (Variant("env[NAME], 100 changes/s beside", self._live_reads),),
            "commit": (Variant("Write of 100", self._commits),),
            "read": (Variant("Get", self._reads),),
            "read-batched": (Variant("batched: BatchGet of 100", self._batch_reads),),
        }

    @property
    def _metadata(self) -> Metadata:
        return (("authorization", f"Bearer {self._token()}"),)

    async def answers(self) -> None:
        (call,) = await self._channels.unary(SERVICE + "List", 1)
        try:
            await call(pb.ListRequest(limit=1).SerializeToString(), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise NotReady from error
            raise

    async def flush_lag_s(self) -> float | None:
        return (await self.figures()).get("envd_flush_lag_seconds")

    async def figures(self) -> Mapping[str, float]:
        """The node's metrics by name, with labels where it has any; empty where it is too busy."""
        url = f"http://{self._http}/metrics"
        try:
            async with (
                aiohttp.ClientSession(timeout=_METRICS) as session,
                session.get(url, headers=dict(self._metadata)) as answer,
            ):
                found = _FIGURE.findall(await answer.text())
        except (aiohttp.ClientError, TimeoutError):
            return {}  # a node so busy that it does not tell is looked at again soon
        return {name: float(figure) for name, figure in found}

    async def close(self) -> None:
        live, self._live = self._live, []
        clients, self._clients = self._clients, []
        for one in live:
            await one.close()
        for client in clients:
            await client.close()
        await self._channels.close()

    def _client(self) -> envd.Client:
        client = envd.connect(self._address, token=self._token(), snapshot=False)
        self._clients.append(client)
        return client

    # -- operations --------------------------------------------------------------------

    async def _sets(self, callers: int) -> Sequence[Operation]:
        return await self._unary("Write", callers, lambda n: set_request(n).SerializeToString(), 1)

    async def _batched_sets(self, callers: int) -> Sequence[Operation]:
        return self._streamed(callers, set_request)

    def _streamed(
        self, callers: int, request: Callable[[int], pb.WriteRequest]
    ) -> Sequence[Operation]:
        stream = WriteStream(self._channels.both_streams(SERVICE + "WriteStream"), self._metadata)

        async def run(n: int) -> int:
            await stream.write(request(n))
            return 1

        return [run] * callers

    async def _client_sets(self, callers: int) -> Sequence[Operation]:
        client = self._client()

        async def run(n: int) -> int:
            await client.set(f"set/e{n % SETS}", {"A": value("A", n)})
            return 1

        return [run] * callers

    def random_sets(self, prefix: str, environments: int) -> Variant:
        draw = drawn(environments)

        def request(n: int) -> pb.WriteRequest:
            name = NAMES[n % VARIABLES]
            put = pb.Put(name=name, value=value(name, n))
            return pb.WriteRequest(environment=f"{prefix}/e{draw()}", puts=[put])

        async def begin(callers: int) -> Sequence[Operation]:
            return self._streamed(callers, request)

        return Variant(STREAM, begin)

    async def _live_reads(self, _: int) -> Sequence[Operation]:
        live = await LiveReads.begin(self._client())
        self._live.append(live)
        return [live.read]

    async def _one_set(self) -> GrpcRequest:
        answer = await self._call("Write", _ONE_SET)
        return self._request("Write", _ONE_SET, answer, self._commits_so_far)

    async def _one_get(self) -> GrpcRequest:
        request = pb.GetRequest(environment="load/e0", variables=[NAMES[7]])
        message = request.SerializeToString()
        answer = await self._call("Get", message)
        found = pb.GetResponse.FromString(answer).environment.variables
        assert [one.name for one in found] == [NAMES[7]]
        return self._request("Get", message, answer)

    async def _call(self, method: str, message: bytes) -> bytes:
        (call,) = await self._channels.unary(SERVICE + method, 1)
        return await call(message, metadata=self._metadata)

    def _request(
        self,
        method: str,
        message: bytes,
        answer: bytes,
        written: Callable[[], Awaitable[int]] | None = None,
    ) -> GrpcRequest:
        return GrpcRequest(SERVICE + method, message, self._metadata, len(answer), written)

    async def _commits_so_far(self) -> int:
        """Commits of one key's part of the node, without this method's own.

        The last part of a write's token counts them.
        """
        token = pb.WriteResponse.FromString(await self._call("Write", _ONE_SET)).token
        self._probes += 1
        return int(token.rpartition(".")[2], 16) - self._probes

    async def _gets(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            request = pb.GetRequest(environment=f"load/e{n % LOADED}", variables=[NAMES[7]])
            return request.SerializeToString()

        return await self._unary("Get", callers, message, 1)

    async def _commits(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            return commit_request(n).SerializeToString()

        return await self._unary("Write", callers, message, len(COMMIT_NAMES))

    async def _reads(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            return pb.GetRequest(environment=f"load/e{n % LOADED}").SerializeToString()

        return await self._unary("Get", callers, message, VARIABLES)

    async def _batch_reads(self, callers: int) -> Sequence[Operation]:
        def message(n: int) -> bytes:
            names = [f"load/e{k % LOADED}" for k in range(n * BATCH, (n + 1) * BATCH)]
            return pb.BatchGetRequest(environments=names).SerializeToString()

        (first,) = await self._channels.unary(SERVICE + "BatchGet", 1)
        raw = await first(message(0), metadata=self._metadata)
        results = pb.BatchGetResponse.FromString(raw).results
        found = sum(len(one.found.environment.variables) for one in results)
        assert found == BATCH * VARIABLES
        return await self._unary("BatchGet", callers, message, BATCH * VARIABLES)

    async def _unary(
        self, method: str, callers: int, message: Callable[[int], bytes], units: int
    ) -> Sequence[Operation]:
        metadata = self._metadata

        def operation(call: Unary) -> Operation:
            async def run(n: int) -> int:
                await call(message(n), metadata=metadata)
                return units

            return run

        return [operation(call) for call in await self._channels.unary(SERVICE + method, callers)]

    # -- bulk and events ---------------------------------------------------------------

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        messages = [
            import_message(prefix, numbers[at : at + IMPORT_BATCH])
            for at in range(0, len(numbers), IMPORT_BATCH)
        ]

        async def requests() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        async def run() -> None:
            call = self._channels.both_streams(SERVICE + "Import")
            answers = [raw async for raw in call(requests(), metadata=self._metadata)]
            parsed = map(pb.ImportResponse.FromString, answers)
            done = sum(one.HasField("done") for answer in parsed for one in answer.results)
            assert done == len(numbers)

        return run

    async def export(self, prefix: str) -> int:
        call = self._channels.server_stream(SERVICE + "Export")
        request = pb.ExportRequest(prefix=prefix).SerializeToString()
        count = 0
        async for raw in call(request, metadata=self._metadata):
            items = pb.ExportResponse.FromString(raw).environments
            count += sum(len(item.variables.names) for item in items)
        return count

    async def propagation(self, count: int) -> Sequence[float]:
        request = pb.WatchRequest(prefix="watch", values=True).SerializeToString()
        watch = self._channels.server_stream(SERVICE + "Watch")
        call = watch(request, metadata=self._metadata)
        events = aiter(call)
        while not pb.WatchResponse.FromString(await anext(events)).HasField("snapshot_end"):
            pass
        (write,) = await self._channels.unary(SERVICE + "Write", 1)
        times = []
        for n in range(count):
            put = pb.Put(name="A", value=value("A", n))
            message = pb.WriteRequest(environment="watch/e", puts=[put]).SerializeToString()
            start = time.perf_counter()
            writing = asyncio.ensure_future(_awaited(write(message, metadata=self._metadata)))
            while not (event := pb.WatchResponse.FromString(await anext(events))).HasField(
                "changed"
            ):
                pass
            assert event.changed.state.variables[0].value == put.value
            times.append(time.perf_counter() - start)
            await writing
        call.cancel()
        return times


class WriteStream:
    """Sets of many callers over one stream: what waits goes out in one message."""

    def __init__(self, method: BothStreams, metadata: Metadata) -> None:
        self._waiting: list[pb.WriteStreamRequest.Item] = []
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._news = asyncio.Event()
        self._last = 0
        self._call = method(self._requests(), metadata=metadata)
        self._reader = asyncio.ensure_future(self._read())

    async def write(self, request: pb.WriteRequest) -> None:
        """Return once the write is durable."""
        self._last += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers[self._last] = future
        self._waiting.append(pb.WriteStreamRequest.Item(id=self._last, write=request))
        self._news.set()
        await future

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            await self._news.wait()
            self._news.clear()
            items, self._waiting = self._waiting, []
            yield pb.WriteStreamRequest(items=items).SerializeToString()

    async def _read(self) -> None:
        async for raw in self._call:
            for item in pb.WriteStreamResponse.FromString(raw).items:
                future = self._answers.pop(item.id)
                if item.HasField("done"):
                    future.set_result(None)
                else:
                    future.set_exception(RuntimeError(item.error.reason))


def set_request(n: int, among: int = SETS) -> pb.WriteRequest:
    """The n-th set of one variable, of so many environments in turn."""
    put = pb.Put(name="A", value=value("A", n))
    return pb.WriteRequest(environment=f"set/e{n % among}", puts=[put])


def commit_request(n: int, among: int = SETS) -> pb.WriteRequest:
    """The n-th commit of 100 variables, to so many environments in turn."""
    puts = [pb.Put(name=name, value=value(name, n)) for name in COMMIT_NAMES]
    return pb.WriteRequest(environment=f"commit/e{n % among}", puts=puts)


def import_message(prefix: str, numbers: Iterable[int], names: Sequence[str] = NAMES) -> bytes:
    """One request of an import, of environments PREFIX/eN."""
    items = [
        pb.ImportRequest.Item(
            environment=f"{prefix}/e{n}",
            variables=pb.VariableColumns(names=names, values=[value(name, n) for name in names]),
        )
        for n in numbers
    ]
    return pb.ImportRequest(environments=items).SerializeToString()


_ONE_SET: Final = set_request(0).SerializeToString()


async def _awaited(call: Awaitable[bytes]) -> bytes:
    return await call
