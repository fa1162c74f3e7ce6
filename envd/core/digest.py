"""Fingerprints of states: the revision that people see, and the digest that replicas compare.

Both are keyed BLAKE2b (RFC 7693) of a canonical encoding under the cluster's digest key, so
that a fingerprint lets nobody without the key confirm a guessed value.

The encoding joins fields by NUL, which no name and no value may hold, in records of a fixed
number of fields; so it is injective. A record is kind, name, stamp in hex, "1" or "" for
secret, value; variables come before metadata, each sorted by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from envd.core.commit import Kind
from envd.core.environment import Entry, Environment
from envd.core.stamp import Stamp

REVISION_BYTES = 16
DIGEST_KEY_BYTES = 32
SHORT_REVISION = 12
_HISTORY_MODULUS = 1 << 128


def revision(environment: Environment, digest_key: bytes) -> bytes:
    """16 bytes that are equal exactly when the visible state is: live entries, stamps, flags.

    Collecting tombstones does not change it.
    """
    fields: list[str] = []
    for kind in (Kind.VARIABLE, Kind.METADATA):
        _append_live(fields, str(int(kind)), environment.entries(kind))
    return _keyed("\0".join(fields).encode(), digest_key, b"envd revision")


def state_digest(
    environment: Environment, revision: bytes, history_sum: int, digest_key: bytes
) -> bytes:
    """16 bytes that replicas compare: equal where they hold the same state and history.

    Covers what the revision covers, tombstones with their flags, `deleted_at`, and the history
    as the sum of its commits' hashes. The `overwrites` of entries are covered by the history.
    """
    fields = [environment.deleted_at.hex(), f"{history_sum:032x}"]
    for kind in (Kind.VARIABLE, Kind.METADATA):
        for name, entry in sorted(environment.entries(kind).items()):
            if entry.value is None:
                fields += (str(int(kind)), name, entry.stamp.hex(), "1" if entry.secret else "")
    return _keyed(revision + "\0".join(fields).encode(), digest_key, b"envd state")


def commit_hash(encoded_commit: bytes, digest_key: bytes) -> int:
    """The share of one commit (its stored bytes) in a history sum, below 2^128."""
    return int.from_bytes(_keyed(encoded_commit, digest_key, b"envd commit"))


def request_digest(fields: Iterable[str], digest_key: bytes) -> bytes:
    """16 bytes by which a repeated request is told from another one under its operation id.

    Each field goes in with its length, so that no two lists of fields run together.
    """
    encoded = "".join(f"{len(text)}:{text}" for text in fields)
    return _keyed(encoded.encode("utf-8", "surrogatepass"), digest_key, b"envd request")


def history_sum(hashes: Iterable[int], start: int = 0, sign: int = 1) -> int:
    """Add (or with sign -1 take away) commits' hashes: the order of arrival does not matter."""
    return (start + sign * sum(hashes)) % _HISTORY_MODULUS


def _append_live(fields: list[str], kind: str, entries: Mapping[str, Entry]) -> None:
    stamps: dict[Stamp, str] = {}
    for name in sorted(entries):
        stamp, _, value, secret = entries[name]
        if value is None:
            continue
        shown = stamps.get(stamp)
        if shown is None:
            shown = stamps[stamp] = stamp.hex()
        fields += (kind, name, shown, "1" if secret else "", value)


def _keyed(data: bytes, key: bytes, person: bytes) -> bytes:
    return blake2b(data, digest_size=REVISION_BYTES, key=key, person=person).digest()
