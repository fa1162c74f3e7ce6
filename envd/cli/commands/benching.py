"""`envctl bench`: a short and honest look at how fast the connected node is.

Each caller is a thread of this process with a connection of its own, which makes one call after
the other. Over gRPC there are pipelined sets too: there the callers are tasks, and the client
sends what they write at the same time together. Beyond some thousand calls a second it is this
process that is the limit, not the node. Everything written is below an environment prefix of
its own and deleted at the end, also after Ctrl-C.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, Thread
from typing import Any, NamedTuple

from envd.cli import endpoint, exits
from envd.cli.commands.listing import whole_list
from envd.cli.commands.planning import counted
from envd.cli.grammar import YES, Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.world import Pipeline
from envd.client.connection import Connection
from envd.client.discovery import token_in
from envd.core.errors import EnvdError, NotFound
from envd.core.requests import DeleteRequest, Put, ReadRequest, WriteRequest

_CALLERS = (1, 16, 64)
_SECONDS = 2
_VARIABLES = 20
_BATCH = 100
_VALUE = "v" * 86
_SYNCS = 50
_SYNC_BYTES = 4096


class Case(NamedTuple):
    """What every caller does again and again; `each` is how many variables a call is about."""

    name: str
    each: int
    call: Callable[[Connection, str, int], object]


@dataclass(slots=True)
class Figures:
    """What a case took, in seconds for each call."""

    case: Case
    callers: int
    latencies_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    errors: list[EnvdError] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.elapsed_s if self.elapsed_s else 0.0

    def percentile_ms(self, percent: int) -> float:
        """The nearest-rank percentile. Example: the 50th of 1, 2, 3 and 4 is 2."""
        ordered = sorted(self.latencies_s)
        if not ordered:
            return 0.0
        return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] * 1000

    def document(self) -> dict[str, Any]:
        """The figures for programs."""
        return {
            "case": self.case.name,
            "callers": self.callers,
            "calls_per_second": round(self.rate, 1),
            "variables_per_second": round(self.rate * self.case.each, 1),
            "p50_ms": round(self.percentile_ms(50), 3),
            "p99_ms": round(self.percentile_ms(99), 3),
            "calls": len(self.latencies_s),
        }

    def row(self) -> tuple[str, ...]:
        """The figures for people."""
        shown = (f"{self.rate:,.0f}", f"{self.rate * self.case.each:,.0f}")
        spans = (f"{self.percentile_ms(50):.2f} ms", f"{self.percentile_ms(99):.2f} ms")
        return (self.case.name, str(self.callers), *shown, *spans)


def _set(connection: Connection, environment: str, number: int) -> object:
    put = Put(f"V{number % _VARIABLES}", _VALUE)
    return connection.write(WriteRequest(environment, (put,)))


def _set_many(connection: Connection, environment: str, number: int) -> object:
    puts = tuple(Put(f"V{each}", f"{number}{_VALUE}") for each in range(_BATCH))
    return connection.write(WriteRequest(environment, puts))


def _get(connection: Connection, environment: str, number: int) -> object:
    return connection.get(ReadRequest(environment, (f"V{number % _VARIABLES}",)))


_CASES = (
    Case("get one variable", 1, _get),
    Case("set one variable", 1, _set),
    Case(f"set {_BATCH} in a commit", _BATCH, _set_many),
)
_PIPELINED = Case("set, pipelined", 1, _set)


def _bench(invocation: Invocation) -> int:
    invocation.take_words(most=0)
    seconds = invocation.arguments.number("--seconds", _SECONDS)
    prefix = f"bench/{os.urandom(4).hex()}"
    status = invocation.connection.status()
    invocation.confirm(
        f"write below {prefix} for some {seconds * len(_CALLERS) * len(_CASES)} s, "
        "and delete it again?"
    )
    sync_ms = _sync_ms(invocation.connection.address, status.data_dir)
    with _environments(invocation, prefix) as environments:
        found = [
            _measured(invocation, case, environments[:callers], seconds)
            for case in _CASES
            for callers in _CALLERS
        ]
        if not invocation.connection.address.startswith("unix:"):
            found += [
                _pipelined(invocation, environments[:callers], seconds) for callers in _CALLERS
            ]
    _show(invocation, found, sync_ms)
    return exits.DONE


@contextmanager
def _environments(invocation: Invocation, prefix: str) -> Iterator[list[str]]:
    """One environment for each caller; all are deleted at the end."""
    names = [f"{prefix}/{number}" for number in range(max(_CALLERS))]
    puts = tuple(Put(f"V{number}", _VALUE) for number in range(_VARIABLES))
    try:
        for name in names:
            invocation.connection.write(WriteRequest(name, puts, message="envctl bench"))
        yield names
    finally:
        invocation.close()  # After Ctrl-C an answer may be half read.
        left = whole_list(invocation.connection, prefix)
        for each in left.environments:
            with suppress(NotFound):
                invocation.connection.delete(
                    DeleteRequest(each.environment, message="envctl bench")
                )
        if left.partial:
            invocation.screen.note(f"note: some below {prefix} may be left: {left.partial_reason}")


def _pipelined(invocation: Invocation, environments: list[str], seconds: int) -> Figures:
    import asyncio

    figures = Figures(_PIPELINED, len(environments))
    monotonic = invocation.world.monotonic
    where = endpoint.choose(invocation.arguments, invocation.world.environ)
    token = where.token or token_in(where.token_file)

    async def call_on(client: Pipeline, environment: str, end: float) -> None:
        now, number = monotonic(), 0
        while now < end:
            put = Put(f"V{number % _VARIABLES}", _VALUE)
            await client.write(WriteRequest(environment, (put,)))
            before, now = now, monotonic()
            figures.latencies_s.append(now - before)
            number += 1

    async def all_of_them() -> None:
        client = invocation.world.pipeline(invocation.connection.address, token)
        began = monotonic()
        try:
            calls = (call_on(client, name, began + seconds) for name in environments)
            await asyncio.gather(*calls)
            figures.elapsed_s = monotonic() - began
        finally:
            await client.close()

    with invocation.waiting(f"{_PIPELINED.name}, {counted(len(environments), 'caller')}"):
        asyncio.run(all_of_them())
    return figures


def _measured(invocation: Invocation, case: Case, environments: list[str], seconds: int) -> Figures:
    figures = Figures(case, len(environments))
    stop = Event()
    start = Barrier(len(environments) + 1)
    threads = [
        Thread(target=_call_on, args=(invocation, figures, name, start, stop, seconds), daemon=True)
        for name in environments
    ]
    monotonic = invocation.world.monotonic
    with invocation.waiting(f"{case.name}, {counted(len(environments), 'caller')}"):
        try:
            for thread in threads:
                thread.start()
            with suppress(BrokenBarrierError):
                start.wait()
            began = monotonic()
            for thread in threads:
                thread.join()
            figures.elapsed_s = monotonic() - began
        finally:
            stop.set()
            start.abort()
            for thread in threads:
                thread.join()
    if figures.errors:
        raise figures.errors[0]
    return figures


def _call_on(
    invocation: Invocation,
    figures: Figures,
    environment: str,
    start: Barrier,
    stop: Event,
    seconds: int,
) -> None:
    """One caller: call until the time is over."""
    monotonic = invocation.world.monotonic
    where = endpoint.choose(invocation.arguments, invocation.world.environ)
    try:
        connection = invocation.world.connect(where)
    except EnvdError as error:
        figures.errors.append(error)
        start.abort()
        return
    try:
        start.wait()
        now = monotonic()
        end, number = now + seconds, 0
        while now < end and not stop.is_set():
            figures.case.call(connection, environment, number)
            before, now = now, monotonic()
            figures.latencies_s.append(now - before)
            number += 1
    except BrokenBarrierError:
        return
    except EnvdError as error:
        figures.errors.append(error)
        stop.set()
    finally:
        connection.close()


def _sync_ms(address: str, data_dir: str) -> float | None:
    """What one small fdatasync takes beside the node's data, None where that is not here."""
    if not address.startswith("unix:"):
        return None
    spans = []
    try:
        with tempfile.TemporaryFile(dir=Path(data_dir).parent) as file:
            from time import perf_counter

            for _ in range(_SYNCS):
                file.write(bytes(_SYNC_BYTES))
                file.flush()
                began = perf_counter()
                os.fdatasync(file.fileno())
                spans.append(perf_counter() - began)
    except OSError:
        return None
    return statistics.median(spans) * 1000


def _show(invocation: Invocation, found: list[Figures], sync_ms: float | None) -> None:
    if not invocation.shows_tables():
        invocation.document({"cases": [each.document() for each in found], "fdatasync_ms": sync_ms})
        return
    header = ("CASE", "CALLERS", "CALLS/S", "VARIABLES/S", "P50", "P99")
    invocation.screen.table(header, [each.row() for each in found])
    if sync_ms is not None:
        invocation.screen.line(
            f"one fdatasync of {_SYNC_BYTES} bytes beside the data takes {sync_ms:.2f} ms;"
        )
        invocation.screen.line("a set that stands alone can't be faster than that")
    if not any(each.case is _PIPELINED for each in found):
        invocation.screen.line("pipelined sets go over gRPC: name the node as --server HOST:PORT")
    invocation.screen.line(
        "the callers are threads of one Python process, which is often the limit itself"
    )


BENCH = Command(
    usage=("[--seconds N] [--yes]",),
    about="""
    Measure gets, sets and commits of 100 variables with 1, 16 and 64 callers, for a few seconds
    each, against the node that is connected; over gRPC pipelined sets too. It says something
    about this node, this machine and this moment, and promises nothing: the callers share one
    Python process, which is often the limit itself.

    It writes below a prefix bench/... of its own, after asking, and deletes that again at the
    end, also after Ctrl-C. What was deleted stays in the history until it is trimmed.
    """,
    examples=(
        ("envctl bench", "asks, then takes some 20 seconds"),
        ("envctl bench --seconds 10 --yes -o json", "longer, for programs"),
    ),
    run=_bench,
    flags=(Flag("--seconds", f"for each line (default {_SECONDS})", "N"), YES),
)
