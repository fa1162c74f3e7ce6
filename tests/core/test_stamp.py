"""Stamps: bytes and text keep the order of the tuples."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.stamp import MAX_HLC, STAMP_BYTES, ZERO, Stamp

_U64 = (1 << 64) - 1
_numbers = st.sampled_from((0, 1, 255, 256, _U64 - 1, _U64)) | st.integers(0, _U64)
_eras = st.sampled_from((0, 1, (1 << 32) - 1)) | st.integers(0, (1 << 32) - 1)
stamps = st.builds(Stamp, _eras, _numbers, _numbers)

KNOWN = Stamp(1, (1_700_000_000_000 << 16) + 3, 0xFEED)


@given(stamps, stamps)
def test_bytes_and_hex_compare_as_stamps_do(one: Stamp, two: Stamp) -> None:
    assert (one < two) == (one.to_bytes() < two.to_bytes()) == (one.hex() < two.hex())
    assert (one == two) == (one.to_bytes() == two.to_bytes()) == (one.hex() == two.hex())


@given(stamps)
def test_bytes_and_hex_give_the_stamp_back(stamp: Stamp) -> None:
    assert len(stamp.to_bytes()) == STAMP_BYTES
    assert Stamp.from_bytes(stamp.to_bytes()) == stamp
    assert Stamp.from_hex(stamp.hex()) == stamp
    assert stamp >= ZERO


def test_the_bytes_of_a_known_stamp_never_change() -> None:
    text = "00000001018bcfe568000003000000000000feed"

    assert KNOWN.hex() == text
    assert KNOWN.to_bytes() == bytes.fromhex(text)
    assert KNOWN.time_ms == 1_700_000_000_000


def test_the_greatest_hlc_still_fits() -> None:
    assert Stamp.from_bytes(Stamp(0, MAX_HLC, 0).to_bytes()).hlc == MAX_HLC


@pytest.mark.parametrize(
    "stamp",
    [
        Stamp(1 << 32, 0, 0),
        Stamp(0, MAX_HLC + 1, 0),
        Stamp(0, 0, 1 << 64),
        Stamp(-1, 0, 0),
        Stamp(0, -1, 0),
        Stamp(0, 0, -1),
    ],
)
def test_a_number_out_of_range_is_never_encoded(stamp: Stamp) -> None:
    with pytest.raises(struct.error):
        stamp.to_bytes()
    with pytest.raises(struct.error):
        stamp.hex()


@pytest.mark.parametrize("length", [0, 1, STAMP_BYTES - 1, STAMP_BYTES + 1, 2 * STAMP_BYTES])
def test_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(struct.error):
        Stamp.from_bytes(bytes(length))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("00" * 19, id="short"),
        pytest.param("00" * 21, id="long"),
        pytest.param("0" * 39, id="odd"),
        pytest.param("0" * 39 + "g", id="no-digit"),
        pytest.param("0" * 39 + "\u0663", id="foreign-digit"),
        pytest.param(KNOWN.hex().upper(), id="upper-case"),
        pytest.param(" " + KNOWN.hex(), id="space-before"),
        pytest.param(KNOWN.hex() + "\n", id="newline-after"),
        pytest.param(KNOWN.hex()[:8] + " " + KNOWN.hex()[8:], id="space-within"),
        pytest.param("0x" + KNOWN.hex()[2:], id="prefix"),
        pytest.param("\ud800" * 40, id="surrogates"),
    ],
)
def test_a_text_that_no_stamp_gives_is_refused(text: str) -> None:
    with pytest.raises((ValueError, struct.error)):
        Stamp.from_hex(text)
