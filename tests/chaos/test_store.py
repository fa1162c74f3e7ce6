"""The store of a simulated node: what a disk makes of envd's store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from chaos.sim.chance import Chance
from chaos.sim.held import newest_ms
from chaos.sim.loop import Process, SimLoop
from chaos.sim.store import Platter, SimStore, damaged
from envd.core.commit import Commit, LogRecord
from envd.core.errors import Unavailable
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, Stamp
from envd.storage.memory import Durable
from envd.wire import records
from tests.storage.world import DIGEST_KEY, HOUR_MS, NODE, START_MS, Writer, values_of

NAME = "a/b"


class Disk:
    """One machine's disk, its store now, and a writer."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimLoop()
        self.platter = Platter()
        self.chance = Chance(seed)
        self.boot(Durable())

    def boot(self, durable: Durable) -> None:
        self.process = Process(self.loop, "p")
        self.store = SimStore.opened(durable, Retention(), NODE, DIGEST_KEY, 1000)
        self.store.attach(self.platter, self.chance.stream("disk"), self.process, self.loop)
        hlc = getattr(getattr(self, "writer", None), "hlc", None)
        self.writer = Writer(self.store)
        self.writer.hlc = hlc or self.writer.hlc

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await main()

        self.loop.simulate(whole())


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.loop.close()


def test_a_record_is_visible_once_its_group_is_synced(disk: Disk) -> None:
    async def main() -> None:
        durable = [disk.writer.commit(NAME, {f"K{n}": "v"}) for n in range(5)]
        await asyncio.sleep(0)
        assert values_of(disk.store, NAME) == {}
        began = disk.loop.time()
        assert [await one for one in durable] == [1, 2, 3, 4, 5]
        assert disk.loop.time() > began

    disk.run(main)

    assert len(values_of(disk.store, NAME)) == 5


def test_a_crash_keeps_what_was_synced_and_some_of_the_oldest_of_the_rest() -> None:
    kept: set[int] = set()
    for seed in range(40):
        disk = Disk(seed)

        async def main(disk: Disk = disk) -> None:
            await disk.writer.commit(NAME, {"K0": "v"})
            for n in range(1, 5):
                disk.writer.commit(NAME, {f"K{n}": "v"})
            await asyncio.sleep(0)
            durable = disk.store.lose_power()
            disk.process.kill()
            disk.boot(durable)

        disk.run(main)
        disk.loop.close()
        names = sorted(values_of(disk.store, NAME))
        assert names == [f"K{n}" for n in range(len(names))]
        kept.add(len(names))

    assert kept == {1, 2, 3, 4, 5}


def test_a_full_disk_refuses_and_the_heads_go_back(disk: Disk) -> None:
    async def main() -> None:
        await disk.writer.commit(NAME, {"X": "old"}, operation="first")
        disk.platter.full = True
        refused = disk.writer.commit(NAME, {"X": "new"}, operation="second")
        with pytest.raises(Unavailable):
            await refused
        with pytest.raises(Unavailable):
            await disk.store.flush()
        assert disk.store.find_operation("ann", "first") is not None
        assert disk.store.find_operation("ann", "second") is None
        disk.platter.full = False
        assert await disk.writer.commit(NAME, {"Y": "later"}) == 2

    disk.run(main)

    assert values_of(disk.store, NAME) == {"X": "old", "Y": "later"}
    assert disk.store.last_seq(partition_of(NAME), NODE) == 2


def test_roots_and_digests_are_those_of_the_last_flush(disk: Disk) -> None:
    partition = partition_of(NAME)

    async def main() -> None:
        await disk.writer.commit(NAME, {"X": "1"})
        assert disk.store.digests(partition) == []
        assert disk.store.roots().unsettled == {partition}
        await disk.store.flush()
        first = disk.store.roots()
        assert first.unsettled == frozenset()
        assert first.partitions[partition]
        await disk.writer.commit(NAME, {"X": "2"})
        assert disk.store.roots().partitions == first.partitions
        assert disk.store.roots().unsettled == {partition}

    disk.run(main)


def test_a_drop_is_there_after_a_crash_or_not_at_all() -> None:
    partition, outcomes = partition_of(NAME), set()
    for seed in range(40):
        disk = Disk(seed)

        async def main(disk: Disk = disk, seed: int = seed) -> None:
            for name in (NAME, "b"):
                await disk.writer.commit(name, {"X": "1"})
            await disk.store.flush()
            before = (disk.store.roots(), disk.store.digests(partition))
            dropping = asyncio.ensure_future(disk.store.drop(partition, 2, NODE))
            await asyncio.sleep(seed * 0.002)
            done = dropping.done()
            if done:
                assert dropping.result()
                assert disk.store.digests(partition) == []
                assert disk.store.roots().partitions[partition] == 0
            else:
                assert (disk.store.roots(), disk.store.digests(partition)) == before
            durable = disk.store.lose_power()
            disk.process.kill()
            dropping.cancel()
            disk.boot(durable)
            assert values_of(disk.store, NAME) == ({} if done else {"X": "1"})
            outcomes.add(done)

        disk.run(main)
        disk.loop.close()
        assert values_of(disk.store, "b") == {"X": "1"}
        assert disk.store.last_seq(partition, NODE) == 1

    assert outcomes == {False, True}


def test_a_commit_of_while_it_is_flushed_keeps_a_partition(disk: Disk) -> None:
    async def main() -> None:
        await disk.writer.commit(NAME, {"X": "1"})
        dropping = asyncio.ensure_future(disk.store.drop(partition_of(NAME), 1, NODE))
        await asyncio.sleep(0)
        await disk.writer.commit(NAME, {"Y": "1"})
        assert not await dropping
        assert values_of(disk.store, NAME) == {"X": "1", "Y": "1"}
        assert await disk.store.drop(partition_of(NAME), 2, NODE)

    disk.run(main)

    assert values_of(disk.store, NAME) == {}


def test_a_full_disk_drops_nothing(disk: Disk) -> None:
    async def main() -> None:
        await disk.writer.commit(NAME, {"X": "1"})
        disk.platter.full = True
        with pytest.raises(Unavailable):
            await disk.store.drop(partition_of(NAME), 1, NODE)

    disk.run(main)

    assert values_of(disk.store, NAME) == {"X": "1"}


def test_damage_takes_the_last_records_but_none_that_a_flush_covered(disk: Disk) -> None:
    async def main() -> None:
        for _ in range(3):
            await disk.writer.commit(NAME, {"X": "1"})
        await disk.store.flush()
        for _ in range(3):
            await disk.writer.commit(NAME, {"X": "1"})

    disk.run(main)
    durable, synced_at = disk.store.durable(), disk.store.synced_at

    some, since_s = damaged(durable, synced_at, 2)
    all_of_them, _ = damaged(durable, synced_at, 100)

    assert (len(some.rows), since_s) == (4, synced_at[4])
    assert len(all_of_them.rows) == 3


def test_a_disk_that_lies_loses_its_last_second(disk: Disk) -> None:
    async def main() -> None:
        await disk.writer.commit(NAME, {"X": "1"})
        await asyncio.sleep(5)
        await disk.writer.commit(NAME, {"Y": "1"})

    disk.run(main)

    assert len(disk.store.lose_power(1.0).rows) == 1


def test_what_is_in_quarantine_is_held_and_the_newest_of_it_counts(disk: Disk) -> None:
    stamp = Stamp(0, (START_MS + HOUR_MS) << COUNTER_BITS, 8)
    commit = Commit(NAME, stamp, ())
    record = LogRecord(partition_of(NAME), 8, 1, commit)

    async def main() -> None:
        await disk.writer.commit(NAME, {"A": "1"})
        before = (newest_ms(disk.store), disk.store.held())
        row = records.encode_log_record(record, records.encode_commit(commit))

        await disk.store.quarantine(row)

        assert before[0] < START_MS + HOUR_MS == newest_ms(disk.store)
        assert disk.store.held().commits[NAME] == before[1].commits[NAME] | {stamp}
        assert not before[1].has(disk.store.held())

    disk.run(main)


def test_a_slow_disk_takes_long(disk: Disk) -> None:
    disk.platter.slow = True
    took: list[float] = []

    async def main() -> None:
        began = disk.loop.time()
        for _ in range(20):
            await disk.writer.commit(NAME, {"X": "1"})
        took.append(disk.loop.time() - began)

    disk.run(main)

    assert took[0] > 0.5
