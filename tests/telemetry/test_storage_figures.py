"""How many variables there are, known without counting them; and how long the disk took."""

from __future__ import annotations

from pathlib import Path

import lmdb

from envd.storage.disk import TimedDisk
from tests.storage.others import PEER, at, commit_at, shipped
from tests.storage.world import Writer, open_store


async def test_the_number_of_variables_follows_every_flush(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    writer = Writer(store)
    seen = []

    for environment, values in (
        ("a", {"X": "1", "Y": "2"}),
        ("b", {"X": "1"}),
        ("a", {"X": "3"}),
        ("a", {"Y": None}),
        ("c", {}),
    ):
        await writer.commit(environment, values)
        await store.flush()
        seen.append(store.variable_count())
    await writer.commit("a", deletes=True)
    await store.flush()
    seen.append(store.variable_count())
    await store.close()

    assert seen == [2, 3, 3, 2, 2, 1]


async def test_the_number_of_variables_is_known_after_a_restart(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    writer = Writer(store)
    await writer.commit("a", {"X": "1", "Y": "2"})
    await store.close()

    again = await open_store(tmp_path)
    count = again.variable_count()
    await again.close()

    assert count == 2


async def test_a_state_without_the_counter_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    writer = Writer(store)
    await writer.commit("a", {"X": "1", "Y": "2"})
    await writer.commit("b", {"X": "1"})
    await writer.commit("b", deletes=True)
    await store.close()
    with lmdb.open(str(tmp_path / "state"), max_dbs=16) as state:
        table = state.open_db(b"system")
        with state.begin(write=True) as transaction:
            assert transaction.delete(b"variables", db=table)

    again = await open_store(tmp_path)
    count = again.variable_count()
    await Writer(again, hlc=writer.hlc).commit("c", {"X": "1"})
    await again.flush()
    later = again.variable_count()
    await again.close()

    assert (count, later) == (2, 3)


async def test_the_number_of_open_conflicts_follows_every_flush_and_outlives_a_restart(
    tmp_path: Path,
) -> None:
    store = await open_store(tmp_path)
    seen = [store.conflict_count()]

    for node in (8, PEER):
        await shipped(store, commit_at(at(1, node), "a", {"X": str(node), "Y": str(node)}))
    await store.flush()
    seen.append(store.conflict_count())
    await store.close()
    again = await open_store(tmp_path)
    seen.append(again.conflict_count())
    first, _ = again.conflicts("", "", 100)
    settling = commit_at(at(2), "a", {first.name: "so"}, saw=at(1, PEER), resolves=(first.id,))
    await shipped(again, settling)
    await again.flush()
    seen.append(again.conflict_count())
    await again.close()

    assert seen == [0, 2, 2, 1]


async def test_what_is_not_flushed_yet_is_told(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await Writer(store).commit("a", {"X": "1"})

    before = (store.last_lsn() - store.flushed_lsn(), store.unflushed_bytes() > 0)
    await store.flush()
    after = (store.last_lsn() - store.flushed_lsn(), store.unflushed_bytes())
    queued = store.queued_bytes()
    await store.close()

    assert before == (1, True)
    assert after == (0, 0)
    assert queued == 0


async def test_every_group_of_the_journal_is_one_timed_sync(tmp_path: Path) -> None:
    told: list[float] = []
    store = await open_store(tmp_path, disk=TimedDisk(told.append))
    writer = Writer(store)

    for number in range(3):
        await writer.commit("a", {"X": str(number)})
    await store.close()

    assert len(told) == 3
    assert min(told) > 0
