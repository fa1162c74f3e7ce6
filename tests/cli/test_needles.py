"""Finding many byte strings: what is there is found, at its place, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.cli.needles import MIN_BYTES, Hit, Needles

LETTERS = st.sampled_from(b"ab\x00")
SMALL = st.lists(LETTERS, min_size=MIN_BYTES, max_size=40).map(bytes)


@given(
    st.lists(SMALL, min_size=1, max_size=8, unique=True),
    st.lists(st.one_of(SMALL, st.lists(LETTERS, max_size=60).map(bytes)), max_size=8),
    st.data(),
)
def test_every_place_is_found_and_no_other(
    needles: list[bytes], pieces: list[bytes], data: st.DataObject
) -> None:
    inserted = data.draw(st.lists(st.sampled_from(needles), max_size=4))
    text = b"".join(data.draw(st.permutations([*pieces, *inserted])))

    found = Needles(needles).find(text)

    assert found == sorted(
        Hit(at, number)
        for number, needle in enumerate(needles)
        for at in range(len(text))
        if text.startswith(needle, at)
    )


@pytest.mark.parametrize("length", [8, 9, 14, 15, 16, 17, 64, 65, 5000])
def test_a_needle_is_found_at_every_offset(length: int) -> None:
    needle = (b"0123456789abcdefX" * length)[:length]
    needles = Needles([needle])

    for offset in range(20):
        assert needles.find(b"-" * offset + needle) == [Hit(offset, 0)]
        assert needles.find(b"-" * offset + needle[:-1]) == []


def test_needles_across_blocks_are_found() -> None:
    needle = b"needle-in-a-haystack"
    text = bytearray(b"." * 200_000)
    places = [16_384 * number - 7 for number in range(1, 12)]
    for at in places:
        text[at : at + len(needle)] = needle

    assert [hit.start for hit in Needles([needle]).find(bytes(text))] == places


def test_too_short_a_needle_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        Needles([b"1234567"])


def test_nothing_is_found_without_needles_or_text() -> None:
    assert Needles([]).find(b"text") == []
    assert Needles([b"12345678"]).find(b"") == []
