"""Roots and vectors: two nodes that hold the same tell the same, and a difference is found."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.ring import PARTITIONS
from envd.core.versions import (
    BUCKETS,
    FAN_OUT,
    GROUPS,
    ROOT_BYTES,
    Cursor,
    Roots,
    bucket_of,
    bucket_sums,
    share,
    shifted,
    vector_hash,
)

KEY = b"k" * 32
LARGEST = (1 << 8 * ROOT_BYTES) - 1
names = st.text("abc/-", min_size=1, max_size=6)
digests = st.binary(min_size=16, max_size=16)
states = st.dictionaries(names, digests, max_size=8)
sums = st.integers(0, LARGEST)
vectors = st.dictionaries(st.integers(1, 5), st.integers(1, 9), max_size=4)


def root_of(state: dict[str, bytes]) -> int:
    root = 0
    for name, digest in state.items():
        root = shifted(root, 0, share(name, digest, KEY))
    return root


# -- shares and roots -------------------------------------------------------------------------


@given(states, st.randoms(use_true_random=False))
def test_a_root_is_the_same_in_whatever_order_it_was_summed_up(
    state: dict[str, bytes], chance: Random
) -> None:
    items = list(state.items())
    chance.shuffle(items)

    assert root_of(dict(items)) == root_of(state)


@given(states, states)
def test_equal_roots_mean_equal_states(left: dict[str, bytes], right: dict[str, bytes]) -> None:
    assert (root_of(left) == root_of(right)) == (left == right)


@given(states, names, digests, digests)
def test_a_root_that_followed_a_change_is_that_of_the_changed_state(
    state: dict[str, bytes], name: str, old: bytes, new: bytes
) -> None:
    before = root_of(state | {name: old})

    after = shifted(before, share(name, old, KEY), share(name, new, KEY))

    assert after == root_of(state | {name: new})


@pytest.mark.parametrize(
    ("root", "before", "after", "expected"),
    [(0, 0, 7, 7), (7, 7, 0, 0), (3, 5, 0, LARGEST - 1), (LARGEST, 0, 2, 1)],
)
def test_roots_wrap_around(root: int, before: int, after: int, expected: int) -> None:
    assert shifted(root, before, after) == expected


def test_a_share_depends_on_name_digest_and_key_and_nothing_runs_together() -> None:
    shares = {
        share("a", b"1" * 16, KEY),
        share("b", b"1" * 16, KEY),
        share("a", b"2" * 16, KEY),
        share("a", b"1" * 16, b"x" * 32),
        share("a\0", b"1" * 15, KEY),
    }

    assert len(shares) == 5
    assert all(0 <= each <= LARGEST for each in shares)


@given(st.lists(sums, min_size=PARTITIONS // 64, max_size=PARTITIONS // 64))
def test_the_groups_make_up_the_whole(some: list[int]) -> None:
    roots = Roots([*some, *[0] * (PARTITIONS - len(some))])

    groups = [roots.group(number) for number in range(GROUPS)]

    assert roots.whole() == sum(groups) % (LARGEST + 1)
    assert groups[0] == sum(some[:FAN_OUT]) % (LARGEST + 1)


def test_each_partition_moves_its_own_group_and_no_other() -> None:
    assert GROUPS * FAN_OUT == PARTITIONS
    for partition in (0, FAN_OUT - 1, FAN_OUT, PARTITIONS - 1):
        partitions = [0] * PARTITIONS
        partitions[partition] = 9
        roots = Roots(partitions)
        moved = [number for number in range(GROUPS) if roots.group(number)]
        assert moved == [partition // FAN_OUT]


# -- buckets ----------------------------------------------------------------------------------


@given(states)
def test_the_buckets_of_a_partition_sum_up_to_its_root(state: dict[str, bytes]) -> None:
    buckets = bucket_sums(state.items(), KEY)

    assert len(buckets) == BUCKETS
    assert sum(buckets) % (LARGEST + 1) == root_of(state)


@given(states, names, digests, digests)
def test_a_difference_shows_in_the_bucket_of_its_name_alone(
    state: dict[str, bytes], name: str, old: bytes, new: bytes
) -> None:
    left = bucket_sums((state | {name: old}).items(), KEY)
    right = bucket_sums((state | {name: new}).items(), KEY)

    differing = {at for at in range(BUCKETS) if left[at] != right[at]}
    assert differing == ({bucket_of(name)} if old != new else set())


def test_names_spread_over_all_buckets() -> None:
    assert {bucket_of(f"team/app-{n}") for n in range(1000)} == set(range(BUCKETS))


def test_a_known_name_never_changes_its_bucket_nor_its_share() -> None:
    assert bucket_of("team/app/prod") == 51
    assert f"{share('team/app/prod', bytes(16), KEY):032x}" == "745c654de27b23a66eb376f4a4e79b8f"


# -- vectors ----------------------------------------------------------------------------------


@given(vectors, vectors)
def test_vectors_have_equal_hashes_where_they_are_equal(
    left: dict[int, int], right: dict[int, int]
) -> None:
    turned = dict(reversed(left.items()))

    assert vector_hash(left) == vector_hash(turned)
    assert (vector_hash(left) == vector_hash(right)) == (left == right)


def test_the_hash_of_a_vector_has_64_bits_and_that_of_none_is_0() -> None:
    hashes = [vector_hash({1: seq}) for seq in range(1, 200)]

    assert vector_hash({}) == 0
    assert all(0 < each < 1 << 64 for each in hashes)
    assert all(one != other for one, other in pairwise(hashes))


def test_origin_and_seq_of_a_vector_do_not_run_together() -> None:
    assert vector_hash({0x11: 0x1}) != vector_hash({0x1: 0x11})


def test_a_cursor_of_a_log_never_read_stands_at_its_beginning() -> None:
    assert Cursor() == (0, 0)
