"""What the nodes of a cluster share: the key of gossip, and how peers prove who they are.

The file `cluster.secret` (0600) holds one to three keys, one per line, each 256 random bits
behind a prefix by which scanners tell what it is. The first key seals and proves, all of them
open and check. So a secret is exchanged without a gap: add the new key as the second line on
every node, then move it to the first line on every node, then drop the old one.

A key is never used itself. HKDF-SHA256 (RFC 5869) gives a subkey for each purpose, so that
what is made for one purpose says nothing of, and can't be passed off as, another.

Under `--insecure` the key is derived from the cluster's name. It is worth nothing as a secret:
whoever knows the name has it. It only keeps clusters of different names apart.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envd.core.errors import KeyFileError, Unauthenticated
from envd.files import write_private
from envd.ports import Rng

SECRET_PREFIX: Final = "envd_cluster_"  # noqa: S105 - the public part of a secret
KEY_BYTES: Final = 32
MAX_KEYS: Final = 3
PROOF_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_MAX_FILE_BYTES: Final = 4096
_DIGITS: Final = -(-KEY_BYTES * 8 // 5)  # of base32, without its padding
_HINT: Final = "copy cluster.secret from a member of the cluster; its mode must be 0600"


class ClusterKey:
    """One key of the keyring, after HKDF-Extract; `id` tells keys apart and betrays nothing."""

    __slots__ = ("_key", "id")

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(b"envd cluster secret 1", key, "sha256")
        self.id = self.subkey(b"key id")[:KEY_ID_BYTES]

    def subkey(self, purpose: bytes, context: bytes = b"") -> bytes:
        """32 bytes for this purpose and context: HKDF-Expand-SHA256, one block."""
        info = len(purpose).to_bytes(2) + purpose + context
        return hmac.digest(self._key, info + b"\x01", "sha256")


class SharedSecret:
    """The ClusterSecret port over one to three keys; the first one seals and proves."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        if not 1 <= len(keys) <= MAX_KEYS or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a cluster secret is 1 to {MAX_KEYS} keys of {KEY_BYTES} bytes")
        self.keys: Final = tuple(map(ClusterKey, dict.fromkeys(keys)))

    @classmethod
    def read(cls, path: Path) -> SharedSecret:
        """The secret in the file; raises KeyFileError that says what to do."""
        return cls(read_cluster_secret(path))

    @classmethod
    def insecure(cls, cluster_name: str) -> SharedSecret:
        """What `--insecure` uses: worthless as a secret, since the name is all it takes."""
        return cls((sha256(b"envd insecure cluster\0" + cluster_name.encode()).digest(),))

    def proof(self, purpose: bytes, transcript: bytes) -> bytes:
        return _proof(self.keys[0], purpose, transcript)

    def proves(self, purpose: bytes, transcript: bytes, proof: bytes) -> bool:
        found = False
        for key in self.keys:  # All of them: the time tells nothing of which one it was.
            found |= hmac.compare_digest(_proof(key, purpose, transcript), proof)
        return found

    def seal(self, purpose: bytes, transcript: bytes, plaintext: bytes) -> bytes:
        """Encrypt: key id, nonce, ciphertext.

        The nonce is an HMAC of the plaintext (as in SIV, RFC 5297), so that not even a
        transcript that came twice would do harm beyond showing that plaintexts are equal.
        """
        key = self.keys[0]
        nonce = hmac.digest(_sealing(key, b"nonce", purpose, transcript), plaintext, "sha256")
        nonce = nonce[:_NONCE_BYTES]
        cipher = AESGCM(_sealing(key, b"key", purpose, transcript))
        return key.id + nonce + cipher.encrypt(nonce, plaintext, purpose)

    def open(self, purpose: bytes, transcript: bytes, sealed: bytes) -> bytes:
        start = KEY_ID_BYTES + _NONCE_BYTES
        for key in self.keys:
            if len(sealed) < start + _TAG_BYTES or sealed[:KEY_ID_BYTES] != key.id:
                continue
            cipher = AESGCM(_sealing(key, b"key", purpose, transcript))
            try:
                return cipher.decrypt(sealed[KEY_ID_BYTES:start], sealed[start:], purpose)
            except InvalidTag:
                continue
        raise Unauthenticated(
            "what a peer sealed does not open under this cluster's secret", reason="OTHER_SECRET"
        )


def new_cluster_key(rng: Rng) -> str:
    """A new key in the form of the file: 256 random bits behind the prefix."""
    return _to_text(rng.token_bytes(KEY_BYTES))


def create_cluster_secret(path: Path, rng: Rng) -> None:
    """Write a new secret there, mode 0600; raises FileExistsError."""
    write_private(path, new_cluster_key(rng).encode() + b"\n", replace=False)


def read_cluster_secret(path: Path) -> tuple[bytes, ...]:
    """The keys in the file, the one that seals first; raises KeyFileError that says what to do."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyFileError(
            f"the cluster secret {path} is missing; without it no other node talks to this one",
            hint=_HINT + "; for a new cluster, a node that is started without --join makes one",
            reason="CLUSTER_SECRET_MISSING",
        ) from None
    except OSError as error:
        raise KeyFileError(
            f"the cluster secret {path} can't be read: {type(error).__name__}",
            hint="it must be a file that the user of envd may read; " + _HINT,
            reason="CLUSTER_SECRET_UNREADABLE",
        ) from error
    if mode & 0o077:
        raise KeyFileError(
            f"the cluster secret {path} is open to other users (mode {mode:04o})",
            hint=f"chmod 600 {path}; who may have read it can join the cluster: "
            "consider a new secret",
            reason="CLUSTER_SECRET_EXPOSED",
        )
    keys = tuple(map(_from_line, raw.split()))
    if len(raw) > _MAX_FILE_BYTES or not 1 <= len(keys) <= MAX_KEYS or None in keys:
        raise KeyFileError(
            f"{path} is no cluster secret: it must hold 1 to {MAX_KEYS} keys "
            f"({SECRET_PREFIX}...), one per line",
            hint=_HINT,
            reason="CLUSTER_SECRET_DAMAGED",
        )
    return tuple(key for key in keys if key is not None)


def _from_line(line: bytes) -> bytes | None:
    """The key of a line, None for anything else; nothing of the line gets into an error."""
    digits = line.removeprefix(SECRET_PREFIX.encode())
    if digits == line or len(digits) != _DIGITS:
        return None
    try:
        key = base64.b32decode(digits.upper() + b"=" * (-_DIGITS % 8))
    except binascii.Error:
        return None
    # Base32 has bits to spare: only one spelling of a key is one.
    return key if _to_text(key).encode() == line else None


def _to_text(key: bytes) -> str:
    return SECRET_PREFIX + base64.b32encode(key).decode().rstrip("=").lower()


def _proof(key: ClusterKey, purpose: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key.subkey(b"proof", purpose), transcript, "sha256")


def _sealing(key: ClusterKey, part: bytes, purpose: bytes, transcript: bytes) -> bytes:
    context = len(purpose).to_bytes(2) + purpose + sha256(transcript).digest()
    return key.subkey(b"seal " + part, context)
