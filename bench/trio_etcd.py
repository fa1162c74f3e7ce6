"""Three members of etcd: to the leader, which is the shortest way, and to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from bench.etcd import PUT, RANGE, STATUS, TXN, WATCH, below, messages, puts_of, raw_of
from bench.light import CallFailed, Light
from bench.payload import (
    BATCH,
    COMMIT_NAMES,
    COMMIT_VARIABLES,
    NAMES,
    SETS,
    Operation,
    Variant,
    value,
)
from bench.spreading import Send

LEADER: Final = "to the leader"
EACH: Final = "spread over the three"
CALLERS_A_CONNECTION: Final = 4
_IN_FLIGHT: Final = 64
_IMPORT_CONNECTIONS: Final = 8
_PAGE: Final = 2_000
LOOK_S: Final = 0.005
TOGETHER_S: Final = 30.0


class EtcdTrio:
    """The cases' operations for three members of etcd."""

    change_ways: Sequence[str] = (LEADER, EACH)

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._pb = messages()
        self._open: list[Light] = []
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._failure = ""
        self._closing = False
        self._imports = 0
        self.variants: Mapping[str, Sequence[Variant]] = {
            "set-batched": (
                Variant(f"put, {LEADER}", partial(self._unary, LEADER, PUT, self._set, 1)),
                Variant(f"put, {EACH}", partial(self._unary, EACH, PUT, self._set, 1)),
                Variant(
                    f"txn of 100, {LEADER}", partial(self._unary, LEADER, TXN, self._sets, BATCH)
                ),
            ),
            "commit": tuple(
                Variant(
                    f"txn of 100, {way}",
                    partial(self._unary, way, TXN, self._commit, COMMIT_VARIABLES),
                )
                for way in (LEADER, EACH)
            ),
        }

    async def together(self) -> None:
        """Wait until all members know one leader; raises TimeoutError."""
        async with asyncio.timeout(TOGETHER_S):
            while await self._leader() is None:  # noqa: ASYNC110 - a server's word is asked for
                await asyncio.sleep(LOOK_S)
        await self.close()

    async def _leader(self) -> int | None:
        """Which of the addresses is the leader's; None while they do not agree on one."""
        said = []
        for node in range(3):
            light = await self._light(node)
            raw = await light.call(STATUS, b"")
            said.append(self._pb["StatusResponse"].FromString(raw))
        leaders = {status.leader for status in said}
        members = [status.header.member_id for status in said]
        return members.index(leaders.pop()) if len(leaders) == 1 and leaders <= {*members} else None

    async def _light(self, node: int) -> Light:
        light = await Light.open(self._addresses[node])
        self._open.append(light)
        return light

    async def _nodes(self, way: str) -> Sequence[int]:
        """To which members callers go, the first to the first."""
        leader = await self._leader()
        if leader is None:
            raise CallFailed("the members do not agree on a leader")
        return [leader] if way == LEADER else range(3)

    def remark(self) -> str:
        """Nothing: etcd answers once a majority has synced, or not at all."""
        return ""

    async def close(self) -> None:
        self._closing = True
        opened, self._open = self._open, []
        for light in opened:
            await light.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closing = False
        failure, self._failure = self._failure, ""
        if failure:
            raise CallFailed(failure)

    # -- writes ------------------------------------------------------------------------

    def _set(self, n: int) -> bytes:
        key = f"set/e{n % SETS}/A".encode()
        return raw_of(self._pb["PutRequest"](key=key, value=value("A", n).encode()))

    def _sets(self, n: int) -> bytes:
        numbers = range(n * BATCH, (n + 1) * BATCH)
        return puts_of(self._pb, [(f"set/e{k % SETS}/A", value("A", k)) for k in numbers])

    def _commit(self, n: int) -> bytes:
        keys = [(f"commit/e{n % SETS}/{name}", value(name, n)) for name in COMMIT_NAMES]
        return puts_of(self._pb, keys)

    async def _unary(
        self, way: str, method: str, message: Callable[[int], bytes], units: int, callers: int
    ) -> Sequence[Operation]:
        nodes = await self._nodes(way)
        connections = max(len(nodes), callers // CALLERS_A_CONNECTION)
        lights = [await self._light(nodes[at % len(nodes)]) for at in range(connections)]

        def operation(light: Light) -> Operation:
            async def run(n: int) -> int:
                await light.call(method, message(n))
                return units

            return run

        return [operation(lights[at % connections]) for at in range(callers)]

    # -- bulk --------------------------------------------------------------------------

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        keys = [(f"{prefix}/e{n}/{name}", value(name, n)) for n in numbers for name in NAMES]
        requests = [puts_of(self._pb, keys[at : at + BATCH]) for at in range(0, len(keys), BATCH)]
        del keys

        async def run() -> None:
            (leader,) = await self._nodes(LEADER)
            lights = [await self._light(leader) for _ in range(_IMPORT_CONNECTIONS)]
            left = iter(requests)

            async def caller(light: Light) -> None:
                for message in left:
                    await light.call(TXN, message)

            async with asyncio.TaskGroup() as group:
                for at in range(_IN_FLIGHT):
                    group.create_task(caller(lights[at % _IMPORT_CONNECTIONS]))
            self._imports += 1
            key = f"done/{prefix}/{self._imports}".encode()
            await lights[0].call(PUT, raw_of(self._pb["PutRequest"](key=key, value=b"1")))
            nodes = [await self._light(node) for node in range(3)]
            await asyncio.gather(*(self._until_seen(light, key) for light in nodes))

        return run

    async def _until_seen(self, light: Light, key: bytes) -> None:
        """Wait until a member has applied the key; each applies in the order of the log."""
        request = raw_of(self._pb["RangeRequest"](key=key, serializable=True))
        while True:
            raw = await light.call(RANGE, request)
            if self._pb["RangeResponse"].FromString(raw).kvs:
                return
            await asyncio.sleep(LOOK_S)

    async def holds(self, prefix: str) -> Sequence[int]:
        return [await self._held(await self._light(node), prefix) for node in range(3)]

    async def _held(self, light: Light, prefix: str) -> int:
        (key, end), count = below(f"{prefix}/"), 0
        while True:
            request = self._pb["RangeRequest"](
                key=key, range_end=end, limit=_PAGE, serializable=True
            )
            raw = await light.call(RANGE, raw_of(request))
            page = self._pb["RangeResponse"].FromString(raw)
            count += len(page.kvs)
            if not page.more:
                return count
            key = page.kvs[-1].key + b"\0"

    # -- changes -----------------------------------------------------------------------

    async def changes(self, way: str, saw: Callable[[int, int], None]) -> Send:
        for node in range(3):
            await self._watch(node, partial(saw, node))
        lights = [await self._light(node) for node in await self._nodes(way)]

        def send(numbers: range) -> None:
            for at, light in enumerate(lights):
                due = [n for n in numbers if n % SETS % len(lights) == at]
                for first in range(0, len(due), BATCH):
                    work = self._write(light, due[first : first + BATCH])
                    task = asyncio.get_running_loop().create_task(work)
                    self._tasks.add(task)
                    task.add_done_callback(self._written)

        return send

    async def _write(self, light: Light, numbers: Sequence[int]) -> bytes:
        """What is due together is one transaction, a single change a put."""
        keys = [(f"watch/e{n % SETS}/A", value("A", n)) for n in numbers]
        if len(keys) > 1:
            return await light.call(TXN, puts_of(self._pb, keys))
        key, text = keys[0]
        put = self._pb["PutRequest"](key=key.encode(), value=text.encode())
        return await light.call(PUT, raw_of(put))

    def _written(self, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and not self._closing and task.exception() is not None:
            self._failure = str(task.exception())

    async def _watch(self, node: int, saw: Callable[[int], None]) -> None:
        """Watch on a member; return once it says that it does."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parse: Callable[[bytes], Any] = self._pb["WatchResponse"].FromString

        def event(raw: bytes) -> None:
            message = parse(raw)
            if message.created and not begun.done():
                begun.set_result(None)
            for one in message.events:
                saw(int(one.kv.value[:12]))

        def ended() -> None:
            if not self._closing:
                self._failure = f"the watch on member {node + 1} ended"

        light = await self._light(node)
        key, end = below("watch/")
        create = self._pb["WatchCreateRequest"](key=key, range_end=end)
        stream = light.begin(WATCH, event, ended)
        light.send(stream, raw_of(self._pb["WatchRequest"](create_request=create)))
        await begun
