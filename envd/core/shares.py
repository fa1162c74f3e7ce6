"""Shares of the partitions: which peers to ask for which of them, and their pages as one.

A set of partitions is a number with a bit for each, so that sets of all 4096 cost next to nothing.
A page tells up to which key it is whole; so is what is merged of several up to the least of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from envd.core.ring import PARTITIONS

MASK_BYTES: Final = PARTITIONS // 8
EVERY: Final = (1 << PARTITIONS) - 1
"""All partitions. That of the system's own has environments of users too, and every node has it."""
ItemT = TypeVar("ItemT")


def mask_of(partitions: Iterable[int]) -> int:
    """The set of these partitions."""
    mask = 0
    for partition in partitions:
        mask |= 1 << partition
    return mask


def holds(mask: int, partition: int) -> bool:
    """Whether a partition is in a set."""
    return bool(mask >> partition & 1)


def pack_mask(mask: int) -> bytes:
    """A set in MASK_BYTES bytes, partition 0 in the lowest bit of the first one."""
    return mask.to_bytes(MASK_BYTES, "little")


def unpack_mask(raw: bytes) -> int:
    """The inverse of `pack_mask`; raises ValueError for another number of bytes."""
    if len(raw) != MASK_BYTES:
        raise ValueError("a set of partitions has one bit for each")
    return int.from_bytes(raw, "little")


def members(mask: int) -> frozenset[int]:
    """The partitions in a set."""
    places = enumerate(pack_mask(mask))
    return frozenset(
        8 * at + bit for at, byte in places if byte for bit in range(8) if byte >> bit & 1
    )


def to_bitmap(partitions: Iterable[int]) -> bytes:
    """The set of these partitions, packed."""
    return pack_mask(mask_of(partitions))


def from_bitmap(raw: bytes) -> frozenset[int]:
    """The inverse of `to_bitmap`; raises ValueError for another number of bytes."""
    return members(unpack_mask(raw))


def cover(wanted: int, able: Mapping[int, int]) -> dict[int, int]:
    """Whom to ask for what, so that few are asked: the one that has most of what is left, again.

    `able` are the sets that each can be asked for; of equals the first one is taken. What nobody
    has is left out. The greedy choice takes at most ln(4096) + 1 times as many as needed (Chvatal
    1979, A Greedy Heuristic for the Set-Covering Problem), and nearly always as few.

    Example: cover(0b1111, {1: 0b0001, 2: 0b0111, 3: 0b1100}) is {2: 0b0111, 3: 0b1000}.
    """
    shares: dict[int, int] = {}
    left = wanted
    while left:
        uid = max(able, key=lambda uid: (able[uid] & left).bit_count(), default=None)
        if uid is None or not able[uid] & left:
            break
        shares[uid] = able[uid] & left
        left &= ~able[uid]
    return shares


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Items in order of their keys: all up to the key `through`, or to the end where it is ""."""

    items: Sequence[ItemT]
    through: str = ""


def merged(pages: Iterable[Page[ItemT]], key: Callable[[ItemT], str], limit: int) -> Page[ItemT]:
    """At most `limit` items of several pages as one, so that nothing is skipped.

    Items of one key are in one page, and stay in their order.
    """
    known = list(pages)
    bounds = [page.through for page in known if page.through]
    bound = min(bounds, default="")
    items = sorted(
        (item for page in known for item in page.items if not bound or key(item) <= bound), key=key
    )
    if len(items) > limit:
        return Page(items[:limit], key(items[limit - 1]))
    return Page(items, bound)
