"""Sealing of everything a node writes: AES-256-GCM under subkeys of its storage key.

A subkey belongs to one place: a journal segment or one write transaction. It is
HKDF-Expand-SHA256 (RFC 5869) of the storage key with the purpose and a random 128-bit salt;
the nonce is the position in the place, so no nonce repeats under a key, and nothing about
sealing has to be coordinated. The AAD binds a ciphertext to its format and place: a record
moved elsewhere does not open.

The storage key and the cluster's digest key lie in `<data-dir>/keyring`, each wrapped
(AES-256-GCM again) by the key-encryption key of the local key file. That file is the one
thing that must not be lost and must not be copied along with the data directory.
"""

from __future__ import annotations

import base64
import binascii
import json
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from envd.core.digest import DIGEST_KEY_BYTES
from envd.core.errors import Corrupt, KeyFileError, StorageError
from envd.files import write_private
from envd.ports import SUBKEY_HEADER_BYTES, Rng, Subkey

KEY_BYTES = 32
NONCE_BYTES = 12
KEYRING_FORMAT = 1
_SALT_BYTES = SUBKEY_HEADER_BYTES - 2
_KEY_FILE_HEADER = "envd local key 1"


class _AesSubkey:
    __slots__ = ("_cipher", "header")

    def __init__(self, key: bytes, header: bytes) -> None:
        self._cipher = AESGCM(key)
        self.header = header

    def seal(self, position: int, plaintext: bytes, place: bytes) -> bytes:
        return self._cipher.encrypt(position.to_bytes(NONCE_BYTES), plaintext, place)

    def open(self, position: int, sealed: bytes, place: bytes) -> bytes:
        try:
            return self._cipher.decrypt(position.to_bytes(NONCE_BYTES), sealed, place)
        except InvalidTag:
            raise Corrupt("a sealed record does not open under its key and place") from None


def subkey_of(key: bytes, header: bytes = b"") -> Subkey:
    """The Subkey over a key of 32 bytes that was made in another way."""
    return _AesSubkey(key, header)


class LocalSealer:
    """The Sealer over storage keys held in memory, by key id; the highest id seals."""

    def __init__(self, storage_keys: dict[int, bytes], rng: Rng) -> None:
        self._keys = dict(storage_keys)
        self._current = max(storage_keys)
        self._rng = rng

    def storage_keys(self) -> dict[int, bytes]:
        """The keys, for a process that does part of this node's work."""
        return dict(self._keys)

    def new_subkey(self, purpose: bytes) -> Subkey:
        header = self._current.to_bytes(2) + self._rng.token_bytes(_SALT_BYTES)
        return self.subkey(purpose, header)

    def subkey(self, purpose: bytes, header: bytes) -> Subkey:
        key_id = int.from_bytes(header[:2])
        storage_key = self._keys.get(key_id)
        if storage_key is None:
            raise KeyFileError(
                f"a record is sealed under storage key {key_id}, which the keyring lacks",
                hint="restore the keyring file that belongs to this data directory",
            )
        info = b"envd sealing 1\0" + purpose + b"\0" + header
        derived = HKDFExpand(SHA256(), KEY_BYTES, info).derive(storage_key)
        return _AesSubkey(derived, header)


@dataclass(frozen=True, slots=True)
class Keyring:
    """What the keyring file holds, unwrapped."""

    storage_keys: dict[int, bytes] = field(repr=False)
    digest_key: bytes = field(repr=False)


def create_key_file(path: Path, rng: Rng) -> None:
    """Write a new key-encryption key there, mode 0600; raises FileExistsError."""
    key = base64.b64encode(rng.token_bytes(KEY_BYTES)).decode()
    write_private(path, f"{_KEY_FILE_HEADER}\n{key}\n".encode(), replace=False)


def read_key_file(path: Path) -> bytes:
    """Return the key-encryption key; raises KeyFileError that says what to do."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except FileNotFoundError:
        raise KeyFileError(
            f"the key file {path} is missing; without it the data can't be read",
            hint="put the key file back from where you keep it safe, "
            "or name its place with `security.key_file`",
            reason="KEY_FILE_MISSING",
        ) from None
    except UnicodeDecodeError:
        text = ""  # Not chained: the error carries the key.
    except OSError as error:
        raise KeyFileError(
            f"the key file {path} can't be read: {type(error).__name__}",
            hint="it must be a readable file that envd made",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(
            f"the key file {path} is open to other users (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
            reason="KEY_FILE_EXPOSED",
        )
    header, _, encoded = text.strip().partition("\n")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if header != _KEY_FILE_HEADER or len(key) != KEY_BYTES:
        raise KeyFileError(
            f"{path} is no envd key file",
            hint="put the key file back from where you keep it safe",
            reason="KEY_FILE_DAMAGED",
        )
    return key


def create_keyring(
    path: Path, key_encryption_key: bytes, rng: Rng, *, digest_key: bytes | None = None
) -> Keyring:
    """Draw a storage key and, unless there is one, a digest key; write them there, wrapped."""
    storage_key = rng.token_bytes(KEY_BYTES)
    keyring = Keyring({1: storage_key}, digest_key or rng.token_bytes(DIGEST_KEY_BYTES))
    wrap = _Wrap(key_encryption_key)
    document = {
        "format": KEYRING_FORMAT,
        "key_file": fingerprint(key_encryption_key),
        "storage_keys": {
            str(key_id): wrap.close(key, f"storage {key_id}", rng)
            for key_id, key in keyring.storage_keys.items()
        },
        "digest_key": wrap.close(keyring.digest_key, "digest", rng),
    }
    write_private(path, json.dumps(document, indent=1).encode() + b"\n", replace=False)
    return keyring


def read_keyring(path: Path, key_encryption_key: bytes, key_file: Path) -> Keyring:
    """Unwrap the keyring; raises KeyFileError for the wrong key, Corrupt for damage."""
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != KEYRING_FORMAT:
            raise StorageError(
                f"{path} has format {document['format']}; this version reads {KEYRING_FORMAT}",
                hint="a newer envd wrote it: run that version or a later one",
                reason="NEWER_FORMAT",
            )
        if document["key_file"] != fingerprint(key_encryption_key):
            raise KeyFileError(
                f"{key_file} is not the key file of this data directory: its fingerprint is "
                f"{fingerprint(key_encryption_key)}, expected {document['key_file']}",
                hint="name the right one with `security.key_file`",
                reason="KEY_FILE_WRONG",
            )
        wrap = _Wrap(key_encryption_key)
        storage_keys = {
            int(key_id): wrap.open(wrapped, f"storage {key_id}")
            for key_id, wrapped in document["storage_keys"].items()
        }
        if not storage_keys:
            raise ValueError("a keyring without a storage key")
        return Keyring(storage_keys, wrap.open(document["digest_key"], "digest"))
    except FileNotFoundError:
        raise StorageError(
            f"{path} is missing; without it the data can't be read",
            hint="restore the whole data directory from a backup",
            reason="KEYRING_MISSING",
        ) from None
    except OSError as error:
        raise StorageError(
            f"{path} can't be read: {type(error).__name__}",
            hint="it must be a file that the user of envd may read",
            reason="KEYRING_UNREADABLE",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, InvalidTag) as error:
        raise Corrupt(
            f"{path} is damaged", hint="restore the keyring file from a backup"
        ) from error


def fingerprint(key_encryption_key: bytes) -> str:
    """12 hex digits by which people tell key files apart; it betrays nothing of the key."""
    return sha256(b"envd key file\0" + key_encryption_key).hexdigest()[:12]


class _Wrap:
    """Keys under the key-encryption key: nonce and ciphertext, in base64."""

    def __init__(self, key_encryption_key: bytes) -> None:
        self._cipher = AESGCM(key_encryption_key)

    def close(self, key: bytes, place: str, rng: Rng) -> str:
        nonce = rng.token_bytes(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, key, f"envd keyring 1 {place}".encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, wrapped: str, place: str) -> bytes:
        raw = base64.b64decode(wrapped, validate=True)
        return self._cipher.decrypt(
            raw[:NONCE_BYTES], raw[NONCE_BYTES:], f"envd keyring 1 {place}".encode()
        )
