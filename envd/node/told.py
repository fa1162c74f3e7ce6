"""What this node was told of changes, by itself and by others, in one order, for its watches.

Kept in memory, the newest of it only: who is too slow falls behind, and begins anew. Where
partitions come in that nobody followed up to there, that is a gap in them: changes before it may be
missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from envd.core.answers import CommitView
from envd.core.errors import NotFound

KEPT_ITEMS: Final = 100_000
KEPT_BYTES: Final = 32 << 20
"""An estimate, for all feeds of a node together."""
_ITEM_BYTES: Final = 400
_NAME_BYTES: Final = 120


@dataclass(frozen=True, slots=True)
class Told:
    """A commit."""

    commit: CommitView


@dataclass(frozen=True, slots=True)
class Gap:
    """From here on these partitions are followed; what was before, nobody told."""

    partitions: int


Item = Told | Gap


class ToldLog:
    """The items by their places, which count from 1."""

    def __init__(self, kept_items: int = KEPT_ITEMS, kept_bytes: int = KEPT_BYTES) -> None:
        self._most_items = kept_items
        self._most_bytes = kept_bytes
        self._items: list[tuple[Item, int]] = []
        self._bytes = 0
        self._forgotten = 0

    @property
    def last(self) -> int:
        """The place of the newest item."""
        return self._forgotten + len(self._items)

    def append(self, item: Item) -> None:
        """Take in one more."""
        size = _ITEM_BYTES
        if isinstance(item, Told):
            size += _NAME_BYTES * len(item.commit.changes) + len(item.commit.message)
        self._items.append((item, size))
        self._bytes += size
        if len(self._items) > 2 * self._most_items or self._bytes > 2 * self._most_bytes:
            self._shorten()

    def _shorten(self) -> None:
        dropped = 0
        for _, size in self._items:
            left = len(self._items) - dropped
            if left <= self._most_items and self._bytes <= self._most_bytes:
                break
            self._bytes -= size
            dropped += 1
        del self._items[:dropped]
        self._forgotten += dropped

    def clear(self) -> None:
        """Forget all; places go on."""
        self._forgotten = self.last
        self._items.clear()
        self._bytes = 0

    def has(self, place: int) -> bool:
        """Whether all that came after a place is still here."""
        return self._forgotten <= place <= self.last

    def after(self, place: int, limit: int) -> Iterator[tuple[int, Item]]:
        """The items after a place, in order, with theirs; raises NotFound where they are gone."""
        if not self.has(place):
            raise NotFound("what was told since is no longer kept")
        start = place - self._forgotten
        for at, (item, _) in enumerate(islice(self._items, start, start + limit), place + 1):
            yield at, item
