"""What a write request means upon the state it meets: one commit, not yet logged.

A draft is made within one turn of the event loop of the state that it builds on, so what it checks
holds as long as nothing else is logged in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from envd.core import digest
from envd.core.chain import MODE, PLAIN, SERIAL, bottom, is_serial, position
from envd.core.commit import Change, ChangeColumns, Commit, Kind, floor_of
from envd.core.environment import Environment
from envd.core.errors import Conflict, Unavailable
from envd.core.hlc import HybridClock
from envd.core.metadata import CREATED
from envd.core.names import check_environment, check_variable
from envd.core.requests import (
    DeleteRequest,
    PutColumns,
    ResolveRequest,
    RollbackRequest,
    WriteRequest,
)
from envd.core.stamp import ZERO
from envd.core.times import iso_time
from envd.node import conflicts, revisions
from envd.node.changes import changes_of, differences, restated
from envd.node.checks import check_operation, check_room, check_write
from envd.node.operations import AnyWrite
from envd.node.reader import no_environment
from envd.node.views import NodeIdentity
from envd.ports import Clock, Store, StoredState

SALVAGER: Final = "envd"
_SALVAGED: Final = "what a node wrote that was away for too long; see the conflicts"
_OPENED: Final = "serial from here on; all is stated again"
_CLOSED: Final = "plain from here on; all is stated again"
"""So that nobody wonders who set all of it, in a history or a watch."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A write request with who asks; `asked` tells it from others under its operation id.

    `blind`: of the nodes that hold its environment none can be reached.
    """

    request: AnyWrite
    author: str
    may_reveal: bool
    asked: bytes = field(default=b"", repr=False)
    blind: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A commit and the state that it makes of the one it was drafted upon."""

    commit: Commit
    after: StoredState

    @property
    def is_chained(self) -> bool:
        """Whether only a majority can log it: it belongs to a chain, begins or ends one."""
        return self.commit.follows != ZERO


class Drafter:
    """Makes the drafts of one node; `hlc` gives their stamps."""

    def __init__(
        self, store: Store, clock: Clock, node: NodeIdentity, digest_key: bytes, hlc: HybridClock
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._digest_key = digest_key
        self.hlc = hlc

    def head(self, name: str) -> StoredState:
        """The state that the next commit to `name` follows."""
        known = self._store.head(name)
        if known is not None:
            return known
        empty = Environment(name)
        return StoredState(empty, digest.revision(empty, self._digest_key))

    def draft(self, wish: Wish, head: StoredState) -> Draft | None:
        """The commit that a wish means upon `head`, None where it would change nothing.

        Raises NotFound, Conflict, Denied, LimitExceeded; nothing is logged.
        """
        request = wish.request
        if isinstance(request, DeleteRequest) and not head.environment.exists:
            raise no_environment(request.environment)
        _check_revision(head, request.if_revision)
        match request:
            case WriteRequest():
                return self._write(request, wish, head)
            case DeleteRequest():
                return self._delete(request, wish, head)
            case RollbackRequest():
                return self._rollback(request, wish, head)
            case ResolveRequest():
                return self._resolve(request, wish, head)
            case _:
                assert_never(request)

    def empty(self, wish: Wish, head: StoredState) -> Draft:
        """A commit that changes nothing: it is there once what it follows is."""
        return self._drafted(wish, head, ())

    def blind(self, wish: Wish, head: StoredState) -> Draft:
        """What a wish means where nobody can tell what it meets; `head` is what this node has.

        Its values are secret, for those that it replaces may be, and it tells no revision. Raises
        Unavailable for what takes more than that.
        """
        request = wish.request
        if isinstance(request, WriteRequest):
            why = _needs_a_holder(request)
        else:
            why = "what deletes an environment, rolls it back or settles its conflicts"
        if is_serial(head.environment):
            why = "a write to a serial environment"
        if why or not isinstance(request, WriteRequest):
            raise Unavailable(
                f"no node that holds {request.environment} can be reached, and {why} takes one; "
                "nothing was done",
                hint="try again; a write that only sets and unsets variables is taken here, and "
                "sent on later",
                reason="NO_HOLDER",
                retry_after_ms=1000,
            )
        environment = head.environment
        changes = [
            Change(
                put.kind,
                put.name,
                put.value,
                put.kind is Kind.VARIABLE,
                environment.overwritten_by(put.kind, put.name),
            )
            for put in request.puts
        ]
        changes += [
            Change(
                unset.kind,
                unset.name,
                None,
                unset.kind is Kind.VARIABLE,
                environment.overwritten_by(unset.kind, unset.name),
            )
            for unset in request.unsets
        ]
        return self._drafted(wish, head, changes)

    def salvaging(self, late: Commit, operation: str, message: str = _SALVAGED) -> Draft:
        """A commit that changes nothing and puts on record what another one wrote, as lost."""
        head = self.head(late.environment)
        now_ms = self._clock.wall_ms()
        commit = Commit(
            environment=late.environment,
            stamp=self.hlc.stamp_above(head.environment.highest_stamp, now_ms),
            changes=(),
            author=SALVAGER,
            time_ms=now_ms,
            message=message,
            operation=operation,
            node=self._node.name,
            region=self._node.region,
            revision=head.revision,
            salvages=late,
        )
        return Draft(commit, head)

    def reopening(self, wish: Wish, head: StoredState) -> Draft:
        """A commit that begins the chain of an environment anew, in the next era."""
        assert isinstance(wish.request, WriteRequest)
        changes = changes_of(head.environment, wish.request, wish.may_reveal)
        return self._drafted(wish, head, changes, reopens=True)

    def _write(self, request: WriteRequest, wish: Wish, head: StoredState) -> Draft | None:
        environment = head.environment
        if request.must_exist and not environment.exists:
            raise no_environment(request.environment)
        if request.must_not_exist and environment.exists:
            raise Conflict(
                f"{request.environment} exists already",
                hint=f"envctl get {request.environment}",
                reason="ALREADY_EXISTS",
            )
        changes = changes_of(environment, request, wish.may_reveal)
        if request.must_not_exist:
            now = iso_time(self._clock.wall_ms())
            overwrites = environment.overwritten_by(Kind.METADATA, CREATED)
            changes = (*changes, Change(Kind.METADATA, CREATED, now, False, overwrites))
        return self._drafted(wish, head, changes) if changes else None

    def _delete(self, request: DeleteRequest, wish: Wish, head: StoredState) -> Draft:
        environment = head.environment
        changes = tuple(
            Change(kind, name, None, entry.secret, entry.stamp)
            for kind in Kind
            for name, entry in environment.live(kind)
        )
        return self._drafted(wish, head, changes, deletes=True)

    def _rollback(self, request: RollbackRequest, wish: Wish, head: StoredState) -> Draft | None:
        target = revisions.recorded_state(
            self._store, request.environment, request.to, self._digest_key
        )
        changes = differences(
            head.environment, target.environment, request.variables, wish.may_reveal
        )
        return self._drafted(wish, head, tuple(changes)) if changes else None

    def _resolve(self, request: ResolveRequest, wish: Wish, head: StoredState) -> Draft:
        settled = conflicts.settle(
            self._store, head.environment, request, may_reveal=wish.may_reveal
        )
        return self._drafted(wish, head, settled.changes, resolves=settled.ids)

    def _drafted(
        self,
        wish: Wish,
        head: StoredState,
        changes: Sequence[Change],
        *,
        deletes: bool = False,
        resolves: tuple[str, ...] = (),
        reopens: bool = False,
    ) -> Draft:
        before, request = head.environment, wish.request
        now_ms = self._clock.wall_ms()
        stamp = self.hlc.stamp_above(before.highest_stamp, now_ms)
        follows, said = ZERO, ""
        if is_serial(before) or _opens(changes):
            follows = bottom(stamp.era + 1) if reopens else position(before)
            if not is_serial(before) or deletes or reopens or _closes(changes):
                stamp = stamp._replace(era=stamp.era + 1)
                if not deletes:
                    changes = restated(before, changes)
                    said = _CLOSED if is_serial(before) else _OPENED
            elif not changes:
                changes = (_mode_again(before),)
        floor = floor_of(stamp, follows, deletes=deletes)
        environment = before.apply_changes(stamp, changes, floor=floor)
        check_room(before, environment)
        after = StoredState(environment, digest.revision(environment, self._digest_key))
        commit = Commit(
            environment=before.name,
            stamp=stamp,
            changes=changes,
            deletes=deletes,
            author=wish.author,
            time_ms=now_ms,
            message=_message(request) or said,
            operation=request.operation,
            blind=wish.blind,
            node=self._node.name,
            region=self._node.region,
            revision=b"" if wish.blind else after.revision,
            request_digest=wish.asked,
            resolves=resolves,
            follows=follows,
        )
        return Draft(commit, after)


def _needs_a_holder(request: WriteRequest) -> str:
    """What in a write can't be done blind, "" for nothing."""
    touched = [(put.kind, put.name) for put in request.puts]
    touched += [(unset.kind, unset.name) for unset in request.unsets]
    plain = any(put.secret is False and put.kind is Kind.VARIABLE for put in request.puts)
    found = {
        "a write under a condition": bool(
            request.if_revision or request.must_exist or request.must_not_exist or request.seen
        ),
        "a write that removes what it does not name": request.replace,
        "a change of the mode": (Kind.METADATA, MODE) in touched,
        "a write that says of a variable that it is no secret": plain,
    }
    return next((why for why, needed in found.items() if needed), "")


def wants_serial(request: AnyWrite) -> bool:
    """Tell whether a write says that its environment is, or is to be, serial."""
    if not isinstance(request, WriteRequest) or type(request.puts) is PutColumns:
        return False
    return any(put.kind and (put.name, put.value) == (MODE, SERIAL) for put in request.puts)


def _message(request: AnyWrite) -> str:
    if isinstance(request, RollbackRequest):
        return request.message or f"rollback to {request.to}"
    return request.message


def _opens(changes: Sequence[Change]) -> bool:
    """Tell whether changes to a plain environment make it serial."""
    return _mode_in(changes) == SERIAL


def _closes(changes: Sequence[Change]) -> bool:
    """Tell whether changes to a serial environment make it plain."""
    return _mode_in(changes) not in ("", SERIAL)


def _mode_again(environment: Environment) -> Change:
    """What a commit of a chain sets that has nothing to set: each must move the chain on."""
    known = environment.metadata[MODE]
    return Change(Kind.METADATA, MODE, known.value, known.secret, known.stamp)


def _mode_in(changes: Sequence[Change]) -> str:
    """The mode that changes set, "" where they don't touch it."""
    if type(changes) is ChangeColumns:
        return ""
    for kind, name, value, _, _ in changes:
        if kind and name == MODE:
            return value or PLAIN
    return ""


def check_request(request: AnyWrite) -> None:
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


def _check_revision(head: StoredState, wanted: str) -> None:
    if wanted and not revisions.matches(head.revision, wanted):
        digits = digest.SHORT_REVISION
        raise Conflict(
            f"{head.environment.name} is at revision {head.revision.hex()[:digits]}, "
            f"not at {wanted[:digits]}; nothing was changed",
            hint="read it again, then decide whether your change still fits",
            reason="STALE_REVISION",
        )
