"""The materialised view by itself: snapshots, formats, damaged and foreign records."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from zlib import crc32

import lmdb
import pytest

from envd.core import digest
from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.errors import Corrupt, StorageError
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.ports import OperationResult, Sealer, StoredState
from envd.storage import pages
from envd.storage.flush import Batch
from envd.storage.state import StateDb, operation_key
from envd.wire import records
from tests.storage.world import DIGEST_KEY, MIB, START_MS, WitnessSealer

HOUR_MS = 3_600_000


def open_state(directory: Path, sealer: Sealer | None = None, *, kept: int = 100) -> StateDb:
    directory.mkdir(exist_ok=True)
    return StateDb(
        directory,
        sealer or WitnessSealer(),
        DIGEST_KEY,
        map_size_bytes=64 * MIB,
        retention=Retention(kept, 0),
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDb]:
    opened = open_state(tmp_path, kept=2)
    yield opened
    opened.close()


def put(environment: Environment, n: int) -> tuple[StoredState, tuple[Stamp, bytes]]:
    """The state after one more commit, and the commit's stamp and bytes."""
    stamp = Stamp(0, n << 16, 1)
    change = Change(Kind.VARIABLE, f"K{n}", str(n), False, ZERO)
    commit = Commit(environment.name, stamp, (change,), time_ms=n)
    after = environment.apply(commit)
    stored = StoredState(after, digest.revision(after, DIGEST_KEY))
    return stored, (stamp, records.encode_commit(commit))


def batch(name: str, first: int, last: int, before: Environment | None = None) -> Batch:
    """A batch of the commits `first` to `last` of one environment."""
    environment, commits = before or Environment(name), []
    for n in range(first, last + 1):
        stored, commit = put(environment, n)
        environment = stored.environment
        commits.append(commit)
    return Batch(
        now_ms=START_MS,
        covered_lsn=last,
        hlc_bound=last,
        states={name: stored},
        commits={name: commits},
        operations={},
    )


def test_reads_in_several_steps_see_one_state_until_refreshed(state: StateDb) -> None:
    first = batch("a", 1, 2)
    state.commit(first)
    state.refresh()

    before = [len(state.commits("a", None, 9)), len(state.base("a").variables)]
    state.commit(batch("a", 3, 5, first.states["a"].environment))
    meanwhile = [len(state.commits("a", None, 9)), len(state.base("a").variables)]
    state.refresh()
    after = [len(state.commits("a", None, 9)), len(state.base("a").variables)]

    assert before == meanwhile == [2, 0]
    assert after == [2, 3]


def test_a_commit_answers_with_the_position_that_the_one_before_made_safe(
    state: StateDb,
) -> None:
    safe = [state.commit(batch("a", n, n)) for n in range(1, 4)]

    assert safe == [0, 1, 2]
    assert state.covered_lsn == 3


def test_what_a_killed_process_left_is_safe_once_opened(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    state.commit(batch("a", 1, 3))
    state.close()

    again = open_state(tmp_path)

    assert again.covered_lsn == 3
    assert again.commit(batch("b", 4, 4)) == 3
    again.close()


def test_committing_a_batch_twice_changes_nothing(state: StateDb) -> None:
    twice = batch("a", 1, 4)

    state.commit(twice)
    state.refresh()
    once = (state.environment("a"), state.base("a"), state.commits("a", None, 9))
    state.commit(twice)
    state.refresh()

    assert (state.environment("a"), state.base("a"), state.commits("a", None, 9)) == once
    assert state.environments == 1


def test_trimming_one_environment_leaves_its_neighbours_alone(state: StateDb) -> None:
    # Names that begin alike and lie in one partition stand side by side in the tables.
    partition = partition_of("a")
    neighbours = [
        next(name for n in count() if partition_of(name := f"a{joint}{n}") == partition)
        for joint in ("-", "/", "", "0/")
    ]
    for name in ("a", *neighbours):
        state.commit(batch(name, 1, 2))
    state.commit(batch("a", 1, 9))
    for name in neighbours:
        state.commit(batch(name, 1, 3))
    state.refresh()

    assert [len(state.commits(name, None, 9)) for name in ("a", *neighbours)] == [2] * 5
    assert [len(state.base(name).variables) for name in ("a", *neighbours)] == [7, 1, 1, 1, 1]


# -- damage and foreign records ---------------------------------------------------------------


def overwrite(directory: Path, table: bytes, change: bytes, *, at: int) -> None:
    """Change bytes of every value of a table, under a CRC that holds again."""
    with (
        lmdb.open(str(directory), max_dbs=len(pages.TABLES), map_size=64 * MIB) as environment,
        environment.begin(write=True) as transaction,
    ):
        database = environment.open_db(table, txn=transaction)
        with transaction.cursor(db=database) as cursor:
            rows = [(bytes(key), bytes(value)) for key, value in cursor]
        for key, value in rows:
            changed = value[:at] + change + value[at + len(change) :]
            whole = crc32(changed[4:], crc32(key)).to_bytes(4) + changed[4:]
            transaction.put(key, whole, db=database)


@pytest.mark.parametrize("table", [b"system", b"environments", b"history", b"index"])
def test_a_record_of_a_newer_format_is_refused_as_such(tmp_path: Path, table: bytes) -> None:
    state = open_state(tmp_path)
    state.commit(batch("a", 1, 1))
    state.close()
    overwrite(tmp_path, table, b"\x02", at=4)

    with pytest.raises(StorageError) as refused:
        read_all(tmp_path)

    assert refused.value.reason == "NEWER_FORMAT"
    assert "newer envd" in refused.value.hint
    assert not isinstance(refused.value, Corrupt)


@pytest.mark.parametrize("table", [b"system", b"environments", b"history"])
def test_a_record_sealed_otherwise_is_refused_as_such(tmp_path: Path, table: bytes) -> None:
    state = open_state(tmp_path)
    state.commit(batch("a", 1, 1))
    state.close()
    overwrite(tmp_path, table, b"another counter", at=30)

    with pytest.raises(Corrupt) as refused:
        read_all(tmp_path)

    assert refused.value.reason == "STATE_SEALED_OTHERWISE"
    assert table.decode() in refused.value.message


def read_all(directory: Path) -> None:
    state = open_state(directory)
    try:
        state.environment("a")
        state.commits("a", None, 9)
        state.index("", "", 9)
    finally:
        state.close()


def test_a_state_that_could_not_be_opened_can_be_opened_again(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    state.commit(batch("a", 1, 1))
    state.close()

    with pytest.raises(Corrupt):
        open_state(tmp_path, WitnessSealer(b"another key".ljust(32)))
    again = open_state(tmp_path)

    assert again.covered_lsn == 1
    again.close()


def operations(first: int, count: int, now_ms: int) -> Batch:
    one = batch("a", 1, 1)
    one.now_ms = now_ms
    one.operations = {
        operation_key("ann", f"op-{n}"): OperationResult("a", ZERO, b"", now_ms)
        for n in range(first, first + count)
    }
    return one


def kept_operations(state: StateDb) -> int:
    state.refresh()
    return state._tables.entries(b"operations")


def test_operation_ids_stay_bounded_while_new_ones_come(state: StateDb) -> None:
    sizes = []
    for hour in range(120):
        state.commit(operations(hour * 100, 100, START_MS + hour * HOUR_MS))
        sizes.append(kept_operations(state))

    assert max(sizes) < 2 * 24 * 100
    assert sizes[-1] >= 24 * 100


def test_many_operation_ids_are_forgotten_after_a_day_though_few_come(state: StateDb) -> None:
    state.commit(operations(0, 1000, START_MS))

    for number in range(30):
        state.commit(operations(1000 + number, 1, START_MS + 25 * HOUR_MS + number))

    assert kept_operations(state) == 30


def test_a_clock_that_was_set_back_does_not_stop_the_forgetting(state: StateDb) -> None:
    state.commit(operations(0, 1, START_MS + 10_000 * HOUR_MS))

    for hour in range(120):
        state.commit(operations(1 + hour * 100, 100, START_MS + hour * HOUR_MS))

    assert kept_operations(state) < 2 * 24 * 100


# -- the walk that `check` rests on -----------------------------------------------------------


def test_the_walk_counts_what_is_there(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    for n in range(50):
        state.commit(batch(f"e{n}", 1, 3))
    state.close()

    counted = pages.walk((tmp_path / "data.mdb").read_bytes())

    assert counted[b"environments"] == counted[b"index"] == 50
    assert counted[b"history"] == 150
    assert counted[b"system"] == 6


def written(directory: Path) -> tuple[bytearray, pages.Meta]:
    """The bytes of a small state's file, and its meta page."""
    state = open_state(directory)
    for n in range(4):
        state.commit(batch(f"e{n}", 1, 3))
    state.close()
    data = bytearray((directory / "data.mdb").read_bytes())
    return data, pages.newest_meta(lambda at, size: bytes(data[at : at + size]))


def table_record(data: bytearray, meta: pages.Meta, name: bytes) -> int:
    """Where the main tree's record of a table begins."""
    return data.index(name, meta.main.root * meta.page_bytes) + len(name)


def test_the_walk_refuses_a_table_of_another_name(tmp_path: Path) -> None:
    data, meta = written(tmp_path)
    data[table_record(data, meta, b"vectors") - 1] ^= 1

    with pytest.raises(pages.Damage, match="a table is missing"):
        pages.walk(bytes(data))


def test_the_walk_refuses_a_table_with_another_number_of_entries(tmp_path: Path) -> None:
    data, meta = written(tmp_path)
    data[table_record(data, meta, b"index") + 32] ^= 1

    with pytest.raises(pages.Damage, match="tree index has 4 entries, not 5"):
        pages.walk(bytes(data))


def test_the_walk_refuses_keys_out_of_order(tmp_path: Path) -> None:
    data, meta = written(tmp_path)
    (root,) = struct.unpack_from("=Q", data, table_record(data, meta, b"index") + 40)
    offsets = root * meta.page_bytes + 16
    data[offsets : offsets + 4] = data[offsets + 2 : offsets + 4] + data[offsets : offsets + 2]

    with pytest.raises(pages.Damage, match="the keys of tree index are out of order"):
        pages.walk(bytes(data))


def test_the_walk_refuses_a_page_that_is_free_and_in_use(tmp_path: Path) -> None:
    data, meta = written(tmp_path)
    page = meta.free.root * meta.page_bytes
    (offset,) = struct.unpack_from("=H", data, page + 16)
    (first_free,) = struct.unpack_from("=Q", data, page + offset + 8 + 8 + 8)

    struct.pack_into("=Q", data, page + offset + 8 + 8 + 8, meta.main.root)

    assert first_free != meta.main.root
    with pytest.raises(pages.Damage, match=r"free and in use|free twice"):
        pages.walk(bytes(data))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells of its maps")
def test_a_read_brings_no_more_of_the_file_into_memory_than_it_needs(
    state: StateDb, tmp_path: Path
) -> None:
    maps = Path("/proc/self/smaps").read_text().split("VmFlags:")

    # Each part ends with a map's own lines, and the next one begins with its flags.
    of_state = [at for at, part in enumerate(maps) if f"{tmp_path}/data.mdb" in part]
    assert of_state
    assert all("rr" in maps[at + 1].partition("\n")[0].split() for at in of_state)
