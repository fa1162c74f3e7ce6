"""This node as one of those whose majority chooses the commits of serial environments.

The rules are in `core.paxos`; here they meet the log. An acceptor accepts a commit only where its
own log stands, so who lacks what the commit follows gets that first: it waits a moment for the
stream, then logs what it accepted itself, which the proposer says was chosen, or pulls the
environment from the proposer. An answer waits until what it says is durable; and what was accepted
before is replaced in the register only once the log holds it durably, for a crash may keep the one
and lose what the other had on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from envd.core import paxos
from envd.core.chain import position
from envd.core.environment import Environment
from envd.core.errors import Corrupt, InvalidRequest, Unavailable
from envd.core.names import check_environment
from envd.core.paxos import Acceptor, Ballot, Held, Proposal, Verdict
from envd.core.ring import partition_of
from envd.core.stamp import STAMP_BYTES, ZERO, Stamp
from envd.core.topology import TOPOLOGY
from envd.node.calls import Method, Patient
from envd.node.handshake import Peer
from envd.node.intake import MAX_AHEAD_MS, Intake
from envd.ports import Applied, Clock, Registers, Store
from envd.wire import peers as wire
from envd.wire import records

ARRIVES_S: Final = 0.1
"""How long what was just chosen is waited for: the proposer's stream is sending it already."""
LEARNS_S: Final = 2.0
_PAGE_BYTES: Final = 4 << 20
Pull = Callable[[str, int], Awaitable[None]]
"""(environment, uid): have this node hold what that peer holds of the environment."""


class Promised(NamedTuple):
    """An acceptor's answer to who asked for its promise, or how things stand."""

    verdict: Verdict
    promised: Ballot
    held: Held


class Answered(NamedTuple):
    """An acceptor's answer to a proposal."""

    verdict: Verdict
    promised: Ballot
    position: Stamp


class AcceptorService:
    """Answers proposers, those of other nodes by `methods`, this node's own by calls."""

    def __init__(
        self,
        store: Store,
        registers: Registers,
        intake: Intake,
        clock: Clock,
        pull: Pull,
        epoch: Callable[[], int],
        complete: Callable[[int], bool] = lambda _: True,
        sealed_to: Callable[[], int] = lambda: 0,
        closed_to: Callable[[], int] = lambda: 0,
    ) -> None:
        """`epoch` tells that of the topology that this node holds durably, 0 for none; `complete`
        of which partitions this node has all; `sealed_to` the time (hlc) up to which it accepts
        nothing but what another one had accepted, so that this one can be finished; `closed_to`
        that up to which nothing is left to finish."""
        self._sealed_to = sealed_to
        self._closed_to = closed_to
        self._store = store
        self._registers = registers
        self._intake = intake
        self._clock = clock
        self._pull = pull
        self._epoch = epoch
        self._complete = complete
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}
        store.subscribe(self._applied)

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {
            "serial.prepare": Patient(self._serve_prepare),
            "serial.accept": Patient(self._serve_accept),
            "serial.look": Patient(self._serve_look),
            "serial.open": Patient(self._serve_open),
        }

    # -- the questions -----------------------------------------------------------------

    async def prepare(self, name: str, ballot: Ballot, epoch: int, asker: int) -> Promised:
        """Promise, or say who was promised more; `asker` is the proposer's uid."""
        await self._join_epoch(name, epoch, asker)
        verdict, kept = paxos.prepare(self._registers.get(name), ballot)
        held = self._held(name, kept)
        if verdict is Verdict.YES:
            await self._registers.save(name, kept)
        return Promised(verdict, kept.promised, held)

    async def accept(
        self, name: str, proposal: Proposal, epoch: int, asker: int, *, again: bool = False
    ) -> Answered:
        """Accept, or say why not; `again`: another acceptor accepted the same value before."""
        await self._join_epoch(name, epoch, asker)
        self._check(name, proposal, again=again)
        if proposal.ballot >= self._registers.get(name).promised:
            await self._catch_up(name, proposal.place, asker)
            if self.position(name) == proposal.place:
                await self.becomes_visible(name, proposal.place)
            self._check_epoch(name, epoch)  # Who takes over from here may have looked meanwhile.
        here = self.position(name)
        verdict, kept = paxos.accept(self._registers.get(name), proposal, here)
        if verdict is Verdict.YES:
            await self._registers.save(name, kept)
        return Answered(verdict, kept.promised, here)

    async def look(self, name: str, epoch: int, asker: int) -> Promised:
        """Say how things stand, and promise nothing."""
        await self._join_epoch(name, epoch, asker)
        kept = self._registers.get(name)
        return Promised(Verdict.YES, kept.promised, self._held(name, kept))

    def promised(self, name: str) -> Ballot:
        """The highest ballot that this node promised."""
        return self._registers.get(name).promised

    def position(self, name: str) -> Stamp:
        """Where the chain of an environment stands in the log here, on its way included."""
        head = self._store.head(name)
        return position(head.environment if head else Environment(name))

    def _held(self, name: str, acceptor: Acceptor) -> Held:
        here = self.position(name)
        return Held(here, acceptor.open_at(here))

    def _check(self, name: str, proposal: Proposal, *, again: bool) -> None:
        """Raise Corrupt where a proposal is none, Unavailable for one from the future."""
        commit = records.decode_commit(proposal.value)
        if commit.environment != name or commit.follows != proposal.place:
            raise Corrupt("a peer proposed a commit for another place than its own")
        if commit.stamp <= proposal.place or not (commit.changes or commit.deletes):
            raise Corrupt("a peer proposed a commit after which the chain stands where it stood")
        sealed_to = self._closed_to() if again else self._sealed_to()
        if commit.stamp.hlc <= sealed_to and name != TOPOLOGY:
            raise Unavailable(
                "a commit is of a time that was sealed meanwhile; nothing was done",
                hint="try again",
                reason="SEALED",
                retry_after_ms=100,
            )
        if commit.stamp.time_ms > self._clock.wall_ms() + MAX_AHEAD_MS:
            raise Unavailable(
                "a commit is stamped over a minute ahead of an acceptor's clock",
                hint="set the clocks of the nodes right (NTP)",
                reason="CLOCK_SKEW",
                retry_after_ms=1000,
            )

    # -- keeping up --------------------------------------------------------------------

    async def _join_epoch(self, name: str, epoch: int, asker: int) -> None:
        """Raise Unavailable unless this node counts in the same epoch as the proposer.

        Where it is behind it learns the topology from the proposer first.
        """
        if name != TOPOLOGY and self._epoch() < epoch:
            await self._learn(epoch, asker)
        self._check_epoch(name, epoch)

    def _check_epoch(self, name: str, epoch: int) -> None:
        if name != TOPOLOGY and self._epoch() != epoch:
            raise Unavailable(
                "the acceptors of the cluster have changed; nothing was done",
                hint="try again",
                reason="STALE_EPOCH",
                retry_after_ms=100,
            )

    async def _learn(self, epoch: int, asker: int) -> None:
        await self._pull(TOPOLOGY, asker)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEARNS_S):
                await self._wait_until(TOPOLOGY, lambda: self._epoch() >= epoch)

    async def _catch_up(self, name: str, place: Stamp, asker: int) -> None:
        """Have the log reach `place`, as far as that can be had."""
        if self.position(name) >= place:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(ARRIVES_S):
                await self._wait_until(name, lambda: self.position(name) >= place)
                return
        accepted = self._registers.get(name).accepted
        here = self.position(name)
        if accepted is not None and accepted.place == here and _stamp_of(accepted) == place:
            await self._intake.repair(accepted.value)
        if self.position(name) < place:
            await self._pull(name, asker)

    async def becomes_visible(self, name: str, place: Stamp) -> None:
        """Wait until the log holds `place` durably; raises Unavailable where it won't."""
        try:
            async with asyncio.timeout(LEARNS_S):
                await self._wait_until(name, lambda: self._visible(name) >= place)
        except TimeoutError:
            raise Unavailable("the log takes nothing now", reason="NOT_LOGGED") from None

    def _visible(self, name: str) -> Stamp:
        state = self._store.visible(name)
        return position(state.environment if state else Environment(name))

    async def _wait_until(self, name: str, reached: Callable[[], bool]) -> None:
        news = asyncio.Event()
        self._waiting.setdefault(name, {})[news] = None
        try:
            while not reached():
                news.clear()
                await news.wait()
        finally:
            events = self._waiting[name]
            del events[news]
            if not events:
                del self._waiting[name]

    def _applied(self, applied: Applied) -> None:
        commit = applied.record.commit
        if commit.follows != ZERO:
            self._registers.prune(commit.environment, position(applied.after.environment))
        for event in self._waiting.get(commit.environment, ()):
            event.set()

    # -- for other nodes -----------------------------------------------------------------

    async def _serve_prepare(self, peer: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.Prepare, body)
        name = checked_name(said.environment)
        return packed_promise(await self.prepare(name, Ballot(*said.ballot), said.epoch, peer.uid))

    async def _serve_look(self, peer: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.Prepare, body)
        name = checked_name(said.environment)
        return packed_promise(await self.look(name, said.epoch, peer.uid))

    async def _serve_accept(self, peer: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.Accept, body)
        name = checked_name(said.environment)
        follows = records.decode_commit(said.value).follows
        proposal = Proposal(Ballot(*said.ballot), follows, said.value)
        answer = await self.accept(name, proposal, said.epoch, peer.uid, again=said.again)
        at = answer.position.to_bytes()
        return wire.pack(wire.Accepted(answer.verdict.value, answer.promised, at))

    async def _serve_open(self, peer: Peer, body: bytes) -> bytes:
        """What is open here after a name, as much as fits an answer; at least one, if there is one.

        Once this node counts in that epoch or a later one: from then on it accepts nothing of an
        earlier one.
        """
        asked = wire.unpack(wire.AskOpen, body)
        if self._epoch() < asked.epoch:
            await self._learn(asked.epoch, peer.uid)
        if self._epoch() < asked.epoch:
            raise Unavailable("this node counts in an earlier epoch", reason="STALE_EPOCH")
        within = wire.partitions_of(asked.partitions) if asked.partitions else None
        return wire.pack(self.open(asked.after, within))

    def open(self, after: str = "", partitions: Collection[int] | None = None) -> list[wire.Open]:
        """What this node accepted and its log does not hold durably, in order of name, a page.

        In these partitions, None for all.
        """
        found: list[wire.Open] = []
        room = _PAGE_BYTES
        for name, acceptor, proposal in self._open():
            if name <= after or (partitions is not None and partition_of(name) not in partitions):
                continue
            room -= len(proposal.value)
            if found and room < 0:
                break
            at = proposal.place.to_bytes()
            found.append(wire.Open(name, acceptor.promised, proposal.ballot, at, proposal.value))
        return found

    def open_places(self) -> dict[str, Stamp]:
        """Where there is something open here, by environment.

        Of a partition that this node let go of nothing is: what it accepted there was logged, and
        handed over.
        """
        return {
            name: proposal.place
            for name, _, proposal in self._open()
            if self._complete(partition_of(name))
        }

    def open_below(self, hlc: int) -> bool:
        """Whether something of a time at or below `hlc` is open here."""
        return any(
            _stamp_of(proposal).hlc <= hlc
            for name, _, proposal in self._open()
            if self._complete(partition_of(name))
        )

    def _open(self) -> Iterator[tuple[str, Acceptor, Proposal]]:
        for name, acceptor in self._registers.accepted().items():
            proposal = acceptor.open_at(self._visible(name))
            if proposal is not None and name != TOPOLOGY:
                yield name, acceptor, proposal

    async def adopt(self, found: wire.Open) -> None:
        """Keep what another acceptor accepted, unless this one knows better.

        As with a proposal, the log here must hold what it follows; raises Unavailable.
        """
        name, place = checked_name(found.environment), stamp_from(found.place)
        proposal = Proposal(Ballot(*found.ballot), place, found.value)
        self._check(name, proposal, again=True)
        if self._visible(name) < place:
            raise Unavailable("the log lacks what another acceptor built on", reason="NOT_LOGGED")
        known = self._registers.get(name)
        mine = known.open_at(self.position(name))
        if mine is not None and (mine.place, mine.ballot) >= (place, proposal.ballot):
            return
        promised = max(known.promised, Ballot(*found.promised))
        await self._registers.save(name, Acceptor(promised, proposal))


def _stamp_of(proposal: Proposal) -> Stamp:
    return records.decode_commit(proposal.value).stamp


def checked_name(name: str) -> str:
    """The environment that a peer names; raises Corrupt for a name that is none."""
    try:
        return check_environment(name, system=True)
    except InvalidRequest:
        raise Corrupt("a peer named an environment that is none") from None


def stamp_from(raw: bytes) -> Stamp:
    """A stamp that a peer sent; raises Corrupt."""
    if len(raw) != STAMP_BYTES:
        raise Corrupt("a peer sent a stamp that is none")
    return Stamp.from_bytes(raw)


def packed_promise(answer: Promised) -> bytes:
    """The body of a Promise."""
    held, accepted = answer.held, answer.held.accepted
    fields = (answer.verdict.value, answer.promised, held.position.to_bytes())
    if accepted is None:
        return wire.pack(wire.Promise(*fields))
    at = accepted.place.to_bytes()
    return wire.pack(wire.Promise(*fields, at, accepted.ballot, accepted.value))


def read_promise(body: bytes) -> Promised:
    """The inverse of `packed_promise`; raises Corrupt."""
    said = wire.unpack(wire.Promise, body)
    accepted = None
    if said.place:
        accepted = Proposal(Ballot(*said.ballot), stamp_from(said.place), said.value)
    held = Held(stamp_from(said.position), accepted)
    return Promised(_verdict(said.verdict), Ballot(*said.promised), held)


def read_accepted(body: bytes) -> Answered:
    """What an acceptor answered to a proposal; raises Corrupt."""
    said = wire.unpack(wire.Accepted, body)
    return Answered(_verdict(said.verdict), Ballot(*said.promised), stamp_from(said.position))


def _verdict(text: str) -> Verdict:
    try:
        return Verdict(text)
    except ValueError:
        raise Corrupt("an acceptor said what none says") from None
