"""Bytes that are nearly right: a right one, damaged a little."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

TAILS = (b"", b"\x00", b"\xff" * 8, b"\x0a\xff\xff\xff\xff\x0f", b"\x80" * 11, b"\r\n")


@st.composite
def damaged(draw: st.DrawFn, right: bytes) -> bytes:
    """`right` with up to four of its places changed, cut out, doubled or filled."""
    made = bytearray(right)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(made)))
        end = draw(st.integers(start, min(len(made), start + 16)))
        match draw(st.sampled_from(("flip", "cut", "double", "fill"))):
            case "flip" if start < len(made):
                made[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del made[start:end]
            case "double":
                made[start:start] = made[start:end]
            case _:
                made[start:end] = draw(st.binary(max_size=12))
    return bytes(made) + draw(st.sampled_from(TAILS))


def near(rights: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Any of `rights` as it is or damaged, or any bytes at all."""
    return st.sampled_from(rights) | st.sampled_from(rights).flatmap(damaged) | st.binary()
