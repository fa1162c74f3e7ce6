"""The store where memory fills, and where callers give up or the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from envd.core.errors import EnvdError, StorageError, Unavailable
from envd.core.stamp import Stamp
from envd.storage.store import DurableStore
from tests.storage.failing import StallingSealer, outcomes
from tests.storage.world import KIB, MIB, OPTIONS, Writer, open_store, values_of


@pytest.fixture
def sealer() -> StallingSealer:
    return StallingSealer()


@pytest.fixture
async def store(tmp_path: Path, sealer: StallingSealer) -> AsyncIterator[DurableStore]:
    opened = await open_store(tmp_path, sealer)
    yield opened
    sealer.may_flush.set()
    sealer.refusal = None
    with suppress(EnvdError):
        await opened.close()


# -- memory -----------------------------------------------------------------------------------


SMALL_MEMORY = replace(OPTIONS, memtable_bytes=64 * KIB)


async def test_where_memory_fills_writers_wait_for_a_flush_that_starts_at_once(
    tmp_path: Path,
) -> None:
    sealer = StallingSealer()
    store = await open_store(tmp_path, sealer, options=SMALL_MEMORY)
    writer = Writer(store)
    sealer.may_flush.clear()
    sealer.asked.clear()
    for n, size in enumerate((10, 10, 30_000, 30_000, 30_000)):  # The flusher waits for more.
        await writer.commit(f"e{n}", {"X": "v" * size})

    waiting = asyncio.create_task(store.admit())
    await asyncio.to_thread(sealer.asked.wait)
    was_waiting = not waiting.done()
    sealer.may_flush.set()
    await waiting  # The flush interval is hours: only the pressure can have started the flush.

    assert was_waiting
    await store.close()


async def test_where_memory_is_full_and_flushes_fail_writers_are_refused(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await open_store(tmp_path, sealer, options=SMALL_MEMORY)
    writer = Writer(store)
    sealer.may_flush.clear()
    for n in range(3):
        await writer.commit(f"e{n}", {"X": "v" * 30_000})
    waiting = asyncio.create_task(store.admit())
    await asyncio.to_thread(sealer.asked.wait)

    sealer.refusal = StorageError("the state takes nothing", hint="mend it", reason="STATE_FULL")
    sealer.may_flush.set()
    refusals = await asyncio.gather(waiting, store.admit(), return_exceptions=True)

    for refusal in refusals:
        assert isinstance(refusal, Unavailable)
        assert (refusal.reason, refusal.hint) == ("STATE_FULL", "mend it")
    sealer.refusal = None
    await store.flush()
    await store.admit()
    await store.close()


async def test_a_store_that_closes_lets_nobody_wait(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await open_store(tmp_path, sealer, options=SMALL_MEMORY)
    writer = Writer(store)
    sealer.may_flush.clear()
    for n in range(3):
        await writer.commit(f"e{n}", {"X": "v" * 30_000})
    waiting = asyncio.create_task(store.admit())
    await asyncio.to_thread(sealer.asked.wait)

    closing = asyncio.create_task(store.close())
    with pytest.raises(Unavailable) as refused:
        await waiting
    late = await outcomes([writer.commit("e0", {"Y": "late"})])
    sealer.may_flush.set()
    await closing

    assert refused.value.reason == "STOPPING"
    assert getattr(late[0], "reason", None) == "STOPPING"
    again = await open_store(tmp_path)
    assert [len(values_of(again, f"e{n}")["X"] or "") for n in range(3)] == [30_000] * 3
    await again.close()


async def test_too_many_waiting_writes_are_refused_and_not_queued(
    store: DurableStore, tmp_path: Path
) -> None:
    tight = await open_store(tmp_path / "state", options=replace(OPTIONS, journal_queue_bytes=100))
    writer = Writer(tight)

    with tight._journal._wake:
        durable = [writer.commit("a", {"X": "v" * 200}) for _ in range(2)]
        with pytest.raises(Unavailable) as refused:
            await tight.admit()
    for one in durable:
        await one
    await tight.admit()

    assert refused.value.reason == "OVERLOADED"
    await tight.close()


async def test_reading_works_where_one_environment_outgrows_the_memory(tmp_path: Path) -> None:
    store = await open_store(tmp_path, options=SMALL_MEMORY)
    writer = Writer(store)
    for n in range(5):
        await writer.commit(f"e{n}", {"A": "v" * 40_000})
        await writer.commit(f"e{n}", {"B": "w" * 40_000})
        await store.flush()

    for n in (0, 4, 1, 3, 2, 9):
        assert len(values_of(store, f"e{n}")) == (2 if n < 5 else 0)
        assert store.head(f"e{n}") is store.visible(f"e{n}")

    await store.close()


async def test_the_cache_of_clean_environments_has_a_bound(tmp_path: Path) -> None:
    store = await open_store(tmp_path, options=SMALL_MEMORY)
    writer = Writer(store)
    for n in range(40):
        await writer.commit(f"e{n}", {"A": "v" * 4000})
    await store.flush()
    for n in range(3000):
        store.visible(f"absent/{n}")
        store.visible("e7")

    assert store._memtable.clean_bytes <= SMALL_MEMORY.memtable_bytes
    assert store._memtable.unflushed_bytes == 0
    assert store._memtable.knows("e7")
    assert not store._memtable.knows("absent/0")
    await store.close()


# -- callers that give up ---------------------------------------------------------------------


async def test_a_writer_that_gives_up_changes_nothing_for_the_others(store: DurableStore) -> None:
    writer = Writer(store)
    durable = [asyncio.ensure_future(writer.commit("a", {f"K{n}": "1"})) for n in range(3)]

    durable[1].cancel()
    results = await asyncio.gather(*durable, return_exceptions=True)

    assert [results[0], results[2]] == [1, 3]
    assert set(values_of(store, "a")) == {"K0", "K1", "K2"}


async def test_a_flush_whose_caller_gives_up_ends_before_another_begins(
    store: DurableStore, sealer: StallingSealer
) -> None:
    writer = Writer(store)
    await writer.commit("a", {"X": "1"})
    sealer.may_flush.clear()
    first = asyncio.create_task(store.flush())
    await asyncio.to_thread(sealer.asked.wait)

    for _ in range(3):
        first.cancel()
        await asyncio.sleep(0)
    second = asyncio.create_task(store.flush())
    await asyncio.sleep(0)
    still_under_way = (first.done(), second.done())
    sealer.may_flush.set()
    await asyncio.gather(first, second, return_exceptions=True)

    assert still_under_way == (False, False)
    assert first.cancelled()
    assert second.exception() is None
    assert store.environment_count() == 1
    assert len(store.commits("a", None, 9)) == 1


async def test_a_close_whose_caller_gives_up_goes_on_to_the_end(
    store: DurableStore, sealer: StallingSealer, tmp_path: Path
) -> None:
    await Writer(store).commit("a", {"X": "1"})
    sealer.may_flush.clear()
    closing = asyncio.create_task(store.close())
    await asyncio.to_thread(sealer.asked.wait)

    closing.cancel()
    sealer.may_flush.set()
    await asyncio.gather(closing, return_exceptions=True)
    await store.close()

    assert not (tmp_path / "state" / "unclean").exists()
    again = await open_store(tmp_path)
    assert values_of(again, "a") == {"X": "1"}
    await again.close()


def test_a_loop_that_ends_in_the_middle_of_a_flush_waits_for_it(tmp_path: Path) -> None:
    sealer = StallingSealer()

    async def leave_a_flush_behind() -> DurableStore:
        store = await open_store(tmp_path, sealer)
        await Writer(store).commit("a", {"X": "1"})
        sealer.may_flush.clear()
        background = asyncio.create_task(store.close())
        await asyncio.to_thread(sealer.asked.wait)
        asyncio.get_running_loop().call_soon(sealer.may_flush.set)
        assert not background.done()
        return store

    store = asyncio.run(leave_a_flush_behind())

    assert store._state.covered_lsn == 1
    assert asyncio.run(values_after_restart(tmp_path)) == {"X": "1"}


async def values_after_restart(directory: Path) -> dict[str, str | None]:
    store = await open_store(directory)
    try:
        return values_of(store, "a")
    finally:
        await store.close()


async def test_large_commits_are_read_in_pages_of_bounded_size(tmp_path: Path) -> None:
    store = await open_store(tmp_path, options=replace(OPTIONS, segment_bytes=16 * MIB))
    writer = Writer(store)
    for n in range(5):
        await writer.commit("e", {"X": str(n) * (3 * MIB)})
        if n == 3:
            await store.flush()

    pages: list[int] = []
    seen: list[Stamp] = []
    while page := store.commits("e", seen[-1] if seen else None, 100):
        pages.append(len(page))
        seen += [commit.stamp for commit in page]

    assert seen == sorted(writer.stamps, reverse=True)
    assert max(pages) < 5
    await store.close()
