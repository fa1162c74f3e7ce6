"""The writes of one node: what a request means, turned into commits.

A write reads the head of its environment, checks its preconditions, makes one commit and
hands it to the store, all within one turn of the event loop: so preconditions are exact
against every other write of this node, and two writers never build on the same head. The
answer waits for the commit to be durable, and in a cluster for a second copy.

An operation id makes a repeated write answer as the first one did, also while that one is
still on its way.

Of a serial environment the commits are chosen by a majority: those writes are left to `chained`.
Where this node does not hold the environment, `routing` has one that does make the write; where
none can be reached it is made here, blind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from envd.core.answers import WriteAnswer
from envd.core.chain import is_serial
from envd.core.commit import Commit, LogRecord
from envd.core.errors import Conflict, Unavailable, Unsupported
from envd.core.floor import salvaged
from envd.core.hlc import HybridClock
from envd.core.names import check_environment
from envd.core.requests import (
    DeleteRequest,
    ResolveRequest,
    RollbackRequest,
    WriteRequest,
)
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.node.acknowledging import WANTED_COPIES, Acknowledging
from envd.node.checks import check_write
from envd.node.drafting import SALVAGER, Draft, Drafter, Wish, check_request, wants_serial
from envd.node.forwarding import Forwarder
from envd.node.operations import AnyWrite, request_digest
from envd.node.reader import Reader
from envd.node.routing import Routing
from envd.node.views import NodeIdentity, session_token
from envd.node.writing import Confirmation, Writing
from envd.ports import Clock, Logged, OperationResult, Store, StoredState

_LOOKED_AT: Final = 256


class Coordinator(Reader):
    """The reads and writes of one node over its store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: NodeIdentity,
        digest_key: bytes,
        *,
        hlc: HybridClock | None = None,
        acknowledging: Acknowledging | None = None,
        forwarder: Forwarder | None = None,
        own_uids: frozenset[int] = frozenset(),
    ) -> None:
        """`hlc` is shared with what takes in other nodes' commits; `acknowledging` tells when
        a write has copies enough, None: once it is durable here; `forwarder` takes the writes
        that another node is to make; `own_uids` are those that this node ever had."""
        super().__init__(store, node, digest_key)
        self.drafter = Drafter(
            store, clock, node, digest_key, hlc or HybridClock(node.uid, store.highest_hlc())
        )
        self.chained: Callable[[Wish], Awaitable[WriteAnswer]] | None = None
        self.confirmed: Callable[[str], Awaitable[None]] | None = None
        self.routing: Routing | None = None
        self.layers_checked: Callable[[WriteRequest], Awaitable[None]] | None = None
        self._acknowledging = acknowledging
        self._forwarder = forwarder
        self._own_uids = own_uids | {node.uid}
        self._last_logged: Logged | None = None
        self.refuse_writes: Unavailable | None = None
        self._in_flight: dict[tuple[str, str], tuple[bytes, Writing]] = {}

    # -- writing -------------------------------------------------------------------

    async def write(
        self, request: WriteRequest, author: str, *, may_reveal: bool = True
    ) -> WriteAnswer:
        """Commit puts and unsets at once, or raise with nothing done.

        Raises InvalidRequest, LimitExceeded, NotFound, Conflict, Denied (an explicit
        `secret: false` without the right to reveal), Unavailable, OutcomeUnknown.
        """
        return await (await self.begin_write(request, author, may_reveal=may_reveal))

    async def write_seeing(self, request: WriteRequest, author: str) -> WriteAnswer:
        """Commit as `write` does, and never blind: Unavailable where no holder is reached."""
        return await (await self._begin(request, author, True, may_be_blind=False))

    async def write_own(self, request: WriteRequest) -> WriteAnswer:
        """Write an environment of the system's own, which callers neither write nor see.

        Every storage node holds it. Raises Unavailable where this node's clock is wrong.
        """
        check_write(request, system=True)
        self.check_clock()
        return await (await self._begin_here(request, SALVAGER, True))

    async def begin_write(
        self, request: WriteRequest, author: str, *, may_reveal: bool = True
    ) -> Writing:
        """Commit as `write` does, and return before it is durable.

        Writes begun one after the other are applied in this order. The caller must await what
        it gets, which answers or raises as `write` does, or `forget` it.
        """
        return await self._begin(request, author, may_reveal)

    async def delete(self, request: DeleteRequest, author: str) -> WriteAnswer:
        """Delete an environment; raises NotFound where it does not exist."""
        return await (await self._begin(request, author, True))

    async def rollback(
        self, request: RollbackRequest, author: str, *, may_reveal: bool = True
    ) -> WriteAnswer:
        """Write an earlier state again; where nothing differs, no commit is made."""
        return await (await self._begin(request, author, may_reveal))

    async def resolve(
        self, request: ResolveRequest, author: str, *, may_reveal: bool = True
    ) -> WriteAnswer:
        """Settle the conflicts of one name; raises NotFound where there are none."""
        return await (await self._begin(request, author, may_reveal))

    async def prepare_strong(self, name: str) -> None:
        """See to it that a read of an environment which follows shows all that was chosen before.

        Raises Unavailable where no majority can be reached, Unsupported for a plain environment,
        whose writes no majority knows of; a node that is alone has all there is of those.
        """
        environment = self.drafter.head(check_environment(name)).environment
        alone = self._acknowledging is not None and self._acknowledging.alone
        if self.confirmed is None or (alone and not is_serial(environment)):
            return
        await self.confirmed(name)
        environment = self.drafter.head(name).environment
        if environment.exists and not is_serial(environment):
            raise Unsupported(
                f"{name} is a plain environment, and strong reads are for serial ones",
                hint="read it as this node has it, without a level or with a session token, or "
                f"make it serial: envctl settings {name} mode=serial",
                reason="NOT_SERIAL",
            )

    async def write_here(self, request: AnyWrite, author: str, may_reveal: bool) -> WriteAnswer:
        """Make a write that another node forwarded: by this node, whatever its clock says.

        Where it holds the environment; who forwards may not know who does.
        """
        check_request(request)
        if self.routing is not None and not self.routing.whole:
            return await (await self._begin_where_it_is_held(request, author, may_reveal))
        return await (await self._begin_here(request, author, may_reveal))

    async def write_held(self, request: AnyWrite, author: str, may_reveal: bool) -> WriteAnswer:
        """Make a write to an environment that this node holds, and the one that asks does not.

        That one has looked at what it extends. Raises Unavailable where this node's clock is wrong.
        """
        check_request(request)
        self.check_clock()
        return await (await self._begin_here(request, author, may_reveal))

    async def _begin(
        self, request: AnyWrite, author: str, may_reveal: bool, *, may_be_blind: bool = True
    ) -> Writing:
        check_request(request)
        if self.routing is not None and not self.routing.whole:
            return await self._begin_where_it_is_held(
                request, author, may_reveal, may_be_blind=may_be_blind
            )
        if self._forwarder is not None and self._forwarder.wanted():
            return Writing(await self._forwarder.forward(request, author, may_reveal))
        return await self._begin_here(request, author, may_reveal)

    @property
    def hands_over(self) -> bool:
        """Whether other nodes are to make this one's writes: its clock is wrong, for one."""
        return self._forwarder is not None and self._forwarder.wanted()

    def check_clock(self) -> None:
        """Raise Unavailable where this node is to stamp nothing."""
        if self.hands_over:
            raise Unavailable(
                "this node takes no writes: its clock is over a minute ahead of all others, or it "
                "was away for long; nothing was done",
                hint="ask another node; set the clocks of the nodes right (NTP)",
                reason="CLOCK_SKEW",
            )

    async def _begin_where_it_is_held(
        self, request: AnyWrite, author: str, may_reveal: bool, *, may_be_blind: bool = True
    ) -> Writing:
        """Perform a write, here or by another node that holds the environment.

        Where there is none to be reached, by this one, whatever it holds and its clock says.
        """
        routing, name = self.routing, request.environment
        assert routing is not None
        self.check_refusal()
        if isinstance(request, WriteRequest) and self.layers_checked is not None:
            await self.layers_checked(request)
        if routing.writes(name) and not self.hands_over and not routing.is_handing(name):
            return await self._begin_here(request, author, may_reveal)

        async def alone() -> Writing:
            blind = not routing.writes(name)
            if blind and not may_be_blind:
                raise routing.no_holder(name)
            return await self._begin_here(request, author, may_reveal, blind=blind)

        return routing.hand_over(request, author, may_reveal, alone)

    async def _begin_here(
        self, request: AnyWrite, author: str, may_reveal: bool, *, blind: bool = False
    ) -> Writing:
        """Perform a write, or give the earlier one with its operation id."""
        self.check_refusal()
        if self._acknowledging is not None:
            self._acknowledging.check(request.durability, partition_of(request.environment))
        if not request.operation:
            if not self._store.admits():
                await self.admit()
            return await self._perform(Wish(request, author, may_reveal, blind=blind))
        key = (author, request.operation)
        asked = request_digest(request, self._digest_key)
        earlier = self._earlier(key, asked, request)
        if earlier is None and not self._store.admits():
            await self.admit()
            earlier = self._earlier(key, asked, request)  # its twin may have come in meanwhile
        if earlier is not None:
            return earlier
        self._forget_landed()
        writing = await self._perform(Wish(request, author, may_reveal, asked, blind))
        self._in_flight[key] = (asked, writing)
        return writing

    async def admit(self) -> None:
        """Wait until there is room for a record; raises Unavailable where none is taken now."""
        await self._store.admit()
        self.check_refusal()

    def check_refusal(self) -> None:
        """Raise Unavailable where this node takes no writes now."""
        if self.refuse_writes is not None:
            error = self.refuse_writes
            raise Unavailable(error.message, hint=error.hint, reason=error.reason)

    async def salvage(self, zombie: Commit) -> None:
        """Put on record, durably, what a commit that came too late wrote; again, it does nothing.

        Raises Unavailable where this node takes no writes.
        """
        late = salvaged(zombie)
        if late is None:
            return
        operation = f"salvage-{late.stamp.hex()}"
        await self.admit()
        if self._is_salvaged(late, operation):
            await self.settle()
        if not self._is_salvaged(late, operation):
            draft = self.drafter.salvaging(late, operation)
            logged, _ = self.log(draft.commit, draft.after)
            await logged

    def _is_salvaged(self, late: Commit, operation: str) -> bool:
        if self._store.find_operation(SALVAGER, operation) is not None:
            return True
        rows = self._store.commits(late.environment, None, _LOOKED_AT)
        while rows:
            if any(
                each.salvages is not None and each.salvages.stamp == late.stamp for each in rows
            ):
                return True
            rows = self._store.commits(late.environment, rows[-1].stamp, _LOOKED_AT)
        return False

    async def settle(self) -> None:
        """Wait until all writes that were begun are durable, or refused."""
        if self._last_logged is not None:
            settled = asyncio.Event()
            self._last_logged.add_done_callback(lambda _: settled.set())
            await settled.wait()

    async def _perform(self, wish: Wish) -> Writing:
        """Make the commit and log it; where that takes a majority, leave it to `chained`.

        No await stands between reading the head and the append.
        """
        request = wish.request
        head = self.drafter.head(request.environment)
        if wish.blind:
            return self.finish(request, self.drafter.blind(wish, head))
        if not is_serial(head.environment) and not wants_serial(request):
            draft = self.draft(wish, head)
            if draft is None and self.is_durable(head):
                return Writing(self.answer(request, head.revision, head.environment.highest_stamp))
            draft = draft or self.drafter.empty(wish, head)
            if not draft.is_chained:
                return self.finish(request, draft)
        if self.chained is None:
            raise Unsupported("this node has no serial environments", hint="keep mode=lww")
        return Writing(await self.chained(wish))

    def draft(self, wish: Wish, head: StoredState) -> Draft | None:
        """What a wish means upon `head`; see Drafter.draft.

        What it extends is looked at here only where this node has all of that.
        """
        draft = self.drafter.draft(wish, head)
        whole = self.routing is None or self.routing.whole
        if whole and isinstance(wish.request, WriteRequest):
            self._check_layers(wish.request)
        return draft

    def _earlier(self, key: tuple[str, str], asked: bytes, request: AnyWrite) -> Writing | None:
        """The earlier write with this operation id, None where there is none."""
        running = self._in_flight.get(key)
        if running is not None and not running[1].done():
            check_same(running[0], asked)
            return running[1]
        known = self._store.find_operation(*key)
        if known is None:
            return None
        check_same(known.request_digest, asked)
        return self._known(request, known)

    def _known(self, request: AnyWrite, known: OperationResult) -> Writing:
        """The answer to a repeat; what came from another node has two copies already."""
        answer = self.answer(request, known.revision, known.stamp)
        alone = self._acknowledging is None or self._acknowledging.alone
        if not alone and known.stamp.node_uid not in self._own_uids:
            return Writing(replace(answer, acknowledged=WANTED_COPIES))
        return self.with_copies(request, answer)

    def _forget_landed(self) -> None:
        """Let go of the oldest writes that are done; the store knows them now, or refused them."""
        while self._in_flight:
            key, (_, writing) = next(iter(self._in_flight.items()))
            if not writing.done():
                return
            del self._in_flight[key]

    def finish(self, request: AnyWrite, draft: Draft) -> Writing:
        """Log a draft of the present head, and answer once it has copies enough."""
        logged, token = self.log(draft.commit, draft.after)
        confirmation: Confirmation = logged
        if self._acknowledging is not None:
            partition = partition_of(request.environment)
            confirmation = self._acknowledging.confirm(logged, request.durability, partition)
        commit = draft.commit
        return Writing(_written(request, commit.revision, commit.stamp, token), confirmation)

    def with_copies(self, request: AnyWrite, answer: WriteAnswer) -> Writing:
        """The answer to a write that this node logged durably, once it has copies enough."""
        if self._acknowledging is None or self._acknowledging.alone:
            return Writing(answer)
        partition = partition_of(request.environment)
        return Writing(answer, self._acknowledging.confirm_earlier(request.durability, partition))

    def log(self, commit: Commit, after: StoredState, encoded: bytes = b"") -> tuple[Logged, str]:
        """Log a commit to the present head as a record of this node; also its session token.

        `encoded` are its stored bytes, where they are known.
        """
        uid, partition = self.node.uid, partition_of(commit.environment)
        seq = self._store.last_seq(partition, uid) + 1
        logged = self._store.append(LogRecord(partition, uid, seq, commit), after, encoded)
        self._last_logged = logged
        return logged, session_token(partition, uid, seq)

    def is_durable(self, head: StoredState) -> bool:
        """Tell whether `head` is what readers see, with no commit on its way.

        Where one is, a write that changes nothing still makes a commit, an empty one: it is
        answered when what it found is durable, and refused if that is.
        """
        visible = self._store.visible(head.environment.name)
        return head.environment.highest_stamp == (
            visible.environment.highest_stamp if visible else ZERO
        )

    def answer(self, request: AnyWrite, revision: bytes, stamp: Stamp) -> WriteAnswer:
        """The answer to a write that found all done; its token names what was found.

        That is the last record in its partition of the node that gave the stamp.
        """
        partition, origin = partition_of(request.environment), stamp.node_uid
        if origin in self._own_uids:  # What an earlier self stamped was logged again.
            origin = self.node.uid
        token = session_token(partition, origin, self._store.last_seq(partition, origin))
        return _written(request, revision, stamp, token)


def _written(request: AnyWrite, revision: bytes, stamp: Stamp, token: str) -> WriteAnswer:
    precondition = "local" if request.if_revision else ""
    return WriteAnswer(
        request.environment, revision.hex(), stamp.hex(), token, precondition=precondition
    )


def check_same(earlier: bytes, asked: bytes) -> None:
    """Raise Conflict where an operation id comes again with another request."""
    if earlier != asked:
        raise Conflict(
            "the operation id was used for another write already; nothing was changed",
            hint="use a new operation id for a new operation",
            reason="OPERATION_REUSED",
        )
