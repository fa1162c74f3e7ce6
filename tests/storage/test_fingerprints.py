"""Fingerprints in the durable store: what is unsettled, older directories, what a restore makes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import lmdb
import pytest

from envd.core import digest
from envd.core.environment import Environment
from envd.core.errors import StorageError
from envd.core.ring import PARTITIONS, partition_of
from envd.core.stamp import Stamp
from envd.core.versions import Roots
from envd.ports import StoredState
from envd.security.sealing import LocalSealer
from envd.storage import pages
from envd.storage.check import check_state
from envd.storage.memory import MemoryStore
from envd.storage.rows import PURPOSE, RowOpener, RowWriter
from envd.storage.store import DurableStore
from envd.wire import records
from envd.wire.records import StoredEnvironment
from tests.storage.failing import StallingSealer
from tests.storage.others import at, base_of, commit_at, merged, shipped
from tests.storage.world import (
    DIGEST_KEY,
    MIB,
    STORAGE_KEY,
    CountingRng,
    Writer,
    crash_copy,
    keeping,
    open_store,
    values_of,
)

KEEPING = keeping(3)
NAMES = ("web/prod", "web/dev", "gone", "a", "trimmed")


async def fill(store: DurableStore, hlc: int = 0) -> Writer:
    """Some environments, one of them with a base."""
    writer = Writer(store)
    writer.hlc = max(writer.hlc, hlc)
    for name in NAMES:
        await writer.commit(name, {"X": name, "Y": "1"})
    for n in range(6):
        await writer.commit("trimmed", {f"K{n}": str(n)})
    await writer.commit("gone", deletes=True)
    return writer


def told(store: DurableStore) -> tuple[object, ...]:
    partitions = sorted(set(map(partition_of, NAMES)))
    return store.roots(), [store.digests(partition) for partition in partitions]


async def summed_up_in_memory(store: DurableStore) -> tuple[object, ...]:
    """What another node tells that got the same commits as they lie in the log."""
    memory = MemoryStore(KEEPING.retention, digest_key=DIGEST_KEY)
    for _, record in store.replay(0):
        await shipped(memory, record.commit)
    partitions = sorted(set(map(partition_of, NAMES)))
    return memory.roots(), [memory.digests(partition) for partition in partitions]


# -- what a flush does not cover yet ----------------------------------------------------------


async def test_partitions_are_unsettled_from_the_commit_to_the_flush(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await open_store(tmp_path, sealer)
    writer = Writer(store)
    await writer.commit("a", {"X": "1"})
    await store.flush()
    settled = store.roots()

    sealer.may_flush.clear()
    await writer.commit("b", {"X": "1"})
    committed = store.roots()
    flushed = await _beside_a_flush(store, sealer)

    assert settled.unsettled == frozenset()
    assert committed == Roots(settled.partitions, frozenset({partition_of("b")}))
    assert flushed == committed
    assert store.roots().unsettled == frozenset()
    assert store.roots().partitions[partition_of("b")] != 0
    await store.close()


async def _beside_a_flush(store: DurableStore, sealer: StallingSealer) -> Roots:
    """What the store tells while a flush is under way; then let the flush end."""
    sealer.asked.clear()
    running = asyncio.create_task(store.flush())
    await asyncio.to_thread(sealer.asked.wait)
    seen = store.roots()
    sealer.may_flush.set()
    await running
    return seen


async def test_a_flush_that_failed_leaves_the_fingerprints_as_they_were(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await open_store(tmp_path, sealer)
    writer = Writer(store)
    await writer.commit("a", {"X": "1"})
    await store.flush()
    before = store.roots()
    await writer.commit("a", {"X": "2"})

    sealer.refusal = StorageError("the state takes nothing")
    with pytest.raises(StorageError):
        await store.flush()
    failed = store.roots()
    sealer.refusal = None
    await store.flush()

    assert failed == Roots(before.partitions, frozenset({partition_of("a")}))
    assert store.roots().unsettled == frozenset()
    assert store.roots().partitions != before.partitions
    await store.close()


async def test_fingerprints_are_the_same_after_any_crash(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    store = await open_store(tmp_path / "data", options=KEEPING)
    expected = []
    for n in range(30):
        name = NAMES[n % 5]
        values = {"X": str(n), f"K{n}": "v"}
        await shipped(store, commit_at(at(n), name, values, saw=at(n - 5)))
        if n % 7 == 0:
            await merged(store, base_of(name, [commit_at(at(-n - 1), name, {"OLD": str(n)})]))
        if n % 3 == 0:
            await store.flush()
        crashed = await open_store(
            crash_copy(tmp_path / "data", tmp_path / f"left-{n}"), options=KEEPING
        )
        await crashed.flush()
        left = told(crashed)
        await crashed.close()
        await store.flush()
        expected.append((left, told(store)))
    await store.close()

    for left, whole in expected:
        assert left == whole


# -- older directories ------------------------------------------------------------------------


def sealer() -> LocalSealer:
    return LocalSealer({1: STORAGE_KEY}, CountingRng())


def make_old(data: Path) -> None:
    """Take from a closed directory what the first version did not write."""
    state = data / "state"
    fresh = LocalSealer({1: STORAGE_KEY}, _OtherRng())
    with lmdb.open(str(state), max_dbs=len(pages.TABLES), map_size=64 * MIB) as env:
        with env.begin(write=True) as transaction:
            tables = {name: env.open_db(name, txn=transaction) for name in pages.TABLES}
            opener = RowOpener(fresh, state)
            writer = RowWriter(transaction, tables, fresh.new_subkey(PURPOSE), opener)
            for key, plain in _rows(transaction, tables, opener, b"bases").items():
                stored = records.decode_environment(plain)
                first = StoredEnvironment(StoredState(stored.state.environment, b""))
                writer.put(b"bases", key, records.encode_environment(first))
            transaction.delete(b"roots_lsn", db=tables[b"system"])
        for name in set(pages.TABLES) - set(pages.FIRST_TABLES):
            with env.begin(write=True) as transaction:
                transaction.drop(tables[name], delete=True)


class _OtherRng(CountingRng):
    def __init__(self) -> None:
        super().__init__()
        self.draws = 1 << 40


def _rows(
    transaction: lmdb.Transaction,
    tables: Mapping[bytes, lmdb._Database],
    opener: RowOpener,
    table: bytes,
) -> dict[bytes, bytes]:
    with transaction.cursor(db=tables[table]) as cursor:
        rows = [(bytes(key), bytes(value)) for key, value in cursor]
    return {key: opener.open(table, key, value) for key, value in rows}


@pytest.fixture
async def filled(tmp_path: Path) -> tuple[Path, tuple[object, ...]]:
    """A closed directory, and what it told."""
    (tmp_path / "data").mkdir()
    store = await open_store(tmp_path / "data", options=KEEPING)
    await fill(store)
    await store.flush()
    before = told(store)
    assert before == await summed_up_in_memory(store)
    await store.close()
    return tmp_path / "data", before


async def test_a_directory_of_the_first_version_gets_the_same_fingerprints(
    filled: tuple[Path, tuple[object, ...]],
) -> None:
    data, before = filled
    make_old(data)
    counted = pages.walk((data / "state" / "data.mdb").read_bytes())
    check_state(data, deep=True)

    store = await open_store(data, options=KEEPING)
    at_once = told(store)
    await Writer(store, hlc=store.highest_hlc()).commit("trimmed", {"MORE": "1"})
    await store.flush()

    assert set(counted) == set(pages.FIRST_TABLES)
    assert at_once == before
    assert told(store) == await summed_up_in_memory(store)
    assert values_of(store, "trimmed")["MORE"] == "1"
    await store.close()


async def test_what_the_first_version_wrote_in_between_is_summed_up_again(
    filled: tuple[Path, tuple[object, ...]],
) -> None:
    data, before = filled
    state = data / "state"
    fresh = LocalSealer({1: STORAGE_KEY}, _OtherRng())
    with lmdb.open(str(state), max_dbs=len(pages.TABLES), map_size=64 * MIB) as env:
        tables = {name: env.open_db(name) for name in pages.TABLES}
        with env.begin(write=True) as transaction:
            opener = RowOpener(fresh, state)
            writer = RowWriter(transaction, tables, fresh.new_subkey(PURPOSE), opener)
            writer.put(b"roots", (7).to_bytes(2), bytes(15) + b"\1" + bytes(63 * 16))
            covered = int.from_bytes(writer.get(b"system", b"covered_lsn") or b"")
            writer.put(b"system", b"roots_lsn", (covered - 1).to_bytes(8))

    store = await open_store(data, options=KEEPING)

    assert told(store) == before
    await store.close()


async def test_an_old_directory_that_is_opened_twice_is_summed_up_once(
    filled: tuple[Path, tuple[object, ...]],
) -> None:
    data, before = filled
    make_old(data)
    for _ in range(2):
        store = await open_store(data, options=KEEPING)
        assert told(store) == before
        await store.close()
        size = (data / "state" / "data.mdb").stat().st_size
    store = await open_store(data, options=KEEPING)
    await store.close()

    assert (data / "state" / "data.mdb").stat().st_size == size


async def test_an_empty_store_has_empty_roots(tmp_path: Path) -> None:
    store = await open_store(tmp_path)

    assert list(store.roots().partitions) == [0] * PARTITIONS
    assert store.digests(5) == []
    await store.close()


# -- the formulas -----------------------------------------------------------------------------


def test_the_digest_of_a_base_tells_bases_apart_and_an_empty_one_from_none() -> None:
    bases = [
        Environment("a"),
        base_of("a", [commit_at(at(1), "a", {"X": "1"})]),
        base_of("a", [commit_at(at(2), "a", {"X": "1"})]),
        base_of("a", [commit_at(at(1), "a", {"X": None})]),
        Environment("a", deleted_at=Stamp(0, 1, 1)),
    ]

    digests = [digest.base_digest(base, DIGEST_KEY) for base in bases]

    assert digests[0] == bytes(16)
    assert len(set(digests)) == len(bases)
    assert all(len(each) == 16 for each in digests)


def test_the_whole_digest_covers_both_and_takes_the_key() -> None:
    one, other = b"1" * 16, b"2" * 16

    digests = {
        digest.whole_digest(one, other, DIGEST_KEY),
        digest.whole_digest(other, one, DIGEST_KEY),
        digest.whole_digest(one, one, DIGEST_KEY),
        digest.whole_digest(one, other, b"x" * 32),
    }

    assert len(digests) == 4
