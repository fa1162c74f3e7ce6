"""Collecting in the durable store: in many transactions, stopped, killed, while writes come."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from envd.core import digest
from envd.core.commit import Kind, LogRecord
from envd.core.environment import Environment
from envd.core.errors import StorageError, Unavailable
from envd.core.floor import Removed, Tombstone
from envd.core.ring import partition_of
from envd.core.versions import share, shifted
from envd.ports import Forgotten
from envd.storage.collectable import COLLECTABLE_LSN
from envd.storage.disk import make_directory
from envd.storage.memtable import Memtable, Pending
from envd.storage.store import DurableStore
from envd.wire import records
from tests.storage.failing import StallingSealer
from tests.storage.others import PEER, at, commit_at, merged, shipped, state_of
from tests.storage.test_drop import StoppingSealer
from tests.storage.test_floor_contract import ALL, DAY, LATE, OF_P, P, death, hlc, life
from tests.storage.world import (
    DIGEST_KEY,
    MIB,
    WitnessSealer,
    crash_copy,
    keeping,
    open_store,
    values_of,
)

KEEPING = keeping(3, 1)
FEW_ROWS = replace(KEEPING, collected_rows=2)
LIVING, *DEAD = OF_P


async def filled(directory: Path, sealer: WitnessSealer) -> DurableStore:
    """In P an environment with a tombstone to collect, others that were deleted; neighbours."""
    make_directory(directory)
    store = await open_store(directory, sealer, options=FEW_ROWS)
    for name in ALL:
        for commit in death(name) if name in DEAD else life(name):
            await shipped(store, commit)
    await store.flush()
    await store.raise_floor(hlc(LATE))
    return store


def digest_of(store: DurableStore, name: str) -> bytes:
    """The digest of an environment, from what is told of it."""
    state = store.visible(name)
    assert state is not None
    hashes = [digest.commit_hash(row, DIGEST_KEY) for _, row in store.commit_rows(name)]
    own = digest.state_digest(
        state.environment, state.revision, digest.history_sum(hashes), DIGEST_KEY
    )
    return digest.whole_digest(own, digest.base_digest(store.base(name), DIGEST_KEY), DIGEST_KEY)


def assert_whole(store: DurableStore) -> None:
    """Hold that each state is its base and history, and that the fingerprints are those of them."""
    for partition in sorted(set(map(partition_of, ALL))):
        made = [(name, digest_of(store, name)) for name in sorted(ALL) if store.visible(name)]
        found = [each for each in made if partition_of(each[0]) == partition]
        assert store.digests(partition) == found
        root = 0
        for name, known in found:
            root = shifted(root, 0, share(name, known, DIGEST_KEY))
        assert store.roots().partitions[partition] == root
    for name in ALL:
        state = store.visible(name)
        commits = [records.decode_commit(row) for _, row in store.commit_rows(name)]
        whole = reduce(Environment.apply, commits, store.base(name))
        assert whole == (state.environment if state else Environment(name))
    assert values_of(store, LIVING)["KEPT"] == "5"


def is_collected(store: DurableStore) -> bool:
    state = store.visible(LIVING)
    assert state is not None
    gone = all(store.visible(name) is None for name in DEAD)
    return gone and "X" not in state.environment.variables


async def test_at_whichever_transaction_it_stops_all_is_whole_and_it_goes_on(
    tmp_path: Path,
) -> None:
    stops = 0
    for allowed in range(30):
        sealer = StoppingSealer()
        store = await filled(tmp_path / f"data-{allowed}", sealer)
        sealer.left = allowed
        stopped = False
        try:
            await store.collect(P)
        except StorageError:
            stopped = True
        sealer.left = None
        left = await open_store(
            crash_copy(tmp_path / f"data-{allowed}", tmp_path / f"left-{allowed}"),
            options=FEW_ROWS,
        )
        for each in (store, left):
            assert_whole(each)
            assert is_collected(each) is not stopped
            await each.collect(P)
            assert_whole(each)
            assert is_collected(each)
            await each.close()
        stops += stopped
        if not stopped:
            break

    assert 2 < stops < 29


async def test_a_write_that_comes_meanwhile_is_built_upon_what_is_left(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer)
    sealer.may_flush.clear()
    sealer.asked.clear()
    running = asyncio.create_task(store.collect(P))
    await asyncio.to_thread(sealer.asked.wait, 30)

    durable = [shipped(store, commit_at(at(LATE + n), LIVING, {"Z": str(n)})) for n in (1, 2)]
    await durable[0]
    durable.append(shipped(store, commit_at(at(LATE + 3), DEAD[0], {"NEW": "n"})))
    sealer.may_flush.set()
    await running
    await asyncio.gather(*durable[1:])

    assert "X" not in store.visible(LIVING).environment.variables  # type: ignore[union-attr]
    assert store.head(LIVING) == store.visible(LIVING)
    assert values_of(store, LIVING) == {"KEPT": "5", "Z": "2"}
    assert values_of(store, DEAD[0]) == {"NEW": "n"}
    await store.flush()
    assert_whole(store)
    left = await open_store(crash_copy(tmp_path / "data", tmp_path / "left"), options=FEW_ROWS)
    assert_whole(left)
    assert left.visible(LIVING) == store.visible(LIVING)
    await left.close()
    await store.close()


async def test_where_it_can_not_be_written_nothing_was_done(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer)
    sealer.refusal = StorageError("the state takes nothing")

    with pytest.raises(StorageError):
        await store.collect(P)
    with pytest.raises(StorageError):
        await store.raise_floor(hlc(2 * LATE))

    assert store.floor() == hlc(LATE)
    assert not is_collected(store)
    assert_whole(store)
    sealer.refusal = None
    await store.collect(P)
    assert is_collected(store)
    await store.close()


async def test_a_caller_who_goes_away_leaves_nothing_half_done(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer)
    sealer.may_flush.clear()
    sealer.asked.clear()
    running = asyncio.create_task(store.collect(P))
    await asyncio.to_thread(sealer.asked.wait, 30)

    running.cancel()
    sealer.may_flush.set()
    with suppress(asyncio.CancelledError):
        await running

    assert_whole(store)
    await store.collect(P)
    assert is_collected(store)
    assert_whole(store)
    await store.close()


async def test_a_state_of_an_earlier_version_is_looked_at_whole(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data", WitnessSealer())
    with store._state._tables.write() as writer:
        writer.delete(b"system", COLLECTABLE_LSN)
        with writer.cursor(b"collectable") as cursor:
            more = cursor.first()
            while more:
                cursor.delete()
                more = bool(cursor.key())
    store._state.refresh()
    assert await store.collect(P) == Forgotten()
    await store.close()

    again = await open_store(tmp_path / "data", options=FEW_ROWS)
    done = await again.collect(P)

    assert (done.tombstones, done.environments) == (1 + len(DEAD), len(DEAD))
    assert is_collected(again)
    assert_whole(again)
    await again.close()


async def test_what_has_nothing_to_collect_is_not_even_opened(tmp_path: Path) -> None:
    sealer = StoppingSealer()
    store = await filled(tmp_path / "data", sealer)
    await store.collect(P)
    sealer.left = 0

    assert await store.collect(P) == Forgotten()
    await store.collect(P ^ 2)

    sealer.left = None
    await store.close()


async def test_a_dropped_partition_has_nothing_to_collect(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data", WitnessSealer())
    assert await store.drop(P, store.last_lsn(), 0)

    assert await store.collect(P) == Forgotten()
    await store.close()


async def test_a_store_that_closes_collects_nothing_more(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data", WitnessSealer())
    await store.close()

    with pytest.raises(Unavailable):
        await store.raise_floor(hlc(2 * LATE))


async def test_a_base_that_hides_what_is_retained_is_looked_at_again_once_it_is_trimmed(
    tmp_path: Path,
) -> None:
    make_directory(tmp_path / "data")
    store = await open_store(tmp_path / "data", options=keeping(1, 1))
    await shipped(store, commit_at(at(1), "a", {"X": "1", "Y": "y"}))
    await merged(store, Environment("a").apply(commit_at(at(2), "a", {"X": None})))
    await store.raise_floor(hlc(5))
    assert await store.collect(P) == Forgotten()

    await shipped(store, commit_at(at(5 * DAY), "a", {"Y": "z"}))
    await store.flush()
    await store.raise_floor(hlc(6))

    assert (await store.collect(P)).tombstones == 1
    assert values_of(store, "a") == {"Y": "z"}
    await store.close()


async def test_of_a_write_on_its_way_what_went_is_taken_out_once_it_is_durable() -> None:
    memtable = Memtable(MIB)
    set_it, unset = commit_at(at(1), "a", {"X": "1"}), commit_at(at(2), "a", {"X": None})
    before = state_of(Environment("a").apply(set_it).apply(unset))
    memtable.load("a", before)
    later = commit_at(at(3), "a", {"Y": "y"})
    after = state_of(before.environment.apply(later))
    pending = Pending(LogRecord(P, PEER, 1, later), after, b"encoded", None, contested=False)
    memtable.append(pending)

    removed = Removed((Tombstone(Kind.VARIABLE, "X", at(2)),))
    assert memtable.unsettled(P) == {"a"}
    memtable.collected({"a": removed})
    head = memtable.head("a")
    memtable.synced(pending)

    assert head == memtable.visible("a") == pending.after
    assert set(pending.after.environment.variables) == {"Y"}
    assert pending.after.revision == after.revision
