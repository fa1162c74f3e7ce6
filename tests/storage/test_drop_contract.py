"""What the port promises of partitions that are let go of, of every Store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from envd.core.commit import LogRecord
from envd.core.history import Retention
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.core.stamp import ZERO
from envd.core.versions import Cursor
from envd.ports import Store
from envd.storage.memory import MemoryStore
from envd.wire import records
from tests.storage.kept import KINDS, Kept, make_kept
from tests.storage.others import PEER, at, base_of, commit_at, merged, repaired, shipped
from tests.storage.partitions import assert_nothing_of, pull, told_of, within
from tests.storage.world import DIGEST_KEY, MIB, NODE, values_of

P = partition_of("a")
OF_P = ("a", *within(P, 2))
OTHERS = ("b", "c", *within(P ^ 1, 2), *within(P ^ 2, 2))
THREE = Retention(3, 0)


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made = await make_kept(request.param, tmp_path, THREE)
    yield made
    await made.store.close()


async def fill(store: Store, names: tuple[str, ...] = (*OF_P, *OTHERS)) -> None:
    """A history with a base, conflicts and a deletion in each of these."""
    for place, name in enumerate(names):
        for n in range(1, 5):
            saw = at(n - 1 if n != 3 else 0)
            await shipped(store, commit_at(at(n), name, {"X": f"{name} {n}"}, saw=saw))
        await shipped(store, commit_at(at(9, NODE), name, {"Y": name}))
        await merged(store, base_of(name, [commit_at(at(-1, 8), name, {"OLD": name})]))
        if place % 3 == 2:
            await shipped(store, commit_at(at(10), name, {"X": None}, deletes=True, saw=at(9)))
    await store.flush()


async def drop(kept: Kept, partition: int = P) -> bool:
    await kept.store.flush()
    dropped = await kept.store.drop(partition, kept.store.last_lsn(), NODE)
    await kept.step()
    return dropped


# -- what goes ---------------------------------------------------------------------------------


async def test_all_goes_but_the_vector_of_the_node_itself(kept: Kept) -> None:
    await fill(kept.store)
    kept.store.advance({(P, 8): 77}, {8: Cursor(5, 5)})
    count, conflicts = kept.store.environment_count(), kept.store.conflicts("", "", 1000)

    assert await drop(kept)

    assert_nothing_of(kept.store, P, OF_P, {NODE: 3})
    assert kept.store.last_seq(P, NODE) == 3
    assert [kept.store.last_seq(P, origin) for origin in (PEER, 8)] == [0, 0]
    assert kept.store.environment_count() == count - 2
    left = kept.store.conflicts("", "", 1000)
    assert left == [one for one in conflicts if one.environment not in OF_P]
    assert len(left) < len(conflicts)
    assert kept.store.cursor(8) == Cursor(5, 5)


async def test_it_stays_dropped_whatever_comes(kept: Kept) -> None:
    await fill(kept.store)
    assert await drop(kept)

    await kept.crash()
    assert_nothing_of(kept.store, P, OF_P, {NODE: 3})
    await kept.put("b", Z="later")
    await kept.store.flush()
    await kept.crash()

    assert_nothing_of(kept.store, P, OF_P, {NODE: 3})
    assert values_of(kept.store, "b")["Z"] == "later"


async def test_everything_of_all_others_is_as_it_was(kept: Kept) -> None:
    await fill(kept.store)
    lsn = kept.store.last_lsn()
    before = told_of(kept.store, OTHERS)
    log = (list(kept.store.replay(0)), await kept.store.rows(0, 64 * MIB))

    assert await drop(kept)

    assert told_of(kept.store, OTHERS) == before
    assert (list(kept.store.replay(0)), await kept.store.rows(0, 64 * MIB)) == log
    assert kept.store.last_lsn() == lsn
    names = [found.environment for found in kept.store.environments("", "", 1000)]
    assert names == sorted(
        name for at, name in enumerate((*OF_P, *OTHERS)) if at > 2 and at % 3 < 2
    )


async def test_an_operation_is_known_though_its_environment_was_dropped(kept: Kept) -> None:
    await kept.wait(kept.writer.commit("a", {"X": "1"}, operation="op"))

    assert await drop(kept)

    found = kept.store.find_operation("ann", "op")
    assert found is not None
    assert (found.environment, found.stamp) == ("a", kept.writer.stamps[0])


async def test_what_is_empty_can_be_dropped_and_again(kept: Kept) -> None:
    assert await drop(kept)
    assert await drop(kept)
    await kept.put("a", X="1")

    assert values_of(kept.store, "a") == {"X": "1"}
    assert await drop(kept)
    assert await drop(kept)
    assert_nothing_of(kept.store, P, OF_P, {NODE: 1})


@pytest.mark.parametrize("partition", [SYSTEM_PARTITION, -1, PARTITIONS])
async def test_what_every_node_holds_is_never_dropped(kept: Kept, partition: int) -> None:
    with pytest.raises(ValueError, match="none that a node can let go of"):
        await kept.store.drop(partition, 0, NODE)


# -- what must not go --------------------------------------------------------------------------


async def assert_refused(kept: Kept, lsn: int) -> None:
    before = told_of(kept.store, (*OF_P, *OTHERS))

    assert not await kept.store.drop(P, lsn, NODE)
    await kept.step()

    assert told_of(kept.store, (*OF_P, *OTHERS)) == before


async def test_nothing_goes_where_a_record_came_after_what_others_hold(kept: Kept) -> None:
    await fill(kept.store)
    lsn = kept.store.last_lsn()
    await shipped(kept.store, commit_at(at(20), "a", {"Z": "1"}))
    await kept.store.flush()

    await assert_refused(kept, lsn)


async def test_nor_where_repair_or_a_base_came_after_it(kept: Kept) -> None:
    await fill(kept.store)
    lsn = kept.store.last_lsn()
    await repaired(kept.store, commit_at(at(20), OF_P[1], {"Z": "1"}))
    await kept.store.flush()
    await assert_refused(kept, lsn)

    lsn = kept.store.last_lsn()
    await merged(kept.store, base_of("a", [commit_at(at(-9, 8), "a", {"Z": "1"})]))
    await kept.store.flush()
    await assert_refused(kept, lsn)


async def test_records_of_other_partitions_that_came_after_it_keep_nothing(kept: Kept) -> None:
    await fill(kept.store)
    lsn = kept.store.last_lsn()
    await kept.writer.commit("b", {"Z": "1"})
    on_its_way = kept.writer.commit("c", {"Z": "1"})

    dropped = await kept.store.drop(P, lsn, NODE)
    await on_its_way
    await kept.step()

    assert dropped
    assert_nothing_of(kept.store, P, OF_P, {NODE: 3})
    assert [values_of(kept.store, name)["Z"] for name in ("b", "c")] == ["1", "1"]


async def test_nothing_goes_where_a_record_is_on_its_way(kept: Kept) -> None:
    await fill(kept.store)
    lsn = kept.store.last_lsn()
    on_its_way = shipped(kept.store, commit_at(at(20), "a", {"Z": "1"}))

    dropped = await kept.store.drop(P, lsn + 1, NODE)
    await on_its_way
    await kept.step()

    assert not dropped
    assert values_of(kept.store, "a")["Z"] == "1"
    assert await drop(kept)


async def test_nothing_goes_while_one_is_in_quarantine(kept: Kept) -> None:
    await fill(kept.store)
    commit = commit_at(at(10**6), "a", {"Z": "1"})
    encoded = records.encode_commit(commit)
    named = records.encode_log_record(LogRecord(P, PEER, 99, commit), encoded)
    nameless = records.encode_log_record(LogRecord(P, 0, 0, commit), encoded)
    other = records.encode_log_record(LogRecord(P ^ 1, PEER, 1, commit), encoded)
    await kept.store.quarantine(other)

    for row in (named, nameless):
        await kept.store.quarantine(row)
        await assert_refused(kept, kept.store.last_lsn())
        await kept.store.release(row)

    assert await drop(kept)
    assert list(kept.store.quarantined()) == [other]


async def test_an_lsn_of_before_a_start_is_too_old_to_tell(kept: Kept) -> None:
    await fill(kept.store)
    lsn = kept.store.last_lsn()
    await kept.put("b", Z="1")
    await kept.crash()

    assert not await kept.store.drop(P, lsn, NODE)
    assert await kept.store.drop(P, kept.store.last_lsn(), NODE)


# -- what comes later --------------------------------------------------------------------------


async def test_what_is_written_later_begins_with_nothing_and_the_next_seq(kept: Kept) -> None:
    await fill(kept.store)
    assert await drop(kept)
    kept.writer.hlc = at(30).hlc

    await kept.put("a", NEW="1")
    await kept.store.flush()
    await kept.step()

    assert values_of(kept.store, "a") == {"NEW": "1"}
    [commit] = kept.store.commits("a", None, 9)
    assert [change.overwrites for change in commit.changes] == [ZERO]
    assert next(kept.store.replay(kept.store.last_lsn() - 1))[1].seq == 4
    assert {place: seq for place, seq in kept.store.vectors().items() if place[0] == P} == {
        (P, NODE): 4
    }
    assert [name for name, _ in kept.store.digests(P)] == ["a"]
    listed = kept.store.environments("", "", 1000, {P})
    assert [(one.environment, one.variables) for one in listed] == [("a", 1)]


async def test_a_record_of_a_peer_that_comes_late_is_kept_over_a_crash(kept: Kept) -> None:
    await fill(kept.store)
    assert await drop(kept)

    await repaired(kept.store, commit_at(at(20), "a", {"LATE": "1"}))
    await kept.crash()

    assert values_of(kept.store, "a") == {"LATE": "1"}
    assert not await kept.store.drop(P, kept.store.last_lsn() - 1, NODE)
    assert values_of(kept.store, "a") == {"LATE": "1"}


async def test_dropped_and_pulled_again_it_is_what_it_was(kept: Kept) -> None:
    source = MemoryStore(THREE, node_uid=NODE, digest_key=DIGEST_KEY)
    await fill(source)
    await fill(kept.store)
    before = told_of(kept.store, OF_P)
    assert told_of(source, OF_P) == before

    assert await drop(kept)
    await pull(kept.store, source, OF_P)
    await kept.store.flush()
    await kept.step()

    assert told_of(kept.store, OF_P) == before
    assert kept.store.roots() == source.roots()
    assert await drop(kept)
    assert_nothing_of(kept.store, P, OF_P, {NODE: 3})


# -- whatever happens --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_drops_pulls_and_writes_in_any_order_make_what_a_model_says(
    kept: Kept, seed: int
) -> None:
    """The model holds each partition in a store of its own, and drops by making a new one."""
    chance = Random(seed)
    groups = {partition_of(group[0]): group for group in (OF_P, within(P ^ 1, 2), ("b",))}
    models = {partition: _model() for partition in groups}
    kept.writer.hlc = at(0).hlc
    for n in range(30):
        partition = chance.choice(sorted(groups))
        names, model = groups[partition], models[partition]
        name = chance.choice(names)
        commit = commit_at(at(n), name, {f"K{n % 4}": str(n)}, saw=at(n - chance.randrange(1, 6)))
        match chance.choice(("ship", "ship", "ship", "base", "drop", "crash", "again")):
            case "ship":
                await kept.wait(shipped(kept.store, commit))
                await shipped(model, commit)
            case "base":
                base = base_of(name, [commit_at(at(-n, 8), name, {"OLD": str(n)})])
                await kept.wait(merged(kept.store, base))
                await merged(model, base)
            case "drop":
                assert await drop(kept, partition)
                models[partition] = _model()
            case "crash":
                await kept.store.flush()
                await kept.crash()
            case "again":
                await pull(kept.store, source := model, names)
                assert await drop(kept, partition)
                await pull(kept.store, source, names)
                await kept.store.flush()

        for at_partition, own in groups.items():
            for each in own:
                assert kept.store.visible(each) == models[at_partition].visible(each)
    await kept.store.flush()

    for partition, names in groups.items():
        assert told_of(kept.store, names) == told_of(models[partition], names)
    alive = [one for model in models.values() for one in model.environments("", "", 1000)]
    assert kept.store.environments("", "", 1000) == sorted(alive, key=lambda one: one.environment)
    assert kept.store.environment_count() == len(alive)


def _model() -> MemoryStore:
    return MemoryStore(THREE, node_uid=NODE, digest_key=DIGEST_KEY)
