"""Golden bytes of what lies on disk sealed, under fixed keys and salts.

The keys, the position nonces, the places in the AAD and the framing all show in these bytes:
whoever changes one of them leaves every existing data directory unreadable.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import lmdb
import pytest

from envd.core.environment import Entry, Environment
from envd.core.errors import Corrupt, StorageError
from envd.core.history import Retention
from envd.core.stamp import ZERO, Stamp
from envd.files import write_private
from envd.ports import StoredState
from envd.security.sealing import (
    LocalSealer,
    create_key_file,
    create_keyring,
    read_key_file,
    read_keyring,
)
from envd.storage import segment
from envd.storage.flush import Batch
from envd.storage.segment import SegmentHeader
from envd.storage.state import StateDb

Golden = Callable[[str, bytes], bytes]
STORAGE_KEY = bytes(range(32))
DIGEST_KEY = bytes(range(32, 64))
SUBKEY_HEADER = (1).to_bytes(2) + bytes(range(16))


class CountingRng:
    """The same "random" bytes each time: a hash of how many draws there were before."""

    def __init__(self) -> None:
        self._draws = 0

    def token_bytes(self, size: int) -> bytes:
        self._draws += 1
        return sha256(self._draws.to_bytes(8)).digest()[:size]


SEALER = LocalSealer({1: STORAGE_KEY}, CountingRng())
HEADER = SegmentHeader(
    number=3,
    first_lsn=1000,
    previous_end=4096,
    node_uid=0xFEED,
    subkey_header=SUBKEY_HEADER,
)
RECORDS = [b"first record", b"", b"third record"]
BOUND = 1 << 60


def test_a_sealed_record_under_a_known_key_never_changes(golden: Golden) -> None:
    subkey = SEALER.subkey(b"journal", SUBKEY_HEADER)
    sealed = subkey.seal(64, b"plaintext", b"place")

    kept = golden("sealed", sealed)

    assert sealed == kept
    assert subkey.open(64, kept, b"place") == b"plaintext"


def test_a_known_segment_header_never_changes(golden: Golden) -> None:
    kept = golden("segment-header", HEADER.to_bytes())

    assert HEADER.to_bytes() == kept
    assert SegmentHeader.from_bytes(kept) == HEADER
    assert len(kept) == segment.HEADER_BYTES


def test_a_known_frame_never_changes(golden: Golden) -> None:
    subkey = SEALER.subkey(segment.PURPOSE, SUBKEY_HEADER)
    frame, end = segment.encode_frame(HEADER, subkey, segment.HEADER_BYTES, 1000, BOUND, RECORDS)

    kept = golden("frame", frame)

    assert frame == kept
    data = HEADER.to_bytes() + kept
    [raw] = segment.raw_frames(data, HEADER.number)
    read = segment.open_frame(HEADER, subkey, raw)
    assert (read.position, read.end, read.first_lsn) == (segment.HEADER_BYTES, end, 1000)
    assert (read.hlc_bound, list(read.records)) == (BOUND, RECORDS)
    assert segment.is_clean_end(data, end)


@pytest.mark.parametrize("length", range(0, segment.HEADER_BYTES, 7))
def test_a_segment_header_cut_short_is_corrupt(length: int) -> None:
    with pytest.raises(Corrupt):
        SegmentHeader.from_bytes(HEADER.to_bytes()[:length])


def test_a_segment_header_with_a_flipped_bit_is_refused() -> None:
    raw = HEADER.to_bytes()
    covered = 8 + 4 * 8 + len(SUBKEY_HEADER) + 2 + 4

    for position in range(covered):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            with pytest.raises(StorageError):
                SegmentHeader.from_bytes(bytes(flipped))


def test_a_segment_of_a_newer_format_is_told_apart_from_damage() -> None:
    raw = b"ENVDSEG2" + HEADER.to_bytes()[8:]

    with pytest.raises(StorageError) as caught:
        SegmentHeader.from_bytes(raw)

    assert caught.value.reason == "NEWER_FORMAT"


# -- the state in LMDB -----------------------------------------------------------------

STATE = StoredState(
    Environment("team/app", {"TOKEN": Entry(Stamp(0, 5, 1), ZERO, "s3cret", True)}), bytes(16)
)
KEY = bytes.fromhex("0599") + b"team/app"


def _open_state(directory: Path) -> StateDb:
    return StateDb(
        directory,
        LocalSealer({1: STORAGE_KEY}, CountingRng()),
        DIGEST_KEY,
        map_size_bytes=1 << 20,
        retention=Retention(),
    )


def _row(directory: Path) -> bytes:
    with lmdb.open(str(directory), max_dbs=8, map_size=1 << 20) as environment:
        table = environment.open_db(b"environments")
        with environment.begin(db=table) as transaction:
            value = transaction.get(KEY)
    assert value is not None
    return bytes(value)


def _put_row(directory: Path, value: bytes) -> None:
    with lmdb.open(str(directory), max_dbs=8, map_size=1 << 20) as environment:
        table = environment.open_db(b"environments")
        with environment.begin(write=True, db=table) as transaction:
            transaction.put(KEY, value)


def test_the_row_of_a_known_environment_in_the_state_never_changes(
    tmp_path: Path, golden: Golden
) -> None:
    (tmp_path / "written").mkdir()
    (tmp_path / "read").mkdir()
    writing = _open_state(tmp_path / "written")
    writing.commit(
        Batch(
            now_ms=1_700_000_000_000,
            covered_lsn=7,
            hlc_bound=BOUND,
            states={STATE.environment.name: STATE},
            commits={},
            operations={},
        )
    )
    writing.close()
    row = _row(tmp_path / "written")

    kept = golden("state-row", row)
    _put_row(tmp_path / "read", kept)
    reading = _open_state(tmp_path / "read")
    stored = reading.environment(STATE.environment.name)
    reading.close()

    assert row == kept
    assert stored is not None
    assert stored.state == STATE


# -- the keys --------------------------------------------------------------------------


def test_a_known_key_file_and_keyring_never_change(tmp_path: Path, golden: Golden) -> None:
    made, kept = tmp_path / "made", tmp_path / "kept"
    made.mkdir()
    kept.mkdir()
    rng = CountingRng()
    create_key_file(made / "key", rng)
    keyring = create_keyring(made / "keyring", read_key_file(made / "key"), rng)

    for name in ("key", "keyring"):
        written = (made / name).read_bytes()
        write_private(kept / name, golden(f"file-{name}", written))
        assert (kept / name).read_bytes() == written

    assert read_keyring(kept / "keyring", read_key_file(kept / "key"), kept / "key") == keyring
