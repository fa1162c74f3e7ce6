"""A walk over every page of an LMDB file, by its bytes alone: is each what it should be?

LMDB (0.9, data version 1) keeps no checksums and trusts its file: a damaged page can make it
crash, miss a key, or give a live page away as a free one. The walk follows the newest meta
page through all trees and holds that

* each page lies within the file, bears its own number, and is used once: by one tree, or by
  the list of free pages;
* keys grow, within the bounds that the pages above state, and each tree has the depth and
  the number of entries that its record says;
* the tables that every state has are there, and each value's CRC holds.

It reads nothing through LMDB. This file imports only the standard library and nothing of
envd, so that `check` can run it as a script in a child process without delay; there a file
that is cut short underneath kills the child, not the daemon.

    meta page   header, magic, version, address, map size, free tree, main tree, last page, txn
    page        number u64, pad u16, flags u16, lower u16, upper u16, node offsets u16...
    node        size low u16, size high u16, flags u16, key size u16, key, value
                (in a branch page, size and flags are the number of the page below)
    overflow    number u64, pad u16, flags u16, count of pages u32, value
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

FIRST_TABLES = (
    b"environments",
    b"index",
    b"history",
    b"bases",
    b"conflicts",
    b"operations",
    b"vectors",
    b"system",
)
TABLES = (*FIRST_TABLES, b"cursors", b"roots", b"quarantine", b"collectable")
"""The first ones are in every state, the others once a version that knows them opened it."""
DAMAGED_EXIT = 3
MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
PAGE_BYTES = (4096, 8192, 16384, 32768, 65536)
META_PAGES = 2
_PAGE = struct.Struct("=QHHHH")
_OVERFLOW = struct.Struct("=QHHI")
_META = struct.Struct("=IIQQ48s48sQQ")
_TREE = struct.Struct("=IHHQQQQQ")
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")
_BRANCH, _LEAF, _OVERFLOWING, _META_FLAG, _DIRTY = 1, 2, 4, 8, 16
_BIG, _SUBTREE = 1, 2
_INTEGER_KEYS = 8
_EMPTY = (1 << 64) - 1
_Entry = Callable[[bytes, memoryview, int], None]


class Damage(Exception):
    """The file is not what LMDB wrote; the message says where."""


class Tree(NamedTuple):
    """What is stored of one tree."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class Meta(NamedTuple):
    """The newest meta page: what the last transaction left."""

    page_bytes: int
    last_page: int
    transaction: int
    free: Tree
    main: Tree


def value_is_whole(key: bytes, value: bytes | memoryview) -> bool:
    """Tell whether the CRC of a table's value (an index value too) holds."""
    return len(value) > 4 and int.from_bytes(value[:4]) == crc32(value[4:], crc32(key))


def newest_meta(read: Callable[[int, int], bytes]) -> Meta:
    """Read both meta pages by `read(position, size)`; raises Damage.

    LMDB itself refuses a file of which either is not one, so both must be.
    """
    first = _meta(read(0, _PAGE.size + _META.size), 0)
    second = _meta(read(first.page_bytes, _PAGE.size + _META.size), 1)
    if second.page_bytes != first.page_bytes:
        raise Damage("the meta pages differ in the page size")
    return second if second.transaction > first.transaction else first


def _meta(raw: bytes, number: int) -> Meta:
    if len(raw) < _PAGE.size + _META.size:
        raise Damage(f"meta page {number} is cut short")
    pgno, _, flags, _, _ = _PAGE.unpack_from(raw)
    magic, version, _, _, free, main, last_page, transaction = _META.unpack_from(raw, _PAGE.size)
    if pgno != number or not flags & _META_FLAG or magic != MAGIC:
        raise Damage(f"page {number} is no meta page")
    if version != DATA_VERSION:
        raise Damage(f"page {number} names data version {version}, not {DATA_VERSION}")
    free_tree = Tree(*_TREE.unpack(free))
    if free_tree.pad not in PAGE_BYTES or free_tree.flags != _INTEGER_KEYS:
        raise Damage(f"meta page {number} names no possible page size or flags")
    return Meta(free_tree.pad, last_page, transaction, free_tree, Tree(*_TREE.unpack(main)))


def walk(data: bytes | mmap) -> dict[bytes, int]:
    """Check everything; return how many entries each table has. Raises Damage."""
    view = memoryview(data)
    try:
        return _Walk(view, newest_meta(lambda at, size: bytes(view[at : at + size]))).run()
    except (struct.error, IndexError, ValueError, TypeError) as error:
        raise Damage("a page does not parse") from error
    finally:
        view.release()


class _Walk:
    """One walk; `_seen` has a mark for each page that something uses."""

    def __init__(self, view: memoryview, meta: Meta) -> None:
        self._view = view
        self._meta = meta
        self._size = meta.page_bytes
        self._pages = min(meta.last_page + 1, len(view) // meta.page_bytes)
        self._seen = bytearray(max(self._pages, META_PAGES))
        self._seen[:META_PAGES] = b"\1" * META_PAGES

    def run(self) -> dict[bytes, int]:
        tables: dict[bytes, Tree] = {}

        def on_table(name: bytes, value: memoryview, flags: int) -> None:
            if flags != _SUBTREE or len(value) != _TREE.size:
                raise Damage("the main tree holds something else than tables")
            tables[name] = Tree(*_TREE.unpack(value))

        if self._meta.main.flags:
            raise Damage("the main tree has flags of another use")
        self._tree(self._meta.main, "main", on_table, int_keys=False)
        if tables and not tables.keys() >= set(FIRST_TABLES):
            raise Damage("a table is missing")
        for name, tree in tables.items():
            self._table(name.decode("ascii", "replace"), tree)
        self._free_pages()
        return {name: tree.entries for name, tree in tables.items()}

    def _table(self, name: str, tree: Tree) -> None:
        def on_record(key: bytes, value: memoryview, flags: int) -> None:
            if flags or not value_is_whole(key, value):
                raise Damage(f"a record in table {name} is damaged")

        if tree.flags:
            raise Damage(f"table {name} has flags of another use")
        self._tree(tree, name, on_record, int_keys=False)

    def _free_pages(self) -> None:
        """The free list must hold pages that nothing uses; LMDB will write over them."""
        free: set[int] = set()

        def on_list(key: bytes, value: memoryview, flags: int) -> None:
            count = _NUMBER.unpack_from(value)[0]
            numbers = struct.unpack_from(f"={count}Q", value, _NUMBER.size) if count else ()
            if flags or _NUMBER.unpack(key)[0] > self._meta.transaction:
                raise Damage("the list of free pages is damaged")
            before = len(free)
            free.update(numbers)
            if len(free) != before + count:
                raise Damage("a page is listed as free twice")

        self._tree(self._meta.free, "free", on_list, int_keys=True)
        missing = self._meta.last_page + 1 - self._pages
        if sum(number >= self._pages for number in free) != missing:
            raise Damage("the file is cut short: pages that are not free are missing")
        for number in free:
            if not META_PAGES <= number <= self._meta.last_page:
                raise Damage(f"page {number} is listed as free and outside of the file")
            if number < self._pages and self._seen[number]:
                raise Damage(f"page {number} is listed as free and in use")

    # -- one tree ------------------------------------------------------------------

    def _tree(self, tree: Tree, name: str, on_entry: _Entry, *, int_keys: bool) -> None:
        entries = 0
        if tree.root != _EMPTY:
            order = _int_order if int_keys else _byte_order
            entries = self._below(tree.root, tree.depth, name, on_entry, order, (None, None))
        if entries != tree.entries:
            raise Damage(f"tree {name} has {entries} entries, not {tree.entries}")

    def _below(
        self,
        number: int,
        depth: int,
        name: str,
        on_entry: _Entry,
        order: Callable[[bytes], bytes],
        bounds: tuple[bytes | None, bytes | None],
    ) -> int:
        """Walk a page and all below it; return the number of entries."""
        at = self._use(number, 1)
        pgno, _, flags, lower, upper = _PAGE.unpack_from(self._view, at)
        expected = _LEAF if depth <= 1 else _BRANCH
        if pgno != number or flags & ~_DIRTY != expected:
            raise Damage(f"page {number} of tree {name} is another page than it should be")
        if not _PAGE.size < lower <= upper <= self._size or lower % 2:
            raise Damage(f"page {number} of tree {name} is damaged")
        offsets = self._view[at + _PAGE.size : at + lower].cast("H")
        page = self._view[at : at + self._size]
        if min(offsets) < upper or depth < 1:
            raise Damage(f"page {number} of tree {name} is damaged")
        if expected == _LEAF:
            return self._leaf(page, offsets, name, on_entry, order, bounds)
        return self._branch(page, offsets, depth, name, on_entry, order, bounds)

    def _branch(
        self,
        page: memoryview,
        offsets: memoryview,
        depth: int,
        name: str,
        on_entry: _Entry,
        order: Callable[[bytes], bytes],
        bounds: tuple[bytes | None, bytes | None],
    ) -> int:
        children: list[int] = []
        lows: list[bytes | None] = []
        for offset in offsets:
            low, middle, high, key_size = _NODE.unpack_from(page, offset)
            children.append(low | middle << 16 | high << 32)
            start = offset + _NODE.size
            key = bytes(page[start : start + key_size])
            # The first key of a branch page is not looked at by LMDB, nor kept.
            lows.append(order(key) if len(children) > 1 else bounds[0])
        entries = 0
        for place, child in enumerate(children):
            below, above = lows[place], (lows[place + 1] if place + 1 < len(lows) else bounds[1])
            if below is not None and above is not None and below >= above:
                raise Damage(f"the keys of tree {name} are out of order")
            entries += self._below(child, depth - 1, name, on_entry, order, (below, above))
        return entries

    def _leaf(
        self,
        page: memoryview,
        offsets: memoryview,
        name: str,
        on_entry: _Entry,
        order: Callable[[bytes], bytes],
        bounds: tuple[bytes | None, bytes | None],
    ) -> int:
        before, above = bounds
        strictly = False
        for offset in offsets:
            low, high, flags, key_size = _NODE.unpack_from(page, offset)
            start = offset + _NODE.size + key_size
            size = low | high << 16
            key = bytes(page[start - key_size : start])
            ordered = order(key)
            if before is not None and (ordered < before or (strictly and ordered == before)):
                raise Damage(f"the keys of tree {name} are out of order")
            if flags & _BIG:
                value = self._overflow(_NUMBER.unpack_from(page, start)[0], size, name)
            else:
                value = page[start : start + size]
            if len(value) != size:
                raise Damage(f"a record of tree {name} does not fit its page")
            on_entry(key, value, flags & ~_BIG)
            before, strictly = ordered, True
        if above is not None and before is not None and before >= above:
            raise Damage(f"the keys of tree {name} are out of order")
        return len(offsets)

    def _overflow(self, number: int, size: int, name: str) -> memoryview:
        at = self._use(number, 1)
        pgno, _, flags, count = _OVERFLOW.unpack_from(self._view, at)
        needed = (_OVERFLOW.size - 1 + size) // self._size + 1
        if pgno != number or flags & ~_DIRTY != _OVERFLOWING or count < needed:
            raise Damage(f"page {number} of tree {name} is another page than it should be")
        if count > 1:
            self._use(number + 1, count - 1)
        return self._view[at + _OVERFLOW.size : at + _OVERFLOW.size + size]

    def _use(self, number: int, count: int) -> int:
        """Mark pages as used; return where the first begins."""
        if not META_PAGES <= number <= number + count <= self._pages:
            raise Damage(f"page {number} lies outside of the file")
        if any(self._seen[number : number + count]):
            raise Damage(f"page {number} is used twice")
        self._seen[number : number + count] = b"\1" * count
        return number * self._size


def _byte_order(key: bytes) -> bytes:
    return key


def _int_order(key: bytes) -> bytes:
    """Keys of the free tree are native integers; big-endian bytes sort as they do."""
    return _NUMBER.unpack(key)[0].to_bytes(8, "big")  # type: ignore[no-any-return]


def main(arguments: list[str]) -> int:
    """Walk the file named; print what is wrong and return DAMAGED_EXIT, or 0."""
    with Path(arguments[0]).open("rb") as file:
        if not file.seek(0, 2):
            return 0
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            try:
                walk(data)
            except Damage as damage:
                sys.stdout.write(f"{damage}\n")
                return DAMAGED_EXIT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
