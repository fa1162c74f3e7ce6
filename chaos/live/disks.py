"""What is on the disk of a node that does not run: which partitions, and what each epoch said.

It is opened as the node itself would open it. So it can be told what no node would show: a copy
that differs from another one, and something that is left where nothing should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from envd.core.commit import Commit
from envd.core.partitions import PartitionTable, decode
from envd.core.ring import SYSTEM_PARTITION
from envd.core.shares import EVERY, members
from envd.core.stamp import Stamp
from envd.core.topology import TABLE, TOPOLOGY, VARIABLE
from envd.core.topology import decode as decode_topology
from envd.datadir import DataDirectory, prepare_data_directory
from envd.ports import Store
from envd.storage.store import DurableStore
from envd.system import SystemClock, SystemRng

_PAGE: Final = 64


@dataclass(frozen=True)
class Disk:
    """`roots` are the fingerprints of the partitions of which something is there.

    `environments` counts those that exist, and `tables` has the partition table of each epoch that
    the node knows, where there was one. The system's own partition, which every node holds, counts
    for nothing here.
    """

    uid: int
    roots: Mapping[int, int]
    environments: int
    tables: Mapping[int, PartitionTable] = field(default_factory=dict)


async def read(data: Path, *, secret: Path | None, insecure: bool) -> Disk:
    """What is in a data directory; its node must have ended. Raises StorageError."""
    directory = prepare_data_directory(
        data,
        key_file=data / "local.key",
        admin_token="",
        insecure=insecure,
        rng=SystemRng(),
        secret_file=secret,
    )
    with closing(directory):
        if not isinstance(directory, DataDirectory):
            raise ValueError("there is no node in this directory")
        uid = directory.record.node_uid
        store = await DurableStore.open(
            directory.path, directory.sealer, directory.digest_key, uid, SystemClock()
        )
        try:
            await store.flush()
            return told_by(uid, store)
        finally:
            await store.close()


def told_by(uid: int, store: Store) -> Disk:
    """What a store has that was flushed just now."""
    roots = enumerate(store.roots().partitions)
    there = {at: root for at, root in roots if root and at != SYSTEM_PARTITION}
    return Disk(uid, there, _environments(store), dict(_tables(store)))


def history(found: Iterable[Disk]) -> Mapping[int, PartitionTable]:
    """The table of each epoch, as far as any of these disks tells."""
    return {epoch: table for disk in found for epoch, table in disk.tables.items()}


def _environments(store: Store) -> int:
    count, after = 0, ""
    while page := store.environments("", after, _PAGE, members(EVERY)):
        count, after = count + len(page), page[-1].environment
    return count


def _tables(store: Store) -> Iterator[tuple[int, PartitionTable]]:
    """The table of each epoch, oldest first; a change may have left the table as it was."""
    commits: list[Commit] = []
    before: Stamp | None = None
    while page := store.commits(TOPOLOGY, before, _PAGE):
        commits += page
        before = page[-1].stamp
    table: PartitionTable | None = None
    for commit in reversed(commits):
        epoch = 0
        for change in commit.changes:
            if change.name == TABLE:
                table = None if change.value is None else decode(change.value)
            if change.name == VARIABLE and change.value is not None:
                epoch = decode_topology(change.value).epoch
        if epoch and table is not None:
            yield epoch, table
