"""Keeps the topology: who votes, who is to vote, and that there is one at all.

The first voter that can be reached and whose clock is not far ahead governs: it takes in nodes that
came, strikes those that went, changes who votes (`core.topology`), and moves partitions
(`node.balancing`). That others may think the
same of themselves does no harm, each change follows the one before exactly.

A node that is to vote first asks each voter what is open there, which binds that voter to the
new epoch, and then pulls all that its log holds; with a majority of the voters it has so, it is
ready. Once a majority of those that are to vote is, they vote.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from envd.core.chain import MODE, SERIAL
from envd.core.commit import Kind
from envd.core.errors import Conflict, EnvdError, Unavailable
from envd.core.members import Member, MemberState
from envd.core.moves import Progress
from envd.core.paxos import Quorum
from envd.core.placement import Site
from envd.core.requests import Put, WriteRequest
from envd.core.ring import SYSTEM_PARTITION, partition_of
from envd.core.topology import (
    TABLE,
    TOPOLOGY,
    VARIABLE,
    Topology,
    founded,
    to_strike,
    topology_in,
    wanted_voters,
)
from envd.node.acceptor import AcceptorService
from envd.node.balancing import SETTLES_S, Balancing
from envd.node.calls import Method
from envd.node.floors import Floors
from envd.node.handshake import Peer
from envd.node.holdings import Holdings
from envd.node.proposing import Ask, Seats
from envd.node.repair import Repairer
from envd.node.rounds import Rounds
from envd.node.serial import Serial
from envd.node.taking_over import TakingOver
from envd.ports import Applied, Store, StoredState
from envd.wire import peers as wire

AUTHOR: Final = "envd"
LOOKS_S: Final = 1.0
FOUNDS_S: Final = SETTLES_S / 2
"""For so long who made the cluster need not ask whether others founded a topology: who joined first
waits SETTLES_S."""
_AGAIN_S: Final = 0.1
LOST_AFTER_S: Final = 60.0
"""A voter that is away for so long is replaced, where another node can take its place."""
_log = logging.getLogger(__name__)


class Others(NamedTuple):
    """How the other nodes are, as this one sees it now.

    `answering` are those of which an answer can be expected; `clock_is_wrong`: this node's clock is
    far ahead of all of theirs, so it must stamp nothing; `ahead` are those that are so far ahead of
    this one, and may be in that case themselves.
    """

    members: Sequence[Member]
    answering: Sequence[int]
    clock_is_wrong: bool
    ahead: Sequence[int]


class Electorate:
    """The topology as this node holds it, and what it does for it."""

    def __init__(
        self,
        me: Site,
        store: Store,
        others: Callable[[], Others],
        holdings: Holdings,
        floors: Floors,
        *,
        gives_up_s: float,
        expects_others: bool,
        founds: bool,
        copies: Mapping[str, int],
    ) -> None:
        """`holdings` and `floors` follow the topology; a node that is away for `gives_up_s` seconds
        is given up; `expects_others`: this node joined, so it founds nothing
        by itself; `founds`: it just made the cluster; `copies`: how many this node's settings want,
        by region."""
        self._me = me
        self._store = store
        self._others = others
        self._holdings = holdings
        self._floors = floors
        self._gives_up_s = gives_up_s
        self._lost_after_s = min(LOST_AFTER_S, gives_up_s)
        self._expects_others = expects_others
        self._copies = copies
        self._loop = asyncio.get_running_loop()
        self._poked = asyncio.Event()
        self._away: dict[int, float] = {}
        self._changed_s = self._loop.time()
        self._founds_until_s = self._changed_s + (FOUNDS_S if founds else 0.0)
        self._leaving = False
        self._founding = False
        self._waits_for = ""
        self._ready_for = 0
        self._cached: tuple[bytes, Topology | None] = (b"", None)
        self._follow(self._in(store.visible(TOPOLOGY)))
        store.subscribe(self._applied)

    def connect(
        self,
        acceptor: AcceptorService,
        serial: Serial,
        repairer: Repairer,
        ask: Ask,
        progress: Callable[[], Progress],
        rounds: Rounds,
    ) -> None:
        """Give it what its work takes; once, before `run`. `progress`: of the moves, here."""
        self.rounds = rounds
        self._taking_over = TakingOver(acceptor, ask)
        self._serial = serial
        self._repairer = repairer
        self._ask = ask
        self.balancing = Balancing(self._copies, progress, self._me.uid, ask, self._poked.set)

    # -- what it tells -----------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """That of the topology which this node holds durably, 0 for none."""
        return self.current.epoch if self.current is not None else 0

    @property
    def leaves(self) -> bool:
        """Whether this node is about to leave for good."""
        marked = self.current is not None and self._me.uid in self.current.leaving
        return self._leaving or marked

    def reached(self) -> Collection[int]:
        """The storage nodes that can be reached from here, this one too."""
        return self._able().keys()

    def seats(self, name: str) -> Seats:
        """Who decides about an environment; raises Unavailable where nobody knows yet."""
        if name == TOPOLOGY:
            topology = self._in(self._store.head(TOPOLOGY))
            if topology is not None:
                return Seats(topology.own_quorum, 0)
            if self._founding:
                return Seats(Quorum((frozenset({self._me.uid}),)), 0)
        elif self.current is not None:
            return Seats(_deciders(self.current, name), self.current.epoch)
        raise self._unknown()

    def _unknown(self) -> Unavailable:
        hint = "try again in a moment; see: envctl cluster topology"
        if self._waits_for:
            name = self._waits_for
            hint = (
                f"{name} is to be asked first; if it is lost for good: envctl cluster remove {name}"
            )
        return Unavailable(
            "this node does not know yet who decides about serial environments; nothing was done",
            hint=hint,
            reason="NO_TOPOLOGY",
            retry_after_ms=1000,
        )

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {"topology.known": self._serve_known, "topology.ready": self._serve_ready}

    def member_changed(self, member: Member) -> None:
        """A member came, went, or is seen otherwise: look now."""
        self._changed_s = self._loop.time()
        if member.state is MemberState.GONE:
            self._away[member.uid] = self._changed_s - self._lost_after_s
        self._poked.set()

    def _applied(self, applied: Applied) -> None:
        if applied.record.commit.environment == TOPOLOGY:
            self._follow(self._in(applied.after))
            self._poked.set()

    def _follow(self, topology: Topology | None) -> None:
        self.current = topology
        self._holdings.follow(None if topology is None else topology.table)
        self._floors.follow(topology)

    def _in(self, state: StoredState | None) -> Topology | None:
        """The topology of a state; decoded once for each revision."""
        if state is None:
            return None
        if self._cached[0] != state.revision or not state.revision:
            self._cached = (state.revision, topology_in(state.environment))
        return self._cached[1]

    # -- its work ----------------------------------------------------------------------

    async def run(self) -> None:
        """Look now and then, and whenever something changed; for ever."""
        while True:
            self._poked.clear()
            try:
                await self._look()
            except EnvdError as error:
                _log.info("topology.unchanged", extra={"detail": error.message})
            try:
                async with asyncio.timeout(LOOKS_S):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        topology = self.current
        if topology is not None:
            self._note_away(topology)
        if self._others().clock_is_wrong:
            return
        if topology is None:
            await self._found()
            return
        if self._me.uid in topology.leaving and not self._leaving:
            await self._mark(topology)
        if self._me.uid in topology.joining and self._ready_for != topology.epoch:
            await self._become_ready(topology)
        if self._governs(topology):
            await self._govern(topology)

    def _governs(self, topology: Topology) -> bool:
        able = self._able().keys() - set(self._others().ahead)
        first = next((uid for uid in sorted(topology.voters) if uid in able), None)
        return first == self._me.uid

    def _able(self) -> dict[int, Member | None]:
        """The storage nodes that can be reached, this one too."""
        found: dict[int, Member | None] = {self._me.uid: None}
        others = self._others()
        for member in others.members:
            alive = member.role == "storage" and member.state is MemberState.ALIVE
            if alive and member.uid in others.answering:
                found.setdefault(member.uid, member)
        return found

    def _seen(self) -> set[int]:
        """The other storage nodes that are not known to be down, reached from here or not."""
        others = self._others().members
        return {each.uid for each in others if each.role == "storage" and each.reachable}

    def _there(self) -> Collection[int]:
        """Whom a round of the floor takes: who can be reached, and who is about to join.

        That one is seen by others, and is not taken in before it can be reached from here: a floor
        that was raised until then would leave it behind. Where that takes too long it is given up.
        """
        known = () if self.current is None else (site.uid for site in self.current.nodes)
        joins = self._seen().difference(known, self._gone(self._lost()))
        return {*self._able(), *joins}

    # -- a first topology --------------------------------------------------------------

    async def _found(self) -> None:
        """Found the topology of a cluster that has none.

        That is for who founded the cluster; or, where it is of a version that knew of no topology,
        for the node of the least uid, once all say that they have none.
        """
        if self._loop.time() >= self._founds_until_s and not await self._may_found():
            return
        self._waits_for = ""
        self._founding = True
        mode = Put(MODE, SERIAL, kind=Kind.METADATA)
        await self.write(founded(self._me), "the first topology", mode)

    async def _may_found(self) -> bool:
        """Whether this node is the one to found a topology, and there is none."""
        others = [
            member
            for member in self._others().members
            if member.uid != self._me.uid
            and member.role == "storage"
            and member.state is not MemberState.GONE
        ]
        if not others and self._expects_others:
            return False
        if others and (
            self._me.uid > min(member.uid for member in others)
            or self._loop.time() - self._changed_s < SETTLES_S
        ):
            return False
        for member in others:
            self._waits_for = member.name
            if wire.unpack(bool, await self._ask(member.uid, "topology.known", b"")):
                return False
        return True

    async def write(self, topology: Topology, message: str, *more: Put) -> None:
        """Have the next topology chosen, made of the one that this node has now.

        Raises Conflict where there is a later one by now; Unavailable, OutcomeUnknown.
        """
        if self.current is not None and topology.epoch != self.current.epoch + 1:
            raise Conflict(  # It was made of an earlier one, while others were asked.
                "the topology changed meanwhile; nothing was changed",
                hint="it is looked at again by itself",
                reason="STALE_REVISION",
            )
        state = self._store.visible(TOPOLOGY)
        before = state.revision.hex() if state is not None and self.current is not None else ""
        puts = [Put(VARIABLE, topology.encode())]
        known = self.current and self.current.table
        if topology.table is not None and topology.table is not known:
            puts.append(Put(TABLE, topology.table.encode()))
        request = WriteRequest(TOPOLOGY, (*puts, *more), if_revision=before, message=message)
        await self._serial.propose(request, AUTHOR)
        _log.info("topology.changed", extra={"epoch": topology.epoch, "detail": message})

    async def _serve_known(self, _: Peer, __: bytes) -> bytes:
        return wire.pack(self._store.head(TOPOLOGY) is not None)

    # -- governing ---------------------------------------------------------------------

    async def _govern(self, topology: Topology) -> None:
        """Make the next change that is due, if there is one."""
        able = self._able()
        lost = self._lost()
        gone = self._gone(lost)
        sites = self._sites(topology, able, gone)
        if sites != topology.nodes:
            changed = topology.with_nodes(sites)
            if changed.nodes != topology.nodes:
                await self.write(changed, _told(topology.nodes, changed.nodes))
                return
        wanted = wanted_voters(topology, able, lost, gone)
        if topology.joining:
            await self._go_over(topology, wanted)
        elif wanted and wanted != topology.voters:
            await self.write(topology.begin(wanted), f"{len(wanted)} are to vote")
        else:
            change = await self.balancing.change(topology, able, lost)
            change = change or await self.rounds.change(topology, self._there)
            if change is not None and self.current is topology:
                await self.write(*change)

    async def _go_over(self, topology: Topology, wanted: Sequence[int]) -> None:
        if tuple(wanted) != topology.joining:
            await self.write(topology.abandon(), "others are to vote")
            return
        ready = [uid for uid in topology.joining if await self._is_ready(uid, topology.epoch)]
        enough = Quorum((frozenset(topology.joining),)).is_met(ready)
        if enough and self.current is topology:
            await self.write(topology.finish(), f"{len(topology.joining)} vote")

    def _note_away(self, topology: Topology) -> None:
        """Note who can't be reached, whoever governs: that one may be back, and away again."""
        now = self._loop.time()
        away = {site.uid for site in topology.nodes}.union(self._seen()).difference(self._able())
        self._away = {uid: self._away.get(uid, now) for uid in away}

    def _lost(self) -> set[int]:
        """The nodes that were away for long, as far as this node could see."""
        now = self._loop.time()
        return {uid for uid, since_s in self._away.items() if now - since_s >= self._lost_after_s}

    def _gone(self, lost: Iterable[int]) -> set[int]:
        """The lost nodes that went for good, or that are given up."""
        members = {
            member.uid for member in self._others().members if member.state is not MemberState.GONE
        }
        before_s = self._loop.time() - self._gives_up_s
        return {uid for uid in lost if uid not in members or self._away[uid] <= before_s}

    def _sites(
        self, topology: Topology, able: Mapping[int, Member | None], gone: Collection[int]
    ) -> tuple[Site, ...]:
        """The nodes there are: those that were, less those that are gone, and who came."""
        went = to_strike(topology, gone)
        sites = {site.uid: site for site in topology.nodes if site.uid not in went}
        for uid, member in able.items():
            sites[uid] = self._me if member is None else site_of(member)
        return tuple(sites[uid] for uid in sorted(sites))

    async def recover(self) -> Topology:
        """Make up a topology in which this node votes alone, because the voters are lost.

        Others that are there come to vote by themselves. What the lost voters alone knew of serial
        environments is lost with them; should they come back, what they decided since is a
        conflict on record. Raises as `check_lost` does.
        """
        made = self.check_lost().recovered(self._me)
        await self._serial.reopen(TOPOLOGY, Put(VARIABLE, made.encode()), AUTHOR)
        _log.warning("topology.recovered", extra={"epoch": made.epoch})
        return made

    def check_lost(self) -> Topology:
        """The topology whose voters are lost; raises Conflict while a majority may be there.

        Who can't be reached counts as there until it is known to be down: a node that just started
        has met nobody yet, and nothing is worse than two that decide.
        """
        topology = self.current
        if topology is None:
            raise Unavailable(
                "this node knows of no topology yet; nothing was changed",
                hint="see who is there: envctl cluster members",
                reason="NO_TOPOLOGY",
            )
        here = {member.uid for member in self._others().members if member.reachable}
        if topology.own_quorum.is_met({*self._able(), *here}):
            raise Conflict(
                "a majority of the voters can be reached, or is not known to be down yet, "
                "so nothing is lost; nothing was changed",
                hint="see: envctl cluster topology, envctl cluster members",
                reason="NOT_LOST",
            )
        return topology

    async def resign(self, patience_s: float) -> None:
        """See to it that this node votes no more, because it is about to leave for good.

        Raises Unavailable where that can't be had in time. The last node goes on voting.
        """
        topology = self.current
        if topology is None or len(self._able()) == 1:
            return
        self._leaving = True
        try:
            async with asyncio.timeout(patience_s):
                while not await self._has_resigned():  # noqa: ASYNC110 - others act meanwhile
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            self._leaving = False
            raise Unavailable(
                "this node votes, and no majority agreed in time on who is to vote in its place; "
                "nothing was changed",
                hint="see: envctl cluster topology; to stop the node, send it SIGTERM: "
                "its data stay",
                reason="NOT_DRAINED",
            ) from None

    def stay(self) -> None:
        """This node does not leave after all."""
        self._leaving = False
        self._poked.set()

    async def _has_resigned(self) -> bool:
        topology = self.current
        assert topology is not None, "a topology never goes away"
        if self._me.uid not in topology.leaving:
            await self._mark(topology)
        return self._me.uid not in topology.quorum.members

    async def _mark(self, topology: Topology) -> None:
        """Have it said in the topology whether this node is about to leave."""
        changed = topology.with_leaving(self._me.uid, leaves=self._leaving)
        what = "is about to leave" if self._leaving else "stays"
        try:
            await self.write(changed, f"{self._me.uid:016x} {what}")
        except EnvdError as error:
            _log.info("topology.unchanged", extra={"detail": error.message})

    # -- becoming a voter ----------------------------------------------------------------

    async def _become_ready(self, topology: Topology) -> None:
        """Hold what a majority of the voters accepted and logged before this epoch."""
        done = {self._me.uid}.intersection(topology.voters)
        for uid in topology.voters:
            if uid == self._me.uid or topology.own_quorum.is_met(done):
                continue
            try:
                await self._take_over_from(uid, topology)
            except EnvdError as error:
                _log.info("topology.not_ready", extra={"detail": error.message})
            else:
                done.add(uid)
        if topology.own_quorum.is_met(done):
            self._ready_for = topology.epoch

    async def _take_over_from(self, uid: int, topology: Topology) -> None:
        """Of all; or of the system's own partition, where those that hold the others decide."""
        partitions = None if topology.table is None else (SYSTEM_PARTITION,)
        pull = partial(self._repairer.pull, uid)
        await self._taking_over.take_over(uid, topology.epoch, pull, partitions)

    async def _is_ready(self, uid: int, epoch: int) -> bool:
        if uid == self._me.uid:
            return self._ready_for == epoch
        try:
            return wire.unpack(bool, await self._ask(uid, "topology.ready", wire.pack(epoch)))
        except EnvdError:
            return False

    async def _serve_ready(self, _: Peer, body: bytes) -> bytes:
        self._poked.set()
        return wire.pack(self._ready_for == wire.unpack(int, body))


def _deciders(topology: Topology, name: str) -> Quorum:
    """Whose consent a change of an environment takes: the voters', or that of who holds it."""
    partition = partition_of(name)
    if topology.table is None or partition == SYSTEM_PARTITION:
        return topology.quorum
    return topology.table.quorum(partition)


def site_of(member: Member) -> Site:
    """Where a member is."""
    return Site(member.uid, member.zone, member.region)


def _told(before: Sequence[Site], after: Sequence[Site]) -> str:
    came = {site.uid for site in after} - {site.uid for site in before}
    went = {site.uid for site in before} - {site.uid for site in after}
    parts = [f"{uid:016x} joined" for uid in sorted(came)]
    parts += [f"{uid:016x} left" for uid in sorted(went)]
    return ", ".join(parts) or "a node moved"
