"""Three envd nodes: to one of them, to all of them, and seen on each.

Every write's answer says how many nodes have synced it. One that fewer than two have does not
count in a rate, and is said.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from bench.light import CallFailed, Light
from bench.node import IMPORT_BATCH, SERVICE, commit_request, import_message, set_request
from bench.payload import COMMIT_VARIABLES, SETS, Operation, Variant, value
from bench.spreading import Send
from envd.wire._pb import cluster_pb2
from envd.wire._pb import environment_pb2 as pb

CLUSTER: Final = "/envd.v1.ClusterService/"
ONE: Final = "to one node"
EACH: Final = "spread over the three"
SETS_ONE: Final = f"one WriteStream, {ONE}"
SETS_EACH: Final = f"WriteStreams, {EACH}"
COPIES: Final = 2
LOOK_S: Final = 0.005
TOGETHER_S: Final = 30.0
Request = Callable[[int, int], pb.WriteRequest]
"""(number, how many environments they go round in) -> what is written."""


class Copies:
    """How many writes were answered, and how many of them with fewer than two copies."""

    def __init__(self) -> None:
        self.answers = 0
        self.short = 0

    def note(self, acknowledged: int) -> bool:
        """Count an answer; tell whether it has its copies."""
        self.answers += 1
        enough = acknowledged >= COPIES
        self.short += not enough
        return enough

    def take(self) -> str:
        """What to say, and count anew."""
        short, answers = self.short, self.answers
        self.answers = self.short = 0
        return f"{short:,} of {answers:,} answers had one copy" if short else ""


class LightWrites:
    """A WriteStream: what its callers ask for in one turn of the loop goes out in one message."""

    def __init__(self, light: Light) -> None:
        self._light = light
        self._loop = asyncio.get_running_loop()
        self._waiting: list[pb.WriteStreamRequest.Item] = []
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._numbers = itertools.count(1)
        self._ended = False
        self._stream = light.begin(SERVICE + "WriteStream", self._answered, self._end)

    def write(self, request: pb.WriteRequest) -> asyncio.Future[int]:
        """The future gets how many nodes had synced it when it was answered."""
        number = next(self._numbers)
        future: asyncio.Future[int] = self._loop.create_future()
        if self._ended:
            future.set_exception(CallFailed("the WriteStream has ended"))
            return future
        self._answers[number] = future
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append(pb.WriteStreamRequest.Item(id=number, write=request))
        return future

    def _send(self) -> None:
        items, self._waiting = self._waiting, []
        self._light.send(self._stream, pb.WriteStreamRequest(items=items).SerializeToString())

    def _answered(self, raw: bytes) -> None:
        for item in pb.WriteStreamResponse.FromString(raw).items:
            future = self._answers.pop(item.id)
            if future.done():
                continue
            if item.HasField("done"):
                future.set_result(item.done.acknowledged)
            else:
                future.set_exception(CallFailed(f"{item.error.reason}: {item.error.message}"))

    def _end(self) -> None:
        self._ended = True
        for future in self._answers.values():
            if not future.done():
                future.set_exception(CallFailed("the WriteStream ended"))


class EnvdTrio:
    """The cases' operations for three nodes of envd."""

    change_ways: Sequence[str] = (ONE, EACH)

    def __init__(self, addresses: Sequence[str], token: str) -> None:
        self._addresses = addresses
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._copies = Copies()
        self._open: list[Light] = []
        self._tasks: set[asyncio.Future[int]] = set()
        self._failure: str = ""
        self._closing = False
        self._imports = 0
        self.variants: Mapping[str, Sequence[Variant]] = {
            "set-batched": (
                Variant(SETS_ONE, partial(self._streamed, 1, set_request, 1)),
                Variant(SETS_EACH, partial(self._streamed, 3, set_request, 1)),
            ),
            "commit": (
                Variant(f"Write of 100, {ONE}", partial(self._commits, 1)),
                Variant(f"Write of 100, {EACH}", partial(self._commits, 3)),
                Variant(
                    f"one WriteStream of 100s, {ONE}",
                    partial(self._streamed, 1, commit_request, COMMIT_VARIABLES),
                ),
            ),
        }

    async def together(self) -> None:
        """Wait until every node streams to both others; raises TimeoutError."""
        async with asyncio.timeout(TOGETHER_S):
            for node in range(3):
                light = await self._light(node)
                while not await self._connected(light):  # noqa: ASYNC110 - a server's word is asked for
                    await asyncio.sleep(LOOK_S)
        await self.close()

    async def _connected(self, light: Light) -> bool:
        peers = await peers_of(light)
        return len(peers) == 2 and all(peer.connected for peer in peers)

    async def _light(self, node: int) -> Light:
        light = await Light.open(self._addresses[node], self._metadata)
        self._open.append(light)
        return light

    def remark(self) -> str:
        return self._copies.take()

    async def close(self) -> None:
        self._closing = True
        opened, self._open = self._open, []
        for light in opened:
            await light.close()
        self._closing = False
        self._tasks.clear()
        failure, self._failure = self._failure, ""
        if failure:
            raise CallFailed(failure)

    # -- writes ------------------------------------------------------------------------

    async def _streamed(
        self, nodes: int, request: Request, units: int, callers: int
    ) -> Sequence[Operation]:
        streams = [LightWrites(await self._light(node)) for node in range(nodes)]

        def operation(node: int) -> Operation:
            async def run(n: int) -> int:
                acknowledged = await streams[node].write(request(*_numbered(n, node, nodes)))
                return units if self._copies.note(acknowledged) else 0

            return run

        return [operation(at % nodes) for at in range(callers)]

    async def _commits(self, nodes: int, callers: int) -> Sequence[Operation]:
        lights = [await self._light(at % nodes) for at in range(callers)]

        def operation(at: int) -> Operation:
            async def run(n: int) -> int:
                message = commit_request(*_numbered(n, at % nodes, nodes)).SerializeToString()
                raw = await lights[at].call(SERVICE + "Write", message)
                enough = self._copies.note(pb.WriteResponse.FromString(raw).acknowledged)
                return COMMIT_VARIABLES if enough else 0

            return run

        return [operation(at) for at in range(callers)]

    # -- bulk --------------------------------------------------------------------------

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        messages = [
            import_message(prefix, numbers[at : at + IMPORT_BATCH])
            for at in range(0, len(numbers), IMPORT_BATCH)
        ]

        async def run() -> None:
            lights = [await self._light(node) for node in range(3)]
            await self._send_import(lights[0], messages, len(numbers))
            self._imports += 1
            name = f"done/{prefix}/{self._imports}"
            put = pb.Put(name="A", value="1")
            last = pb.WriteRequest(environment=name, puts=[put]).SerializeToString()
            await lights[0].call(SERVICE + "Write", last)
            await asyncio.gather(*(self._until_seen(light, name) for light in lights))

        return run

    async def _send_import(self, light: Light, messages: Sequence[bytes], count: int) -> None:
        """Send it all and take every answer."""
        over = asyncio.get_running_loop().create_future()
        done = 0

        def answered(raw: bytes) -> None:
            nonlocal done
            for result in pb.ImportResponse.FromString(raw).results:
                done += result.HasField("done")
                self._copies.note(result.done.acknowledged)

        def ended() -> None:
            if not over.done():
                over.set_result(None)

        stream = light.begin(SERVICE + "Import", answered, ended)
        for message in messages:
            light.send(stream, message)
        light.finish(stream)
        await over
        if done != count:
            raise CallFailed(f"{done} of {count} environments were imported")

    async def _until_seen(self, light: Light, name: str) -> None:
        """Wait until a node has the environment; one origin's writes arrive in their order."""
        request = pb.GetRequest(environment=name).SerializeToString()
        while True:
            try:
                await light.call(SERVICE + "Get", request)
            except CallFailed:
                await asyncio.sleep(LOOK_S)
            else:
                return

    async def holds(self, prefix: str) -> Sequence[int]:
        return [await self._held(await self._light(node), prefix) for node in range(3)]

    async def _held(self, light: Light, prefix: str) -> int:
        over = asyncio.get_running_loop().create_future()
        count = 0

        def answered(raw: bytes) -> None:
            nonlocal count
            for item in pb.ExportResponse.FromString(raw).environments:
                count += len(item.variables.names)

        request = pb.ExportRequest(prefix=prefix).SerializeToString()
        light.begin(SERVICE + "Export", answered, lambda: over.set_result(None), request)
        await over
        return count

    # -- changes -----------------------------------------------------------------------

    async def changes(self, way: str, saw: Callable[[int, int], None]) -> Send:
        for node in range(3):
            await self._watch(node, partial(saw, node))
        streams = [LightWrites(await self._light(node)) for node in range(3 if way == EACH else 1)]

        def send(numbers: range) -> None:
            for n in numbers:
                put = pb.Put(name="A", value=value("A", n))
                request = pb.WriteRequest(environment=f"watch/e{n % SETS}", puts=[put])
                answer = streams[n % SETS % len(streams)].write(request)
                self._tasks.add(answer)
                answer.add_done_callback(self._written)

        return send

    def _written(self, answer: asyncio.Future[int]) -> None:
        self._tasks.discard(answer)
        if answer.cancelled() or self._closing:
            return
        error = answer.exception()
        if error is not None:
            self._failure = str(error)
        else:
            self._copies.note(answer.result())

    async def _watch(self, node: int, saw: Callable[[int], None]) -> None:
        """Watch on a node; return once the snapshot is over."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def event(raw: bytes) -> None:
            first = pb.WatchResponse.FromString(raw)
            for message in (first, *first.more):
                if message.HasField("changed"):
                    saw(int(message.changed.state.variables[0].value[:12]))
                elif message.HasField("snapshot_end") and not begun.done():
                    begun.set_result(None)
                elif message.HasField("reset"):
                    self._failure = f"the watch was reset: {message.reset.reason}"

        def ended() -> None:
            if not self._closing:
                self._failure = f"the watch on node {node + 1} ended"

        request = pb.WatchRequest(prefix="watch", values=True, batched=True).SerializeToString()
        (await self._light(node)).begin(SERVICE + "Watch", event, ended, request)
        await begun


async def peers_of(light: Light) -> Sequence[cluster_pb2.Peer]:
    """How a node stands with each other storage node."""
    raw = await light.call(CLUSTER + "Members", b"")
    return cluster_pb2.MembersResponse.FromString(raw).peers


def _numbered(n: int, node: int, nodes: int) -> tuple[int, int]:
    """The n-th number of a node, and among how many environments, none of them another node's.

    Two nodes that write one environment at the same time would make a conflict of it.
    """
    return n * nodes + node, SETS - SETS % nodes
