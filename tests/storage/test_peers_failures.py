"""What peers sent, where the disk fails, the state takes nothing, or the node is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from envd.core.errors import EnvdError, NotFound, OutcomeUnknown, StorageError
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.versions import Cursor
from envd.storage.memory import Durable, MemoryStore
from envd.storage.store import DurableStore
from tests.storage.failing import FailingDisk, StallingSealer, outcomes
from tests.storage.others import PEER, at, base_of, commit_at, merged, repaired, shipped
from tests.storage.world import (
    DIGEST_KEY,
    KIB,
    NODE,
    OPTIONS,
    Writer,
    crash_copy,
    open_store,
    values_of,
)

P = partition_of("a")
BASE = base_of("a", [commit_at(at(1), "a", {"OLD": "1"})])
BIG = "v" * (40 * KIB)  # One fits a segment, two don't.


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def sealer() -> StallingSealer:
    return StallingSealer()


@pytest.fixture
async def store(
    tmp_path: Path, disk: FailingDisk, sealer: StallingSealer
) -> AsyncIterator[DurableStore]:
    opened = await open_store(tmp_path / "data", sealer, disk=disk)
    yield opened
    sealer.may_flush.set()
    sealer.refusal = None
    with suppress(EnvdError):
        await opened.close()


@pytest.fixture(autouse=True)
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


async def killed(directory: Path, left: str) -> DurableStore:
    return await open_store(crash_copy(directory, directory.parent / left))


# -- the disk ---------------------------------------------------------------------------------


async def test_a_full_disk_takes_back_records_and_bases_and_keeps_what_peers_told(
    store: DurableStore, disk: FailingDisk
) -> None:
    await shipped(store, commit_at(at(1), "a", {"X": BIG}))
    disk.full = True

    stacked = [
        shipped(store, commit_at(at(2), "a", {"X": BIG})),
        merged(store, BASE),
        repaired(store, commit_at(at(3), "b", {"X": "1"})),
    ]
    store.advance({(P, 8): 5}, {8: Cursor(4, 0)})
    refusals = await outcomes(stacked)
    disk.full = False
    seqs = [store.last_seq(P, origin) for origin in (PEER, 8)]
    head, other = store.head("a"), store.head("b")
    await shipped(store, commit_at(at(2), "a", {"Y": "2"}))

    assert [getattr(refusal, "reason", None) for refusal in refusals] == ["DISK_FULL"] * 3
    assert seqs == [1, 5]
    assert other is None
    assert head is not None
    assert head.environment.variables.keys() == {"X"}
    assert values_of(store, "a") == {"X": BIG, "Y": "2"}
    assert store.base("a").variables == {}
    assert dict(store.vectors()) == {(P, PEER): 2, (P, 8): 5}
    assert store.cursor(8) == Cursor(4, 0)
    assert store.last_lsn() == 2


async def test_a_disk_that_fails_leaves_vectors_at_what_is_durable(
    store: DurableStore, disk: FailingDisk
) -> None:
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    disk.unsynced = True

    unknown = await outcomes([shipped(store, commit_at(at(2), "a", {"X": "2"}))])

    assert isinstance(unknown[0], OutcomeUnknown)
    assert dict(store.vectors()) == {(P, PEER): 1}


# -- flushes ----------------------------------------------------------------------------------


async def test_what_peers_told_is_flushed_though_nobody_commits(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "flushing").mkdir()
    sealer = StallingSealer()
    options = replace(OPTIONS, flush_interval_ms=0)
    store = await open_store(tmp_path / "flushing", sealer, options=options)
    tellings: tuple[Callable[[], None], ...] = (
        lambda: store.advance({}, {7: Cursor(1, 1)}),
        lambda: store.advance({(P, PEER): 3}, {}),
        lambda: store.forget_origin(PEER),
    )
    for tell in tellings:
        sealer.asked.clear()
        tell()
        assert await asyncio.to_thread(sealer.asked.wait, 30)
    await store.flush()

    left = await killed(tmp_path / "flushing", "left")

    assert left.cursor(7) == Cursor(1, 0)
    assert dict(left.vectors()) == {}
    await left.close()
    await store.close()


async def test_a_flush_that_failed_keeps_what_peers_told_for_the_next(
    store: DurableStore, sealer: StallingSealer, directory: Path
) -> None:
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    await merged(store, BASE)
    store.advance({(P, 8): 5}, {8: Cursor(4, 0)})
    sealer.refusal = StorageError("the state takes nothing")
    with pytest.raises(StorageError):
        await store.flush()
    store.advance({(P, 8): 6}, {})
    sealer.refusal = None
    await store.flush()

    left = await killed(directory, "left")

    assert dict(left.vectors()) == {(P, PEER): 1, (P, 8): 6}
    assert left.cursor(8) == Cursor(4, 0)
    assert left.base("a") == BASE
    await left.close()


async def test_memory_is_given_back_once_bases_are_flushed(store: DurableStore) -> None:
    await merged(store, BASE)
    await shipped(store, commit_at(at(5), "a", {"X": "1"}))
    held = store.unflushed_bytes()

    await store.flush()

    assert held > 0
    assert store.unflushed_bytes() == 0


# -- killed -----------------------------------------------------------------------------------


async def test_without_a_flush_the_records_alone_tell_how_far_it_came(
    store: DurableStore, directory: Path
) -> None:
    for n in range(1, 4):
        await shipped(store, commit_at(at(n), "a", {"X": str(n)}))
    store.advance({(P, 8): 5}, {PEER: Cursor(3, 0)})

    left = await killed(directory, "left")

    assert dict(left.vectors()) == {(P, PEER): 3}
    assert left.cursor(PEER) == Cursor()
    await left.close()


async def test_records_that_are_applied_again_do_not_lower_a_vector(
    store: DurableStore, directory: Path
) -> None:
    store.advance({(P, PEER): 10}, {})
    await store.flush()
    await shipped(store, commit_at(at(1), "a", {"X": "1"}), seq=4)

    left = await killed(directory, "left")

    assert dict(left.vectors()) == {(P, PEER): 10}
    assert values_of(left, "a") == {"X": "1"}
    await left.close()


async def test_a_forgotten_origin_stays_forgotten_though_its_records_are_in_the_log(
    store: DurableStore, directory: Path
) -> None:
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    store.forget_origin(PEER)
    await store.flush()
    await Writer(store).commit("a", {"Y": "1"})

    left = await killed(directory, "left")

    assert dict(left.vectors()) == {(P, NODE): 1}
    await left.close()


async def test_quarantine_survives_being_killed_at_once(
    store: DurableStore, directory: Path
) -> None:
    await store.quarantine(b"\x63 of another time")
    await store.quarantine(b"\x64 of yet another")
    await store.release(b"\x64 of yet another")

    left = await killed(directory, "left")

    assert left.quarantined() == [b"\x63 of another time"]
    await left.close()


async def test_rows_and_their_beginning_follow_what_is_recycled(directory: Path) -> None:
    options = replace(OPTIONS, keep_segments=1)
    store = await open_store(directory, options=options)
    writer = Writer(store)
    store.hold(0)
    for _ in range(8):
        await writer.commit("a", {"X": BIG})
        await store.flush()
    held = store.oldest_lsn()
    store.hold(None)
    for n in range(4):
        await writer.commit("a", {"X": BIG})
        await store.flush()
        await writer.commit("a", {"Y": str(n)})

    oldest = store.oldest_lsn()
    rows = await store.rows(oldest - 1, 1 << 20)

    assert held == 1 < oldest
    assert [lsn for lsn, _ in rows] == list(range(oldest, store.last_lsn() + 1))
    with pytest.raises(NotFound):
        await store.rows(oldest - 2, 1 << 20)
    await store.close()


async def test_a_closed_store_takes_nothing_from_peers(store: DurableStore) -> None:
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    head = store.visible("a")
    assert head is not None
    record = next(store.replay(0))[1]
    await store.close()

    refusals = await outcomes([store.append(record, head), store.append_base(BASE, head)])

    assert [getattr(refusal, "reason", None) for refusal in refusals] == ["STOPPING"] * 2


# -- the store in memory ----------------------------------------------------------------------


def in_memory(kept_records: int | None = None) -> MemoryStore:
    return MemoryStore(
        Retention(3, 0), node_uid=NODE, digest_key=DIGEST_KEY, kept_records=kept_records
    )


def after_crash(durable: Durable) -> MemoryStore:
    return MemoryStore.recovered(
        durable, Retention(3, 0), node_uid=NODE, digest_key=DIGEST_KEY, kept_records=4
    )


async def test_in_memory_a_crash_ends_what_is_on_its_way_for_good() -> None:
    store = in_memory()
    heard: list[int] = []
    store.subscribe(lambda applied: heard.append(applied.lsn))
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    on_its_way = asyncio.ensure_future(shipped(store, commit_at(at(2), "a", {"X": "2"})))

    left = after_crash(store.crash())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not on_its_way.done()
    assert heard == [1]
    assert values_of(left, "a") == {"X": "1"}
    assert (left.last_lsn(), dict(left.vectors())) == (1, {(P, PEER): 1})
    on_its_way.cancel()


async def test_in_memory_what_peers_told_is_lost_without_a_flush() -> None:
    store = in_memory()
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    store.advance({(P, 8): 4}, {8: Cursor(1, 1)})
    await store.flush()
    store.advance({(P, 8): 9, (P, PEER): 7}, {8: Cursor(2, 2)})
    await shipped(store, commit_at(at(2), "b", {"X": "1"}))

    left = after_crash(store.crash())

    assert dict(left.vectors()) == {(P, PEER): 1, (P, 8): 4, (partition_of("b"), PEER): 1}
    assert left.cursor(8) == Cursor(1, 1)


async def test_in_memory_a_forgotten_origin_stays_forgotten() -> None:
    store = in_memory()
    await shipped(store, commit_at(at(1), "a", {"X": "1"}))
    store.forget_origin(PEER)
    await store.flush()

    assert dict(after_crash(store.crash()).vectors()) == {}


async def test_in_memory_a_recovered_store_tells_all_that_the_first_one_did() -> None:
    store = in_memory()
    writer = Writer(store)
    for n in range(6):
        await writer.commit("a", {f"K{n}": str(n)}, operation=f"op-{n}")
        await shipped(store, commit_at(at(n), "b", {"X": str(n)}))
    await merged(store, BASE)
    await repaired(store, commit_at(at(50), "c", {"X": "1"}))
    await store.quarantine(b"\x63 of another time")

    left = after_crash(store.crash())

    for name in ("a", "b", "c"):
        assert left.visible(name) == left.head(name) == store.visible(name)
        assert left.commit_rows(name) == store.commit_rows(name)
        assert left.base(name) == store.base(name)
    assert left.roots() == store.roots()
    assert list(left.replay(0)) == list(store.replay(0))
    assert left.find_operation("ann", "op-3") == store.find_operation("ann", "op-3")
    assert left.quarantined() == store.quarantined()
    assert left.highest_hlc() == store.highest_hlc()
    assert dict(left.vectors()) == dict(store.vectors())


async def test_in_memory_old_records_leave_unless_they_are_held() -> None:
    store = in_memory(kept_records=4)
    writer = Writer(store)
    store.hold(2)
    for n in range(10):
        await writer.commit("a", {"X": str(n)})
    held = (store.oldest_lsn(), [lsn for lsn, _ in await store.rows(2, 1 << 20)])
    store.hold(None)
    await writer.commit("a", {"X": "last"})

    assert held == (3, list(range(3, 11)))
    assert store.oldest_lsn() == 8
    assert [lsn for lsn, _ in await store.rows(7, 1 << 20)] == [8, 9, 10, 11]
    for read in (lambda: store.rows(6, 100), lambda: _replayed(store)):
        with pytest.raises(NotFound):
            await read()
    left = after_crash(store.crash())
    assert left.oldest_lsn() == 8
    assert values_of(left, "a") == {"X": "last"}


async def _replayed(store: MemoryStore) -> None:
    list(store.replay(6))
