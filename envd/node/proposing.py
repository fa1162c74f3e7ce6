"""The rounds of a proposer: a majority's promise, a majority's consent, and how things stand.

The rules are those of `core.paxos`. The promise of a majority is kept as this node's lead: as long
as nobody bids more, each further proposal takes one round.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from envd.core import digest
from envd.core.chain import position
from envd.core.commit import Commit
from envd.core.errors import EnvdError, Unavailable
from envd.core.paxos import (
    NEVER,
    Ballot,
    Held,
    Proposal,
    Quorum,
    Verdict,
    farthest,
    never_chosen,
    to_finish,
)
from envd.core.stamp import ZERO, Stamp
from envd.core.topology import TOPOLOGY
from envd.node.acceptor import (
    AcceptorService,
    Answered,
    Promised,
    Pull,
    read_accepted,
    read_promise,
)
from envd.node.coordinator import Coordinator
from envd.ports import StoredState
from envd.wire import peers as wire
from envd.wire import records

ROUND_S: Final = 1.0
_LEADS_KEPT: Final = 4096
Ask = Callable[[int, str, bytes], Awaitable[bytes]]
"""(uid, method, body) -> answer."""
AnswerT = TypeVar("AnswerT", Promised, Answered)


class Seats(NamedTuple):
    """Who decides about an environment: enough of whom, in which epoch."""

    quorum: Quorum
    epoch: int


class NoQuorum(Exception):
    """Not enough acceptors agreed, for now; `errors` are of those that gave no answer, by uid."""

    def __init__(self, errors: Mapping[int, EnvdError] | None = None) -> None:
        super().__init__("no quorum")
        self.errors = errors or {}


class _Lead(NamedTuple):
    """The ballot that enough of these promised: the next proposals need no promise more."""

    ballot: Ballot
    seats: Seats


@dataclass(slots=True)
class _Round(Generic[AnswerT]):
    """What came of asking the acceptors, by uid."""

    answers: dict[int, AnswerT] = field(default_factory=dict)
    errors: dict[int, EnvdError] = field(default_factory=dict)

    def agreeing(self) -> set[int]:
        return {uid for uid, answer in self.answers.items() if answer.verdict is Verdict.YES}

    def highest(self) -> Ballot:
        """The highest ballot that any of them promised."""
        return max((answer.promised for answer in self.answers.values()), default=NEVER)


class Proposer:
    """Proposes for this node; the turns of writes are taken elsewhere, one at a time for each
    environment."""

    def __init__(
        self,
        uid: int,
        coordinator: Coordinator,
        acceptor: AcceptorService,
        digest_key: bytes,
        *,
        ask: Ask,
        pull: Pull,
        seats: Callable[[str], Seats],
    ) -> None:
        """`seats` tells who decides about an environment now."""
        self._uid = uid
        self._coordinator = coordinator
        self._acceptor = acceptor
        self._digest_key = digest_key
        self._ask = ask
        self._pull = pull
        self._seats = seats
        self._leads: OrderedDict[str, _Lead] = OrderedDict()
        self._highest: OrderedDict[str, Ballot] = OrderedDict()
        self._dead: OrderedDict[str, tuple[Stamp, Ballot]] = OrderedDict()

    def ballot(self, name: str, seats: Seats) -> Ballot | None:
        """The ballot under which this node may propose at once, None where it must ask first."""
        lead = self._leads.get(name)
        return lead.ballot if lead is not None and lead.seats == seats else None

    def drop_lead(self, name: str) -> None:
        """Another bid more, or may have."""
        self._leads.pop(name, None)

    def keep_lead(self, name: str, ballot: Ballot, seats: Seats) -> None:
        """What was proposed under this ballot is in the log here: it is good for the next one."""
        self._leads[name] = _Lead(ballot, seats)
        while len(self._leads) > _LEADS_KEPT:
            self._leads.popitem(last=False)

    async def lead(self, name: str, seats: Seats, *, everyone: bool = False) -> None:
        """Get a majority's promise, and finish what it may have chosen already.

        What would begin a chain takes back all plain writes since it was proposed, so `everyone` is
        asked before it is finished: often that tells that it can't have been chosen. Raises
        NoQuorum, or what the log refuses with.
        """
        ballot = self._next_ballot(name)
        body = wire.pack(wire.Prepare(name, seats.epoch, ballot))
        local = partial(self._acceptor.prepare, name, ballot, seats.epoch, self._uid)
        found = await self._round(
            seats, "serial.prepare", body, local, read_promise, everyone=everyone
        )
        self._note_highest(name, max(ballot, found.highest()))
        promised = found.agreeing()
        if not seats.quorum.is_met(promised):
            raise NoQuorum(found.errors)
        held = {uid: found.answers[uid].held for uid in promised}
        unfinished = await self._reached(name, held)
        if unfinished is not None and not unfinished.place.hlc:
            if not everyone:
                await self.lead(name, seats, everyone=True)
                return
            if never_chosen(seats.quorum, held, unfinished.place):
                self._note_dead(name, unfinished.place, ballot)
                unfinished = None
        if unfinished is not None:
            proposal = Proposal(ballot, unfinished.place, unfinished.value)
            await self.choose(name, seats, proposal, again=True)
            await self.log(records.decode_commit(unfinished.value), unfinished.value)
        self.keep_lead(name, ballot, seats)

    async def choose(
        self, name: str, seats: Seats, proposal: Proposal, *, again: bool = False
    ) -> int:
        """Have a proposal accepted by enough; return by how many. Raises NoQuorum.

        `again`: some acceptor accepted its value before.

        This spends the lead until the log here holds the value, see `keep_lead`: who is interrupted
        before that would else propose another value under the same ballot at the same place. And
        the acceptors must be those of the place where the log here stands, since the topology's own
        change with each of its commits.
        """
        self.drop_lead(name)
        if self._seats(name) != seats:
            raise NoQuorum
        body = wire.pack(wire.Accept(name, seats.epoch, proposal.ballot, proposal.value, again))
        local = partial(self._acceptor.accept, name, proposal, seats.epoch, self._uid, again=again)
        found = await self._round(seats, "serial.accept", body, local, read_accepted)
        self._note_highest(name, found.highest())
        accepted = found.agreeing()
        if not seats.quorum.is_met(accepted):
            raise NoQuorum(found.errors)
        return len(accepted)

    async def look(self, name: str, seats: Seats) -> bool:
        """Have the log here hold all that was chosen before; tell whether that is done.

        False: something is left to finish, see `lead`. Raises NoQuorum.
        """
        body = wire.pack(wire.Prepare(name, seats.epoch))
        local = partial(self._acceptor.look, name, seats.epoch, self._uid)
        found = await self._round(seats, "serial.look", body, local, read_promise)
        if not seats.quorum.is_met(found.answers):
            raise NoQuorum(found.errors)
        held = {uid: answer.held for uid, answer in found.answers.items()}
        return await self._reached(name, held) is None

    async def gather(self, name: str, seats: Seats, uids: Collection[int]) -> None:
        """Have the log here hold what these hold of a plain environment, as far as they answer.

        No position tells of its writes. Raises NoQuorum unless a majority of the acceptors did.
        """
        asked = sorted(seats.quorum.members.union(uids).difference({self._uid}))
        tasks = {asyncio.ensure_future(self._pull(name, uid)): uid for uid in asked}
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=ROUND_S)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        done = {uid for task, uid in tasks.items() if _is_done(task)}
        if not seats.quorum.is_met({self._uid, *done}):
            raise NoQuorum

    async def learn(self, errors: Mapping[int, EnvdError]) -> None:
        """Where an acceptor counts in a later epoch than this node, learn of it."""
        for uid, error in errors.items():
            if error.reason == "STALE_EPOCH" and uid != self._uid:
                with suppress(EnvdError):
                    await self._pull(TOPOLOGY, uid)

    async def _reached(self, name: str, held: Mapping[int, Held]) -> Proposal | None:
        """Have the log here reach as far as any of these; what is then left to finish."""
        uid = farthest(held)
        if self._acceptor.position(name) < held[uid].position:
            await self._pull(name, uid)
        here = self._acceptor.position(name)
        if here < held[uid].position:
            raise NoQuorum
        unfinished = to_finish(held.values(), here)
        place, ballot = self._dead.get(name, (ZERO, NEVER))
        if unfinished is not None and unfinished.place == place and unfinished.ballot < ballot:
            return None
        return unfinished

    def _note_dead(self, name: str, place: Stamp, ballot: Ballot) -> None:
        """What was proposed there under a lower ballot was not chosen, and never will be."""
        self._dead.pop(name, None)
        self._dead[name] = (place, ballot)
        while len(self._dead) > _LEADS_KEPT:
            self._dead.popitem(last=False)

    async def log(self, commit: Commit, encoded: bytes, *, again: bool = False) -> str:
        """Log a commit that was chosen, and return a session token for it.

        `again`: also where the log has it under another name; else the token is "" then. Raises
        what the log refuses with: the commit is chosen all the same.
        """
        name = commit.environment
        head = self._coordinator.drafter.head(name)
        if position(head.environment) != commit.follows and not again:
            return ""
        environment = head.environment.apply(commit)
        after = StoredState(environment, digest.revision(environment, self._digest_key))
        logged, token = self._coordinator.log(commit, after, encoded)
        await logged
        return token

    async def _round(
        self,
        seats: Seats,
        method: str,
        body: bytes,
        local: Callable[[], Awaitable[AnswerT]],
        read: Callable[[bytes], AnswerT],
        *,
        everyone: bool = False,
    ) -> _Round[AnswerT]:
        """Ask all acceptors at once, until enough agree, or no longer can, or it takes too long.

        With `everyone` until all have answered, or it takes too long.
        """

        async def ask(uid: int) -> AnswerT:
            return await local() if uid == self._uid else read(await self._ask(uid, method, body))

        found: _Round[AnswerT] = _Round()
        tasks = {asyncio.ensure_future(ask(uid)): uid for uid in sorted(seats.quorum.members)}
        pending = set(tasks)
        try:
            async with asyncio.timeout(ROUND_S):
                while pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in (each for each in tasks if each in done):  # In order of uids.
                        _take(task, tasks[task], found)
                    lost = found.answers.keys() - found.agreeing() | found.errors.keys()
                    agreed = seats.quorum.is_met(found.agreeing()) and not everyone
                    if agreed or not seats.quorum.can_be_met(lost):
                        break
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return found

    def _next_ballot(self, name: str) -> Ballot:
        mine = self._acceptor.promised(name)
        return max(self._highest.get(name, mine), mine).above(self._uid)

    def _note_highest(self, name: str, ballot: Ballot) -> None:
        known = self._highest.pop(name, ballot)
        self._highest[name] = max(known, ballot)
        while len(self._highest) > _LEADS_KEPT:
            self._highest.popitem(last=False)


def _take(task: asyncio.Future[AnswerT], uid: int, found: _Round[AnswerT]) -> None:
    """Note one acceptor's answer; what is no error of ours ends the round."""
    try:
        found.answers[uid] = task.result()
    except EnvdError as error:
        found.errors[uid] = error


def _is_done(task: asyncio.Future[None]) -> bool:
    """Whether it came to its end; what is no error of ours is raised."""
    if task.cancelled():
        return False
    error = task.exception()
    if error is not None and not isinstance(error, EnvdError):
        raise error
    return error is None


def no_majority(seats: Seats, errors: Mapping[int, EnvdError]) -> Unavailable:
    """The refusal where too few acceptors can be asked."""
    count = len(seats.quorum.members)
    for error in errors.values():
        if error.reason in ("CLOCK_SKEW", "DISK_FULL"):
            return Unavailable(
                f"{error.message}; nothing was done", hint=error.hint, reason=error.reason
            )
    missing = (
        f"no majority of the {count} voters agreed" if count > 1 else "the voter did not agree"
    )
    return Unavailable(
        f"{missing} in time; nothing was done",
        hint="see who is missing: envctl cluster topology; plain environments need no majority",
        reason="NO_QUORUM",
        retry_after_ms=1000,
    )
