"""The key file, the keyring and the subkeys: each failure says what it is and what to do."""

from __future__ import annotations

import base64
import json
import stat
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Corrupt, KeyFileError, StorageError
from envd.ports import SUBKEY_HEADER_BYTES
from envd.security.sealing import (
    KEY_BYTES,
    LocalSealer,
    create_key_file,
    create_keyring,
    fingerprint,
    read_key_file,
    read_keyring,
)

KEK = bytes(range(32))
OTHER_KEK = bytes(range(1, 33))
STORAGE_KEY = b"S" * 32
Document = dict[str, Any]


class CountingRng:
    """Bytes that look random and never repeat: a hash of how many draws there were before."""

    def __init__(self) -> None:
        self.draws = 0

    def token_bytes(self, size: int) -> bytes:
        self.draws += 1
        return sha256(self.draws.to_bytes(8)).digest()[:size]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    create_key_file(path, CountingRng())
    return path


@pytest.fixture
def keyring_file(tmp_path: Path) -> Path:
    path = tmp_path / "keyring"
    create_keyring(path, KEK, CountingRng())
    return path


def hidden(error: BaseException, *secrets: bytes) -> bool:
    """Tell whether nothing that a log would show of `error` holds a secret, in any spelling."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)
    spellings = [
        spelling
        for secret in secrets
        for spelling in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode())
    ]
    return not any(spelling in shown for spelling in spellings)


# -- the key file ----------------------------------------------------------------------


def test_a_new_key_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "key"

    create_key_file(path, CountingRng())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path) == CountingRng().token_bytes(KEY_BYTES)
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_key_file_is_never_written_over(key_file: Path) -> None:
    before = key_file.read_bytes()

    with pytest.raises(FileExistsError):
        create_key_file(key_file, CountingRng())

    assert key_file.read_bytes() == before


def test_a_missing_key_file_says_to_put_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="is missing") as caught:
        read_key_file(tmp_path / "absent")

    assert caught.value.reason == "KEY_FILE_MISSING"
    assert "put the key file back" in caught.value.hint
    assert str(tmp_path / "absent") in caught.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601, 0o666, 0o777])
def test_a_key_file_open_to_others_says_how_to_close_it(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    with pytest.raises(KeyFileError, match=f"mode {mode:04o}") as caught:
        read_key_file(key_file)

    assert caught.value.reason == "KEY_FILE_EXPOSED"
    assert caught.value.hint == f"chmod 600 {key_file}"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_closed_to_others_is_read(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    assert len(read_key_file(key_file)) == KEY_BYTES


def test_a_directory_in_place_of_the_key_file_says_that_it_must_be_a_file(tmp_path: Path) -> None:
    directory = tmp_path / "key"
    directory.mkdir(mode=0o700)

    with pytest.raises(KeyFileError, match="can't be read: IsADirectoryError") as caught:
        read_key_file(directory)

    assert caught.value.reason == "KEY_FILE"
    assert "readable file" in caught.value.hint


def _header_2(text: str) -> str:
    return text.replace("envd local key 1", "envd local key 2")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda text: text[:20], id="truncated"),
        pytest.param(lambda text: text[:-3], id="truncated-by-one-digit"),
        pytest.param(lambda text: text.split("\n")[1], id="without-header"),
        pytest.param(lambda text: text.split("\n")[0], id="header-alone"),
        pytest.param(_header_2, id="another-header"),
        pytest.param(lambda text: text + text, id="twice"),
        pytest.param(lambda text: text.replace("=", "!"), id="no-base64"),
        pytest.param(lambda text: text.replace("\n", "\n\u00e9", 1), id="no-ascii"),
        pytest.param(lambda text: text.replace("\n", "\n\n", 1).replace("=", ""), id="no-padding"),
        pytest.param(lambda _: "-----BEGIN PRIVATE KEY-----\n", id="another-kind-of-key"),
    ],
)
def test_a_damaged_key_file_says_so_and_never_shows_the_key(
    key_file: Path, damage: Callable[[str], str]
) -> None:
    key = read_key_file(key_file)
    key_file.write_text(damage(key_file.read_text()), "utf-8")

    with pytest.raises(KeyFileError, match="is no envd key file") as caught:
        read_key_file(key_file)

    assert caught.value.reason == "KEY_FILE_DAMAGED"
    assert "put the key file back" in caught.value.hint
    assert hidden(caught.value, key)


def test_a_key_file_survives_an_editor(key_file: Path) -> None:
    key = read_key_file(key_file)
    key_file.write_bytes(key_file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")

    assert read_key_file(key_file) == key


# -- the keyring -----------------------------------------------------------------------


def test_a_new_keyring_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "keyring"

    keyring = create_keyring(path, KEK, CountingRng())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keyring(path, KEK, tmp_path / "key") == keyring
    assert list(keyring.storage_keys) == [1]
    assert keyring.storage_keys[1] != keyring.digest_key


def test_a_keyring_holds_no_key_in_clear(keyring_file: Path) -> None:
    keyring = read_keyring(keyring_file, KEK, Path("key"))
    stored = keyring_file.read_bytes()

    for key in (*keyring.storage_keys.values(), keyring.digest_key, KEK):
        assert key not in stored
        assert key.hex().encode() not in stored
        assert base64.b64encode(key) not in stored


def test_a_keyring_is_never_written_over(keyring_file: Path) -> None:
    before = keyring_file.read_bytes()

    with pytest.raises(FileExistsError):
        create_keyring(keyring_file, KEK, CountingRng())

    assert keyring_file.read_bytes() == before


def test_the_wrong_key_file_is_told_by_fingerprint(keyring_file: Path) -> None:
    with pytest.raises(KeyFileError, match="is not the key file of this data") as caught:
        read_keyring(keyring_file, OTHER_KEK, Path("/etc/envd/key"))

    assert caught.value.reason == "KEY_FILE_WRONG"
    assert "/etc/envd/key" in caught.value.message
    assert fingerprint(KEK) in caught.value.message
    assert fingerprint(OTHER_KEK) in caught.value.message
    assert "security.key_file" in caught.value.hint
    assert hidden(caught.value, KEK, OTHER_KEK)


def test_a_missing_keyring_says_to_restore(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is missing") as caught:
        read_keyring(tmp_path / "absent", KEK, tmp_path / "key")

    assert caught.value.reason == "KEYRING_MISSING"
    assert "backup" in caught.value.hint


def test_a_directory_in_place_of_the_keyring_says_that_it_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be read: IsADirectoryError") as caught:
        read_keyring(tmp_path, KEK, tmp_path / "key")

    assert caught.value.reason == "KEYRING_UNREADABLE"
    assert "must be a file" in caught.value.hint


def test_a_keyring_of_a_newer_format_says_to_run_a_newer_envd(keyring_file: Path) -> None:
    _rewrite(keyring_file, lambda document: document.update(format=2, digest_key={"new": "way"}))

    with pytest.raises(StorageError, match="has format 2") as caught:
        read_keyring(keyring_file, KEK, Path("key"))

    assert caught.value.reason == "NEWER_FORMAT"
    assert "newer envd" in caught.value.hint


def _rewrite(path: Path, change: Callable[[Document], object]) -> None:
    document: Document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _swap(document: Document) -> None:
    keys = document["storage_keys"]
    keys["1"], document["digest_key"] = document["digest_key"], keys["1"]


def _renumber(document: Document) -> None:
    document["storage_keys"] = {"2": document["storage_keys"]["1"]}


def _flip(document: Document) -> None:
    raw = bytearray(base64.b64decode(document["digest_key"]))
    raw[-1] ^= 1
    document["digest_key"] = base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_swap, id="wrapped-keys-swapped"),
        pytest.param(_renumber, id="key-under-another-id"),
        pytest.param(_flip, id="flipped-bit"),
        pytest.param(lambda d: d.pop("format"), id="no-format"),
        pytest.param(lambda d: d.pop("key_file"), id="no-fingerprint"),
        pytest.param(lambda d: d.pop("digest_key"), id="no-digest-key"),
        pytest.param(lambda d: d.pop("storage_keys"), id="no-storage-keys"),
        pytest.param(lambda d: d.update(storage_keys={}), id="storage-keys-empty"),
        pytest.param(lambda d: d.update(storage_keys=[]), id="storage-keys-a-list"),
        pytest.param(lambda d: d["storage_keys"].update(x=d["digest_key"]), id="id-no-number"),
        pytest.param(lambda d: d.update(digest_key=None), id="digest-key-null"),
        pytest.param(lambda d: d.update(digest_key=7), id="digest-key-a-number"),
        pytest.param(lambda d: d.update(digest_key=""), id="digest-key-empty"),
        pytest.param(lambda d: d.update(digest_key="AAAA"), id="digest-key-short"),
        pytest.param(lambda d: d.update(digest_key="no base64!"), id="digest-key-no-base64"),
        pytest.param(lambda d: d.update(digest_key="\u00e9"), id="digest-key-no-ascii"),
    ],
)
def test_a_damaged_keyring_is_corrupt_and_says_to_restore_it(
    keyring_file: Path, damage: Callable[[Document], object]
) -> None:
    _rewrite(keyring_file, damage)

    with pytest.raises(Corrupt, match="is damaged") as caught:
        read_keyring(keyring_file, KEK, Path("key"))

    assert "restore the keyring" in caught.value.hint
    assert hidden(caught.value, KEK)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe{", b"\0" * 64])
def test_a_keyring_that_is_no_document_is_corrupt(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "keyring"
    path.write_bytes(raw)

    with pytest.raises(Corrupt):
        read_keyring(path, KEK, tmp_path / "key")


def test_a_keyring_cut_short_anywhere_is_corrupt(keyring_file: Path) -> None:
    whole = keyring_file.read_bytes().rstrip()

    for length in range(len(whole)):
        keyring_file.write_bytes(whole[:length])
        with pytest.raises(Corrupt):
            read_keyring(keyring_file, KEK, Path("key"))


def test_no_flipped_bit_of_a_keyring_gives_other_keys(keyring_file: Path) -> None:
    whole = keyring_file.read_bytes()
    keyring = read_keyring(keyring_file, KEK, Path("key"))
    refused = 0

    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        keyring_file.write_bytes(flipped)
        try:
            assert read_keyring(keyring_file, KEK, Path("key")) == keyring
        except StorageError:
            refused += 1

    assert refused > len(whole) * 0.9


def test_a_fingerprint_is_short_and_tells_keys_apart() -> None:
    assert len(fingerprint(KEK)) == 12
    assert fingerprint(KEK) != fingerprint(OTHER_KEK)


# -- subkeys ---------------------------------------------------------------------------

SEALED_AT, PLACE, PLAINTEXT = 64, b"place", b"plaintext"


@pytest.fixture
def sealer() -> LocalSealer:
    return LocalSealer({1: STORAGE_KEY}, CountingRng())


@given(st.binary(max_size=64), st.integers(0, (1 << 96) - 1), st.binary(max_size=16))
def test_what_is_sealed_opens_again_under_the_key_that_the_header_names(
    plaintext: bytes, position: int, place: bytes
) -> None:
    sealer = LocalSealer({1: STORAGE_KEY}, CountingRng())
    subkey = sealer.new_subkey(b"journal")

    sealed = subkey.seal(position, plaintext, place)

    again = sealer.subkey(b"journal", subkey.header)
    assert again.open(position, sealed, place) == plaintext
    assert again.header == subkey.header


@pytest.mark.parametrize(
    ("purpose", "salt_flip", "position", "place"),
    [
        pytest.param(b"state", 0, SEALED_AT, PLACE, id="another-purpose"),
        pytest.param(b"", 0, SEALED_AT, PLACE, id="no-purpose"),
        pytest.param(b"journal", 1, SEALED_AT, PLACE, id="another-salt"),
        pytest.param(b"journal", 0, SEALED_AT + 1, PLACE, id="another-position"),
        pytest.param(b"journal", 0, SEALED_AT, b"elsewhere", id="another-place"),
        pytest.param(b"journal", 0, SEALED_AT, b"", id="no-place"),
    ],
)
def test_a_sealed_record_opens_only_at_its_place(
    sealer: LocalSealer, purpose: bytes, salt_flip: int, position: int, place: bytes
) -> None:
    subkey = sealer.new_subkey(b"journal")
    sealed = subkey.seal(SEALED_AT, PLAINTEXT, PLACE)
    header = subkey.header[:-1] + bytes([subkey.header[-1] ^ salt_flip])

    with pytest.raises(Corrupt, match="does not open"):
        sealer.subkey(purpose, header).open(position, sealed, place)


def test_another_storage_key_does_not_open(sealer: LocalSealer) -> None:
    subkey = sealer.new_subkey(b"journal")
    sealed = subkey.seal(SEALED_AT, PLAINTEXT, PLACE)
    stranger = LocalSealer({1: b"T" * 32}, CountingRng())

    with pytest.raises(Corrupt):
        stranger.subkey(b"journal", subkey.header).open(SEALED_AT, sealed, PLACE)


def test_a_damaged_or_truncated_record_does_not_open(sealer: LocalSealer) -> None:
    subkey = sealer.new_subkey(b"journal")
    sealed = subkey.seal(SEALED_AT, PLAINTEXT, PLACE)

    for length in range(len(sealed)):
        with pytest.raises(Corrupt):
            subkey.open(SEALED_AT, sealed[:length], PLACE)
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1
        with pytest.raises(Corrupt):
            subkey.open(SEALED_AT, bytes(flipped), PLACE)


def test_each_subkey_has_a_salt_of_its_own(sealer: LocalSealer) -> None:
    one, two = sealer.new_subkey(b"journal"), sealer.new_subkey(b"journal")

    assert one.header != two.header
    assert len(one.header) == SUBKEY_HEADER_BYTES
    assert one.seal(0, PLAINTEXT, PLACE) != two.seal(0, PLAINTEXT, PLACE)


def test_the_highest_key_seals_and_the_older_ones_still_open() -> None:
    before = LocalSealer({1: STORAGE_KEY}, CountingRng())
    old = before.new_subkey(b"journal")
    sealed = old.seal(SEALED_AT, PLAINTEXT, PLACE)

    rotated = LocalSealer({3: b"N" * 32, 1: STORAGE_KEY}, CountingRng())

    assert rotated.new_subkey(b"journal").header[:2] == (3).to_bytes(2)
    assert rotated.subkey(b"journal", old.header).open(SEALED_AT, sealed, PLACE) == PLAINTEXT


def test_an_unknown_storage_key_says_to_restore_the_keyring(sealer: LocalSealer) -> None:
    with pytest.raises(KeyFileError, match="storage key 9") as caught:
        sealer.subkey(b"journal", (9).to_bytes(2) + bytes(16))

    assert "restore the keyring" in caught.value.hint


def test_no_key_shows_in_a_repr(keyring_file: Path) -> None:
    keyring = read_keyring(keyring_file, KEK, Path("key"))
    sealer = LocalSealer(keyring.storage_keys, CountingRng())

    for holder in (keyring, sealer, sealer.new_subkey(b"journal")):
        for key in (*keyring.storage_keys.values(), keyring.digest_key):
            assert repr(key) not in f"{holder!r} {holder}"
            assert key.hex() not in f"{holder!r} {holder}"
