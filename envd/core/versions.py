"""What a node holds, told so that two nodes can compare: vectors, cursors, roots.

The *vector* of a node maps (partition, origin) to the last seq that it holds without a gap
(Parker et al. 1983, "Detection of Mutual Inconsistency"). Nodes with equal vectors took in
the same commits, so their states are equal, and so are the *roots*, which are computed from the
states: where they are not, something was lost or damaged, and repair finds it.

Roots form a tree of fan-out 64 (Merkle 1987; here sums instead of hashes of hashes, so that a
changed leaf changes its ancestors by a difference): whole, groups of 64 partitions, partitions,
64 buckets of names in a partition, environments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from envd.core.ring import PARTITIONS

FAN_OUT = 64
GROUPS = PARTITIONS // FAN_OUT
BUCKETS = 64
ROOT_BYTES = 16
_MODULUS = 1 << (8 * ROOT_BYTES)


class Cursor(NamedTuple):
    """How far the log of one sender was taken in, as lsns of that log.

    All records up to `own_lsn` that the sender gave origin to are held, and all records of
    whatever origin up to `relay_lsn`.
    """

    own_lsn: int = 0
    relay_lsn: int = 0


@dataclass(frozen=True, slots=True)
class Roots:
    """The fingerprints of all partitions at one flush.

    `partitions` has PARTITIONS sums below 2^128; `unsettled` names the partitions with durable
    commits that the flush does not cover, of which nothing can be said yet.
    """

    partitions: Sequence[int]
    unsettled: frozenset[int] = frozenset()

    def whole(self) -> int:
        """The sum of all partitions."""
        return sum(self.partitions) % _MODULUS

    def group(self, number: int) -> int:
        """The sum of the partitions of one group."""
        return sum(self.partitions[number * FAN_OUT : (number + 1) * FAN_OUT]) % _MODULUS


def share(name: str, digest: bytes, digest_key: bytes) -> int:
    """What one environment adds to the root of its partition and bucket, below 2^128."""
    hashed = blake2b(
        name.encode() + b"\0" + digest,
        digest_size=ROOT_BYTES,
        key=digest_key,
        person=b"envd root",
    )
    return int.from_bytes(hashed.digest())


def shifted(root: int, before: int, after: int) -> int:
    """The root after the share of one environment changed; 0 stands for none."""
    return (root - before + after) % _MODULUS


def bucket_of(name: str) -> int:
    """The bucket of an environment within its partition."""
    return blake2b(name.encode(), digest_size=1, person=b"envd bucket").digest()[0] % BUCKETS


def bucket_sums(digests: Iterable[tuple[str, bytes]], digest_key: bytes) -> list[int]:
    """The BUCKETS sums of one partition."""
    sums = [0] * BUCKETS
    for name, digest in digests:
        at = bucket_of(name)
        sums[at] = (sums[at] + share(name, digest, digest_key)) % _MODULUS
    return sums


def vector_hash(vector: Mapping[int, int]) -> int:
    """64 bits of the vector of one partition (origin -> seq), 0 for an empty one."""
    if not vector:
        return 0
    text = ",".join(f"{origin:x}:{seq:x}" for origin, seq in sorted(vector.items()))
    return int.from_bytes(blake2b(text.encode(), digest_size=8, person=b"envd vector").digest())
