"""The cluster's secret: its file, its keyring, proofs and sealing."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import KeyFileError, Unauthenticated
from envd.security.cluster_secret import (
    KEY_BYTES,
    SharedSecret,
    create_cluster_secret,
    new_cluster_key,
    read_cluster_secret,
)
from tests.security.test_sealing import CountingRng, hidden

OLD, NEW, OTHER = (bytes([number]) * KEY_BYTES for number in (1, 2, 3))
PURPOSE, TRANSCRIPT = b"envd peer dials", b"hello and back"


class FixedRng:
    """Draws these bytes, over and over."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token_bytes(self, size: int) -> bytes:
        return self._key[:size]


def line(key: bytes) -> str:
    return new_cluster_key(FixedRng(key))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.secret"
    create_cluster_secret(path, FixedRng(OLD))
    return path


# -- the file --------------------------------------------------------------------------


def test_a_new_secret_is_private_and_says_what_it_is(file: Path) -> None:
    text = file.read_text()

    assert file.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"envd_cluster_[a-z2-7]{52}\n", text)
    assert read_cluster_secret(file) == (OLD,)


def test_secrets_are_drawn_anew_and_never_written_over(file: Path) -> None:
    rng = CountingRng()

    assert new_cluster_key(rng) != new_cluster_key(rng)
    with pytest.raises(FileExistsError):
        create_cluster_secret(file, rng)
    assert read_cluster_secret(file) == (OLD,)


def test_up_to_three_keys_stand_one_per_line_in_order(file: Path) -> None:
    file.write_text(f"{line(NEW)}\n\n{line(OLD)} \r\n{line(OTHER)}")

    assert read_cluster_secret(file) == (NEW, OLD, OTHER)


def write(text: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(Path.unlink, "CLUSTER_SECRET_MISSING", id="missing"),
        pytest.param(lambda path: path.chmod(0o640), "CLUSTER_SECRET_EXPOSED", id="exposed"),
        pytest.param(write(""), "CLUSTER_SECRET_DAMAGED", id="empty"),
        pytest.param(write("\n \n"), "CLUSTER_SECRET_DAMAGED", id="blank"),
        pytest.param(write("secret"), "CLUSTER_SECRET_DAMAGED", id="a-password"),
        pytest.param(write(line(OLD)[:-1]), "CLUSTER_SECRET_DAMAGED", id="short"),
        pytest.param(write(line(OLD) + "a"), "CLUSTER_SECRET_DAMAGED", id="long"),
        pytest.param(write(line(OLD).upper()), "CLUSTER_SECRET_DAMAGED", id="upper-case"),
        pytest.param(write(line(OLD)[:-1] + "7"), "CLUSTER_SECRET_DAMAGED", id="spare-bits"),
        pytest.param(write(line(OLD)[:-1] + "1"), "CLUSTER_SECRET_DAMAGED", id="no-base32"),
        pytest.param(write(line(OLD)[:-1] + "é"), "CLUSTER_SECRET_DAMAGED", id="no-ascii"),
        pytest.param(write(f"{line(OLD)}\nx"), "CLUSTER_SECRET_DAMAGED", id="one-bad-line"),
        pytest.param(write(f"{line(OLD)}\n" * 4), "CLUSTER_SECRET_DAMAGED", id="four-keys"),
        pytest.param(write(b"\xff\0" * 40), "CLUSTER_SECRET_DAMAGED", id="rubbish"),
        pytest.param(write(line(OLD) + "\n" * 5000), "CLUSTER_SECRET_DAMAGED", id="endless"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_mend_and_shows_nothing_of_it(
    file: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(file)

    with pytest.raises(KeyFileError) as caught:
        read_cluster_secret(file)

    assert caught.value.reason == reason
    assert str(file) in caught.value.message + caught.value.hint
    assert hidden(caught.value, OLD)
    assert line(OLD)[15:] not in repr(caught.value)


def test_who_joins_without_a_secret_is_told_to_copy_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="is missing") as caught:
        SharedSecret.read(tmp_path / "cluster.secret")

    assert "copy cluster.secret from a member" in caught.value.hint


def test_a_directory_in_its_place_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="can't be read: IsADirectoryError") as caught:
        read_cluster_secret(tmp_path)

    assert caught.value.reason == "CLUSTER_SECRET_UNREADABLE"


# -- proofs and sealing ----------------------------------------------------------------


def test_a_proof_is_made_as_it_was_always_made(golden: Callable[[str, bytes], bytes]) -> None:
    secret = SharedSecret((OLD,))
    made = secret.proof(PURPOSE, TRANSCRIPT) + secret.seal(PURPOSE, TRANSCRIPT, b"ticket")

    assert made == golden("cluster_secret", made)


def test_a_proof_holds_for_its_secret_purpose_and_transcript_alone() -> None:
    secret, other = SharedSecret((OLD,)), SharedSecret((OTHER,))

    proof = secret.proof(PURPOSE, TRANSCRIPT)

    assert len(proof) == 32
    assert SharedSecret((OLD,)).proves(PURPOSE, TRANSCRIPT, proof)
    assert not other.proves(PURPOSE, TRANSCRIPT, proof)
    assert not secret.proves(PURPOSE + b"x", TRANSCRIPT, proof)
    assert not secret.proves(PURPOSE, TRANSCRIPT + b"x", proof)
    assert not secret.proves(PURPOSE, TRANSCRIPT, b"")
    assert not secret.proves(PURPOSE, TRANSCRIPT, proof[:31])


@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=100))
def test_what_is_sealed_opens_for_its_purpose_and_transcript_alone(
    purpose: bytes, transcript: bytes, plaintext: bytes
) -> None:
    secret = SharedSecret((OLD,))

    sealed = secret.seal(purpose, transcript, plaintext)

    assert secret.open(purpose, transcript, sealed) == plaintext
    for wrong in ((purpose + b"x", transcript), (purpose, transcript + b"x")):
        with pytest.raises(Unauthenticated):
            secret.open(*wrong, sealed)


def test_no_flipped_or_missing_bit_opens() -> None:
    secret = SharedSecret((OLD,))
    sealed = secret.seal(PURPOSE, TRANSCRIPT, b"ticket")

    for place in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(Unauthenticated):
            secret.open(PURPOSE, TRANSCRIPT, bytes(flipped))
    for length in range(len(sealed)):
        with pytest.raises(Unauthenticated):
            secret.open(PURPOSE, TRANSCRIPT, sealed[:length])


def test_one_transcript_never_seals_two_plaintexts_under_one_nonce() -> None:
    secret = SharedSecret((OLD,))

    one, two = (secret.seal(PURPOSE, TRANSCRIPT, text) for text in (b"one", b"two"))

    assert one[4:16] != two[4:16]


def test_a_secret_is_exchanged_without_a_gap() -> None:
    steps = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]

    for before, after in pairwise(steps):
        one, two = SharedSecret(before), SharedSecret(after)
        for maker, checker in ((one, two), (two, one)):
            proof = maker.proof(PURPOSE, TRANSCRIPT)
            sealed = maker.seal(PURPOSE, TRANSCRIPT, b"ticket")
            assert checker.proves(PURPOSE, TRANSCRIPT, proof)
            assert checker.open(PURPOSE, TRANSCRIPT, sealed) == b"ticket"


def test_insecure_clusters_are_kept_apart_by_name_and_from_secured_ones() -> None:
    one, same, other = (SharedSecret.insecure(name) for name in ("a", "a", "b"))
    proof = one.proof(PURPOSE, TRANSCRIPT)

    assert same.proves(PURPOSE, TRANSCRIPT, proof)
    assert not other.proves(PURPOSE, TRANSCRIPT, proof)
    assert not SharedSecret((sha256(b"a").digest(),)).proves(PURPOSE, TRANSCRIPT, proof)


@pytest.mark.parametrize("keys", [(), (OLD, NEW, OTHER, bytes(32)), (b"short",)])
def test_a_secret_of_other_numbers_or_sizes_can_not_be_built(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="1 to 3 keys of 32 bytes"):
        SharedSecret(keys)


def test_no_key_shows_in_a_repr() -> None:
    secret = SharedSecret((OLD,))

    for holder in (secret, *secret.keys):
        assert repr(OLD)[2:-1] not in repr(holder)
        assert OLD.hex() not in repr(holder)
