"""The writes of serial environments: drafted here, chosen by a majority, logged like any other.

Whoever is asked hands a write to the first acceptor that can be reached, so that one node proposes
and others don't bid against it. That one keeps the promise that a majority gave it, and then each
write is one round trip: a commit is drafted upon the state that the log holds, a majority accepts
it, and it goes into the log of this node, whose streams bring it to all. Where another bid more, or
some did not answer, a majority is asked for its promise anew, what it may have chosen already is
finished first, and the write is drafted again upon what is there then.

A write that is refused, or changes nothing, says so of a state that is not older than the question:
a majority is asked how things stand before.

What was proposed and got no majority in time may be chosen later: that is OutcomeUnknown. With an
operation id it can be asked again, of any node, and happens once: before a commit is drafted
everything that was chosen before is in the log here, and with it every operation id. A write that
comes without one is given one here, since it may have to be handed to one node after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from envd.core.answers import WriteAnswer
from envd.core.chain import is_serial, position
from envd.core.commit import Commit
from envd.core.errors import EnvdError, OutcomeUnknown, Unavailable
from envd.core.paxos import Proposal
from envd.core.requests import Durability, Put, WriteRequest
from envd.core.stamp import Stamp
from envd.node.acceptor import AcceptorService
from envd.node.acknowledging import WANTED_COPIES
from envd.node.calls import UNDECIDED
from envd.node.coordinator import Coordinator, check_same
from envd.node.drafting import Draft, Wish, check_request
from envd.node.forwarding import packed, unpacked_answer
from envd.node.operations import AnyWrite, request_digest
from envd.node.proposing import Ask, NoQuorum, Proposer, Seats, no_majority
from envd.node.writing import Writing
from envd.ports import Rng, Store, StoredState
from envd.wire import records

FORWARD: Final = "serial.write"
DECIDES_S: Final = 5.0
"""How long a write tries to be chosen, its turn included."""
ANSWERS_S: Final = 2.0
"""How long the node that a write was handed to is waited for before another is asked."""
HANDED_S: Final = 1.5
"""How long that node tries, so that it is known what became of the write before another does."""
_OWN_OPERATION: Final = "~"
_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.5
_FINISHES_AFTER: Final = 3
"""So often a read waits a moment for what is left open before it finishes that itself."""


class Serial:
    """Writes serial environments: `write` for callers, `write_here` for those of other nodes."""

    def __init__(
        self,
        uid: int,
        store: Store,
        coordinator: Coordinator,
        acceptor: AcceptorService,
        proposer: Proposer,
        rng: Rng,
        *,
        ask: Ask,
        seats: Callable[[str], Seats],
        preferred: Callable[[str], Sequence[int]],
        reached: Callable[[], Collection[int]],
        digest_key: bytes,
        clock_is_wrong: Callable[[], bool],
    ) -> None:
        """`seats` tells who decides about an environment, or raises Unavailable; `preferred` whom
        to hand its writes to, in order: up to this node itself, or to the end; `reached` which
        storage nodes can be reached."""
        self._uid = uid
        self._ask = ask
        self._preferred = preferred
        self._digest_key = digest_key
        self._clock_is_wrong = clock_is_wrong
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        self.store = store
        self.coordinator = coordinator
        self.acceptor = acceptor
        self.proposer = proposer
        self.rng = rng
        self.seats = seats
        self.reached = reached

    async def write(self, wish: Wish) -> WriteAnswer:
        """Have a write chosen, by the node that is to propose it.

        Raises what the write is refused with, Unavailable where no majority can be reached and
        nothing was done, OutcomeUnknown where it may be chosen yet.
        """
        wish = self._named(wish)
        handed_over = False
        try:
            for uid in self._preferred(wish.request.environment):
                if uid == self._uid:
                    break
                try:
                    return await self._hand_over(uid, wish)
                except OutcomeUnknown as error:
                    if error.reason != OutcomeUnknown.default_reason:
                        raise  # It was made, and lacks a second copy.
                    handed_over = True
                except Unavailable as error:
                    handed_over = handed_over or error.reason in UNDECIDED
            return await self._write_here(wish, DECIDES_S)
        except Unavailable as error:
            if not handed_over:
                raise
            raise OutcomeUnknown(
                "the write was handed to another node, and nobody knows what became of it",
                hint=_look(wish.request.environment),
            ) from error

    def _named(self, wish: Wish) -> Wish:
        """The same write with an operation id, so that it may be asked of several nodes."""
        if wish.request.operation:
            return wish
        operation = f"{_OWN_OPERATION}{self.rng.token_bytes(8).hex()}"
        return replace(wish, request=replace(wish.request, operation=operation))

    async def _hand_over(self, uid: int, wish: Wish) -> WriteAnswer:
        """What that node answers; Unavailable or OutcomeUnknown: the next one is to be tried."""
        try:
            async with asyncio.timeout(ANSWERS_S):
                body = packed(wish.request, wish.author, wish.may_reveal)
                return unpacked_answer(await self._ask(uid, FORWARD, body))
        except TimeoutError:
            raise Unavailable("the proposer is silent", reason="PEER_TIMEOUT") from None

    async def write_here(self, request: AnyWrite, author: str, may_reveal: bool) -> WriteAnswer:
        """Have a write chosen that another node handed over."""
        check_request(request)
        self.coordinator.check_refusal()
        if self._clock_is_wrong():
            raise Unavailable(
                "this node's clock is over a minute ahead of all others; nothing was done",
                hint="set the clocks of the nodes right (NTP)",
                reason="CLOCK_SKEW",
            )
        return await self._write_here(Wish(request, author, may_reveal), HANDED_S)

    async def propose(self, request: WriteRequest, author: str) -> WriteAnswer:
        """Have a write of the system's own chosen, proposed by this node.

        It waits for no second copy, so that a change of voters never hangs on a node that is away.
        """
        request = replace(request, durability=Durability.LOCAL)
        return await self._write_here(Wish(request, author, may_reveal=True), DECIDES_S)

    async def reopen(self, name: str, put: Put, author: str) -> None:
        """Begin the chain of an environment anew in the next era, without anybody's consent.

        For when those whose consent it takes are lost.
        """
        request = WriteRequest(name, (put,), message="recovered by an operator")
        async with self._turn(name):
            drafter = self.coordinator.drafter
            draft = drafter.reopening(Wish(request, author, True), drafter.head(name))
            self.proposer.drop_lead(name)
            logged, _ = self.coordinator.log(draft.commit, draft.after)
            await logged

    async def _write_here(self, wish: Wish, within_s: float) -> WriteAnswer:
        """Have a write chosen in this time, that of the writes before it included."""
        if wish.request.operation and not wish.asked:
            asked = request_digest(wish.request, self._digest_key)
            wish = replace(wish, asked=asked)
        attempt = _Attempt(self, wish)
        try:
            async with asyncio.timeout(within_s), self._turn(wish.request.environment):
                answer = await attempt.run()
        except TimeoutError:
            raise attempt.given_up() from None
        return await answer if isinstance(answer, Writing) else answer

    async def confirm(self, name: str) -> None:
        """See to it that the log here holds, durably, all that was chosen before the call.

        Raises Unavailable where no majority can be reached.
        """
        failed, turn = NoQuorum(), 0
        try:
            async with asyncio.timeout(DECIDES_S):
                while True:
                    try:
                        if await self._is_settled(name, finishes=turn >= _FINISHES_AFTER):
                            break
                    except NoQuorum as error:
                        failed = error
                        await self.proposer.learn(failed.errors)
                    turn += 1
                    await self.pause(turn)
        except TimeoutError:
            raise no_majority(self.seats(name), failed.errors) from None
        await self.acceptor.becomes_visible(name, self.acceptor.position(name))

    async def _is_settled(self, name: str, *, finishes: bool) -> bool:
        """Whether the log here holds all that was chosen; `finishes` what else would be left.

        Mostly its own proposer is about to: to bid more would only have it ask anew.
        """
        seats = self.seats(name)
        if await self.proposer.look(name, seats):
            return True
        if finishes:
            async with self._turn(name):
                await self.proposer.lead(name, seats)
        return finishes

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """One write of an environment at a time."""
        lock, users = self._turns.get(name, (asyncio.Lock(), 0))
        self._turns[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(name)
            if users > 1:
                self._turns[name] = (lock, users - 1)

    async def pause(self, turn: int) -> None:
        """Let who bid more have its way: a random time, twice as long each time."""
        longest = min(_PAUSE_S * 2**turn, _LONGEST_PAUSE_S)
        share = int.from_bytes(self.rng.token_bytes(4)) / (1 << 32)
        await asyncio.sleep(longest * (0.5 + share / 2))


class _Attempt:
    """One write on its way to being chosen.

    `_tried` is the draft that was proposed and of which nobody knows yet whether it is chosen.
    `_fresh`: the log here holds all that was chosen before the write was asked for. `_gathered`:
    and what other nodes hold of plain writes, which what begins a chain must state again.
    """

    def __init__(self, serial: Serial, wish: Wish) -> None:
        self._serial = serial
        self._wish = wish
        self._name = wish.request.environment
        self._tried: tuple[Draft, bytes] | None = None
        self._fresh = False
        self._gathered = False
        self._failed: NoQuorum | None = None

    async def run(self) -> WriteAnswer | Writing:
        """Try until it is chosen, or refused; a Writing where enough nodes are to have it yet.

        That is logged already, however long it takes.
        """
        try:
            return await self._decide()
        except EnvdError as error:
            if self._tried is None:
                raise
            raise self.given_up() from error

    async def _decide(self) -> WriteAnswer | Writing:
        serial, turn = self._serial, 0
        while True:
            seats = serial.seats(self._name)
            try:
                answer = await self._step(seats)
            except NoQuorum as failed:
                serial.proposer.drop_lead(self._name)
                self._failed = failed
                await serial.proposer.learn(failed.errors)
                turn += 1
                await serial.pause(turn)
            else:
                if answer is not None:
                    return answer

    async def _step(self, seats: Seats) -> WriteAnswer | Writing | None:
        """Do the next thing; None: look again at how things stand."""
        serial, name = self._serial, self._name
        head = serial.coordinator.drafter.head(name)
        known = await self._landed(head)
        if known is not None:
            return known
        ballot = serial.proposer.ballot(name, seats)
        if ballot is None:
            await serial.proposer.lead(name, seats)
            self._fresh = True
            return None
        if self._tried is None:
            head = serial.coordinator.drafter.head(name)
            if not (self._gathered or is_serial(head.environment)):
                await serial.proposer.gather(name, seats, serial.reached())
                self._gathered = True
                return None
            answer = await self._draft(head, seats)
            if answer is not None or self._tried is None:
                return answer
        draft, encoded = self._tried
        proposal = Proposal(ballot, draft.commit.follows, encoded)
        copies = await serial.proposer.choose(name, seats, proposal)
        answer = await self._logged(draft, encoded, copies)
        serial.proposer.keep_lead(name, ballot, seats)
        return answer

    async def _landed(self, head: StoredState) -> WriteAnswer | Writing | None:
        """The answer where the write is chosen already, by this try, or an earlier one."""
        serial, request = self._serial, self._wish.request
        if self._tried is not None:
            draft, encoded = self._tried
            if position(head.environment) > draft.commit.follows:
                if await self._is_recorded(draft.commit):
                    return await self._logged(draft, encoded, 1)
                self._tried = None  # Another was chosen there; this one never will be.
        if not request.operation or self._tried is not None:
            return None
        known = serial.store.find_operation(self._wish.author, request.operation)
        if known is None:
            return None
        check_same(known.request_digest, self._wish.asked)
        await serial.acceptor.becomes_visible(self._name, position(head.environment))
        return self._exactly(
            serial.coordinator.answer(request, known.revision, known.stamp), copies=1
        )

    async def _is_recorded(self, commit: Commit) -> bool:
        """Whether a commit stands in the history here, now that what follows its place does."""
        serial, name = self._serial, self._name
        await serial.acceptor.becomes_visible(name, serial.acceptor.position(name))
        above = Stamp(commit.stamp.era, commit.stamp.hlc + 1, 0)
        return commit.stamp in [each.stamp for each in serial.store.commits(name, above, 1)]

    async def _draft(self, head: StoredState, seats: Seats) -> WriteAnswer | Writing | None:
        """Draft the write; where there is nothing to propose, the answer, once that is certain."""
        serial, request = self._serial, self._wish.request
        try:
            draft = serial.coordinator.draft(self._wish, head)
        except EnvdError:
            if self._fresh:
                raise
            await self._freshen(seats)
            return None
        if draft is not None and draft.is_chained:
            self._tried = (draft, records.encode_commit(draft.commit))
            return None
        if not self._fresh:
            await self._freshen(seats)
            return None
        if draft is not None:  # The chain was ended: it is plain by now.
            return serial.coordinator.finish(request, draft)
        await serial.acceptor.becomes_visible(self._name, position(head.environment))
        answer = serial.coordinator.answer(request, head.revision, head.environment.highest_stamp)
        return self._exactly(answer, copies=1)

    async def _freshen(self, seats: Seats) -> None:
        """Have the log hold all that was chosen up to now, so that what it says is certain."""
        if await self._serial.proposer.look(self._name, seats):
            self._fresh = True
        else:
            self._serial.proposer.drop_lead(self._name)

    async def _logged(self, draft: Draft, encoded: bytes, copies: int) -> WriteAnswer | Writing:
        """The answer to what was chosen; where one voter did that, it waits for a second copy."""
        serial, commit = self._serial, draft.commit
        token = await serial.proposer.log(commit, encoded, again=True)
        answer = WriteAnswer(self._name, commit.revision.hex(), commit.stamp.hex(), token)
        answer = self._exactly(answer, copies=copies)
        if copies >= WANTED_COPIES:
            return answer
        return serial.coordinator.with_copies(self._wish.request, answer)

    def _exactly(self, answer: WriteAnswer, *, copies: int) -> WriteAnswer:
        exact = "exact" if self._wish.request.if_revision else ""
        return replace(answer, acknowledged=copies, precondition=exact)

    def given_up(self) -> EnvdError:
        """What is to be told where it is not tried any longer."""
        if self._tried is not None:
            return OutcomeUnknown(
                "the write was proposed, and no majority confirmed it in time",
                hint=_look(self._name),
            )
        errors = self._failed.errors if self._failed is not None else {}
        return no_majority(self._serial.seats(self._name), errors)


def _look(name: str) -> str:
    return f"repeat it with the same --operation ID, or look: envctl history {name}"
