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
from operator import itemgetter

from envd.core.commit import Kind
from envd.core.entries import Entry, EntryColumns, rows_of, same_for_all
from envd.core.environment import Environment
from envd.core.stamp import ZERO, Stamp

REVISION_BYTES = 16
DIGEST_KEY_BYTES = 32
SHORT_REVISION = 12
_HISTORY_MODULUS = 1 << 128
_NAME = itemgetter(0)


def revision(environment: Environment, digest_key: bytes) -> bytes:
    """16 bytes that are equal exactly when the visible state is: live entries, stamps, flags.

    Collecting tombstones does not change it.
    """
    parts: list[str] = []
    _append_live(parts, "0", environment.variables)
    if environment.metadata:
        _append_live(parts, "1", environment.metadata)
    return _keyed("\0".join(parts).encode(), digest_key, b"envd revision")


def state_digest(
    environment: Environment, revision: bytes, history_sum: int, digest_key: bytes
) -> bytes:
    """16 bytes that replicas compare: equal where they hold the same state and history.

    Covers what the revision covers, tombstones with their flags, `deleted_at`, and the history
    as the sum of its commits' hashes. The `overwrites` of entries are covered by the history.
    """
    fields = [environment.deleted_at.hex(), f"{history_sum:032x}"]
    summary = environment.summary
    for kind in Kind if summary.names > summary.live + summary.settings else ():
        for name, entry in sorted(environment.entries(kind).items()):
            if entry.value is None:
                fields += (str(int(kind)), name, entry.stamp.hex(), "1" if entry.secret else "")
    return _keyed(revision + "\0".join(fields).encode(), digest_key, b"envd state")


def base_digest(base: Environment, digest_key: bytes) -> bytes:
    """16 bytes for the snapshot that a history starts from, zeros for an empty one."""
    if not base.summary.names and base.deleted_at == ZERO:
        return bytes(REVISION_BYTES)
    return state_digest(base, revision(base, digest_key), 0, digest_key)


def whole_digest(state: bytes, base: bytes, digest_key: bytes) -> bytes:
    """16 bytes over a state digest and a base digest: all that replicas of one environment hold."""
    return _keyed(state + base, digest_key, b"envd whole")


def commit_hash(encoded_commit: bytes, digest_key: bytes) -> int:
    """The share of one commit (its stored bytes) in a history sum, below 2^128."""
    return int.from_bytes(_keyed(encoded_commit, digest_key, b"envd commit"))


def request_digest(fields: Iterable[str], digest_key: bytes) -> bytes:
    """16 bytes by which a repeated request is told from another one under its operation id.

    Each field goes in with its length, so that no two lists of fields run together.
    """
    encoded = "".join([f"{len(text)}:{text}" for text in fields])
    return _keyed(encoded.encode("utf-8", "surrogatepass"), digest_key, b"envd request")


def history_sum(hashes: Iterable[int], start: int = 0, sign: int = 1) -> int:
    """Add (or with sign -1 take away) commits' hashes: the order of arrival does not matter."""
    return (start + sign * sum(hashes)) % _HISTORY_MODULUS


def _append_live(records: list[str], kind: str, entries: Mapping[str, Entry]) -> None:
    if type(entries) is EntryColumns and _is_fresh(entries):
        shown = entries.stamps[0].hex()
        columns = zip(entries.names, entries.values_or_none, entries.secrets, strict=True)
        for name, value, secret in sorted(columns, key=_NAME):
            records.append(f"{kind}\0{name}\0{shown}\0{'1' if secret else ''}\0{value}")
        return
    last: Stamp | None = None
    text = ""
    for name, (stamp, _, value, secret) in sorted(rows_of(entries).items()):
        if value is not None:
            if stamp is not last:
                last, text = stamp, stamp.hex()
            records.append(f"{kind}\0{name}\0{text}\0{'1' if secret else ''}\0{value}")


def _is_fresh(columns: EntryColumns) -> bool:
    """Tell whether one stamp stands for all, and there is no tombstone."""
    return (
        bool(columns.names) and same_for_all(columns.stamps) and None not in columns.values_or_none
    )


def _keyed(data: bytes, key: bytes, person: bytes) -> bytes:
    return blake2b(data, digest_size=REVISION_BYTES, key=key, person=person).digest()


def value_print(value: str, digest_key: bytes) -> str:
    """32 hexadecimal digits for one value, equal for equal ones, by which stores are compared."""
    return _keyed(value.encode(), digest_key, b"envd value").hex()
