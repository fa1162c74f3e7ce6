"""Anti-entropy: finding what this node lacks by comparing fingerprints, and pulling it.

Each node pulls for itself, so two nodes that both lack something both pull. The tree of roots
(`core.versions`) is walked from the top; only what differs is walked further, so finding a few
differences among many environments takes a few kilobytes. For an environment that differs the
puller says which commits it has, and gets those it lacks in their stored bytes, and the base of
the history where that differs.

Two occasions: what a log no longer holds (a new node, a long absence, a hole) is pulled whatever
the vectors say, and afterwards the peer's vectors, noted before, hold here too; but not those of
a partition of which something went into quarantine: who pulls from here would take them over
without it, and who leaves would count copies that are none. And now and then, with a peer drawn
by chance, what differs although the vectors are equal: then something was lost or damaged, which
is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from envd.core import digest
from envd.core.errors import Corrupt
from envd.core.ring import PARTITIONS, partition_of
from envd.core.stamp import STAMP_BYTES
from envd.core.versions import (
    FAN_OUT,
    GROUPS,
    Cursor,
    Roots,
    bucket_of,
    bucket_sums,
    vector_hash,
)
from envd.node.calls import Method
from envd.node.handshake import Peer
from envd.node.intake import MAX_SEQ, IdentityLost, Intake, Taken
from envd.node.vectors import VectorFeed, as_map, as_sent
from envd.ports import Store, StoredState
from envd.wire import peers as wire
from envd.wire import records
from envd.wire.records import StoredEnvironment

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(method, body) -> answer, of one peer."""
_ANSWER_BYTES: Final = 4 << 20
_ASKED_AT_ONCE: Final = 64
_LISTED_WHOLE: Final = 32
"""A partition of so few environments is listed at once, which is shorter than its buckets."""
_TREES: Final = 16
"""Of so many peers, the last to ask, the tree is kept: half a megabyte each."""
_HALF: Final = 8
_LOW: Final = (1 << (8 * _HALF)) - 1
_STUCK_AFTER: Final = 2
"""So often a partition may be found in flight with the same vectors on both sides."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pulled:
    """What one pull did: `received_bytes` are those of all answers.

    `commits` counts also those that went into quarantine; `early` are the partitions of these,
    and of those that follow what is not here yet.
    """

    environments: int = 0
    commits: int = 0
    bases: int = 0
    received_bytes: int = 0
    asked: int = 0
    early: set[int] = field(default_factory=set)


@dataclass(slots=True)
class RepairFigures:
    """Totals since the start."""

    bytes: int = 0
    commits: int = 0
    divergences: int = 0
    pulls: dict[str, int] = field(default_factory=dict)


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

    def _tree(self, peer: Peer, *, anew: bool = False) -> Tree:
        """The tree that a peer walks down: as it was when it began, and so was the peer's own.

        To make one reads all vectors, so not each step makes its own.
        """
        tree = self._trees.pop(peer.uid, None)
        if tree is None or anew:
            tree = Tree(self._store)
        self._trees[peer.uid] = tree
        if len(self._trees) > _TREES:
            del self._trees[next(iter(self._trees))]
        return tree

    async def _point(self, peer: Peer, _: bytes) -> bytes:
        point = wire.Point(self._store.last_lsn(), as_sent(self._store.vectors()))
        self._hold_for(peer.uid, point.lsn)
        await self._store.flush()  # The roots cover at least what the point says.
        return wire.pack(point)

    async def _groups(self, peer: Peer, _: bytes) -> bytes:
        await self._store.flush()  # Of what the roots do not cover yet, nothing can be said.
        return wire.pack(self._tree(peer, anew=True).groups())

    async def _partitions(self, peer: Peer, body: bytes) -> bytes:
        group = wire.unpack(int, body)
        if not 0 <= group < GROUPS:
            raise Corrupt("a peer asked for a group that is none")
        return wire.pack(self._tree(peer).partitions(group))

    async def _part(self, _peer: Peer, body: bytes) -> bytes:
        found = self._store.digests(_partition(body))
        if len(found) > _LISTED_WHOLE:
            return wire.pack(wire.Part(_halves(bucket_sums(found, self._digest_key))))
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
        for wanted in wire.unpack(list[wire.Wanted], body)[:_ASKED_AT_ONCE]:
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
        return wire.Missing(name, commits, base, len(commits) < len(lacking))


class _Stuck(NamedTuple):
    """The vectors of a partition that was found in flight, ours and theirs, and how often."""

    ours: bytes
    theirs: bytes
    times: int


class Repairer:
    """Pulls what this node lacks."""

    def __init__(
        self, store: Store, intake: Intake, feed: VectorFeed, digest_key: bytes, uid: int
    ) -> None:
        """`uid` is this node's own."""
        self._uid = uid
        self._store = store
        self._intake = intake
        self._feed = feed
        self._digest_key = digest_key
        self._stuck: dict[int, dict[int, _Stuck]] = {}
        self.figures = RepairFigures()

    async def catch_up(self, uid: int, ask: Ask) -> Pulled:
        """Pull all that the peer `uid` has and this node lacks; its vectors then hold here.

        Those of partitions of which something was held back do not.
        Raises what the peer or the store does; nothing is lost then, and what was pulled stays.
        Raises IdentityLost where the peer holds more of this node than this node does.
        """
        mark = self._intake.mark()
        pull = _Pull(self._store, self._intake, self._digest_key, ask, settled_only=False)
        point = wire.unpack(wire.Point, await pull.ask("repair.point", b""))
        vectors = as_map(point.vectors)
        if not 0 <= point.lsn <= MAX_SEQ:
            raise Corrupt("a peer's log ends nowhere")
        for (partition, origin), seq in vectors.items():
            if origin == self._uid and seq > self._store.last_seq(partition, origin):
                raise IdentityLost("a peer holds commits of this node that this node does not have")
        await pull.run()
        await self._intake.settled(mark)
        early = pull.pulled.early
        vectors = {place: seq for place, seq in vectors.items() if place[0] not in early}
        self._store.advance(vectors, {uid: Cursor(point.lsn, point.lsn)})
        self._feed.advanced(vectors)
        self._count(pull.pulled, "catch_up")
        return pull.pulled

    async def compare(self, uid: int, ask: Ask) -> Pulled:
        """Pull what differs although the vectors are equal, and tell of it.

        Where the vectors of a partition differ, its commits are on their way; but if nothing
        moves from one comparison to the next, nobody ships them, and they are pulled too.
        """
        await self._store.flush()
        mark = self._intake.mark()
        pull = _Pull(self._store, self._intake, self._digest_key, ask, settled_only=True)
        pull.stuck = self._stuck.setdefault(uid, {})
        await pull.run()
        await self._intake.settled(mark)
        self._count(pull.pulled, "compare")
        if pull.pulled.commits or pull.pulled.bases:
            self.figures.divergences += 1
            _log.warning(
                "repair.divergence",
                extra={"commits": pull.pulled.commits, "bases": pull.pulled.bases},
            )
        return pull.pulled

    async def pull(self, ask: Ask) -> Pulled:
        """Pull all that a peer has and this node lacks, and say nothing of vectors."""
        mark = self._intake.mark()
        pull = _Pull(self._store, self._intake, self._digest_key, ask, settled_only=False)
        await pull.run()
        await self._intake.settled(mark)
        self._count(pull.pulled, "vote")
        return pull.pulled

    async def look_at(self, names: Sequence[str], ask: Ask) -> Pulled:
        """Pull what this node lacks of some environments (background read repair)."""
        mark = self._intake.mark()
        pull = _Pull(self._store, self._intake, self._digest_key, ask, settled_only=False)
        await pull.environments(names)
        await self._intake.settled(mark)
        self._count(pull.pulled, "read")
        return pull.pulled

    def _count(self, pulled: Pulled, kind: str) -> None:
        self.figures.bytes += pulled.received_bytes
        self.figures.commits += pulled.commits
        self.figures.pulls[kind] = self.figures.pulls.get(kind, 0) + 1


class _Pull:
    """One walk down a peer's tree."""

    def __init__(
        self, store: Store, intake: Intake, digest_key: bytes, ask: Ask, *, settled_only: bool
    ) -> None:
        self._store = store
        self._intake = intake
        self._digest_key = digest_key
        self._ask = ask
        self._settled_only = settled_only
        self.stuck: dict[int, _Stuck] = {}
        self.pulled = Pulled()

    async def ask(self, method: str, body: bytes) -> bytes:
        answer = await self._ask(method, body)
        self.pulled.received_bytes += len(answer)
        self.pulled.asked += 1
        return answer

    async def run(self) -> None:
        theirs = wire.unpack(wire.TreeAnswer, await self.ask("repair.groups", b""))
        tree = Tree(self._store)
        for group in self._differing(tree.groups(), theirs):
            answer = await self.ask("repair.partitions", wire.pack(group))
            ours = tree.partitions(group)
            below = wire.unpack(wire.TreeAnswer, answer)
            for number in self._differing(ours, below):
                if self._is_wanted(group * FAN_OUT + number, ours, below, number):
                    await self._partition(group * FAN_OUT + number)

    def _differing(self, ours: wire.TreeAnswer, theirs: wire.TreeAnswer) -> list[int]:
        """The children that differ; of a group with other vectors, partitions may be alike."""
        sizes = (len(theirs.sums), len(theirs.vectors), len(theirs.settled))
        if sizes != (FAN_OUT * _HALF, FAN_OUT * _HALF, FAN_OUT):
            raise Corrupt("a peer's tree of roots has another form")
        return _differing(ours.sums, theirs.sums)

    def _is_wanted(
        self, partition: int, ours: wire.TreeAnswer, theirs: wire.TreeAnswer, at: int
    ) -> bool:
        """Whether a partition that differs is to be pulled: not what is on its way."""
        if not self._settled_only:
            return True
        if not (ours.settled[at] and theirs.settled[at]):
            return False
        vectors = (_half(ours.vectors, at), _half(theirs.vectors, at))
        if vectors[0] == vectors[1]:
            return True
        known = self.stuck.get(partition)
        times = known.times + 1 if known is not None and known[:2] == vectors else 1
        self.stuck[partition] = _Stuck(*vectors, times)
        return times > _STUCK_AFTER

    async def _partition(self, partition: int) -> None:
        answer = await self.ask("repair.part", wire.pack(partition))
        part = wire.unpack(wire.Part, answer)
        known = self._store.digests(partition)
        if not part.sums:
            await self._listed(part.names, part.digests, dict(known))
            return
        ours = _halves(bucket_sums(known, self._digest_key))
        if len(part.sums) != len(ours):
            raise Corrupt("a peer's buckets are of another number")
        buckets = bytes(_differing(ours, part.sums))
        if buckets:
            answer = await self.ask("repair.listed", wire.pack((partition, buckets)))
            listed = wire.unpack(wire.Listed, answer)
            await self._listed(listed.names, listed.digests, dict(known))

    async def _listed(
        self, names: Sequence[str], digests: Sequence[bytes], known: Mapping[str, bytes]
    ) -> None:
        """Pull those whose digest differs."""
        if len(names) != len(digests):
            raise Corrupt("a peer's list of environments does not fit its digests")
        pairs = zip(names, digests, strict=True)
        await self.environments([name for name, at in pairs if known.get(name) != at])

    async def environments(self, names: Sequence[str]) -> None:
        """Pull what is missing of these."""
        left = list(names)
        while left:
            wanted = [self._wanted(name) for name in left[:_ASKED_AT_ONCE]]
            answer = await self.ask("repair.missing", wire.pack(wanted))
            answers = wire.unpack(list[wire.Missing], answer)
            if not answers or len(answers) > len(wanted):
                raise Corrupt("a peer answered something else than it was asked")
            mark = self._intake.mark()
            for missing in answers:
                await self._take(missing)
            await self._intake.settled(mark)
            asked = dict(zip(left, wanted, strict=False))
            # What comes again without having changed anything is not kept here: enough of it.
            again = [
                missing.environment
                for missing in answers
                if missing.more
                and missing.environment in asked
                and self._wanted(missing.environment) != asked[missing.environment]
            ]
            left[: len(answers)] = again

    def _wanted(self, name: str) -> wire.Wanted:
        stamps = b"".join(stamp.to_bytes() for stamp, _ in self._store.commit_rows(name))
        return wire.Wanted(name, stamps, encoded_base(self._store, name, self._digest_key)[1])

    async def _take(self, missing: wire.Missing) -> None:
        if missing.base:
            base = records.decode_environment(missing.base).state.environment
            await self._intake.repair_base(base)
            self.pulled.bases += 1
        for encoded in missing.commits:
            taken = await self._intake.repair(encoded)
            if taken is not Taken.NEW:
                self.pulled.early.add(partition_of(missing.environment))
            self.pulled.commits += taken is not Taken.BEHIND
        self.pulled.environments += 1
        await asyncio.sleep(0)


class Tree:
    """The upper levels of this node's tree of roots, at one moment."""

    def __init__(self, store: Store) -> None:
        self._roots: Roots = store.roots()
        vectors: dict[int, dict[int, int]] = {}
        for (partition, origin), seq in store.vectors().items():
            if seq:
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


def encoded_base(store: Store, name: str, digest_key: bytes) -> tuple[bytes, bytes]:
    """The base snapshot of an environment as it is sent, and its fingerprint; empty for none."""
    base = store.base(name)
    if not base.summary.names and not base.deleted_at.hlc:
        return b"", b""
    raw = records.encode_environment(StoredEnvironment(StoredState(base, b"")))
    return raw, digest.base_digest(base, digest_key)


def _answer(
    sums: Iterable[int], vectors: Iterable[int], settled: Iterable[bool]
) -> wire.TreeAnswer:
    hashes = b"".join([at.to_bytes(_HALF) for at in vectors])
    return wire.TreeAnswer(_halves(sums), hashes, bytes(settled))


def _halves(sums: Iterable[int]) -> bytes:
    """The low half of each sum: enough to see that two differ."""
    return b"".join([(at & _LOW).to_bytes(_HALF) for at in sums])


def _half(packed: bytes, at: int) -> bytes:
    return packed[at * _HALF : (at + 1) * _HALF]


def _differing(ours: bytes, theirs: bytes) -> list[int]:
    """The places at which two rows of sums differ."""
    if ours == theirs:
        return []
    return [at for at in range(len(ours) // _HALF) if _half(ours, at) != _half(theirs, at)]


def _columns(found: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
    return [name for name, _ in found], [at for _, at in found]


def _partition(body: bytes) -> int:
    partition = wire.unpack(int, body)
    if not 0 <= partition < PARTITIONS:
        raise Corrupt("a peer asked for a partition that is none")
    return partition
