"""What the store in memory leaves after a crash, and its fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from envd.core.ring import PARTITIONS, partition_of
from envd.core.versions import Cursor, share, shifted


@dataclass(frozen=True, slots=True)
class Durable:
    """What is there after a crash.

    `rows` is the log from its first row on; readers find those from `oldest_lsn` on. `vectors`
    and `cursors` are those of the last flush, which covered the log up to `flushed_lsn`. `dropped`
    tells by partition up to which lsn, never above that one, it was let go of; `collected` (lsn,
    partition, floor), in order, after which record something was collected.
    """

    rows: tuple[bytes, ...] = field(default=(), repr=False)
    oldest_lsn: int = 1
    flushed_lsn: int = 0
    vectors: Mapping[tuple[int, int], int] = field(default_factory=dict)
    cursors: Mapping[int, Cursor] = field(default_factory=dict)
    quarantine: tuple[bytes, ...] = field(default=(), repr=False)
    hlc_bound: int = 0
    dropped: Mapping[int, int] = field(default_factory=dict)
    floor: int = 0
    collected: tuple[tuple[int, int, int], ...] = ()
    gathered: int = 0


class Fingerprints:
    """Digests and roots, computed when they are asked for."""

    def __init__(self) -> None:
        self.roots = [0] * PARTITIONS
        self.digests: list[dict[str, bytes]] = [{} for _ in range(PARTITIONS)]
        self._changed: dict[str, None] = {}

    def changed(self, name: str) -> None:
        self._changed[name] = None

    def take_changed(self) -> list[str]:
        names = list(self._changed)
        self._changed.clear()
        return names

    def clear(self, partition: int) -> None:
        self.roots[partition], self.digests[partition] = 0, {}
        self._changed = {name: None for name in self._changed if partition_of(name) != partition}

    def forget(self, name: str, key: bytes) -> None:
        partition = partition_of(name)
        self._changed.pop(name, None)
        known = self.digests[partition].pop(name, None)
        if known is not None:
            before = share(name, known, key)
            self.roots[partition] = shifted(self.roots[partition], before, 0)

    def put(self, name: str, known: bytes, key: bytes) -> None:
        partition = partition_of(name)
        digests = self.digests[partition]
        before = share(name, digests[name], key) if name in digests else 0
        self.roots[partition] = shifted(self.roots[partition], before, share(name, known, key))
        digests[name] = known
