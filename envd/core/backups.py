"""Backups in words: what is asked for, what locks one, and what is told of one.

A backup is encrypted under a file key of its own, and that key is locked in one of two ways:

* by a passphrase: whoever asks derives a key from it (scrypt, RFC 7914), draws the file key and
  locks it. A node gets the file key for this one backup and never sees the passphrase;
* by recovery keys: the public halves of X25519 key pairs, whose private halves lie somewhere
  safe. A node needs no secret at all, so its settings can name them.

The text of a recovery key is a prefix that says which half it is, and base32 of its 32 bytes and
of 4 bytes by which a mistyped one is told.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

RECOVERY_PUBLIC = "envd_recovery_pub_"
RECOVERY_SECRET = "envd_recovery_key_"  # noqa: S105 - the public part of a key's text
MAX_RECOVERY_KEYS = 8
KEY_BYTES = 32
_CHECK_BYTES = 4
_MAX_SHOWN = 128


def key_text(prefix: str, raw: bytes) -> str:
    """The text of one half of a recovery key; `raw` has 32 bytes."""
    encoded = base64.b32encode(raw + _check(prefix, raw)).decode().rstrip("=").lower()
    return prefix + encoded


def key_bytes(prefix: str, text: str) -> bytes:
    """The inverse of `key_text`; raises ValueError, which never quotes the text."""
    if not text.startswith(prefix):
        raise ValueError(f"a recovery key of this kind begins with {prefix}")
    encoded = text.removeprefix(prefix).upper()
    try:
        raw = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except binascii.Error:
        raw = b""  # not chained: the error may tell of a secret
    key, check = raw[:KEY_BYTES], raw[KEY_BYTES:]
    if len(key) != KEY_BYTES or check != _check(prefix, key) or key_text(prefix, key) != text:
        raise ValueError("the recovery key is mistyped or cut short")
    return key


def check_recovery_key(text: str) -> str:
    """Return the text of a public recovery key; raises ValueError for anything else."""
    if text.startswith(RECOVERY_SECRET):
        raise ValueError("this is the secret half of a recovery key; keep it away from the node")
    key_bytes(RECOVERY_PUBLIC, text)
    return text


def opened_by(lock: Mapping[str, Any]) -> str:
    """What opens a lock of a header: "passphrase", a public recovery key, or an unknown kind."""
    kind = lock.get("kind")
    if kind == "scrypt":
        return "passphrase"
    named = lock.get("recovery_key") if kind == "x25519" else kind
    return named[:_MAX_SHOWN] if isinstance(named, str) else "unknown"


def _check(prefix: str, raw: bytes) -> bytes:
    return blake2b(prefix.encode() + raw, digest_size=_CHECK_BYTES).digest()


@dataclass(frozen=True, slots=True)
class PassphraseLock:
    """A file key locked by a passphrase, and the file key itself; bytes are hexadecimal.

    `log_n`, `r` and `p` are the cost of scrypt, `salt` its salt (16 bytes).
    """

    salt: str
    log_n: int
    r: int
    p: int
    wrapped: str
    file_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """Make a backup that a passphrase or the recovery keys open; exactly one of the two."""

    recovery_keys: tuple[str, ...] = ()
    passphrase: PassphraseLock | None = None


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What a backup file says of itself without being opened.

    `state` is "whole" (its parts stand where they should), "checked" (and its checksums hold)
    or "damaged", and then `detail` says where. `created` is a time (ISO 8601). `locks` names
    what opens it: "passphrase", or the public recovery keys. `variables` counts those of
    environments that exist, as `environments` does. `scheduled`: a node made it by itself.
    """

    file: str
    size_bytes: int
    state: str = "whole"
    detail: str = ""
    created: str = ""
    node: str = ""
    node_uid: str = ""
    cluster: str = ""
    cluster_id: str = ""
    version: str = ""
    environments: int = 0
    variables: int = 0
    commits: int = 0
    scheduled: bool = False
    locks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupListing:
    """The backups in a node's directory, oldest first, and how its schedule does.

    `directory` is "" where none is set, `every` where there is no schedule. `next` is the time
    of the next one; `failure` says why the last try failed, "" where it did not.
    """

    backups: tuple[BackupFacts, ...] = ()
    directory: str = ""
    every: str = ""
    next: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class BackupChunk:
    """The next bytes of a backup that is being made."""

    data: bytes = field(repr=False)
