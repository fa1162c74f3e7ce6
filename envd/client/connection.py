"""What `envctl` can ask of a node, whichever way it is reached. Blocking, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    HistoryPage,
    ListPage,
    Membership,
    Status,
    TopologyView,
    WatchEvent,
    WriteAnswer,
)
from envd.core.requests import (
    ConflictsRequest,
    DeleteRequest,
    HistoryRequest,
    JoinRequest,
    LeaveRequest,
    ListRequest,
    ReadRequest,
    RecoverRequest,
    RemoveRequest,
    ResolveRequest,
    RollbackRequest,
    TopologyRequest,
    WatchRequest,
    WriteRequest,
)

if TYPE_CHECKING:
    from envd.core.backups import BackupListing, BackupRequest
    from envd.core.syncing import (
        AppliedView,
        ApplyRequest,
        BackendList,
        BindingList,
        BindingsRequest,
        BindingView,
        BindRequest,
        CheckList,
        CheckRequest,
        CostView,
        FetchRequest,
        FetchView,
        PauseRequest,
        PlanRequest,
        PlanView,
        SyncStatus,
        UnbindRequest,
    )

CHANGED_TWICE = "repeat it: what is done already is not done again"
APPLIED_TWICE = "see what is left to do: envctl sync plan"
"""What to do where a change about stores was sent, and no answer came."""


class SyncConnection(Protocol):
    """What can be asked about stores; see `envd.sync.api`. It raises as `Connection` does.

    A change (`bind`, `unbind`, `pause`, `apply`) that was sent and not answered is an
    OutcomeUnknown, and is not sent again.
    """

    def bind(self, request: BindRequest) -> BindingView: ...

    def unbind(self, request: UnbindRequest) -> BindingView: ...

    def bindings(self, request: BindingsRequest) -> BindingList: ...

    def pause(self, request: PauseRequest) -> BindingList: ...

    def status(self, request: BindingsRequest) -> SyncStatus: ...

    def plan(self, request: PlanRequest) -> PlanView: ...

    def apply(self, request: ApplyRequest) -> AppliedView: ...

    def cost(self, request: BindingsRequest) -> CostView: ...

    def backends(self) -> BackendList: ...

    def check(self, request: CheckRequest) -> CheckList: ...

    def fetch(self, request: FetchRequest) -> FetchView: ...


class Connection(Protocol):
    """Each method raises the EnvdError that the node answered with.

    Where the node can't be reached it is Unavailable (nothing was done), and where a write
    was sent and no answer came, OutcomeUnknown.
    """

    @property
    def address(self) -> str:
        """Where the node is, for messages: unix:PATH or HOST:PORT."""
        ...

    def get(self, request: ReadRequest) -> EnvironmentView: ...

    def list(self, request: ListRequest) -> ListPage: ...

    def write(self, request: WriteRequest) -> WriteAnswer: ...

    def delete(self, request: DeleteRequest) -> WriteAnswer: ...

    def rollback(self, request: RollbackRequest) -> WriteAnswer: ...

    def history(self, request: HistoryRequest) -> HistoryPage: ...

    def conflicts(self, request: ConflictsRequest) -> ConflictPage: ...

    def resolve(self, request: ResolveRequest) -> WriteAnswer: ...

    def status(self) -> Status: ...

    def members(self) -> Membership: ...

    def join(self, request: JoinRequest) -> Membership: ...

    def leave(self, request: LeaveRequest) -> Membership: ...

    def remove(self, request: RemoveRequest) -> Membership: ...

    def topology(self, request: TopologyRequest | None = None) -> TopologyView: ...

    def recover(self, request: RecoverRequest) -> TopologyView: ...

    def watch(self, request: WatchRequest) -> Iterator[WatchEvent]:
        """Follow environments; see WatchRequest.

        It never ends by itself: where the node stops or the connection breaks, it raises
        Unavailable, and a watch on a new connection resumes with the last event's token. No
        other call can be made on a connection that watches.
        """
        ...

    def backup(self, request: BackupRequest) -> Iterator[bytes]:
        """The bytes of a new backup; it is whole only if the iterator comes to its end.

        No other call can be made on a connection meanwhile.
        """
        ...

    def backups(self) -> BackupListing: ...

    @property
    def sync(self) -> SyncConnection:
        """The calls about stores, on this connection."""
        ...

    def close(self) -> None: ...
