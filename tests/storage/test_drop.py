"""Dropping partitions in the durable store: killed, cut off, refused, in many transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from envd.core.errors import EnvdError, StorageError, Unavailable
from envd.core.ring import partition_of
from envd.ports import Subkey
from envd.storage import pages
from envd.storage.disk import make_directory
from envd.storage.memory import MemoryStore
from envd.storage.store import DurableStore, StoreOptions
from tests.storage import dropping
from tests.storage.backups import snapshot_of
from tests.storage.failing import StallingSealer
from tests.storage.others import at, base_of, commit_at, merged, repaired, shipped
from tests.storage.partitions import assert_nothing_of, pull, told_of, within
from tests.storage.test_crash import lines_until_killed
from tests.storage.world import (
    DIGEST_KEY,
    KIB,
    NODE,
    WitnessSealer,
    Writer,
    crash_copy,
    keeping,
    open_store,
    values_of,
)

P = partition_of("a")
OF_P = ("a", *within(P, 2))
OTHERS = ("b", "c", *within(P ^ 1, 2))
KEEPING = keeping(3)
FEW_ROWS = replace(KEEPING, purged_rows=3)


class StoppingSealer(WitnessSealer):
    """Gives keys for `left` more transactions of the state, where that is set."""

    left: int | None = None

    def new_subkey(self, purpose: bytes) -> Subkey:
        if purpose == b"state" and self.left is not None:
            if not self.left:
                raise StorageError("the state takes nothing")
            self.left -= 1
        return super().new_subkey(purpose)


async def filled(
    directory: Path, sealer: WitnessSealer, options: StoreOptions = KEEPING
) -> DurableStore:
    """A store in which each environment has a history, a base and a conflict, all flushed."""
    make_directory(directory)
    store = await open_store(directory, sealer, options=options)
    for name in (*OF_P, *OTHERS):
        for n in range(1, 5):
            saw = at(n - 1 if n != 3 else 0)
            await shipped(store, commit_at(at(n), name, {"X": f"{name} {n}"}, saw=saw))
        await shipped(store, commit_at(at(9, NODE), name, {"Y": name}))
        await merged(store, base_of(name, [commit_at(at(-1, 8), name, {"OLD": name})]))
    await store.flush()
    return store


def is_all_there(store: DurableStore) -> bool:
    return len(store.environments("", "", 99, {P})) == len(OF_P)


# -- one transaction, or many ------------------------------------------------------------------


async def test_at_whichever_transaction_it_stops_either_all_is_there_or_nothing(
    tmp_path: Path,
) -> None:
    outcomes = []
    for allowed in range(100):
        sealer = StoppingSealer()
        data = tmp_path / f"data-{allowed}"
        store = await filled(data, sealer, FEW_ROWS)
        whole, others = told_of(store, OF_P), told_of(store, OTHERS)
        sealer.left = allowed
        stopped: EnvdError | None = None
        try:
            assert await store.drop(P, store.last_lsn(), NODE)
        except StorageError as error:
            stopped = error
        sealer.left = None
        left = await open_store(crash_copy(data, tmp_path / f"left-{allowed}"), options=FEW_ROWS)

        for each in (store, left):
            assert told_of(each, OTHERS) == others
            if stopped is None or allowed:
                assert_nothing_of(each, P, OF_P, {NODE: 3})
            else:
                assert told_of(each, OF_P) == whole
        assert await store.drop(P, store.last_lsn(), NODE)
        assert_nothing_of(store, P, OF_P, {NODE: 3})
        assert told_of(store, OTHERS) == others
        assert (store.environment_count(), store.variable_count()) == (4, 4 * 3)
        assert store.conflict_count() == len(store.conflicts("", "", 999))
        await left.close()
        await store.close()
        assert pages.walk((data / "state" / "data.mdb").read_bytes())[b"environments"] == 4
        outcomes.append(stopped is None)
        if stopped is None:
            break

    assert len(outcomes) > 5


async def half_dropped(directory: Path) -> DurableStore:
    """A store that dropped a partition of which rows are left."""
    sealer = StoppingSealer()
    store = await filled(directory, sealer, FEW_ROWS)
    sealer.left = 2
    with pytest.raises(StorageError):
        await store.drop(P, store.last_lsn(), NODE)
    sealer.left = None
    return store


async def test_rows_that_are_left_are_taken_away_after_a_start(tmp_path: Path) -> None:
    store = await half_dropped(tmp_path / "data")
    others = told_of(store, OTHERS)
    sealer = StallingSealer()
    options = replace(FEW_ROWS, flush_interval_ms=0)

    left = await open_store(
        crash_copy(tmp_path / "data", tmp_path / "left"), sealer, options=options
    )
    for _ in range(1000):  # As many transactions are far more than it takes.
        if not left._state.has_dropped_rows:
            break
        sealer.asked.clear()
        await asyncio.to_thread(sealer.asked.wait, 0.05)
    await left.close()

    counted = pages.walk((tmp_path / "left" / "state" / "data.mdb").read_bytes())
    assert {counted[table] for table in (b"environments", b"index", b"bases")} == {len(OTHERS)}
    assert counted[b"history"] == len(OTHERS) * 3
    again = await open_store(tmp_path / "left", options=options)
    assert told_of(again, OTHERS) == others
    assert again.environment_count() == len(OTHERS)
    await again.close()
    await store.close()


async def test_what_is_written_while_rows_are_left_stands_alone(tmp_path: Path) -> None:
    store = await half_dropped(tmp_path / "data")
    commit = commit_at(at(30), "a", {"NEW": "1"})
    memory = MemoryStore(KEEPING.retention, digest_key=DIGEST_KEY)
    await repaired(memory, commit)

    await repaired(store, commit)
    unflushed = [found.environment for found in store.environments("", "", 99, {P})]
    killed = await open_store(crash_copy(tmp_path / "data", tmp_path / "left"), options=FEW_ROWS)
    await store.flush()

    assert unflushed == ["a"]
    for each in (store, killed):
        assert each.digests(P) == memory.digests(P)
        assert each.roots().partitions[P] == memory.roots().partitions[P]
        assert told_of(each, ("a",))["a"][:9] == told_of(memory, ("a",))["a"][:9]
        assert each.environment_count() == len(OTHERS) + 1
        assert not each._state.has_dropped_rows
        await each.close()


async def test_a_backup_has_nothing_of_which_rows_are_left(tmp_path: Path) -> None:
    store = await half_dropped(tmp_path / "data")
    partly = crash_copy(tmp_path / "data", tmp_path / "partly")
    assert await store.drop(P, store.last_lsn(), NODE)
    await store.close()

    with snapshot_of(partly) as snapshot:
        found = list(snapshot.rows())
    with snapshot_of(tmp_path / "data") as snapshot:
        wanted = list(snapshot.rows())

    assert found == wanted
    assert len(found) > 4 * len(OTHERS)


async def test_roots_that_are_summed_up_anew_leave_out_what_was_dropped(tmp_path: Path) -> None:
    store = await half_dropped(tmp_path / "data")
    roots = store.roots()
    left = crash_copy(tmp_path / "data", tmp_path / "left")
    with lmdb.open(str(left / "state"), max_dbs=len(pages.TABLES), map_size=64 << 20) as env:
        system = env.open_db(b"system")
        with env.begin(write=True) as transaction:
            transaction.delete(b"roots_lsn", db=system)

    again = await open_store(left, options=FEW_ROWS)

    assert again.roots() == roots
    assert again.roots().partitions[P] == 0
    await again.close()
    await store.close()


# -- killed, or without power ------------------------------------------------------------------


async def test_killed_before_it_is_written_all_is_there(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer)
    before = told_of(store, (*OF_P, *OTHERS))
    running = await _begun(store, sealer)

    left = await open_store(crash_copy(tmp_path / "data", tmp_path / "left"), options=KEEPING)
    sealer.may_flush.set()

    assert await running
    assert told_of(left, (*OF_P, *OTHERS)) == before
    assert_nothing_of(store, P, OF_P, {NODE: 3})
    await left.close()
    await store.close()


async def _begun(store: DurableStore, sealer: StallingSealer) -> asyncio.Task[bool]:
    """A drop whose transaction waits for its key."""
    sealer.may_flush.clear()
    sealer.asked.clear()
    running = asyncio.create_task(store.drop(P, store.last_lsn(), NODE))
    await asyncio.to_thread(sealer.asked.wait, 30)
    return running


async def test_without_power_before_it_is_synced_all_is_there(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data", WitnessSealer())
    before = told_of(store, (*OF_P, *OTHERS))
    flushed = crash_copy(tmp_path / "data", tmp_path / "flushed")
    store._state.drop(P, NODE)
    left = crash_copy(tmp_path / "data", tmp_path / "left")
    await store.close()
    _take_back_meta_pages(left, flushed)

    again = await open_store(left, options=KEEPING)

    assert told_of(again, (*OF_P, *OTHERS)) == before
    assert await again.drop(P, again.last_lsn(), NODE)
    assert_nothing_of(again, P, OF_P, {NODE: 3})
    await again.close()


def _take_back_meta_pages(directory: Path, earlier: Path) -> None:
    """What a power cut leaves that took the last meta page, as `metasync` off allows."""
    path = directory / "state" / "data.mdb"
    before, data = (earlier / "state" / "data.mdb").read_bytes(), path.read_bytes()
    meta = pages.newest_meta(lambda at, size: data[at : at + size])
    ends = pages.META_PAGES * meta.page_bytes
    assert before[:ends] != data[:ends]
    path.write_bytes(before[:ends] + data[ends:])


async def test_once_it_returned_a_power_cut_takes_nothing_back(tmp_path: Path) -> None:
    synced = []

    class Watched(WitnessSealer):
        def new_subkey(self, purpose: bytes) -> Subkey:
            synced.append(purpose)
            return super().new_subkey(purpose)

    store = await filled(tmp_path / "data", Watched())
    real, calls = store._state._tables._env, []

    class Noting:
        def sync(self, force: bool) -> None:
            calls.append((force, len(synced)))
            real.sync(force)

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    store._state._tables._env = Noting()  # type: ignore[assignment]
    before = len(synced)

    assert await store.drop(P, store.last_lsn(), NODE)

    assert calls == [(True, before + 1)]
    store._state._tables._env = real
    await store.close()


async def test_a_torn_tail_brings_nothing_back_and_takes_nothing_else(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data", WitnessSealer())
    assert await store.drop(P, store.last_lsn(), NODE)
    await repaired(store, commit_at(at(30), "a", {"KEPT": "1"}))
    before = told_of(store, ("a",))
    end = store._journal.segments[-1].end
    await repaired(store, commit_at(at(31), "a", {"TORN": "1"}))
    left = crash_copy(tmp_path / "data", tmp_path / "left")
    await store.close()
    segment = max((left / "journal").glob("[0-9]*.seg"))
    data = bytearray(segment.read_bytes())
    data[end + 40] ^= 1
    segment.write_bytes(data)

    again = await open_store(left, options=KEEPING)
    await again.flush()

    assert again.dropped_tail is not None
    assert values_of(again, "a") == {"KEPT": "1"}
    assert told_of(again, ("a",))["a"][:4] == before["a"][:4]
    assert [found.environment for found in again.environments("", "", 99, {P})] == ["a"]
    await again.close()


async def test_segments_that_are_recycled_meanwhile_are_not_missed(tmp_path: Path) -> None:
    options = replace(KEEPING, keep_segments=1)
    store = await filled(tmp_path / "data", WitnessSealer(), options)
    writer = Writer(store, hlc=at(40).hlc)

    for n in range(8):
        await writer.commit("a" if n % 2 else "b", {"BIG": "v" * (40 * KIB), f"K{n}": ""})
        assert await store.drop(P, store.last_lsn(), NODE)
        left = await open_store(crash_copy(tmp_path / "data", tmp_path / f"{n}"), options=options)
        assert_nothing_of(left, P, OF_P, dict(_vector(store)))
        assert "BIG" in values_of(left, "b")
        await left.close()

    assert store.oldest_lsn() > 1
    await store.close()


def _vector(store: DurableStore) -> Sequence[tuple[int, int]]:
    return [(origin, seq) for (at, origin), seq in store.vectors().items() if at == P]


# -- while it is written -----------------------------------------------------------------------


async def test_records_that_come_while_it_is_written_are_refused(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer)
    running = await _begun(store, sealer)

    answers = await asyncio.gather(
        shipped(store, commit_at(at(30), "a", {"Z": "1"})),
        merged(store, base_of("a", [commit_at(at(-5, 8), "a", {"Z": "1"})])),
        shipped(store, commit_at(at(30), "b", {"Z": "1"})),
        return_exceptions=True,
    )
    sealer.may_flush.set()
    dropped = await running
    later = await repaired(store, commit_at(at(30), "a", {"Z": "1"}))

    assert dropped
    assert [getattr(one, "reason", one) for one in answers] == ["PARTITION_DROPPED"] * 2 + [
        later - 1
    ]
    assert isinstance(answers[0], Unavailable)
    assert values_of(store, "a") == {"Z": "1"}
    assert values_of(store, "b")["Z"] == "1"
    await store.close()


async def test_where_it_can_not_be_written_nothing_was_done(tmp_path: Path) -> None:
    sealer = StoppingSealer()
    store = await filled(tmp_path / "data", sealer)
    before = told_of(store, (*OF_P, *OTHERS))
    sealer.left = 0

    with pytest.raises(StorageError):
        await store.drop(P, store.last_lsn(), NODE)
    sealer.left = None
    after = told_of(store, (*OF_P, *OTHERS))
    await shipped(store, commit_at(at(30), "a", {"Z": "1"}))

    assert after == before
    assert values_of(store, "a") == {"X": "a 4", "Y": "a", "OLD": "a", "Z": "1"}
    assert await store.drop(P, store.last_lsn(), NODE)
    await store.close()


async def test_where_the_flush_before_fails_nothing_was_done(tmp_path: Path) -> None:
    sealer = StoppingSealer()
    store = await filled(tmp_path / "data", sealer)
    await shipped(store, commit_at(at(30), "a", {"Z": "1"}))
    sealer.left = 0

    with pytest.raises(StorageError):
        await store.drop(P, store.last_lsn(), NODE)
    sealer.left = None

    assert values_of(store, "a")["Z"] == "1"
    left = await open_store(crash_copy(tmp_path / "data", tmp_path / "left"), options=KEEPING)
    assert values_of(left, "a")["Z"] == "1"
    await left.close()
    await store.close()


async def test_a_commit_of_while_it_is_flushed_keeps_the_partition(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer)
    await shipped(store, commit_at(at(30), "b", {"Z": "1"}))
    running = await _begun(store, sealer)  # It waits in the flush of that one.
    lsn = await shipped(store, commit_at(at(30), "a", {"Z": "1"}))
    sealer.may_flush.set()

    assert not await running
    assert values_of(store, "a")["Z"] == "1"
    assert is_all_there(store)
    assert await store.drop(P, lsn, NODE)
    await store.close()


async def test_a_caller_who_goes_away_leaves_nothing_half_done(tmp_path: Path) -> None:
    sealer = StallingSealer()
    store = await filled(tmp_path / "data", sealer, FEW_ROWS)
    others = told_of(store, OTHERS)
    running = await _begun(store, sealer)

    running.cancel()
    await asyncio.sleep(0)
    sealer.may_flush.set()
    with suppress(asyncio.CancelledError):
        await running

    assert running.cancelled()
    assert_nothing_of(store, P, OF_P, {NODE: 3})
    assert told_of(store, OTHERS) == others
    await repaired(store, commit_at(at(30), "a", {"Z": "1"}))
    await store.flush()
    assert values_of(store, "a") == {"Z": "1"}
    await store.close()


async def test_a_store_that_closes_lets_go_of_nothing_more(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data", WitnessSealer())
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)

    with pytest.raises(Unavailable, match="stopping"):
        await store.drop(P, store.last_lsn(), NODE)
    await closing

    again = await open_store(tmp_path / "data", options=KEEPING)
    assert is_all_there(again)
    await again.close()


# -- killed at any moment ----------------------------------------------------------------------


async def assert_as_dropped(directory: Path, lines: Sequence[Sequence[str]]) -> None:
    """Hold that each partition is what was written since one and the same drop."""
    store = await open_store(directory, options=dropping.DROPPING)
    memory = MemoryStore(dropping.DROPPING.retention, digest_key=DIGEST_KEY)
    await store.flush()
    for partition in dropping.PARTITIONS:
        said = [(line[0], int(line[2])) for line in lines if int(line[1]) == partition]
        last = {word: max((n for w, n in said if w == word), default=0) for word, _ in said}
        names = within(partition, dropping.ENVIRONMENTS)
        rounds = [sorted(int(key[1:]) for key in values_of(store, name)) for name in names]
        begun = {numbers[0] for numbers in rounds if numbers}
        wrote = last.get("wrote", 0)
        if last.get("drops", 0) == last.get("dropped", 0) < wrote:
            assert all(numbers and numbers[-1] >= wrote for numbers in rounds)
        assert len(begun) <= 1
        assert all(first > last.get("dropped", 0) for first in begun)
        for numbers in rounds:
            told = [n for word, n in said if word == "wrote" and numbers and n >= numbers[0]]
            assert set(told) <= set(numbers)
        await pull(memory, store, names)
    assert memory.roots().partitions == store.roots().partitions
    assert store.environment_count() == len(store.environments("", "", 99))
    await store.close()


async def test_killed_again_and_again_each_partition_is_whole_or_gone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lines: list[list[str]] = []

    for count in (4, 31, 62, 108, 155):
        lines += await asyncio.to_thread(lines_until_killed, "dropping", data, count)
        pages.walk((data / "state" / "data.mdb").read_bytes())
        copy = crash_copy(data, tmp_path / f"after {count}")
        await assert_as_dropped(copy, lines)

    assert sum(line[0] == "dropped" for line in lines) > 50
    assert {int(line[1]) for line in lines if line[0] == "dropped"} == set(dropping.PARTITIONS)
