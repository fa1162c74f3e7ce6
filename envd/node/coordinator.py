"""Reads and writes of one node: what a request means, turned into commits and views.

A write reads the head of its environment, checks its preconditions, makes one commit and
hands it to the store, all within one turn of the event loop: so preconditions are exact
against every other write of this node, and two writers never build on the same head. The
answer waits for the commit to be durable.

An operation id makes a repeated write answer as the first one did, also while that one is
still on its way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from envd.core import digest
from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    ExportedEnvironment,
    HistoryPage,
    ListPage,
    WriteAnswer,
)
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from envd.core.hlc import HybridClock
from envd.core.layers import EXTENDS, bases_of, layers
from envd.core.metadata import CREATED
from envd.core.names import check_environment, check_prefix, check_variable
from envd.core.requests import (
    ConflictsRequest,
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    PutColumns,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    WriteRequest,
)
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.node import conflicts, revisions
from envd.node.acknowledging import Acknowledging
from envd.node.changes import changes_of, differences
from envd.node.checks import check_operation, check_room, check_write
from envd.node.forwarding import Forwarder
from envd.node.operations import AnyWrite, request_digest
from envd.node.rendering import Renderings
from envd.node.views import (
    NodeIdentity,
    commit_view,
    environment_view,
    exported_view,
    iso_time,
    read_session_token,
    resolved_view,
    session_token,
)
from envd.node.writing import Confirmation, Writing
from envd.ports import Clock, Store, StoredState

MAX_LIST_PAGE = 10_000
MAX_HISTORY_PAGE = 1_000


class Coordinator:
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
    ) -> None:
        """`hlc` is shared with what takes in other nodes' commits; `acknowledging` tells when
        a write has copies enough, None: once it is durable here; `forwarder` takes the writes
        that another node is to make."""
        self._store = store
        self._clock = clock
        self.node = node
        self._digest_key = digest_key
        self._hlc = hlc or HybridClock(node.uid, store.highest_hlc())
        self._acknowledging = acknowledging
        self._forwarder = forwarder
        self._renderings = Renderings()
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
        if self._acknowledging is not None:
            self._acknowledging.check(request.durability)
        if not request.operation:
            if not self._store.admits():
                await self._store.admit()
            return self._perform(request, author, may_reveal, b"")
        key = (author, request.operation)
        asked = request_digest(request, self._digest_key)
        earlier = self._earlier(key, asked, request)
        if earlier is None and not self._store.admits():
            await self._store.admit()
            earlier = self._earlier(key, asked, request)  # its twin may have come in meanwhile
        if earlier is not None:
            return earlier
        self._forget_landed()
        writing = self._perform(request, author, may_reveal, asked)
        self._in_flight[key] = (asked, writing)
        return writing

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
        return Writing(self._answer(request, known.revision, known.stamp))

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
            raise _no_environment(request.environment)
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
            raise _no_environment(request.environment)
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
        """The answer to a write whose record is the last of its partition."""
        partition, origin = partition_of(request.environment), self.node.uid
        token = session_token(partition, origin, self._store.last_seq(partition, origin))
        return _written(request, revision, stamp, token)

    def _head(self, name: str) -> StoredState:
        return self._store.head(name) or self._nothing(name)

    def _nothing(self, name: str) -> StoredState:
        empty = Environment(name)
        return StoredState(empty, digest.revision(empty, self._digest_key))

    # -- reading -------------------------------------------------------------------

    def read(self, request: ReadRequest) -> EnvironmentView:
        """One environment as it is, or as it was `at` a revision.

        Raises NotFound for an environment, variable or revision that is not there.
        """
        name = check_environment(request.environment)
        for variable in request.variables:
            check_variable(variable)
        self._check_token(request.token)
        if request.resolve:
            return self._read_layers(request)
        visible = self._store.visible(name)
        if request.at:
            state = revisions.recorded_state(self._store, name, request.at, self._digest_key)
        elif visible is None or not visible.environment.exists:
            deleted = visible is not None and visible.environment.deleted_at > ZERO
            raise _no_environment(name, deleted=deleted)
        else:
            state = visible
        return environment_view(
            state,
            self.node,
            reveal=request.reveal,
            now=visible.environment if request.at and visible else None,
            variables=request.variables,
            level=request.consistency,
        )

    def rendered(self, request: ReadRequest, render: Callable[[EnvironmentView], bytes]) -> bytes:
        """What `render`, always the same one, makes of what `read` answers.

        Kept for whole environments as they are; raises as `read` does.
        """
        name, reveal = request.environment, request.reveal
        if request != ReadRequest(name, reveal=reveal):
            return render(self.read(request))
        state = self._store.visible(check_environment(name))
        known = None if state is None else self._renderings.find(name, reveal, state)
        if known is None:
            known = render(self.read(request))
            if state is not None:
                self._renderings.keep(name, reveal, state, known)
        return known

    def look_at_layers(self, name: str, look: Callable[[str], None]) -> None:
        """Call `look` for `name` and for all it extends, each before anything is told of it.

        Raises what `look` does, NotFound, Conflict for a circle, LimitExceeded for too many
        layers.
        """

        def bases(layer: str) -> tuple[str, ...]:
            look(layer)
            return self._bases_of(layer)

        layers(name, bases)

    def _bases_of(self, name: str) -> tuple[str, ...]:
        state = self._store.visible(name)
        if state is None or not state.environment.exists:
            raise _no_environment(name)
        setting = state.environment.metadata.get(EXTENDS)
        return bases_of(setting.value or "") if setting else ()

    def _read_layers(self, request: ReadRequest) -> EnvironmentView:
        if request.at:
            raise InvalidRequest(
                "a revision is of one environment, without what it extends",
                hint="leave out either the revision or the layers",
            )
        single = replace(request, resolve=False, variables=(), token="")
        names = layers(request.environment, self._bases_of)
        views = [self.read(replace(single, environment=name)) for name in names]
        return resolved_view(views, request.variables)

    def _check_layers(self, request: WriteRequest) -> None:
        """Refuse a setting `extends` that could not be resolved."""
        if type(request.puts) is PutColumns:
            return
        for put in request.puts:
            if put.kind and put.name == EXTENDS:
                own = bases_of(put.value)
                layers(
                    request.environment,
                    partial(self._bases_if, request.environment, own),
                )

    def _bases_if(self, changed: str, bases: tuple[str, ...], name: str) -> tuple[str, ...]:
        return bases if name == changed else self._bases_of(name)

    def columns(self, name: str, *, reveal: bool) -> ExportedEnvironment | None:
        """The visible state of an environment in columns, None where it does not exist."""
        state = self._store.visible(name)
        if state is None or not state.environment.exists:
            return None
        return exported_view(state, reveal=reveal)

    def state_view(self, name: str, *, reveal: bool) -> EnvironmentView | None:
        """The visible state of an environment, None where it does not exist."""
        state = self._store.visible(name)
        if state is None or not state.environment.exists:
            return None
        return environment_view(state, self.node, reveal=reveal)

    def list(self, request: ListRequest) -> ListPage:
        """A page of the environments that exist below a prefix."""
        prefix = check_prefix(request.prefix)
        check_prefix(request.after)
        limit = _bounded(request.limit, MAX_LIST_PAGE)
        found = self._store.environments(prefix, request.after, limit + 1)
        more = len(found) > limit
        page = tuple(found[:limit])
        return ListPage(page, page[-1].environment if more else "")

    def history(self, request: HistoryRequest) -> HistoryPage:
        """A page of commits, newest first; raises NotFound where none was ever made."""
        name = check_environment(request.environment)
        if request.variable:
            check_variable(request.variable)
        limit = _bounded(request.limit, MAX_HISTORY_PAGE)
        before = _stamp(request.before)
        found: list[Commit] = []
        for commit in revisions.newest_first(self._store, name, before):
            if not request.variable or _touches(commit, request.variable):
                found.append(commit)
            if len(found) > limit:
                break
        trimmed = self._store.base(name).highest_stamp.hlc > 0
        if not found and not trimmed and not self._store.commits(name, None, 1):
            raise _no_environment(name)
        page = found[:limit]
        following = page[-1].stamp.hex() if len(found) > limit else ""
        return HistoryPage(name, tuple(map(commit_view, page)), following, trimmed)

    def conflicts(self, request: ConflictsRequest) -> ConflictPage:
        """A page of unsettled conflicts; raises NotFound for an environment that never was."""
        return conflicts.page(self._store, self.node, request)

    def _check_token(self, token: str) -> None:
        """Raise unless this node has what the session token stands for.

        A write is answered when it is visible, so a record that the store has is.
        """
        if not token:
            return
        point = read_session_token(token)
        if point is None:
            raise InvalidRequest("the session token is none", reason="INVALID_TOKEN")
        partition, origin, seq = point
        if seq > self._store.last_seq(partition, origin):
            raise Unavailable(
                "this node can't prove that it has seen what the session token stands for",
                hint="read from the node that answered the write, or without the token",
                reason="STALE",
            )


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


def _no_environment(name: str, *, deleted: bool = False) -> NotFound:
    return NotFound(
        f"there is no environment {name}" + (" any more" if deleted else ""),
        hint=f"its past: envctl history {name}; to take it back: envctl undelete {name}"
        if deleted
        else "see what there is with: envctl list",
        reason="ENVIRONMENT_NOT_FOUND",
    )


def _touches(commit: Commit, variable: str) -> bool:
    return any(
        change.kind is Kind.VARIABLE and change.name == variable for change in commit.changes
    )


def _bounded(limit: int, most: int) -> int:
    if limit < 0:
        raise InvalidRequest("a limit can't be negative")
    return min(limit or most, most)


def _stamp(text: str) -> Stamp | None:
    if not text:
        return None
    try:
        return Stamp.from_hex(text)
    except (ValueError, struct.error):
        raise InvalidRequest("the page token is none", reason="INVALID_TOKEN") from None
