"""The keys of a backup: what locks its file key, and what the file key opens.

    file key      32 random bytes, drawn for one backup
    header key    HKDF-SHA256(file key, salt "", info "envd backup 1 header"); HMAC-SHA256 under it
                  proves the header, and so commits the file to this one file key
    payload key   HKDF-SHA256(file key, salt of the header, info "envd backup 1 payload"), for
                  AES-256-GCM with the chunk's number as the nonce

    passphrase    scrypt(NFC of the passphrase, "envd backup 1 scrypt" + salt, N, r, p) locks the
                  file key: AES-256-GCM, nonce 0
    recovery key  X25519 of a key drawn for this backup with the recovery key;
                  HKDF-SHA256(shared secret, salt = both public keys, info "envd backup 1 x25519")
                  locks the file key in the same way

The design is that of age (age-encryption.org/v1) with the primitives that envd uses anyway. The
salt of the payload key is drawn by the writer of the file, so that a caller who sends one file
key twice does not make a nonce repeat.

A file is hostile until its MAC holds: what scrypt may cost is bounded before it runs.
"""

from __future__ import annotations

import hmac
import stat
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from envd.core.backups import (
    KEY_BYTES,
    MAX_RECOVERY_KEYS,
    RECOVERY_PUBLIC,
    RECOVERY_SECRET,
    BackupRequest,
    PassphraseLock,
    check_recovery_key,
    key_bytes,
    key_text,
)
from envd.core.errors import Corrupt, InvalidRequest, KeyFileError, StorageError
from envd.files import write_private
from envd.ports import Rng, Subkey
from envd.security.sealing import NONCE_BYTES, subkey_of

SALT_BYTES = 16
WRAPPED_BYTES = KEY_BYTES + 16
MIN_PASSPHRASE = 8
MAX_PASSPHRASE = 1024
_MAX_SCRYPT_BYTES = 1 << 30
"""Memory (128 N r) and, times p, work; the default takes 128 MiB and half a second."""
_NONCE = bytes(NONCE_BYTES)
_PLACE = b"envd backup 1 file key"
_MAX_KEY_FILE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """N = 2^log_n, r, p of RFC 7914; the default is OWASP's first choice (N = 2^17)."""

    log_n: int = 17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.log_n <= 24 and 1 <= self.r <= 64 and 1 <= self.p <= 64):
            raise ValueError("a cost of scrypt is out of range")
        if 128 * (self.r << self.log_n) * self.p > _MAX_SCRYPT_BYTES:
            raise ValueError("scrypt would cost too much")


Lock = Mapping[str, Any]
"""One lock as the header holds it: a JSON object, its bytes hexadecimal.

    {"kind": "scrypt", "salt": ..., "log_n": 17, "r": 8, "p": 1, "wrapped": ...}
    {"kind": "x25519", "recovery_key": "envd_recovery_pub_...", "ephemeral": ..., "wrapped": ...}

A reader passes over those of a kind that it does not know.
"""


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key of one backup."""

    raw: bytes = field(repr=False)

    def mac(self, header: bytes) -> bytes:
        """32 bytes that prove the header."""
        return hmac.digest(self._derived(b"header", b""), header, "sha256")

    def proves(self, header: bytes, mac: bytes) -> bool:
        """Tell whether the header is the one that was written under this key."""
        return hmac.compare_digest(self.mac(header), mac)

    def payload(self, salt: bytes) -> Subkey:
        """The key of the chunks, under the salt of the header."""
        return subkey_of(self._derived(b"payload", salt))

    def _derived(self, purpose: bytes, salt: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt, b"envd backup 1 " + purpose).derive(self.raw)


# -- passphrases -------------------------------------------------------------------


def check_passphrase(passphrase: str) -> None:
    """Raise InvalidRequest for one that is too short to protect anything, or no text."""
    if not MIN_PASSPHRASE <= len(passphrase) <= MAX_PASSPHRASE:
        raise InvalidRequest(
            f"a passphrase has {MIN_PASSPHRASE} to {MAX_PASSPHRASE} characters",
            hint="several random words are easy to keep: who has the file can try many",
            reason="PASSPHRASE_SHORT",
        )


def new_passphrase_lock(
    passphrase: str, rng: Rng, cost: ScryptCost | None = None
) -> PassphraseLock:
    """Draw a file key and lock it; raises InvalidRequest for a passphrase that is too short."""
    check_passphrase(passphrase)
    cost = cost or ScryptCost()
    salt, file_key = rng.token_bytes(SALT_BYTES), rng.token_bytes(KEY_BYTES)
    wrapped = AESGCM(_scrypt(passphrase, salt, cost)).encrypt(_NONCE, file_key, _PLACE)
    return PassphraseLock(salt.hex(), cost.log_n, cost.r, cost.p, wrapped.hex(), file_key.hex())


def by_passphrase(locks: Sequence[Lock], passphrase: str) -> FileKey:
    """The file key; raises KeyFileError where the passphrase does not open it, Corrupt."""
    for lock in locks:
        if lock.get("kind") == "scrypt":
            cost = _cost(lock)
            salt, wrapped = _bytes(lock, "salt", SALT_BYTES), _bytes(lock, "wrapped", WRAPPED_BYTES)
            key = _scrypt(passphrase, salt, cost)
            return _unlocked(key, wrapped, "the passphrase does not open this backup")
    _check_known(locks)
    raise KeyFileError(
        "no passphrase opens this backup, but a recovery key does",
        hint="name its file: --recovery-key FILE",
        reason="BACKUP_KEY_WRONG",
    )


def _check_known(locks: Iterable[Lock]) -> None:
    """Raise StorageError where a backup has none of the two locks that are known here."""
    if not any(lock.get("kind") in ("scrypt", "x25519") for lock in locks):
        raise StorageError(
            "it is opened in a way that this version does not know",
            hint="use the envd version that wrote it, or a later one",
            reason="NEWER_FORMAT",
        )


def _cost(lock: Lock) -> ScryptCost:
    numbers = [lock.get(name) for name in ("log_n", "r", "p")]
    try:
        log_n, r, p = (number for number in numbers if isinstance(number, int))
        return ScryptCost(log_n, r, p)
    except ValueError:
        raise _no_lock() from None


def _bytes(lock: Lock, name: str, size: int) -> bytes:
    text = lock.get(name)
    try:
        raw = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise _no_lock()
    return raw


def _no_lock() -> Corrupt:
    return Corrupt(
        "the header of the backup holds a lock that can't be",
        hint="use another backup, or another copy of this one",
        reason="BACKUP_DAMAGED",
    )


def _scrypt(passphrase: str, salt: bytes, cost: ScryptCost) -> bytes:
    try:
        secret = unicodedata.normalize("NFC", passphrase).encode()
    except UnicodeEncodeError:
        # Not chained: the error carries the whole text.
        raise InvalidRequest("the passphrase is not valid UTF-8") from None
    whole = b"envd backup 1 scrypt" + salt
    return Scrypt(whole, KEY_BYTES, 1 << cost.log_n, cost.r, cost.p).derive(secret)


# -- recovery keys -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """Both halves of a recovery key."""

    raw: bytes = field(repr=False)

    @staticmethod
    def new(rng: Rng) -> RecoveryKey:
        """Draw one."""
        return RecoveryKey(rng.token_bytes(KEY_BYTES))

    @property
    def public(self) -> str:
        """The half that locks: it may be shown, and stand in settings."""
        public = X25519PrivateKey.from_private_bytes(self.raw).public_key()
        return key_text(RECOVERY_PUBLIC, public.public_bytes_raw())

    @property
    def secret(self) -> str:
        """The half that opens."""
        return key_text(RECOVERY_SECRET, self.raw)


def write_recovery_key(path: Path, key: RecoveryKey, made: str) -> None:
    """Write the file of a recovery key, mode 0600; raises FileExistsError, OSError."""
    text = (
        f"# envd recovery key, made {made}\n"
        "# Keep this file away from the node and safe: it opens the backups, and without it\n"
        "# they can't be read.\n"
        f"# public key: {key.public}\n"
        f"{key.secret}\n"
    )
    write_private(path, text.encode(), replace=False)


def read_recovery_key(path: Path) -> RecoveryKey:
    """Read the file of a recovery key; raises KeyFileError that says what to do."""
    for line in _lines(path):
        if line.startswith(RECOVERY_SECRET):
            try:
                return RecoveryKey(key_bytes(RECOVERY_SECRET, line))
            except ValueError as error:
                raise KeyFileError(f"{path}: {error}", hint="copy the whole line again") from None
    raise KeyFileError(
        f"{path} holds no recovery key",
        hint=f"it must be the file with the secret half, which begins with {RECOVERY_SECRET}",
        reason="RECOVERY_KEY_MISSING",
    )


def public_recovery_key(word: str, directory: Path) -> str:
    """The public half that a person means: its text itself, or a file with either half.

    Raises InvalidRequest for a text that is none, KeyFileError for a file without any.
    """
    if word.startswith((RECOVERY_PUBLIC, RECOVERY_SECRET)):
        try:
            return check_recovery_key(word)
        except ValueError as error:
            raise InvalidRequest(str(error), reason="RECOVERY_KEY_WRONG") from None
    path = directory / word
    for line in _lines(path):
        found = line.removeprefix("# public key: ")
        if found.startswith(RECOVERY_PUBLIC):
            return public_recovery_key(found, directory)
    return read_recovery_key(path).public


def _lines(path: Path) -> Iterable[str]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb") as file:
            text = file.read(_MAX_KEY_FILE_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        # Not chained: a decoding error carries the bytes.
        raise KeyFileError(
            f"the recovery key {path} can't be read: {why}", hint="name the file that holds it"
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    if mode & 0o077 and any(line.startswith(RECOVERY_SECRET) for line in lines):
        raise KeyFileError(
            f"the recovery key {path} is open to other users (mode {mode:04o})",
            hint=f"chmod 600 {path}",
            reason="KEY_FILE_EXPOSED",
        )
    return lines


def by_recovery_key(locks: Sequence[Lock], key: RecoveryKey) -> FileKey:
    """The file key; raises KeyFileError where none of the locks is for this key, Corrupt."""
    private = X25519PrivateKey.from_private_bytes(key.raw)
    for lock in locks:
        if lock.get("kind") == "x25519" and lock.get("recovery_key") == key.public:
            ephemeral = _bytes(lock, "ephemeral", KEY_BYTES)
            peer = X25519PublicKey.from_public_bytes(ephemeral)
            wrap = _x25519(private, peer, ephemeral + key_bytes(RECOVERY_PUBLIC, key.public))
            wrapped = _bytes(lock, "wrapped", WRAPPED_BYTES)
            return _unlocked(wrap, wrapped, "the recovery key does not open this backup")
    _check_known(locks)
    raise KeyFileError(
        "the backup was not made for this recovery key",
        hint="envctl backup list FILE tells what opens it",
        reason="BACKUP_KEY_WRONG",
    )


def _x25519(private: X25519PrivateKey, peer: X25519PublicKey, salt: bytes) -> bytes:
    try:
        shared = private.exchange(peer)
    except ValueError:
        raise _wrong("the recovery key does not open this backup") from None
    return HKDF(SHA256(), KEY_BYTES, salt, b"envd backup 1 x25519").derive(shared)


def _unlocked(key: bytes, wrapped: bytes, refusal: str) -> FileKey:
    try:
        return FileKey(AESGCM(key).decrypt(_NONCE, wrapped, _PLACE))
    except InvalidTag:
        raise _wrong(refusal) from None


def _wrong(refusal: str) -> KeyFileError:
    return KeyFileError(
        refusal,
        hint="it is another one, or the file was changed by somebody",
        reason="BACKUP_KEY_WRONG",
    )


# -- locking -----------------------------------------------------------------------


def check_request(request: BackupRequest) -> None:
    """Raise InvalidRequest unless the request names one good way to lock the backup."""
    if (request.passphrase is None) == (not request.recovery_keys):
        raise InvalidRequest(
            "a backup is locked by a passphrase or by recovery keys",
            hint="give one of the two",
            reason="BACKUP_UNLOCKED",
        )
    if len(request.recovery_keys) > MAX_RECOVERY_KEYS:
        raise InvalidRequest(f"a backup has at most {MAX_RECOVERY_KEYS} recovery keys")
    try:
        for key in request.recovery_keys:
            check_recovery_key(key)
        if request.passphrase is not None:
            _scrypt_lock(request.passphrase)
    except ValueError as error:
        raise InvalidRequest(str(error), reason="RECOVERY_KEY_WRONG") from None


def locked(request: BackupRequest, rng: Rng) -> tuple[FileKey, tuple[Lock, ...]]:
    """The file key of a backup, and its locks; raises InvalidRequest."""
    check_request(request)
    if request.passphrase is not None:
        lock = _scrypt_lock(request.passphrase)
        return FileKey(bytes.fromhex(request.passphrase.file_key)), (lock,)
    file_key = FileKey(rng.token_bytes(KEY_BYTES))
    return file_key, tuple(_for(key, file_key, rng) for key in dict.fromkeys(request.recovery_keys))


def _scrypt_lock(lock: PassphraseLock) -> Lock:
    sizes = (SALT_BYTES, WRAPPED_BYTES, KEY_BYTES)
    raw = [bytes.fromhex(text) for text in (lock.salt, lock.wrapped, lock.file_key)]
    if tuple(map(len, raw)) != sizes:
        raise ValueError("the lock of the passphrase has a wrong length")
    cost = ScryptCost(lock.log_n, lock.r, lock.p)
    return {
        "kind": "scrypt",
        "salt": raw[0].hex(),
        "log_n": cost.log_n,
        "r": cost.r,
        "p": cost.p,
        "wrapped": raw[1].hex(),
    }


def _for(recovery_key: str, file_key: FileKey, rng: Rng) -> Lock:
    recipient = key_bytes(RECOVERY_PUBLIC, recovery_key)
    drawn = X25519PrivateKey.from_private_bytes(rng.token_bytes(KEY_BYTES))
    ephemeral = drawn.public_key().public_bytes_raw()
    try:
        wrap = _x25519(drawn, X25519PublicKey.from_public_bytes(recipient), ephemeral + recipient)
    except KeyFileError:  # a point of small order
        raise InvalidRequest("a recovery key is none that can lock a backup") from None
    wrapped = AESGCM(wrap).encrypt(_NONCE, file_key.raw, _PLACE)
    return {
        "kind": "x25519",
        "recovery_key": recovery_key,
        "ephemeral": ephemeral.hex(),
        "wrapped": wrapped.hex(),
    }
