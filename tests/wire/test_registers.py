"""The rows of acceptors: pinned bytes, round trips, and damage told from a newer version."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Corrupt, StorageError
from envd.core.paxos import NEVER, Acceptor, Ballot, Proposal
from envd.core.stamp import ZERO, Stamp
from envd.wire import records
from envd.wire.registers import (
    REGISTER_FORMAT,
    RegisterRow,
    RowKind,
    decode_register,
    encode_register,
)

Golden = Callable[[str, bytes], bytes]
U64 = (1 << 64) - 1
PLACE = Stamp(1, 1_700_000_000_000 << 16, 0xA1)
ROWS = {
    "promise": RegisterRow(RowKind.REGISTER, "team/app/prod", Acceptor(Ballot(7, 0xB2))),
    "accepted": RegisterRow(
        RowKind.REGISTER,
        "team/app/prod",
        Acceptor(Ballot(8, U64), Proposal(Ballot(7, 0xB2), PLACE, b"a stored commit")),
    ),
    "begin": RegisterRow(RowKind.BEGIN, "", Acceptor(Ballot(9, 3))),
    "end": RegisterRow(RowKind.END),
}

ballots = st.builds(Ballot, st.integers(0, U64), st.integers(0, U64))
stamps = st.builds(Stamp, st.integers(0, (1 << 32) - 1), st.integers(0, U64), st.integers(0, U64))
proposals = st.builds(Proposal, ballots, stamps, st.binary(max_size=9))
rows = st.builds(
    RegisterRow,
    st.sampled_from(RowKind),
    st.text(max_size=9),
    st.builds(Acceptor, ballots, st.none() | proposals),
)


@pytest.mark.parametrize("name", ROWS)
def test_the_bytes_of_a_known_row_never_change(name: str, golden: Golden) -> None:
    encoded = encode_register(ROWS[name])

    assert golden(f"register-{name}", encoded) == encoded
    assert decode_register(encoded) == ROWS[name]


@given(rows)
def test_a_row_comes_back_whole(row: RegisterRow) -> None:
    assert decode_register(encode_register(row)) == row


def test_a_place_of_zeros_is_a_place() -> None:
    proposal = Proposal(NEVER, ZERO, b"")
    row = RegisterRow(RowKind.REGISTER, "a", Acceptor(NEVER, proposal))

    assert decode_register(encode_register(row)).acceptor.accepted == proposal


@pytest.mark.parametrize("name", ROWS)
def test_a_row_cut_short_anywhere_is_corrupt(name: str) -> None:
    encoded = encode_register(ROWS[name])

    for length in range(len(encoded)):
        with pytest.raises(Corrupt):
            decode_register(encoded[:length])


@pytest.mark.parametrize("name", ROWS)
def test_a_row_with_something_behind_it_is_corrupt(name: str) -> None:
    with pytest.raises(Corrupt):
        decode_register(encode_register(ROWS[name]) + b"\0")


@pytest.mark.parametrize("name", ROWS)
def test_fields_that_a_later_version_adds_are_passed_over(name: str) -> None:
    encoded = encode_register(ROWS[name])
    fields = msgspec.msgpack.decode(encoded[1:])
    whole = [*fields, *[(0, 0), b"", b""][len(fields) - 3 :], "of a later version"]

    assert decode_register(encoded[:1] + msgspec.msgpack.encode(whole)) == ROWS[name]


@pytest.mark.parametrize(
    "raw", [b"", b"\0", b"\x01\x90", b"\x02\x90", b"\x0f\x90", b"\x10", b"\x10\x90"]
)
def test_rubbish_is_corrupt(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_register(raw)


@pytest.mark.parametrize("place", [b"p", b"p" * 19, b"p" * 21])
def test_a_place_that_is_none_is_corrupt(place: bytes) -> None:
    fields = (1, "a", (1, 1), (1, 1), place, b"value")

    with pytest.raises(Corrupt):
        decode_register(bytes([REGISTER_FORMAT]) + msgspec.msgpack.encode(fields))


@pytest.mark.parametrize(
    "raw",
    [
        bytes([REGISTER_FORMAT + 1]) + b"whatever a later version writes",
        b"\xff",
        bytes([REGISTER_FORMAT]) + msgspec.msgpack.encode((4, "a", (1, 1))),
    ],
)
def test_a_newer_format_and_a_newer_kind_are_told_apart_from_damage(raw: bytes) -> None:
    with pytest.raises(StorageError) as caught:
        decode_register(raw)

    assert caught.value.reason == "NEWER_FORMAT"
    assert not isinstance(caught.value, Corrupt)


def test_a_row_of_the_log_and_one_of_an_acceptor_are_never_taken_for_each_other() -> None:
    with pytest.raises(StorageError):
        records.decode_own_row(encode_register(ROWS["accepted"]))
    with pytest.raises(StorageError):
        records.record_name(encode_register(ROWS["accepted"]))


@given(st.binary(max_size=60))
def test_whatever_stands_there_is_a_row_or_a_storage_error(raw: bytes) -> None:
    try:
        row = decode_register(bytes([REGISTER_FORMAT]) + raw)
    except StorageError:
        return

    assert decode_register(encode_register(row)) == row
