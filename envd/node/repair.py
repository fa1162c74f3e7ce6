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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from envd.core.errors import Corrupt, Unavailable
from envd.core.ring import partition_of
from envd.core.shares import to_bitmap
from envd.core.stamp import MAX_HLC
from envd.core.topology import TOPOLOGY
from envd.core.versions import FAN_OUT, Cursor, bucket_sums
from envd.node.floors import Floors
from envd.node.holdings import Holdings
from envd.node.intake import MAX_SEQ, IdentityLost, Intake, Taken
from envd.node.repair_server import ASKED_AT_ONCE, encoded_base
from envd.node.trees import HALF, Tree, differing, half, halves
from envd.node.vectors import VectorFeed, as_map
from envd.ports import Store
from envd.wire import peers as wire
from envd.wire import records

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(method, body) -> answer, of one peer."""
_STUCK_AFTER: Final = 2
"""So often a partition may be found in flight with the same vectors on both sides."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pulled:
    """What one pull did: `received_bytes` are those of all answers.

    `commits` counts also those that went into quarantine; `early` are the partitions of these,
    and of those that follow what is not here yet; `early_hlc` is the lowest time of all those.
    """

    environments: int = 0
    commits: int = 0
    bases: int = 0
    received_bytes: int = 0
    asked: int = 0
    early: set[int] = field(default_factory=set)
    early_hlc: int = MAX_HLC


@dataclass(slots=True)
class RepairFigures:
    """Totals since the start."""

    bytes: int = 0
    commits: int = 0
    divergences: int = 0
    pulls: dict[str, int] = field(default_factory=dict)


class _Stuck(NamedTuple):
    """The vectors of a partition that was found in flight, ours and theirs, and how often."""

    ours: bytes
    theirs: bytes
    times: int


class Repairer:
    """Pulls what this node lacks."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        feed: VectorFeed,
        digest_key: bytes,
        uid: int,
        floors: Floors | None = None,
    ) -> None:
        """`uid` is this node's own; without `floors` nothing is agreed."""
        self._floors = floors or Floors(store, Holdings(uid))
        self._uid = uid
        self._store = store
        self._intake = intake
        self._feed = feed
        self._digest_key = digest_key
        self._stuck: dict[int, dict[int, _Stuck]] = {}
        self.figures = RepairFigures()

    async def catch_up(
        self,
        uid: int,
        ask: Ask,
        partitions: Collection[int] | None = None,
        *,
        connects: bool = True,
    ) -> Pulled:
        """Pull all that the peer `uid` has and this node lacks; its vectors then hold here.

        Those of partitions of which something was held back do not. Of the `partitions` alone,
        where they are given. `connects`: its log is then taken in from where it stood before.
        Raises what the peer or the store does; nothing is lost then, and what was pulled stays.
        Raises IdentityLost where the peer holds more of this node than this node does.
        """
        if self._floors.lacks_topology:
            await self.look_at([TOPOLOGY], uid, ask)
        mark = self._intake.mark()
        pull = self._pull(uid, ask, partitions)
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
        vectors = {
            place: seq
            for place, seq in vectors.items()
            if place[0] not in early and (partitions is None or place[0] in partitions)
        }
        self._store.advance(vectors, {uid: Cursor(point.lsn, point.lsn)} if connects else {})
        self._feed.advanced(vectors)
        self._intake.bridge(vectors)
        self._count(pull.pulled, "catch_up")
        return pull.pulled

    async def compare(
        self, uid: int, ask: Ask, partitions: Collection[int] | None = None
    ) -> Pulled:
        """Pull what differs although the vectors are equal, and tell of it.

        Where the vectors of a partition differ, its commits are on their way; but if nothing
        moves from one comparison to the next, nobody ships them, and they are pulled too.
        """
        await self._store.flush()
        mark = self._intake.mark()
        pull = self._pull(uid, ask, partitions, settled_only=True)
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

    async def pull(
        self,
        uid: int,
        ask: Ask,
        partitions: Collection[int] | None = None,
        *,
        kind: str = "vote",
    ) -> Pulled:
        """Pull all that the peer `uid` has and this node lacks, and say nothing of vectors.

        Of the `partitions` alone, where they are given. `kind` says in the figures what for.
        """
        mark = self._intake.mark()
        pull = self._pull(uid, ask, partitions)
        await pull.run()
        await self._intake.settled(mark)
        self._count(pull.pulled, kind)
        return pull.pulled

    async def look_at(self, names: Sequence[str], uid: int, ask: Ask) -> Pulled:
        """Pull what this node lacks of some environments (background read repair)."""
        mark = self._intake.mark()
        pull = self._pull(uid, ask)
        await pull.environments(names)
        await self._intake.settled(mark)
        self._count(pull.pulled, "read")
        return pull.pulled

    def _pull(
        self,
        uid: int,
        ask: Ask,
        partitions: Collection[int] | None = None,
        *,
        settled_only: bool = False,
    ) -> _Pull:
        peer = _Peer(uid, ask, self._floors)
        return _Pull(
            self._store, self._intake, self._digest_key, peer, partitions, settled_only=settled_only
        )

    def _count(self, pulled: Pulled, kind: str) -> None:
        self.figures.bytes += pulled.received_bytes
        self.figures.commits += pulled.commits
        self.figures.pulls[kind] = self.figures.pulls.get(kind, 0) + 1


class _Peer(NamedTuple):
    """Who is pulled from, and the floors: that one must not be below what is agreed."""

    uid: int
    ask: Ask
    floors: Floors


class _Pull:
    """One walk down a peer's tree."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        digest_key: bytes,
        peer: _Peer,
        partitions: Collection[int] | None,
        *,
        settled_only: bool,
    ) -> None:
        self._store = store
        self._intake = intake
        self._digest_key = digest_key
        self._peer = peer
        self._partitions = partitions
        self._settled_only = settled_only
        self.stuck: dict[int, _Stuck] = {}
        self.pulled = Pulled()

    async def ask(self, method: str, body: bytes) -> bytes:
        answer = await self._peer.ask(method, body)
        self.pulled.received_bytes += len(answer)
        self.pulled.asked += 1
        return answer

    async def run(self) -> None:
        bitmap = b"" if self._partitions is None else to_bitmap(self._partitions)
        theirs = wire.unpack(wire.TreeAnswer, await self.ask("repair.groups", bitmap))
        tree = Tree(self._store, self._partitions)
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
        if sizes != (FAN_OUT * HALF, FAN_OUT * HALF, FAN_OUT):
            raise Corrupt("a peer's tree of roots has another form")
        return differing(ours.sums, theirs.sums)

    def _is_wanted(
        self, partition: int, ours: wire.TreeAnswer, theirs: wire.TreeAnswer, at: int
    ) -> bool:
        """Whether a partition that differs is to be pulled: not what is on its way."""
        if self._partitions is not None and partition not in self._partitions:
            return False
        if not self._settled_only:
            return True
        if not (ours.settled[at] and theirs.settled[at]):
            return False
        vectors = (half(ours.vectors, at), half(theirs.vectors, at))
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
        ours = halves(bucket_sums(known, self._digest_key))
        if len(part.sums) != len(ours):
            raise Corrupt("a peer's buckets are of another number")
        buckets = bytes(differing(ours, part.sums))
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
            wanted = [self._wanted(name) for name in left[:ASKED_AT_ONCE]]
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
        """Take in what a peer sent of an environment.

        Of one below the floor nothing is taken: it may still have what all others deleted and
        forgot. Only the topology itself, of which nothing is forgotten, may come from it.
        """
        uid, floor = self._peer.uid, missing.floor
        if floor < self._peer.floors.agreed.hlc and missing.environment != TOPOLOGY:
            raise Unavailable(
                "the peer is below the floor", hint="it is to be filled anew", reason="BELOW_FLOOR"
            )
        if missing.base:
            base = records.decode_environment(missing.base).state.environment
            self.pulled.bases += await self._intake.repair_base(base, floor=floor, sender=uid)
        for encoded in missing.commits:
            taken = await self._intake.repair(encoded, floor=floor, sender=uid)
            if taken in (Taken.EARLY, Taken.BEHIND):
                self.pulled.early.add(partition_of(missing.environment))
                hlc = records.decode_commit(encoded).stamp.hlc
                self.pulled.early_hlc = min(self.pulled.early_hlc, hlc)
            self.pulled.commits += taken in (Taken.NEW, Taken.EARLY)
        self.pulled.environments += 1
        await asyncio.sleep(0)
