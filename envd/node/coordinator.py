"""The writes of one node: what a request means, turned into commits.

A write reads the head of its environment, checks its preconditions, makes one commit and
hands it to the store, all within one turn of the event loop: so preconditions are exact
against every other write of this node, and two writers never build on the same head. The
answer waits for the commit to be durable, and in a cluster for a second copy.

An operation id makes a repeated write answer as the first one did, also while that one is
still on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from envd.core import digest
from envd.core.answers import (
    WriteAnswer,
)
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.errors import Conflict, Unavailable
from envd.core.hlc import HybridClock
from envd.core.metadata import CREATED
from envd.core.names import check_environment, check_variable
from envd.core.requests import (
    DeleteRequest,
    ResolveRequest,
    RollbackRequest,
    WriteRequest,
)
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.node import conflicts, revisions
from envd.node.acknowledging import WANTED_COPIES, Acknowledging
from envd.node.changes import changes_of, differences
from envd.node.checks import check_operation, check_room, check_write
from envd.node.forwarding import Forwarder
from envd.node.operations import AnyWrite, request_digest
from envd.node.reader import Reader, no_environment
from envd.node.views import (
    NodeIdentity,
    iso_time,
    session_token,
)
from envd.node.writing import Confirmation, Writing
from envd.ports import Clock, Logged, OperationResult, Store, StoredState


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
        self._clock = clock
        self._hlc = hlc or HybridClock(node.uid, store.highest_hlc())
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

    async def write_here(self, request: AnyWrite, author: str, may_reveal: bool) -> WriteAnswer:
        """Make a write that another node forwarded: by this node, whatever its clock says."""
        _check(request)
        return await (await self._begin_here(request, author, may_reveal))

    async def _begin(self, request: AnyWrite, author: str, may_reveal: bool) -> Writing:
        _check(request)
        if self._forwarder is not None and self._forwarder.wanted():
            return Writing(await self._forwarder.forward(request, author, may_reveal))
        return await self._begin_here(request, author, may_reveal)

    async def _begin_here(self, request: AnyWrite, author: str, may_reveal: bool) -> Writing:
        """Perform a write, or give the earlier one with its operation id."""
        self._check_refusal()
        if self._acknowledging is not None:
            self._acknowledging.check(request.durability)
        if not request.operation:
            if not self._store.admits():
                await self._admit()
            return self._perform(request, author, may_reveal, b"")
        key = (author, request.operation)
        asked = request_digest(request, self._digest_key)
        earlier = self._earlier(key, asked, request)
        if earlier is None and not self._store.admits():
            await self._admit()
            earlier = self._earlier(key, asked, request)  # its twin may have come in meanwhile
        if earlier is not None:
            return earlier
        self._forget_landed()
        writing = self._perform(request, author, may_reveal, asked)
        self._in_flight[key] = (asked, writing)
        return writing

    async def _admit(self) -> None:
        await self._store.admit()
        self._check_refusal()

    def _check_refusal(self) -> None:
        if self.refuse_writes is not None:
            error = self.refuse_writes
            raise Unavailable(error.message, hint=error.hint, reason=error.reason)

    async def settle(self) -> None:
        """Wait until all writes that were begun are durable, or refused."""
        if self._last_logged is not None:
            settled = asyncio.Event()
            self._last_logged.add_done_callback(lambda _: settled.set())
            await settled.wait()

    def _perform(self, request: AnyWrite, author: str, may_reveal: bool, asked: bytes) -> Writing:
        """Make the commit; a repeat of the request is told by `asked`."""
        match request:
            case WriteRequest():
                return self._write(request, author, may_reveal, asked)
            case DeleteRequest():
                return self._delete(request, author, asked)
            case RollbackRequest():
                return self._rollback(request, author, may_reveal, asked)
            case ResolveRequest():
                return self._resolve(request, author, may_reveal, asked)
            case _:
                assert_never(request)

    def _earlier(self, key: tuple[str, str], asked: bytes, request: AnyWrite) -> Writing | None:
        """The earlier write with this operation id, None where there is none."""
        running = self._in_flight.get(key)
        if running is not None and not running[1].done():
            _check_same(running[0], asked)
            return running[1]
        known = self._store.find_operation(*key)
        if known is None:
            return None
        _check_same(known.request_digest, asked)
        return self._known(request, known)

    def _known(self, request: AnyWrite, known: OperationResult) -> Writing:
        """The answer to a repeat; what came from another node has two copies already."""
        answer = self._answer(request, known.revision, known.stamp)
        if self._acknowledging is None or self._acknowledging.alone:
            return Writing(answer)
        if known.stamp.node_uid not in self._own_uids:
            return Writing(replace(answer, acknowledged=WANTED_COPIES))
        return Writing(answer, self._acknowledging.confirm_earlier(request.durability))

    def _forget_landed(self) -> None:
        """Let go of the oldest writes that are done; the store knows them now, or refused them."""
        while self._in_flight:
            key, (_, writing) = next(iter(self._in_flight.items()))
            if not writing.done():
                return
            del self._in_flight[key]

    def _write(self, request: WriteRequest, author: str, may_reveal: bool, asked: bytes) -> Writing:
        head = self._head(request.environment)
        environment = head.environment
        _check_revision(head, request.if_revision)
        if request.must_exist and not environment.exists:
            raise no_environment(request.environment)
        if request.must_not_exist and environment.exists:
            raise Conflict(
                f"{request.environment} exists already",
                hint=f"envctl get {request.environment}",
                reason="ALREADY_EXISTS",
            )
        self._check_layers(request)
        changes = changes_of(environment, request, may_reveal)
        if request.must_not_exist:
            now = iso_time(self._clock.wall_ms())
            overwrites = environment.overwritten_by(Kind.METADATA, CREATED)
            changes = (*changes, Change(Kind.METADATA, CREATED, now, False, overwrites))
        if not changes and self._is_durable(head):
            return Writing(self._answer(request, head.revision, environment.highest_stamp))
        return self._commit(head, changes, request, author, asked)

    def _delete(self, request: DeleteRequest, author: str, asked: bytes) -> Writing:
        head = self._head(request.environment)
        environment = head.environment
        if not environment.exists:
            raise no_environment(request.environment)
        _check_revision(head, request.if_revision)
        changes = tuple(
            Change(kind, name, None, entry.secret, entry.stamp)
            for kind in Kind
            for name, entry in environment.live(kind)
        )
        return self._commit(head, changes, request, author, asked, deletes=True)

    def _rollback(
        self, request: RollbackRequest, author: str, may_reveal: bool, asked: bytes
    ) -> Writing:
        head = self._head(request.environment)
        _check_revision(head, request.if_revision)
        target = revisions.recorded_state(
            self._store, request.environment, request.to, self._digest_key
        )
        changes = differences(head.environment, target.environment, request.variables, may_reveal)
        if not changes and self._is_durable(head):
            stamp = head.environment.highest_stamp
            return Writing(self._answer(request, head.revision, stamp))
        message = request.message or f"rollback to {request.to}"
        return self._commit(head, tuple(changes), request, author, asked, message=message)

    def _resolve(
        self, request: ResolveRequest, author: str, may_reveal: bool, asked: bytes
    ) -> Writing:
        head = self._head(request.environment)
        _check_revision(head, request.if_revision)
        settled = conflicts.settle(self._store, head.environment, request, may_reveal=may_reveal)
        return self._commit(head, settled.changes, request, author, asked, resolves=settled.ids)

    def _commit(
        self,
        head: StoredState,
        changes: Sequence[Change],
        request: AnyWrite,
        author: str,
        asked: bytes,
        *,
        deletes: bool = False,
        message: str = "",
        resolves: tuple[str, ...] = (),
    ) -> Writing:
        """Stamp the changes and log them.

        No await stands between reading the head and the append.
        """
        before = head.environment
        now_ms = self._clock.wall_ms()
        stamp = self._hlc.stamp_above(before.highest_stamp, now_ms)
        environment = before.apply_changes(stamp, changes, deletes=deletes)
        check_room(before, environment)
        after = StoredState(environment, digest.revision(environment, self._digest_key))
        commit = Commit(
            environment=before.name,
            stamp=stamp,
            changes=changes,
            deletes=deletes,
            author=author,
            time_ms=now_ms,
            message=message or request.message,
            operation=request.operation,
            node=self.node.name,
            region=self.node.region,
            revision=after.revision,
            request_digest=asked,
            resolves=resolves,
        )
        partition = partition_of(before.name)
        seq = self._store.last_seq(partition, self.node.uid) + 1
        logged = self._store.append(LogRecord(partition, self.node.uid, seq, commit), after)
        self._last_logged = logged
        token = session_token(partition, self.node.uid, seq)
        confirmation: Confirmation = logged
        if self._acknowledging is not None:
            confirmation = self._acknowledging.confirm(logged, request.durability)
        return Writing(_written(request, commit.revision, commit.stamp, token), confirmation)

    def _is_durable(self, head: StoredState) -> bool:
        """Tell whether `head` is what readers see, with no commit on its way.

        Where one is, a write that changes nothing still makes a commit, an empty one: it is
        answered when what it found is durable, and refused if that is.
        """
        visible = self._store.visible(head.environment.name)
        return head.environment.highest_stamp == (
            visible.environment.highest_stamp if visible else ZERO
        )

    def _answer(self, request: AnyWrite, revision: bytes, stamp: Stamp) -> WriteAnswer:
        """The answer to a write that found all done; its token names what was found.

        That is the last record in its partition of the node that gave the stamp.
        """
        partition, origin = partition_of(request.environment), stamp.node_uid
        if origin in self._own_uids:  # What an earlier self stamped was logged again.
            origin = self.node.uid
        token = session_token(partition, origin, self._store.last_seq(partition, origin))
        return _written(request, revision, stamp, token)

    def _head(self, name: str) -> StoredState:
        return self._store.head(name) or self._nothing(name)

    def _nothing(self, name: str) -> StoredState:
        empty = Environment(name)
        return StoredState(empty, digest.revision(empty, self._digest_key))


def _check(request: AnyWrite) -> None:
    """Raise InvalidRequest where a write can't be meant."""
    match request:
        case WriteRequest():
            check_write(request)
        case ResolveRequest():
            conflicts.check_resolve(request)
        case DeleteRequest() | RollbackRequest():
            check_environment(request.environment)
            check_operation(request.message, request.operation)
            if isinstance(request, RollbackRequest):
                for variable in request.variables:
                    check_variable(variable)
        case _:
            assert_never(request)


def _written(request: AnyWrite, revision: bytes, stamp: Stamp, token: str) -> WriteAnswer:
    precondition = "local" if request.if_revision else ""
    return WriteAnswer(
        request.environment, revision.hex(), stamp.hex(), token, precondition=precondition
    )


def _check_same(earlier: bytes, asked: bytes) -> None:
    if earlier != asked:
        raise Conflict(
            "the operation id was used for another write already; nothing was changed",
            hint="use a new operation id for a new operation",
            reason="OPERATION_REUSED",
        )


def _check_revision(head: StoredState, wanted: str) -> None:
    if wanted and not revisions.matches(head.revision, wanted):
        digits = digest.SHORT_REVISION
        raise Conflict(
            f"{head.environment.name} is at revision {head.revision.hex()[:digits]}, "
            f"not at {wanted[:digits]}; nothing was changed",
            hint="read it again, then decide whether your change still fits",
            reason="STALE_REVISION",
        )
