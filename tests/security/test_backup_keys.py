"""The keys of a backup: what locks its file key, who opens it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.backups import (
    RECOVERY_PUBLIC,
    RECOVERY_SECRET,
    BackupRequest,
    check_recovery_key,
    key_bytes,
    key_text,
)
from envd.core.errors import Corrupt, InvalidRequest, KeyFileError
from envd.security.backup_keys import (
    FileKey,
    RecoveryKey,
    ScryptCost,
    by_passphrase,
    by_recovery_key,
    check_request,
    locked,
    new_passphrase_lock,
    public_recovery_key,
    read_recovery_key,
    write_recovery_key,
)
from tests.storage.world import CountingRng

CHEAP = ScryptCost(log_n=4)
KEY = RecoveryKey(bytes(range(32)))
PASSPHRASE = "correct horse"
Golden = Callable[[str, bytes], bytes]


def lock_for(passphrase: str = PASSPHRASE) -> BackupRequest:
    return BackupRequest(passphrase=new_passphrase_lock(passphrase, CountingRng(), CHEAP))


def test_a_passphrase_opens_what_it_locked() -> None:
    key, locks = locked(lock_for(), CountingRng())

    assert by_passphrase(locks, PASSPHRASE) == key
    with pytest.raises(KeyFileError):
        by_passphrase(locks, PASSPHRASE + "!")
    with pytest.raises(KeyFileError):
        by_recovery_key(locks, KEY)


def test_a_passphrase_is_the_same_however_its_letters_are_composed() -> None:
    key, locks = locked(lock_for("gr\u00fcne W\u00e4lder"), CountingRng())

    assert by_passphrase(locks, "gru\u0308ne Wa\u0308lder") == key


def test_each_of_the_recovery_keys_opens_what_was_locked_for_it() -> None:
    other = RecoveryKey(b"o" * 32)
    key, locks = locked(BackupRequest((KEY.public, other.public, KEY.public)), CountingRng())

    assert len(locks) == 2
    assert by_recovery_key(locks, KEY) == by_recovery_key(locks, other) == key
    with pytest.raises(KeyFileError, match="not made for"):
        by_recovery_key(locks, RecoveryKey(b"x" * 32))
    with pytest.raises(KeyFileError, match="no passphrase"):
        by_passphrase(locks, PASSPHRASE)


def test_locks_that_were_exchanged_do_not_open() -> None:
    _, mine = locked(BackupRequest((KEY.public,)), CountingRng())
    stranger = RecoveryKey(b"s" * 32)
    _, theirs = locked(BackupRequest((stranger.public,)), CountingRng())

    with pytest.raises(KeyFileError):
        by_recovery_key([{**theirs[0], "recovery_key": KEY.public}], KEY)
    with pytest.raises(Corrupt):
        by_recovery_key([{**mine[0], "ephemeral": "00"}], KEY)
    with pytest.raises(KeyFileError):
        by_recovery_key([{**mine[0], "ephemeral": "00" * 32}], KEY)


def test_the_same_file_key_under_another_salt_is_another_payload_key() -> None:
    key = FileKey(b"k" * 32)

    one, two = (key.payload(salt).seal(0, b"text", b"") for salt in (b"1" * 32, b"2" * 32))

    assert one != two


def test_the_header_proves_itself_under_one_file_key_only() -> None:
    key = FileKey(b"k" * 32)

    assert key.proves(b"header", key.mac(b"header"))
    assert not key.proves(b"Header", key.mac(b"header"))
    assert not FileKey(b"o" * 32).proves(b"header", key.mac(b"header"))


@pytest.mark.parametrize(
    "wrong",
    [
        BackupRequest(),
        BackupRequest((KEY.public,), lock_for().passphrase),
        BackupRequest((KEY.secret,)),
        BackupRequest(("age1qqqqqqqq",)),
        BackupRequest(tuple(RecoveryKey(bytes([n]) * 32).public for n in range(1, 10))),
    ],
)
def test_a_request_that_names_no_one_good_way_is_refused(wrong: BackupRequest) -> None:
    with pytest.raises(InvalidRequest):
        check_request(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"salt": "00"},
        {"salt": "no hex"},
        {"wrapped": ""},
        {"file_key": "00" * 16},
        {"log_n": 40},
        {"r": 0},
        {"p": 1 << 30},
    ],
)
def test_a_lock_that_can_not_be_is_refused(change: dict[str, object]) -> None:
    good = lock_for().passphrase
    assert good is not None

    with pytest.raises(InvalidRequest):
        check_request(BackupRequest(passphrase=replace(good, **change)))  # type: ignore[arg-type]


@pytest.mark.parametrize("passphrase", ["", "short", "x" * 1025])
def test_a_passphrase_that_protects_nothing_is_refused(passphrase: str) -> None:
    with pytest.raises(InvalidRequest):
        new_passphrase_lock(passphrase, CountingRng(), CHEAP)


def test_a_point_of_small_order_is_no_recovery_key() -> None:
    zero = key_text(RECOVERY_PUBLIC, bytes(32))

    with pytest.raises(InvalidRequest):
        locked(BackupRequest((zero,)), CountingRng())


def test_no_repr_shows_a_key() -> None:
    request = lock_for()
    assert request.passphrase is not None
    shown = repr((request, FileKey(b"k" * 32), KEY))

    assert request.passphrase.file_key not in shown
    assert "kkkk" not in shown
    assert KEY.secret not in shown


# -- the text of recovery keys ---------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.sampled_from([RECOVERY_PUBLIC, RECOVERY_SECRET]))
def test_the_text_of_a_key_comes_back(raw: bytes, prefix: str) -> None:
    assert key_bytes(prefix, key_text(prefix, raw)) == raw


@given(st.data())
def test_a_mistyped_key_is_told(data: st.DataObject) -> None:
    text = KEY.public
    at = data.draw(st.integers(len(RECOVERY_PUBLIC), len(text) - 1))
    typed = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567018-"))
    changed = text[:at] + typed + text[at + 1 :]

    if changed != text:
        with pytest.raises(ValueError, match="mistyped"):
            check_recovery_key(changed)


def test_the_secret_half_is_refused_where_the_public_one_belongs() -> None:
    with pytest.raises(ValueError, match="secret half") as refused:
        check_recovery_key(KEY.secret)

    assert KEY.secret not in str(refused.value)


def test_the_text_of_keys_is_pinned(golden: Golden) -> None:
    text = f"{KEY.public}\n{KEY.secret}\n".encode()

    assert golden("recovery-key", text) == text


# -- files -----------------------------------------------------------------------------------------


def test_a_recovery_key_is_written_for_its_owner_alone_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "key"

    write_recovery_key(path, KEY, "2026-01-01T00:00:00Z")

    assert path.stat().st_mode & 0o777 == 0o600
    assert read_recovery_key(path) == KEY
    assert public_recovery_key("key", tmp_path) == KEY.public
    with pytest.raises(FileExistsError):
        write_recovery_key(path, KEY, "")


def test_a_file_with_the_public_half_alone_locks_but_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "public").write_text(KEY.public + "\n")

    assert public_recovery_key("public", tmp_path) == KEY.public
    assert public_recovery_key(KEY.public, tmp_path) == KEY.public
    with pytest.raises(KeyFileError, match="no recovery key"):
        read_recovery_key(tmp_path / "public")


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_recovery_key(path, KEY, "")
    path.chmod(0o644)

    with pytest.raises(KeyFileError, match="open to other users"):
        read_recovery_key(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"nothing", RECOVERY_SECRET.encode()])
def test_other_files_are_no_recovery_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyFileError):
        read_recovery_key(path)
    with pytest.raises(KeyFileError):
        read_recovery_key(tmp_path / "missing")
