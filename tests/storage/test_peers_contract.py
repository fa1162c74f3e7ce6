"""What the port promises of records that come from other nodes, of every Store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from envd.core.commit import Commit, Kind
from envd.core.environment import Environment
from envd.core.errors import Unavailable
from envd.core.history import Retention, state_at
from envd.core.ring import PARTITIONS, partition_of
from envd.core.stamp import MAX_HLC, Stamp
from envd.core.versions import Cursor, share
from envd.ports import Applied, Store
from envd.storage import quarantine
from envd.wire import records
from tests.storage.kept import KINDS, Kept, make_kept
from tests.storage.others import (
    PEER,
    at,
    base_of,
    commit_at,
    later_encoding,
    merged,
    repaired,
    shipped,
)
from tests.storage.world import DIGEST_KEY, MIB, NODE, values_of

P = partition_of("a")


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made = await make_kept(request.param, tmp_path)
    yield made
    await made.store.close()


@pytest.fixture(params=KINDS)
async def short(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    """A store that keeps three commits of an environment."""
    made = await make_kept(request.param, tmp_path, Retention(3, 0))
    yield made
    await made.store.close()


async def all_rows(store: Store, max_bytes: int = MIB) -> list[tuple[int, bytes]]:
    """The log as a peer reads it, page by page."""
    found: list[tuple[int, bytes]] = []
    while page := await store.rows(found[-1][0] if found else 0, max_bytes):
        found += page
    return found


# -- records ----------------------------------------------------------------------------------


async def test_a_peers_commit_is_kept_and_passed_on_in_the_bytes_that_came(kept: Kept) -> None:
    commit = commit_at(at(1), "a", {"X": "1"})
    encoded = later_encoding(commit)

    await kept.wait(shipped(kept.store, commit, encoded=encoded))

    assert kept.store.commit_rows("a") == [(at(1), encoded)]
    [(_, row)] = await all_rows(kept.store)
    assert records.decode_own_row(row)[1] == encoded
    assert records.record_name(row) == (P, PEER, 1)


async def test_what_a_late_commit_made_is_what_its_caller_was_told(kept: Kept) -> None:
    told = bytes(range(16))
    commit = replace(commit_at(at(1), "a", {"X": "1"}), operation="op", revision=told)
    await kept.wait(shipped(kept.store, commit_at(at(2), "a", {"Y": "2"})))

    await kept.wait(repaired(kept.store, commit))
    await kept.wait(repaired(kept.store, commit))

    known = kept.store.find_operation(commit.author, "op")
    assert known is not None
    assert (known.revision, known.stamp) == (told, at(1))


async def test_a_listener_gets_the_bytes_of_the_record_as_they_stand_in_the_log(
    kept: Kept,
) -> None:
    heard: list[Applied] = []
    kept.store.subscribe(heard.append)
    await kept.writer.commit("a", {"X": "1"})
    await shipped(kept.store, commit_at(at(1), "a", {"Y": "2"}))
    rows = await all_rows(kept.store)

    assert [(applied.lsn, applied.row) for applied in heard] == rows
    assert [records.decode_log_record(row) for _, row in rows] == [one.record for one in heard]


async def test_the_rows_of_commits_are_in_order_of_their_stamps_however_they_came(
    kept: Kept,
) -> None:
    for n in (3, 1, 2):
        await kept.wait(shipped(kept.store, commit_at(at(n), "a", {"X": str(n)})))

    rows = kept.store.commit_rows("a")

    assert [stamp for stamp, _ in rows] == [at(1), at(2), at(3)]
    assert [records.decode_commit(encoded).stamp for _, encoded in rows] == [at(1), at(2), at(3)]
    assert kept.store.commit_rows("b") == []


async def test_a_repaired_commit_counts_as_any_other_but_has_no_name(kept: Kept) -> None:
    heard: list[Applied] = []
    await kept.put("a", X="mine")
    vectors = dict(kept.store.vectors())
    kept.store.subscribe(heard.append)

    await kept.wait(repaired(kept.store, commit_at(at(10**6), "a", {"Y": "theirs"})))

    assert [(one.lsn, one.record.origin, one.record.seq) for one in heard] == [(2, 0, 0)]
    assert values_of(kept.store, "a") == {"X": "mine", "Y": "theirs"}
    assert dict(kept.store.vectors()) == vectors
    assert kept.store.last_seq(P, 0) == 0
    assert len(kept.store.commits("a", None, 9)) == 2
    assert [lsn for lsn, _ in await all_rows(kept.store)] == [1]
    assert [lsn for lsn, _ in kept.store.replay(0)] == [1, 2]
    assert kept.store.last_lsn() == 2


async def test_a_commit_that_comes_twice_is_one_in_the_history(short: Kept) -> None:
    for n in range(1, 4):
        await short.wait(shipped(short.store, commit_at(at(n), "a", {f"K{n}": "v"})))

    await short.wait(repaired(short.store, commit_at(at(2), "a", {"K2": "v"})))
    await short.store.flush()

    assert [commit.stamp for commit in short.store.commits("a", None, 9)] == [at(3), at(2), at(1)]
    assert short.store.base("a") == Environment("a")


async def test_own_commits_that_come_back_raise_the_durable_bound(kept: Kept) -> None:
    own = at(10**9, NODE)

    await kept.wait(repaired(kept.store, commit_at(own, "a", {"X": "1"})))
    await kept.wait(repaired(kept.store, commit_at(Stamp(0, MAX_HLC >> 1, PEER), "a", {"Y": "1"})))

    assert own.hlc <= kept.store.highest_hlc() < MAX_HLC >> 1


# -- bases ------------------------------------------------------------------------------------

FOLDED = base_of(
    "a",
    (
        commit_at(at(1), "a", {"OLD": "1", "BOTH": "1"}),
        commit_at(at(2), "a", {"GONE": None}),
        commit_at(at(3), "a", {"owner": "team"}, kind=Kind.METADATA),
    ),
)


async def test_a_base_makes_the_environment_where_there_was_none(kept: Kept) -> None:
    await kept.wait(merged(kept.store, FOLDED))
    await kept.store.flush()

    state = kept.store.visible("a")
    assert state is not None
    assert state.environment == kept.store.base("a") == FOLDED
    assert kept.store.commits("a", None, 9) == []
    assert [found.environment for found in kept.store.environments("", "", 9)] == ["a"]
    assert kept.store.environment_count() == 1
    assert [name for name, _ in kept.store.digests(P)] == ["a"]


async def test_a_base_is_merged_into_that_which_is_there_and_into_the_state(short: Kept) -> None:
    for n in range(1, 6):
        values = {"BOTH": f"mine {n}", f"K{n}": "v"}
        await short.wait(shipped(short.store, commit_at(at(n + 1), "a", values)))

    await short.wait(merged(short.store, FOLDED))
    await short.store.flush()
    twice = short.store.base("a")
    await short.wait(merged(short.store, FOLDED))
    await short.store.flush()

    base, commits = short.store.base("a"), short.store.commits("a", None, 9)
    state = short.store.visible("a")
    assert state is not None
    assert base == twice
    assert {name: entry.value for name, entry in base.live(Kind.VARIABLE)} == {
        "OLD": "1",
        "BOTH": "mine 2",
        "K1": "v",
        "K2": "v",
    }
    assert len(commits) == 3
    assert state_at(base, commits, Stamp(9, 0, 0)) == state.environment
    assert values_of(short.store, "a")["OLD"] == "1"


async def test_commits_on_their_way_build_on_a_base_on_its_way(kept: Kept) -> None:
    kept.writer.hlc = at(9).hlc
    waiting = [merged(kept.store, FOLDED), kept.writer.commit("a", {"X": "1", "BOTH": "2"})]

    lsns = [await one for one in waiting]

    assert lsns == [1, 2]
    assert values_of(kept.store, "a") == {"OLD": "1", "BOTH": "2", "X": "1"}
    [commit] = kept.store.commits("a", None, 9)
    assert {change.name: change.overwrites for change in commit.changes}["BOTH"] == at(1)


async def test_a_base_is_told_as_a_commit_without_a_name_and_not_passed_on(kept: Kept) -> None:
    heard: list[Applied] = []
    await kept.put("b", X="1")
    kept.store.subscribe(heard.append)

    await kept.wait(merged(kept.store, FOLDED))
    await kept.put("b", X="2")

    told = heard[0]
    assert (told.lsn, told.record.origin, told.row) == (2, 0, b"")
    assert told.after.environment == FOLDED
    assert {change.name for change in told.record.commit.changes} == {
        "OLD",
        "BOTH",
        "GONE",
        "owner",
    }
    replayed = list(kept.store.replay(0))
    assert [lsn for lsn, _ in replayed] == [1, 2, 3]
    assert replayed[1][1] == told.record
    assert [lsn for lsn, _ in await all_rows(kept.store)] == [1, 3]
    assert dict(kept.store.vectors()) == {(partition_of("b"), NODE): 2}


# -- vectors and cursors ----------------------------------------------------------------------


async def test_vectors_hold_what_is_durable(kept: Kept) -> None:
    await kept.wait(shipped(kept.store, commit_at(at(1), "a", {"X": "1"})))

    on_its_way = shipped(kept.store, commit_at(at(2), "a", {"X": "2"}))
    before = dict(kept.store.vectors())
    given = kept.store.last_seq(P, PEER)
    await on_its_way

    assert (before, given) == ({(P, PEER): 1}, 2)
    assert dict(kept.store.vectors()) == {(P, PEER): 2}


async def test_what_a_peer_told_raises_vectors_and_never_lowers_them(kept: Kept) -> None:
    for n in range(1, 4):
        await kept.wait(shipped(kept.store, commit_at(at(n), "a", {"X": str(n)})))

    kept.store.advance({(P, PEER): 2, (P, 8): 5, (P ^ 1, 8): 6}, {})
    kept.store.advance({(P, 8): 4}, {})
    await kept.store.flush()
    await kept.step()

    assert dict(kept.store.vectors()) == {(P, PEER): 3, (P, 8): 5, (P ^ 1, 8): 6}
    assert kept.store.last_seq(P, 8) == 5


async def test_an_older_record_does_not_lower_a_vector_that_a_peer_raised(kept: Kept) -> None:
    await kept.put("a", Y="0")
    kept.store.advance({(P, PEER): 10}, {})
    await kept.store.flush()

    await kept.wait(shipped(kept.store, commit_at(at(1), "a", {"X": "1"}), seq=4))
    await kept.store.flush()
    await kept.step()

    assert kept.store.last_seq(P, PEER) == 10
    assert kept.store.vectors()[P, PEER] == 10


async def test_cursors_are_kept_with_the_next_flush(kept: Kept) -> None:
    kept.store.advance({}, {7: Cursor(1, 2), 8: Cursor(3, 0)})
    at_once = kept.store.cursor(7)
    kept.store.advance({}, {7: Cursor(5, 2)})
    await kept.store.flush()
    await kept.step()
    await kept.put("a", X="1")

    assert at_once == Cursor(1, 2)
    assert [kept.store.cursor(uid) for uid in (7, 8, 9)] == [Cursor(5, 2), Cursor(3, 0), Cursor()]


async def test_a_forgotten_origin_counts_from_the_beginning_again(kept: Kept) -> None:
    await kept.wait(shipped(kept.store, commit_at(at(1), "a", {"X": "1"})))
    await kept.wait(shipped(kept.store, commit_at(at(2), "b", {"X": "1"})))
    await kept.put("a", Y="1")

    kept.store.forget_origin(PEER)
    await kept.store.flush()
    await kept.step()
    gone = dict(kept.store.vectors())
    await kept.wait(shipped(kept.store, commit_at(at(3), "b", {"X": "2"})))

    assert gone == {(P, NODE): 1}
    assert kept.store.last_seq(P, PEER) == 0
    assert dict(kept.store.vectors()) == {(P, NODE): 1, (partition_of("b"), PEER): 1}
    assert values_of(kept.store, "a") == {"X": "1", "Y": "1"}


async def test_relays_begin_anew_once_an_origin_is_forgotten(kept: Kept) -> None:
    kept.store.advance({}, {7: Cursor(5, 4), 8: Cursor(3, 0)})

    kept.store.forget_origin(PEER)
    await kept.store.flush()
    await kept.step()

    assert [kept.store.cursor(uid) for uid in (7, 8)] == [Cursor(5, 0), Cursor(3, 0)]


# -- the log as peers read it -----------------------------------------------------------------


async def test_rows_come_in_pages_that_make_up_the_log(kept: Kept) -> None:
    for n in range(12):
        value = "v" * (100 + 900 * (n % 3))
        await kept.wait(kept.writer.commit(f"e{n % 2}", {"X": value}))
        if n % 4 == 1:
            await kept.wait(repaired(kept.store, commit_at(at(n), "a", {f"R{n}": value})))
    whole = await kept.store.rows(0, MIB)

    for max_bytes in (1, 700, 1500, 4000):
        pages = []
        after = 0
        while page := await kept.store.rows(after, max_bytes):
            pages.append(page)
            after = page[-1][0]
        assert [row for page in pages for row in page] == whole
        for page, following in pairwise(pages):
            sizes = [len(row) for _, row in page]
            assert len(page) == 1 or sum(sizes) <= max_bytes
            assert sum(sizes) + len(following[0][1]) > max_bytes

    assert len(whole) == 12
    assert [lsn for lsn, _ in whole] == sorted({*range(1, 16)} - {3, 8, 13})
    assert await kept.store.rows(whole[-1][0], MIB) == []
    assert await kept.store.rows(100, MIB) == []
    assert [lsn for lsn, _ in await kept.store.rows(whole[4][0], MIB)] == [
        lsn for lsn, _ in whole[5:]
    ]


async def test_rows_hold_what_is_durable_alone(kept: Kept) -> None:
    await kept.put("a", X="1")
    on_its_way = kept.writer.commit("a", {"X": "2"})

    found = await kept.store.rows(0, MIB) if kept.kind.startswith("durable") else None
    await on_its_way

    assert found is None or [lsn for lsn, _ in found] in ([1], [1, 2])
    assert [lsn for lsn, _ in await kept.store.rows(0, MIB)] == [1, 2]


async def test_the_whole_log_is_there_from_the_beginning(kept: Kept) -> None:
    empty = kept.store.oldest_lsn()
    for n in range(3):
        await kept.put("a", X=str(n))

    assert (empty, kept.store.oldest_lsn()) == (1, 1)


# -- fingerprints -----------------------------------------------------------------------------

HISTORY = [
    commit_at(at(n, node), name, {f"K{n % 3}": None if n == 7 else f"{node}"})
    for n in range(1, 10)
    for node in (PEER, 8)
    for name in ("a", "a/b", "c")
]


async def fingerprints(store: Store) -> tuple[object, ...]:
    await store.flush()
    roots = store.roots()
    assert roots.unsettled == frozenset()
    partitions = sorted({partition_of(commit.environment) for commit in HISTORY})
    return (tuple(roots.partitions), [store.digests(partition) for partition in partitions])


async def test_equal_histories_have_equal_fingerprints_in_whatever_order_they_came(
    short: Kept, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = await make_kept("memory", tmp_path / "other", Retention(3, 0))
    for commit in HISTORY:
        await shipped(short.store, commit)
    await short.step()
    for commit in reversed(HISTORY):
        await repaired(other.store, commit)

    assert await fingerprints(short.store) == await fingerprints(other.store)


async def test_a_root_sums_up_the_digests_of_its_partition(kept: Kept) -> None:
    for commit in HISTORY[:20]:
        await kept.wait(shipped(kept.store, commit))
    await kept.delete("a/b")
    await kept.wait(merged(kept.store, FOLDED))
    await kept.store.flush()

    roots = kept.store.roots()

    assert len(roots.partitions) == PARTITIONS
    for partition in range(PARTITIONS):
        expected = sum(
            share(name, known, DIGEST_KEY) for name, known in kept.store.digests(partition)
        )
        assert roots.partitions[partition] == expected % (1 << 128)
    assert sum(1 for root in roots.partitions if root) == len(
        {partition_of(name) for name in ("a", "a/b", "c")}
    )


@pytest.mark.parametrize(
    "other",
    [
        commit_at(at(1), "a", {"X": "2"}),
        commit_at(at(1), "a", {"Y": "1"}),
        commit_at(at(2), "a", {"X": "1"}),
        replace(commit_at(at(1), "a", {"X": "1"}), message="said"),
        commit_at(at(1), "a", {"X": "1"}, kind=Kind.METADATA),
    ],
)
async def test_any_other_commit_gives_another_fingerprint(
    kept: Kept, tmp_path: Path, other: Commit
) -> None:
    (tmp_path / "other").mkdir()
    beside = await make_kept("memory", tmp_path / "other")
    await kept.wait(shipped(kept.store, commit_at(at(1), "a", {"X": "1"})))
    await shipped(beside.store, other)

    assert await fingerprints(kept.store) != await fingerprints(beside.store)


async def test_nodes_that_differ_in_the_base_alone_have_other_fingerprints(
    kept: Kept, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    beside = await make_kept("memory", tmp_path / "other")
    shadow = commit_at(at(1), "a", {"X": "shadowed"})
    for store in (kept.store, beside.store):
        await shipped(store, commit_at(at(2), "a", {"X": "1"}))
    alike = await fingerprints(kept.store) == await fingerprints(beside.store)

    await kept.wait(merged(kept.store, base_of("a", [shadow])))
    different = await fingerprints(kept.store) != await fingerprints(beside.store)
    await merged(beside.store, base_of("a", [shadow]))

    states = [store.visible("a") for store in (kept.store, beside.store)]
    assert states[0] == states[1]
    assert (alike, different) == (True, True)
    assert await fingerprints(kept.store) == await fingerprints(beside.store)


async def test_an_empty_base_leaves_the_fingerprints_alone(kept: Kept) -> None:
    await kept.wait(shipped(kept.store, commit_at(at(1), "a", {"X": "1"})))
    before = await fingerprints(kept.store)

    await kept.wait(merged(kept.store, Environment("a")))

    assert await fingerprints(kept.store) == before


# -- quarantine -------------------------------------------------------------------------------


def future_row(n: int, seq: int, origin: int = PEER) -> bytes:
    """A record whose commit this version can't read."""
    commit = b"\x07" + bytes([n])
    return (
        b"\x01" + b"\x94\x05" + b"\xcd" + origin.to_bytes(2) + bytes([seq]) + b"\xc4\x02" + commit
    )


async def test_records_from_the_future_wait_in_order_of_their_names(kept: Kept) -> None:
    nameless = b"\x63 of another time"
    rows = [future_row(1, 3), nameless, future_row(2, 1), future_row(3, 2, 8), future_row(4, 1, 0)]
    for row in (*rows, rows[0]):
        await kept.store.quarantine(row)
        await kept.step()
    waiting = list(kept.store.quarantined())

    await kept.store.release(rows[2])
    await kept.store.release(b"never there")
    await kept.step()

    assert records.record_name(rows[0]) == (5, PEER, 3)
    assert waiting == [rows[4], rows[3], rows[2], rows[0], nameless]
    assert list(kept.store.quarantined()) == [rows[4], rows[3], rows[0], nameless]


async def test_quarantine_is_outside_of_everything(kept: Kept) -> None:
    await kept.put("a", X="1")
    before = (await fingerprints(kept.store), dict(kept.store.vectors()), kept.store.last_lsn())

    await kept.store.quarantine(future_row(1, 2))
    await kept.step()

    after = (await fingerprints(kept.store), dict(kept.store.vectors()), kept.store.last_lsn())
    assert after == before
    assert len(await all_rows(kept.store)) == 1


@pytest.mark.parametrize("kind", ["memory", "durable"])
async def test_quarantine_takes_no_more_than_its_room(kind: str, tmp_path: Path) -> None:
    kept = await make_kept(kind, tmp_path)
    half = quarantine.MAX_BYTES // 2
    large = [future_row(1, 1) + bytes(half - 100), future_row(2, 2) + bytes(half - 100)]
    if kind == "durable":  # Its map is smaller than this, in the tests.
        large = [row[: 12 * MIB] for row in large]
    for row in large:
        await kept.store.quarantine(row)

    if kind == "memory":
        with pytest.raises(Unavailable) as refused:
            await kept.store.quarantine(future_row(3, 3) + bytes(1000))
        assert refused.value.reason == "QUARANTINE_FULL"
        await kept.store.quarantine(large[0])
        await kept.store.release(large[0])
        await kept.store.quarantine(future_row(3, 3) + bytes(1000))
    assert len(kept.store.quarantined()) == 2
    await kept.store.close()
