"""The index read in order of name, of all partitions or of some.

The index knows nothing of partitions, the keys of the environments begin with theirs. So there are
two ways to list those of k partitions of Q: to read the index and pass over the others, which reads
up to Q/k rows for each that is wanted, or to merge k sorted runs of environments, which costs a
seek for each run. The first is cheaper from k*k = limit * Q on.

The system's own are not in the index. They are listed only below a prefix of theirs, by the states
themselves: they are few, and hardly anybody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace
from itertools import islice

from envd.core.names import is_system
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.storage.rows import PARTITION_BYTES, IndexEntry, environment_key, index_entry
from envd.storage.tables import Tables, row_at
from envd.wire import records


def listed(
    tables: Tables,
    prefix: str,
    after: str,
    limit: int,
    partitions: frozenset[int] | None = None,
    hidden: frozenset[int] = frozenset(),
) -> list[IndexEntry]:
    """Entries below `prefix` after the name `after`, in order, at most `limit`.

    Of these `partitions` only (None: of all), and of none that is `hidden`.
    """
    found: Iterator[IndexEntry]
    if is_system(f"{prefix}/"):
        wanted = frozenset((SYSTEM_PARTITION,)) if partitions is None else partitions
        own = SYSTEM_PARTITION in wanted - hidden
        found = _of_the_system(tables, prefix, after) if own else iter(())
    elif partitions is None:
        found = _in_index(tables, prefix, after)
        if hidden:
            found = (one for one in found if partition_of(one.environment) not in hidden)
    elif len(partitions) ** 2 < limit * PARTITIONS:
        found = _merged(tables, prefix, after, partitions - hidden)
    else:
        wanted = partitions - hidden
        found = _in_index(tables, prefix, after)
        found = (one for one in found if partition_of(one.environment) in wanted)
    return list(islice(found, max(0, limit)))


def _in_index(tables: Tables, prefix: str, after: str) -> Iterator[IndexEntry]:
    below = _below(prefix)
    yield from _of_prefix_itself(tables, prefix, after)
    with tables.cursor(b"index") as cursor:
        # Names like `a/b-2` stand between `a/b` and `a/b/c`, so the search begins anew.
        more = cursor.set_range(_first(below, after))
        while more:
            key, value = row_at(cursor)
            if not key.startswith(below):
                return
            yield index_entry(key, value)
            more = cursor.next()


def _merged(
    tables: Tables, prefix: str, after: str, partitions: frozenset[int]
) -> Iterator[IndexEntry]:
    """The same of a few partitions, each of which is in order."""
    if partition_of(prefix) in partitions:
        yield from _of_prefix_itself(tables, prefix, after)
    below = _below(prefix)
    with tables.cursor(b"environments") as cursor:

        def name_from(partition: int, start: bytes) -> bytes | None:
            key = partition.to_bytes(PARTITION_BYTES)
            if cursor.set_range(key + start):
                found = bytes(cursor.key())
                if found.startswith(key + below):
                    return found[PARTITION_BYTES:]
            return None

        start = _first(below, after)
        firsts = ((name_from(partition, start), partition) for partition in partitions)
        heads = [(name, partition) for name, partition in firsts if name is not None]
        heapify(heads)
        while heads:
            name, partition = heads[0]
            value = tables.raw(b"index", name)
            if value is not None:  # The system's own are in no list.
                yield index_entry(name, value)
            following = name_from(partition, name + b"\0")
            if following is None:
                heappop(heads)
            else:
                heapreplace(heads, (following, partition))


def _of_the_system(tables: Tables, prefix: str, after: str) -> Iterator[IndexEntry]:
    """Those of the system's own that are at or below a prefix, in order."""
    itself = tables.get(b"environments", environment_key(prefix))
    if itself is not None and prefix > after:
        yield _entry_of(itself)
    place, below = SYSTEM_PARTITION.to_bytes(PARTITION_BYTES), _below(prefix)
    for key, value in tables.rows_from(b"environments", place + _first(below, after)):
        if not key.startswith(place + below):
            return
        yield _entry_of(value)


def _entry_of(stored: bytes) -> IndexEntry:
    """What the index would say of an environment."""
    state = records.decode_environment(stored).state
    environment = state.environment
    return IndexEntry(
        environment.name, environment.exists, state.revision, environment.live_count()
    )


def _of_prefix_itself(tables: Tables, prefix: str, after: str) -> Iterator[IndexEntry]:
    if prefix > after:
        value = tables.raw(b"index", prefix.encode())
        if value is not None:
            yield index_entry(prefix.encode(), value)


def _below(prefix: str) -> bytes:
    return f"{prefix}/".encode() if prefix else b""


def _first(below: bytes, after: str) -> bytes:
    """Where to begin: NUL is in no name, so this is the next one that can be."""
    return max(below, after.encode() + b"\0")
