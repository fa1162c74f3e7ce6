"""Killed at any moment; copied under load; searched for what must not be readable."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path

from envd.core.commit import Kind
from envd.core.environment import Environment
from envd.core.errors import StorageError
from envd.ports import Store
from envd.storage.memory import MemoryStore
from envd.storage.pages import walk
from envd.storage.store import DurableStore
from tests.storage import receiving
from tests.storage.others import PEER, merged, shipped
from tests.storage.world import (
    DIGEST_KEY,
    NODE,
    WitnessSealer,
    Writer,
    crash_copy,
    keeping,
    open_store,
    values_of,
)

Acknowledged = list[tuple[int, str, int]]


def lines_until_killed(module: str, directory: Path, lines: int) -> list[list[str]]:
    """Let a process write; kill it after its so-manieth acknowledgement was read."""
    command = [sys.executable, "-m", f"tests.storage.{module}", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
    return [line.split() for line in said if line.endswith("\n")]


def write_and_kill(directory: Path, lines: int) -> Acknowledged:
    """What a process that was killed had acknowledged."""
    whole = lines_until_killed("crashing", directory, lines)
    return [(int(lsn), environment, int(number)) for lsn, environment, number in whole]


def assert_whole(store: Store, acknowledged: Acknowledged) -> None:
    """Hold that every acknowledged commit is there, none half, and all in order."""
    log = list(store.replay(0))
    by_lsn = {lsn: record.commit for lsn, record in log}
    assert [lsn for lsn, _ in log] == list(range(1, len(log) + 1))
    for lsn, environment, number in acknowledged:
        assert by_lsn[lsn].environment == environment
        assert by_lsn[lsn].changes[0].name == f"A{number}"
        assert f"A{number}" in values_of(store, environment)
    for environment in {record.commit.environment for _, record in log}:
        values = values_of(store, environment)
        assert all(values[f"B{name[1:]}"] == values[name] for name in values if name[0] == "A")
        assert len(values) == 2 * len(store.commits(environment, None, 10_000))
    for (_, one), (_, other) in pairwise(log):
        assert one.commit.stamp < other.commit.stamp
    ordered = sorted((record for _, record in log), key=lambda record: record.partition)
    for _, group in groupby(ordered, key=lambda record: record.partition):
        seqs = [record.seq for record in group]
        assert seqs == list(range(1, len(seqs) + 1))
    assert store.highest_hlc() >= max(commit.stamp.hlc for commit in by_lsn.values())


async def test_killed_again_and_again_it_keeps_all_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: Acknowledged = []

    for lines in (1, 57, 190, 333):
        acknowledged += await asyncio.to_thread(write_and_kill, tmp_path, lines)
        walk((tmp_path / "state" / "data.mdb").read_bytes())
        copy = crash_copy(tmp_path, tmp_path.parent / f"after {lines}")
        store = await open_store(copy)
        assert_whole(store, acknowledged)
        await store.close()

    assert len(acknowledged) >= 1 + 57 + 190 + 333
    assert len({lsn for lsn, _, _ in acknowledged}) == len(acknowledged)


async def assert_as_received(store: DurableStore, acknowledged: int) -> None:
    """Hold that a store is just what a peer's first commits and bases make, and tells so."""
    count = sum(seq for (_, origin), seq in store.vectors().items() if origin == PEER)
    memory = MemoryStore(receiving.RECEIVING.retention, digest_key=DIGEST_KEY)
    told = (record for _, record in store.replay(0) if not record.origin)
    logged = {change.name for record in told for change in record.commit.changes}
    for n in range(count + 1):  # The last base may be there without its commit.
        base = receiving.nth_base(n)
        if base is not None and (n < count or base.variables.keys() <= logged):
            await merged(memory, base)
        if n < count:
            await shipped(memory, receiving.nth_commit(n))

    assert count > acknowledged
    assert {place: seq for place, seq in store.vectors().items() if place[1] == PEER} == dict(
        memory.vectors()
    )
    assert store.cursor(PEER).own_lsn < count
    for name in receiving.NAMES:
        assert store.visible(name) == memory.visible(name)
        assert store.commits(name, None, 1000) == memory.commits(name, None, 1000)
        assert store.base(name) == memory.base(name)
    assert store.conflicts("", "", 1000) == memory.conflicts("", "", 1000)
    assert store.roots() == memory.roots()


async def test_killed_while_a_peer_ships_it_is_what_the_peers_first_commits_make(
    tmp_path: Path,
) -> None:
    acknowledged = -1

    for lines in (1, 40, 95, 210):
        said = await asyncio.to_thread(lines_until_killed, "receiving", tmp_path, lines)
        acknowledged = max(acknowledged, *(int(line[0]) for line in said))
        copy = crash_copy(tmp_path, tmp_path.parent / f"received {lines}")
        store = await open_store(copy, options=receiving.RECEIVING)
        await store.flush()
        await assert_as_received(store, acknowledged)
        await store.close()

    assert acknowledged >= 300


# -- a copy under load --------------------------------------------------------------------------


def states_from_log(store: Store, up_to: int) -> dict[str, Environment]:
    states: dict[str, Environment] = {}
    for lsn, record in store.replay(0):
        if lsn <= up_to:
            name = record.commit.environment
            states[name] = states.get(name, Environment(name)).apply(record.commit)
    return states


async def test_a_copy_made_under_load_opens_with_the_states_of_one_moment(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    store = await open_store(tmp_path / "data")
    writer = Writer(store)
    for n in range(200):
        await writer.commit(f"e{n % 20}", {f"K{n}": "v" * 500})

    async def load() -> None:
        for n in range(400):
            await writer.commit(f"e{n % 30}", {f"L{n}": "w" * 300})

    held, _ = await asyncio.gather(store.copy_to(tmp_path / "copy"), load())
    copy = await open_store(tmp_path / "copy")

    assert copy.dropped_tail is None
    assert 200 <= held <= copy.last_lsn() <= store.last_lsn()
    expected = states_from_log(store, copy.last_lsn())
    for name, environment in expected.items():
        state = copy.visible(name)
        assert state is not None
        assert state.environment == environment
    assert [listed.environment for listed in copy.environments("", "", 100)] == sorted(expected)
    assert await Writer(copy, hlc=copy.highest_hlc()).commit("e0", {"NEW": "1"}) > held
    await copy.close()
    await store.close()


async def test_a_copy_of_a_quiet_store_has_equal_revisions(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    store = await open_store(tmp_path / "data")
    writer = Writer(store)
    for n in range(10):
        await writer.commit(f"e{n}", {"X": str(n)}, operation=f"op-{n}")
    await writer.commit("e3", deletes=True)

    held = await store.copy_to(tmp_path / "copy")
    copy = await open_store(tmp_path / "copy")

    assert held == copy.last_lsn() == 11
    assert copy.environments("", "", 100) == store.environments("", "", 100)
    assert all(copy.commits(f"e{n}", None, 9) == store.commits(f"e{n}", None, 9) for n in range(10))
    assert copy.find_operation("ann", "op-4") == store.find_operation("ann", "op-4")
    assert copy.highest_hlc() >= writer.hlc
    await copy.close()
    await store.close()


async def test_a_copy_into_a_place_that_is_taken_is_refused(tmp_path: Path) -> None:
    store = await open_store(tmp_path)

    try:
        await store.copy_to(tmp_path)
        refused = None
    except StorageError as error:
        refused = error

    assert refused is not None
    assert str(tmp_path) in refused.message
    await store.close()


# -- no plaintext -------------------------------------------------------------------------------

CANARIES = (
    "canary-value",
    "canary-overwritten",
    "canary-deleted",
    "canary-unset",
    "canary-metadata",
    "canary-message",
    "canary-author",
    "canary-operation",
    "CANARY_NAME",
    "canary-large",
)


async def write_canaries(writer: Writer) -> None:
    """Put each canary where one of its kind goes; the early ones leave the history."""
    environment = "team/app"
    await writer.commit(environment, {"X": "canary-overwritten", "Y": "canary-unset"})
    await writer.commit(
        environment, {"X": "canary-value", "CANARY_NAME": "canary-value", "Y": None}
    )
    await writer.commit(environment, {"owner": "canary-metadata"}, kind=Kind.METADATA)
    await writer.commit(
        environment,
        {"Z": "canary-large " * 2000},
        author="canary-author",
        message="canary-message",
        operation="canary-operation",
    )
    await writer.commit("team/gone", {"X": "canary-deleted"})


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_nothing_that_is_secret_can_be_read_from_any_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    store = await open_store(data, WitnessSealer(), options=keeping(2))
    writer = Writer(store)

    await write_canaries(writer)
    crash_copy(data, tmp_path / "before a flush")
    await store.flush()
    crash_copy(data, tmp_path / "flushed")
    await writer.commit("team/gone", deletes=True)
    for n in range(8):
        await writer.commit("team/app", {"N": str(n)})
        await store.flush()
    base = store.base("team/app").variables
    crash_copy(data, tmp_path / "trimmed")
    await store.copy_to(tmp_path / "copy")
    await store.close()

    assert base["X"].value == "canary-value"  # The base snapshot holds one too.
    searched = files_in(tmp_path)
    assert len({path.parent.parent.name for path in searched}) == 5
    for path in searched:
        content = path.read_bytes().lower()
        for canary in CANARIES:
            assert canary.lower().encode() not in content, path
            assert canary.lower().encode("utf-16-le") not in content, path


async def test_the_search_would_find_a_canary(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await Writer(store).commit("team/canary-in-clear", {"X": "1"})
    await store.flush()
    await store.close()

    # Names of environments are what LMDB needs in clear.
    assert b"canary-in-clear" in (tmp_path / "state" / "data.mdb").read_bytes()


async def test_errors_and_logs_hold_no_value(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    durable = Writer(store).commit("a", {"X": "canary-value"}, origin=NODE)
    shown = [repr(store.head("a")), repr(store._memtable._hot["a"].head), repr(durable)]
    await durable
    shown.append(repr(next(store.replay(0))))
    shown.append(repr(store.commits("a", None, 1)))

    assert not [text for text in shown if "canary-value" in text]
    await store.close()
