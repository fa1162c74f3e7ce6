"""Load from compiled generators, where one in Python would measure itself: the plain rows.

h2load sends one prebuilt gRPC request over and over from so many connections, one at a time on
each, for envd and etcd alike; redis-benchmark does the same for Redis. Neither can change the
request from one to the next, so these rows are of one key.

h2load looks at the HTTP status alone, and gRPC says its errors after that. An error has no
message, though, so the bytes of the answers tell: `check` refuses a run in which they are fewer
than a good answer for each request that h2load counts. Of writes the server's own count is
compared as well. Redis counts its calls and those that failed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.processes import die_with_parent

WARM_UP_S: Final = 0.3
GRACE_S: Final = 30.0
H2LOAD: Final = "h2load"
REDIS_BENCHMARK: Final = "redis-benchmark"
PACKAGES: Final = {H2LOAD: "nghttp2-client", REDIS_BENCHMARK: "redis-tools"}
_RATE: Final = re.compile(r"^finished in \S+, ([\d.]+) req/s", re.MULTILINE)
_REQUESTS: Final = re.compile(
    r"^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, "
    r"(\d+) failed, (\d+) errored, (\d+) timeout",
    re.MULTILINE,
)
_CODES: Final = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_DATA: Final = re.compile(r"\(space savings [^)]*\), \S+ \((\d+)\) data", re.MULTILINE)
_CALLS: Final = re.compile(r"calls=(\d+).*?rejected_calls=(\d+),failed_calls=(\d+)")


class WrongAnswers(Exception):
    """A generator counted requests that the server did not do."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a generator says of a run: answers by its own count, and the bytes of their data."""

    rate: float
    done: int
    data_bytes: int = 0


class Compiled(Protocol):
    """A compiled generator with one request: `begin`, `run`, `check`, in this order."""

    generator: str

    async def begin(self, callers: int) -> None:
        """Prepare the request, and warm the server up with it."""
        ...

    async def run(self, callers: int, seconds: float) -> Tally:
        """Send it from so many connections for so long."""
        ...

    async def check(self, tally: Tally) -> None:
        """Raise WrongAnswers unless the server did all that the tally counts."""
        ...


def missing(peers: Sequence[str]) -> dict[str, str]:
    """The generators that these peers need and the machine lacks, and how to get each."""
    wanted = [H2LOAD, *([REDIS_BENCHMARK] if "redis-always" in peers else [])]
    return {
        name: f"not installed; apt-get install {PACKAGES[name]}"
        for name in wanted
        if shutil.which(name) is None
    }


# -- gRPC ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    """One unary call as bytes.

    `least_answer` is how many bytes a good answer has at the least, without its frame. `written`
    counts the writes that the server made so far, None for a request that writes nothing.
    """

    method: str
    message: bytes
    metadata: Sequence[tuple[str, str]]
    least_answer: int
    written: Callable[[], Awaitable[int]] | None = None


class H2load:
    """h2load with one gRPC request."""

    generator = "h2load, one key"

    def __init__(self, address: str, build: Callable[[], Awaitable[GrpcRequest]]) -> None:
        self._address = address
        self._build = build
        self._request: GrpcRequest | None = None
        self._before = 0

    async def begin(self, callers: int) -> None:
        self._request = await self._build()
        await self.run(callers, WARM_UP_S)
        if self._request.written is not None:
            self._before = await self._request.written()

    async def run(self, callers: int, seconds: float) -> Tally:
        assert self._request is not None
        with tempfile.TemporaryDirectory(prefix="envd-bench-h2load-") as scratch:
            body = Path(scratch) / "request"
            body.write_bytes(framed(self._request.message))
            return h2load_tally(await _output(self._command(body, callers, seconds), seconds))

    def _command(self, body: Path, callers: int, seconds: float) -> Sequence[str]:
        """The words of the command; the token in them is that of a server for this run alone."""
        assert self._request is not None
        headers = [("content-type", "application/grpc"), ("te", "trailers")]
        given = [f"{name}: {text}" for name, text in (*headers, *self._request.metadata)]
        command = [H2LOAD, "--clients", str(callers), "--max-concurrent-streams", "1"]
        command += ["--duration", f"{seconds * 1000:.0f}ms", "--data", str(body)]
        for header in given:
            command += ["--header", header]
        return [*command, f"http://{self._address}{self._request.method}"]

    async def check(self, tally: Tally) -> None:
        assert self._request is not None
        refuse_short(tally, self._request.least_answer)
        if self._request.written is not None:
            written = await self._request.written() - self._before
            if written < tally.done:
                raise WrongAnswers(f"{tally.done} writes by h2load's count, {written} arrived")


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length in four bytes, itself."""
    return struct.pack(">BI", 0, len(message)) + message


def h2load_tally(output: str) -> Tally:
    """What h2load printed. Raises WrongAnswers where not every answer was a 2xx."""
    rate, requests = _RATE.search(output), _REQUESTS.search(output)
    codes, data = _CODES.search(output), _DATA.search(output)
    if rate is None or requests is None or codes is None or data is None:
        raise WrongAnswers("h2load printed no summary")
    done, succeeded, *wrong = map(int, requests.groups())
    if any(wrong) or succeeded != done or int(codes[1]) != done or not done:
        raise WrongAnswers(f"h2load: {requests[0]}; {codes[0]}")
    return Tally(float(rate[1]), done, int(data[1]))


def refuse_short(tally: Tally, least_answer: int) -> None:
    """Raise WrongAnswers where some answers had no message, which is how gRPC says an error."""
    least = tally.done * len(framed(bytes(least_answer)))
    if tally.data_bytes < least:
        raise WrongAnswers(
            f"{tally.done} answers have {tally.data_bytes} bytes, good ones {least} or more"
        )


# -- Redis -----------------------------------------------------------------------------


class RedisBenchmark:
    """redis-benchmark with one command; `stats` reads the server's line about that command."""

    generator = "redis-benchmark, one key"

    def __init__(
        self, port: int, words: Sequence[str], stats: Callable[[], Awaitable[str]]
    ) -> None:
        self._port = port
        self._words = words
        self._stats = stats
        self._rate = 0.0
        self._before = (0, 0)

    async def begin(self, callers: int) -> None:
        """Warm up, and learn the rate: redis-benchmark runs for a count, not for a time."""
        self._rate = (await self._run(callers, 2_000 + 10 * callers, WARM_UP_S)).rate
        self._before = redis_calls(await self._stats())

    async def run(self, callers: int, seconds: float) -> Tally:
        return await self._run(callers, max(callers, int(self._rate * seconds)), seconds)

    async def _run(self, callers: int, count: int, seconds: float) -> Tally:
        command = [REDIS_BENCHMARK, "-p", str(self._port), "-c", str(callers), "-n", str(count)]
        return redis_tally(await _output([*command, "--csv", *self._words], seconds), count)

    async def check(self, tally: Tally) -> None:
        calls, wrong = redis_calls(await self._stats())
        calls, wrong = calls - self._before[0], wrong - self._before[1]
        if calls < tally.done or wrong:
            raise WrongAnswers(f"{tally.done} calls sent, {calls} done of which {wrong} failed")


def redis_tally(output: str, count: int) -> Tally:
    """What redis-benchmark printed as CSV: a head, then the command and its calls a second."""
    lines = output.strip().splitlines()
    if len(lines) < 2 or not lines[0].startswith('"test","rps"'):
        raise WrongAnswers("redis-benchmark printed no summary")
    return Tally(float(re.split(r'","', lines[-1])[1]), count)


def redis_calls(stats: str) -> tuple[int, int]:
    """Calls of a command so far and how many failed, of its line in INFO commandstats."""
    found = _CALLS.search(stats)
    return (0, 0) if found is None else (int(found[1]), int(found[2]) + int(found[3]))


# -- processes -------------------------------------------------------------------------


async def _output(command: Sequence[str], seconds: float) -> str:
    """Run a generator to its end; it is killed where it takes far longer than it should."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    try:
        async with asyncio.timeout(10 * seconds + GRACE_S):
            said, wrong = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise WrongAnswers(f"{command[0]} failed: {wrong.decode(errors='replace').strip()[:200]}")
    return said.decode(errors="replace")
