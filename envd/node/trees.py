"""The upper levels of a node's tree of roots, as they are compared and sent (`core.versions`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from envd.core.versions import FAN_OUT, GROUPS, Roots, vector_hash
from envd.ports import Store
from envd.wire import peers as wire

HALF: Final = 8
_LOW: Final = (1 << (8 * HALF)) - 1


class Tree:
    """The upper levels of this node's tree of roots, at one moment.

    Of the `partitions` alone, where they are given: two nodes compare what both of them hold.
    """

    def __init__(self, store: Store, partitions: Collection[int] | None = None) -> None:
        roots = store.roots()
        self._roots = roots if partitions is None else _masked(roots, partitions)
        vectors: dict[int, dict[int, int]] = {}
        for (partition, origin), seq in store.vectors().items():
            if seq and (partitions is None or partition in partitions):
                vectors.setdefault(partition, {})[origin] = seq
        self._hashes = {partition: vector_hash(vector) for partition, vector in vectors.items()}

    def groups(self) -> wire.TreeAnswer:
        """The GROUPS groups of partitions."""
        parts = [range(at * FAN_OUT, (at + 1) * FAN_OUT) for at in range(GROUPS)]
        sums = [0] * GROUPS
        for partition, hashed in self._hashes.items():
            sums[partition // FAN_OUT] += hashed
        return _answer(
            (self._roots.group(at) for at in range(GROUPS)),
            (each % (1 << 64) for each in sums),
            (self._roots.unsettled.isdisjoint(part) for part in parts),
        )

    def partitions(self, group: int) -> wire.TreeAnswer:
        """The FAN_OUT partitions of one group."""
        part = range(group * FAN_OUT, (group + 1) * FAN_OUT)
        return _answer(
            (self._roots.partitions[at] for at in part),
            map(self._vector, part),
            (at not in self._roots.unsettled for at in part),
        )

    def _vector(self, partition: int) -> int:
        return self._hashes.get(partition, 0)  # An empty vector has this hash.


def _masked(roots: Roots, partitions: Collection[int]) -> Roots:
    sums = [root if at in partitions else 0 for at, root in enumerate(roots.partitions)]
    return Roots(sums, roots.unsettled.intersection(partitions))


def _answer(
    sums: Iterable[int], vectors: Iterable[int], settled: Iterable[bool]
) -> wire.TreeAnswer:
    hashes = b"".join([at.to_bytes(HALF) for at in vectors])
    return wire.TreeAnswer(halves(sums), hashes, bytes(settled))


def halves(sums: Iterable[int]) -> bytes:
    """The low half of each sum: enough to see that two differ."""
    return b"".join([(at & _LOW).to_bytes(HALF) for at in sums])


def half(packed: bytes, at: int) -> bytes:
    return packed[at * HALF : (at + 1) * HALF]


def differing(ours: bytes, theirs: bytes) -> list[int]:
    """The places at which two rows of sums differ."""
    if ours == theirs:
        return []
    return [at for at in range(len(ours) // HALF) if half(ours, at) != half(theirs, at)]
