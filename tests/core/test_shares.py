"""Shares of partitions, and pages of several peers as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core import shares
from envd.core.ring import PARTITIONS
from envd.core.shares import MASK_BYTES, Page, cover, merged

MASKS = st.integers(0, (1 << 12) - 1)
PEERS = st.dictionaries(st.integers(1, 9), MASKS, max_size=6)
KEYS = st.sampled_from("abcdefghij")


def test_every_partition_is_asked_for_that_of_the_system_too() -> None:
    assert all(shares.holds(shares.EVERY, at) for at in range(PARTITIONS))
    assert len(shares.pack_mask(shares.EVERY)) == MASK_BYTES


@given(st.sets(st.integers(0, PARTITIONS - 1), max_size=20))
def test_a_set_is_the_same_after_it_was_packed(partitions: set[int]) -> None:
    mask = shares.unpack_mask(shares.pack_mask(shares.mask_of(partitions)))

    assert {at for at in range(PARTITIONS) if shares.holds(mask, at)} == partitions


def test_a_packed_set_has_a_bit_for_each_partition() -> None:
    assert shares.pack_mask(shares.mask_of([0, 9])) == b"\x01\x02" + bytes(MASK_BYTES - 2)
    with pytest.raises(ValueError, match="one bit"):
        shares.unpack_mask(bytes(MASK_BYTES - 1))


@given(MASKS, PEERS)
def test_what_anybody_has_is_asked_for_once(wanted: int, able: dict[int, int]) -> None:
    plan = cover(wanted, able)

    union = 0
    for uid, share in plan.items():
        assert share
        assert not share & ~able[uid]
        assert not share & union
        union |= share
    everything = 0
    for mask in able.values():
        everything |= mask
    assert union == wanted & everything


def test_one_that_has_all_is_asked_alone() -> None:
    assert cover(0b111, {1: 0b011, 2: 0b110, 3: 0b111, 4: 0b111}) == {3: 0b111}
    assert cover(0b1111, {1: 0b0001, 2: 0b0111, 3: 0b1100}) == {2: 0b0111, 3: 0b1000}


@st.composite
def partitioned(draw: st.DrawFn) -> list[list[str]]:
    """Names, each of which one peer has, some of them twice."""
    names = draw(st.lists(KEYS, max_size=12))
    owner = {name: draw(st.integers(0, 2)) for name in sorted(set(names))}
    return [sorted(name for name in names if owner[name] == peer) for peer in range(3)]


@given(partitioned(), st.integers(1, 5), st.lists(st.integers(1, 6), min_size=3, max_size=3))
def test_pages_of_several_peers_skip_nothing_and_tell_nothing_twice(
    peers: list[list[str]], limit: int, cuts: list[int]
) -> None:
    every = sorted({name for names in peers for name in names})
    found: list[str] = []
    after = ""
    for _ in range(len(every) + 2):
        pages = [
            _page(sorted(set(names)), after, cut) for names, cut in zip(peers, cuts, strict=True)
        ]
        page = merged(pages, str, limit)
        assert len(page.items) <= limit
        found += page.items
        if not page.through:
            break
        after = page.through

    assert found == every


def _page(names: list[str], after: str, cut: int) -> Page[str]:
    left = [name for name in names if name > after]
    return Page(left[:cut], left[cut - 1] if len(left) > cut else "")


def test_a_page_ends_where_the_first_of_its_parts_does() -> None:
    parts = [Page(["a", "d"], "d"), Page(["b"], "c"), Page(["e"])]

    assert merged(parts, str, 9) == Page(["a", "b"], "c")
    assert merged(parts, str, 1) == Page(["a"], "a")
