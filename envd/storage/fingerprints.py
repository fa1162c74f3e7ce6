"""Fingerprints of what a state holds: by environment, and as sums by partition (roots).

    roots    group u16 -> the sums (u128) of its 64 partitions

The digest of an environment covers its state, its history and its base. The sums are kept up to
date by each flush, in its own transaction, from the digests before and after; a system counter
says up to which lsn they are. They stand in rows of 64 because a flush of many environments
moves nearly all of them: as many rows would be as dear as the environments themselves. Where the
counter is not the state's own (an older version wrote it, or a restore), they are summed up anew
at the start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from envd.core import digest
from envd.core.ring import PARTITIONS, partition_of
from envd.core.versions import FAN_OUT, ROOT_BYTES, share, shifted
from envd.storage.rows import PARTITION_BYTES, RowWriter, environment_key
from envd.storage.tables import Tables
from envd.wire import records

ROOTS_LSN = b"roots_lsn"


def whole_digest(state: bytes, base: bytes | None, digest_key: bytes) -> bytes:
    """The digest of an environment, from that of its state and the stored record of its base."""
    return digest.whole_digest(state, _base_digest(base, digest_key), digest_key)


def _base_digest(raw: bytes | None, digest_key: bytes) -> bytes:
    """The digest of a stored base; those of older versions don't hold theirs."""
    if raw is None:
        return bytes(digest.REVISION_BYTES)
    known = records.decode_environment_header(raw).digest
    if known:
        return known
    return digest.base_digest(records.decode_environment(raw).state.environment, digest_key)


class RootChanges:
    """How the roots move within one write transaction."""

    def __init__(self, digest_key: bytes) -> None:
        self._digest_key = digest_key
        self._moves: defaultdict[int, int] = defaultdict(int)

    def moved(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """The digest of the environment at `key` was `before` and is `after`, None for none."""
        if before != after:
            partition, name = _place(key)
            old = share(name, before, self._digest_key) if before is not None else 0
            new = share(name, after, self._digest_key) if after is not None else 0
            self._moves[partition] = shifted(self._moves[partition], old, new)

    def write(self, writer: RowWriter) -> dict[int, list[int]]:
        """Write the roots that moved; return the groups with their roots."""
        groups: dict[int, list[int]] = {}
        for partition, move in sorted(self._moves.items()):
            number, at = divmod(partition, FAN_OUT)
            if number not in groups:
                groups[number] = _read_group(writer, number)
            groups[number][at] = shifted(groups[number][at], 0, move)
        _write_groups(writer, groups)
        return groups


def clear_root(writer: RowWriter, partition: int) -> dict[int, list[int]]:
    """Make the root of a partition 0; return its group with its roots."""
    number, at = divmod(partition, FAN_OUT)
    roots = _read_group(writer, number)
    roots[at] = 0
    groups = {number: roots}
    _write_groups(writer, groups)
    return groups


def _read_group(writer: RowWriter, number: int) -> list[int]:
    known = writer.get(b"roots", _group_key(number))
    return [0] * FAN_OUT if known is None else _roots_in(known)


def _write_groups(writer: RowWriter, groups: Mapping[int, Sequence[int]]) -> None:
    for number, roots in groups.items():
        packed = b"".join([root.to_bytes(ROOT_BYTES) for root in roots])
        writer.put(b"roots", _group_key(number), packed)


def _group_key(number: int) -> bytes:
    return number.to_bytes(PARTITION_BYTES)


def _roots_in(packed: bytes) -> list[int]:
    return [
        int.from_bytes(packed[start : start + ROOT_BYTES])
        for start in range(0, len(packed), ROOT_BYTES)
    ]


def _place(key: bytes) -> tuple[int, str]:
    return int.from_bytes(key[:PARTITION_BYTES]), key[PARTITION_BYTES:].decode()


class Fingerprints:
    """Roots and digests of the snapshot that reads see."""

    def __init__(self, tables: Tables, digest_key: bytes) -> None:
        self._tables = tables
        self._digest_key = digest_key
        self._roots: list[int] | None = None

    def roots(self) -> tuple[int, ...]:
        """The roots of all partitions; read when first asked for."""
        if self._roots is None:
            self._roots = [0] * PARTITIONS
            for key, packed in self._tables.rows(b"roots"):
                self._put(int.from_bytes(key), _roots_in(packed))
        return tuple(self._roots)

    def moved(self, groups: Mapping[int, Sequence[int]]) -> None:
        """Follow what was written, as reads begin to see it."""
        if self._roots is not None:
            for number, roots in groups.items():
                self._put(number, roots)

    def _put(self, number: int, roots: Sequence[int]) -> None:
        assert self._roots is not None
        self._roots[number * FAN_OUT : (number + 1) * FAN_OUT] = roots

    def digests(self, partition: int) -> list[tuple[str, bytes]]:
        """(name, digest) of the environments of one partition, in order; raises Corrupt."""
        return list(self._digests_from(partition.to_bytes(PARTITION_BYTES)))

    def _digests_from(self, prefix: bytes) -> Iterator[tuple[str, bytes]]:
        for key, blob in self._tables.rows_from(b"environments", prefix):
            if not key.startswith(prefix):
                return
            state = records.decode_environment_header(blob).digest
            base = self._tables.get(b"bases", key)
            yield _place(key)[1], whole_digest(state, base, self._digest_key)

    def rebuild(self, lsn: int, hidden: Collection[int]) -> None:
        """Sum up the roots anew from all environments but those of partitions that are hidden.

        All in one transaction.
        """
        changes = RootChanges(self._digest_key)
        for name, known in self._digests_from(b""):
            if partition_of(name) not in hidden:
                changes.moved(environment_key(name), None, known)
        with self._tables.write() as writer:
            _clear(writer, b"roots")
            changes.write(writer)
            writer.put(b"system", ROOTS_LSN, lsn.to_bytes(8))
        self._roots = None


def _clear(writer: RowWriter, table: bytes) -> None:
    with writer.cursor(table) as cursor:
        more = cursor.first()
        while more:
            cursor.delete()
            more = bool(cursor.key())
