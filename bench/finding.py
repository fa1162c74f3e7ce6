"""What it takes to find a few differing environments among many, in bytes.

Two stores of a node's own kind hold the same 100,000 environments of one variable; then some get
a commit that one store alone has, under vectors that stay equal, as after a loss or damage. A
`Repairer` over the one asks the `RepairServer` over the other, as it would over a channel. Each
question and each answer counts with its frame as it is encoded for the channel, without what gRPC,
HTTP/2 and TCP add. The bytes *to find* are those of comparing: roots of groups, of partitions,
buckets, digests of environments. *With the commits* adds what is asked and sent to mend it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import OURS, Sample, number
from bench.payload import SEED, value
from bench.running import say
from envd.core import digest
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.hlc import HybridClock
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.node.calls import Method
from envd.node.handshake import Peer
from envd.node.intake import Intake
from envd.node.repair import Pulled, Repairer
from envd.node.repair_server import RepairServer
from envd.node.vectors import VectorFeed
from envd.ports import StoredState
from envd.security.sealing import LocalSealer
from envd.storage.store import DurableStore
from envd.system import SystemClock, SystemRng
from envd.wire import peers as wire

FINDING: Final = "finding"
ENTRIES: Final = 100_000
DIFFERENCES: Final = (1, 10, 100, 1_000)
FINDING_S: Final = 60.0
"""About how long it takes with ENTRIES."""
_ORIGIN: Final = 7
_OURS: Final = 8
_PEER: Final = Peer(_OURS, 1, b"b" * 16, "", "call", 1, b"")
_FETCHING: Final = "repair.missing"


@dataclass(slots=True)
class Traffic:
    """Bytes of questions and answers, those of comparing and those of fetching apart."""

    finding: int = 0
    fetching: int = 0
    calls: int = 0

    def count(self, method: str, question: bytes, answer: bytes) -> None:
        """One question and its answer, each with its frame."""
        self.calls += 1
        size = len(wire.encode(wire.Call(self.calls, method, question)))
        size += len(wire.encode(wire.Reply(self.calls, answer)))
        if method == _FETCHING:
            self.fetching += size
        else:
            self.finding += size


class Asking:
    """A peer's methods without the channel; each call counts in `traffic`."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self.traffic = Traffic()

    async def __call__(self, method: str, body: bytes) -> bytes:
        answer = await self._methods[method](_PEER, body)
        self.traffic.count(method, body, answer)
        return answer


class Finding:
    """Fill, differ, find; in `home`, with so many environments."""

    def __init__(self, home: Path, entries: int) -> None:
        self._home = home
        self._entries = entries
        self._key = SystemRng().token_bytes(32)
        self._sealer = LocalSealer({1: SystemRng().token_bytes(32)}, SystemRng())
        self._hlc = SystemClock().wall_ms() << COUNTER_BITS
        self._drawn = random.Random(SEED)
        self.samples: list[Sample] = []

    async def run(self) -> None:
        """Measure each number of differences that the entries allow."""
        filled = await self._open("theirs")
        await self._commit(filled, range(self._entries), _ORIGIN)
        await filled.flush()
        await filled.close()
        shutil.copytree(self._home / "theirs", self._home / "ours")
        async with AsyncExitStack() as stack:
            theirs, ours = [await self._open(name) for name in ("theirs", "ours")]
            stack.push_async_callback(theirs.close)
            stack.push_async_callback(ours.close)
            clock = SystemClock()
            intake = Intake(ours, clock, HybridClock(_OURS, ours.highest_hlc()), self._key, _OURS)
            repairer = Repairer(ours, intake, VectorFeed(ours), self._key, _OURS)
            for differing in DIFFERENCES:
                if differing <= self._entries:
                    await self._commit(theirs, self._some(differing), 0)
                    await theirs.flush()
                    # A server of its own: one keeps its tree for a moment.
                    server = RepairServer(theirs, self._key, lambda _uid, _lsn: None)
                    await self._find(repairer, Asking(server.methods()), differing)
            await ours.flush()
            if theirs.roots().whole() != ours.roots().whole():
                raise RuntimeError("the stores differ after all was repaired")

    def _open(self, name: str) -> asyncio.Future[DurableStore]:
        directory = self._home / name
        directory.mkdir(parents=True, exist_ok=True)
        opening = DurableStore.open(directory, self._sealer, self._key, _ORIGIN, SystemClock())
        return asyncio.ensure_future(opening)

    def _some(self, count: int) -> Iterable[int]:
        return self._drawn.sample(range(self._entries), count)

    async def _commit(self, store: DurableStore, numbers: Iterable[int], origin: int) -> None:
        """One commit to each environment; with origin 0 no vector tells of it."""
        last: asyncio.Future[int] | None = None
        for n in numbers:
            if not store.admits():
                await store.admit()
            last = self._append(store, n, origin)
            if n % 1_000 == 0:
                await last
        if last is not None:
            await last

    def _append(self, store: DurableStore, n: int, origin: int) -> asyncio.Future[int]:
        name = f"app/e{n}"
        head = store.head(name)
        before = head.environment if head else Environment(name)
        self._hlc += 1
        overwrites = before.overwritten_by(Kind.VARIABLE, "A") if head else ZERO
        change = Change(Kind.VARIABLE, "A", value("A", self._hlc), False, overwrites)
        stamp = Stamp(0, self._hlc, _ORIGIN)
        commit = Commit(name, stamp, (change,), time_ms=stamp.time_ms)
        after = before.apply(commit)
        partition = partition_of(name)
        seq = store.last_seq(partition, origin) + 1 if origin else 0
        record = LogRecord(partition, origin, seq, commit)
        return store.append(record, StoredState(after, digest.revision(after, self._key)))

    async def _find(self, repairer: Repairer, asking: Asking, differing: int) -> None:
        begun = time.perf_counter()
        pulled = await repairer.compare(1, asking)
        took_s = time.perf_counter() - begun
        check_pulled(pulled, differing)
        traffic = asking.traffic
        remark = f"{traffic.calls:,} calls, {took_s:.2f} s"
        for variant, size in (
            (f"to find, of {self._entries:,}", traffic.finding),
            ("with the commits", traffic.finding + traffic.fetching),
        ):
            sample = _sample(f"find-{differing}", variant, size, remark, took_s)
            self.samples.append(sample)
            say(f"  {sample.case} {variant}: {number(size)} bytes")


def check_pulled(pulled: Pulled, differing: int) -> None:
    """Raise RuntimeError unless exactly what differed was pulled."""
    if (pulled.environments, pulled.commits) != (differing, differing):
        raise RuntimeError(
            f"{differing} environments differed, {pulled.environments} were pulled "
            f"with {pulled.commits} commits"
        )


def _sample(case: str, variant: str, size: int, remark: str, took_s: float) -> Sample:
    nothing = 0.0
    return Sample(
        case=case,
        peer=OURS,
        variant=variant,
        value=size,
        unit="bytes",
        wall_s=took_s,
        server_cpu_s=nothing,
        generator_cpu_s=nothing,
        others_cpu_s=nothing,
        rss_mb=nothing,
        disk_mb=nothing,
        remark=remark,
    )
