"""Redis through RESP 2: an environment is a hash. Commands of one connection go out at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

from bench.compiled import RedisBenchmark
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

Reply: TypeAlias = "int | bytes | list[Reply] | None"
_IN_FLIGHT: Final = 64


def command(*words: str) -> bytes:
    """One command, as RESP writes it: ("GET", "a") is *2, $3 GET, $1 a."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


async def reply(reader: asyncio.StreamReader) -> Reply:
    """The next reply; raises RuntimeError for an error and EOFError at the end."""
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest
        case b":":
            return int(rest)
        case b"$":
            size = int(rest)
            return None if size < 0 else (await reader.readexactly(size + 2))[:-2]
        case b"*":
            return [await reply(reader) for _ in range(int(rest))]
        case _:
            raise RuntimeError(line.decode("utf-8", "replace"))


class Connection:
    """One connection; many callers may have commands under way on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._task = asyncio.ensure_future(self._read())

    def send(self, raw: bytes) -> asyncio.Future[Reply]:
        """Send one command; the future is its reply."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._writer.write(raw)
        return future

    async def _read(self) -> None:
        while True:
            try:
                answer = await reply(self._reader)
            except RuntimeError as error:
                self._waiting.popleft().set_exception(error)
            except EOFError as error:
                for future in self._waiting:
                    future.set_exception(error)
                return
            else:
                self._waiting.popleft().set_result(answer)

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._task, return_exceptions=True)


class RedisClient:
    """The cases' operations for one Redis."""

    lacks: Mapping[str, str] = {
        "read-live-1": "it has no mapping that a watch keeps current",
        "propagation": "what it publishes is not tied to what it keeps",
    }

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[Connection] = []
        get = RedisBenchmark(port, _get_words(0), lambda: self.stats("hget"))
        put = RedisBenchmark(port, _set_words(0), lambda: self.stats("hset"))
        self.variants: Mapping[str, Sequence[Variant]] = {
            "set": (Variant("HSET", lambda count: self._each(count, _set, 1), put),),
            "set-batched": (
                Variant("HSET, one connection", lambda count: self._shared(count, _set, 1)),
            ),
            "get": (Variant("HGET", lambda count: self._each(count, _get, 1), get),),
            "commit": (
                Variant("HSET of 100", lambda count: self._each(count, _commit, len(COMMIT_NAMES))),
            ),
            "read": (Variant("HGETALL", lambda count: self._each(count, _read, VARIABLES)),),
            "read-batched": (Variant("100 HGETALL pipelined", self._batched_reads),),
        }

    async def answers(self) -> None:
        connection = await self._connect()
        try:
            await connection.send(command("PING"))
        except RuntimeError as error:
            if str(error).startswith("-LOADING"):
                raise NotReady from error
            raise
        found = await connection.send(command("CONFIG", "GET", "append*"))
        assert isinstance(found, list)
        settings = dict(zip(found[::2], found[1::2], strict=True))
        if (settings[b"appendonly"], settings[b"appendfsync"]) != (b"yes", b"always"):
            raise RuntimeError("redis-server does not sync what it answers for")

    async def flush_lag_s(self) -> float | None:
        return None

    async def stats(self, name: str) -> str:
        """The line of one command in INFO commandstats; "" where it was never called."""
        answer = await (await self._connect()).send(command("INFO", "commandstats"))
        assert isinstance(answer, bytes)
        start = f"cmdstat_{name}:"
        return next((line for line in answer.decode().split() if line.startswith(start)), "")

    async def close(self) -> None:
        for connection in self._open:
            await connection.close()
        self._open.clear()

    async def _connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self._port))
        self._open.append(connection)
        return connection

    async def _each(
        self, callers: int, message: Callable[[int], bytes], units: int
    ) -> Sequence[Operation]:
        return [_operation(await self._connect(), message, units) for _ in range(callers)]

    async def _shared(
        self, callers: int, message: Callable[[int], bytes], units: int
    ) -> Sequence[Operation]:
        return [_operation(await self._connect(), message, units)] * callers

    async def _batched_reads(self, callers: int) -> Sequence[Operation]:
        def operation(connection: Connection) -> Operation:
            async def run(n: int) -> int:
                numbers = range(n * BATCH, (n + 1) * BATCH)
                await asyncio.gather(*[connection.send(_read(k)) for k in numbers])
                return BATCH * VARIABLES

            return run

        return [operation(await self._connect()) for _ in range(callers)]

    def random_sets(self, prefix: str, environments: int) -> Variant:
        draw = drawn(environments)

        def message(n: int) -> bytes:
            name = NAMES[n % VARIABLES]
            return command("HSET", f"{prefix}/e{draw()}", name, value(name, n))

        return Variant("HSET, one connection", lambda count: self._shared(count, message, 1))

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        messages = [_environment(f"{prefix}/e{n}", NAMES, n) for n in numbers]

        async def run() -> None:
            connection = await self._connect()
            for at in range(0, len(messages), _IN_FLIGHT):
                batch = messages[at : at + _IN_FLIGHT]
                await asyncio.gather(*map(connection.send, batch))

        return run

    async def export(self, prefix: str) -> int:
        connection = await self._connect()
        cursor, count = "0", 0
        while True:
            scan = command("SCAN", cursor, "MATCH", f"{prefix}/*", "COUNT", "1000")
            answer = await connection.send(scan)
            assert isinstance(answer, list)
            at, keys = answer
            assert isinstance(at, bytes)
            assert isinstance(keys, list)
            names = [key.decode() for key in keys if isinstance(key, bytes)]
            hashes = await asyncio.gather(
                *[connection.send(command("HGETALL", name)) for name in names]
            )
            count += sum(len(one) // 2 for one in hashes if isinstance(one, list))
            cursor = at.decode()
            if cursor == "0":
                return count

    async def propagation(self, count: int) -> Sequence[float]:
        return ()


def _operation(connection: Connection, message: Callable[[int], bytes], units: int) -> Operation:
    async def run(n: int) -> int:
        await connection.send(message(n))
        return units

    return run


def _environment(key: str, names: Sequence[str], n: int) -> bytes:
    words = ["HSET", key]
    for name in names:
        words += (name, value(name, n))
    return command(*words)


def _set_words(n: int) -> Sequence[str]:
    return "HSET", f"set/e{n % SETS}", "A", value("A", n)


def _set(n: int) -> bytes:
    return command(*_set_words(n))


def _get_words(n: int) -> Sequence[str]:
    return "HGET", f"load/e{n % LOADED}", NAMES[7]


def _get(n: int) -> bytes:
    return command(*_get_words(n))


def _commit(n: int) -> bytes:
    return _environment(f"commit/e{n % SETS}", COMMIT_NAMES, n)


def _read(n: int) -> bytes:
    return command("HGETALL", f"load/e{n % LOADED}")
