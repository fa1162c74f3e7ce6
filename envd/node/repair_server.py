"""What a node answers to peers that pull from it (`repair`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from envd.core import digest
from envd.core.errors import Corrupt
from envd.core.ring import PARTITIONS
from envd.core.stamp import STAMP_BYTES
from envd.core.versions import GROUPS, bucket_of, bucket_sums
from envd.node.calls import Method
from envd.node.handshake import Peer
from envd.node.trees import Tree, halves
from envd.node.vectors import as_sent
from envd.ports import Store, StoredState
from envd.wire import peers as wire
from envd.wire import records
from envd.wire.records import StoredEnvironment

ASKED_AT_ONCE: Final = 64
_ANSWER_BYTES: Final = 4 << 20
_LISTED_WHOLE: Final = 32
"""A partition of so few environments is listed at once, which is shorter than its buckets."""
_TREES: Final = 16
"""Of so many peers, the last to ask, the tree is kept: half a megabyte each."""


class RepairServer:
    """Answers what pulling peers ask; `methods` is what a channel for calls serves."""

    def __init__(
        self,
        store: Store,
        digest_key: bytes,
        hold_for: Callable[[int, int], None],
    ) -> None:
        """`hold_for(uid, lsn)` keeps the log after `lsn` for that peer."""
        self._store = store
        self._digest_key = digest_key
        self._hold_for = hold_for
        self._trees: dict[int, Tree] = {}

    def methods(self) -> dict[str, Method]:
        """One function for each call."""
        return {
            "repair.point": self._point,
            "repair.groups": self._groups,
            "repair.partitions": self._partitions,
            "repair.part": self._part,
            "repair.listed": self._listed,
            "repair.missing": self._missing,
        }

    def _tree(self, peer: Peer) -> Tree:
        """The tree that a peer walks down: as it was when it began, and so was the peer's own.

        To make one reads all vectors, so not each step makes its own.
        """
        return self._trees.get(peer.uid) or self._new_tree(peer, None)

    def _new_tree(self, peer: Peer, partitions: Collection[int] | None) -> Tree:
        self._trees.pop(peer.uid, None)
        tree = self._trees[peer.uid] = Tree(self._store, partitions)
        if len(self._trees) > _TREES:
            del self._trees[next(iter(self._trees))]
        return tree

    async def _point(self, peer: Peer, _: bytes) -> bytes:
        point = wire.Point(self._store.last_lsn(), as_sent(self._store.vectors()))
        self._hold_for(peer.uid, point.lsn)
        await self._store.flush()  # The roots cover at least what the point says.
        return wire.pack(point)

    async def _groups(self, peer: Peer, body: bytes) -> bytes:
        """Of these partitions, where there is a bitmap of them, else of all."""
        partitions = wire.partitions_of(body) if body else None
        await self._store.flush()  # Of what the roots do not cover yet, nothing can be said.
        return wire.pack(self._new_tree(peer, partitions).groups())

    async def _partitions(self, peer: Peer, body: bytes) -> bytes:
        group = wire.unpack(int, body)
        if not 0 <= group < GROUPS:
            raise Corrupt("a peer asked for a group that is none")
        return wire.pack(self._tree(peer).partitions(group))

    async def _part(self, _peer: Peer, body: bytes) -> bytes:
        found = self._store.digests(_partition(body))
        if len(found) > _LISTED_WHOLE:
            return wire.pack(wire.Part(halves(bucket_sums(found, self._digest_key))))
        return wire.pack(wire.Part(b"", *_columns(found)))

    async def _listed(self, _peer: Peer, body: bytes) -> bytes:
        partition, buckets = wire.unpack(tuple[int, bytes], body)
        if not 0 <= partition < PARTITIONS:
            raise Corrupt("a peer asked for a partition that is none")
        found = [item for item in self._store.digests(partition) if bucket_of(item[0]) in buckets]
        return wire.pack(wire.Listed(*_columns(found)))

    async def _missing(self, _peer: Peer, body: bytes) -> bytes:
        """As many of the asked environments, in order, as fit an answer; at least one."""
        answers: list[wire.Missing] = []
        room = _ANSWER_BYTES
        for wanted in wire.unpack(list[wire.Wanted], body)[:ASKED_AT_ONCE]:
            missing = self._missing_of(wanted)
            room -= len(missing.base) + sum(map(len, missing.commits))
            if answers and room < 0:
                break
            answers.append(missing)
            await asyncio.sleep(0)
        return wire.pack(answers)

    def _missing_of(self, wanted: wire.Wanted) -> wire.Missing:
        name = wanted.environment
        stamps = wanted.stamps
        known = {stamps[at : at + STAMP_BYTES] for at in range(0, len(stamps), STAMP_BYTES)}
        rows = self._store.commit_rows(name)
        lacking = [row for stamp, row in rows if stamp.to_bytes() not in known]
        base, fingerprint = encoded_base(self._store, name, self._digest_key)
        base = b"" if fingerprint == wanted.base_digest else base
        commits: list[bytes] = []
        size = len(base)
        for row in lacking:
            size += len(row)
            if commits and size > _ANSWER_BYTES:
                break
            commits.append(row)
        more = len(commits) < len(lacking)
        return wire.Missing(name, commits, base, more, self._store.floor())


def encoded_base(store: Store, name: str, digest_key: bytes) -> tuple[bytes, bytes]:
    """The base snapshot of an environment as it is sent, and its fingerprint; empty for none."""
    base = store.base(name)
    if not base.summary.names and not base.deleted_at.hlc:
        return b"", b""
    raw = records.encode_environment(StoredEnvironment(StoredState(base, b"")))
    return raw, digest.base_digest(base, digest_key)


def _columns(found: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
    return [name for name, _ in found], [at for _, at in found]


def _partition(body: bytes) -> int:
    partition = wire.unpack(int, body)
    if not 0 <= partition < PARTITIONS:
        raise Corrupt("a peer asked for a partition that is none")
    return partition
