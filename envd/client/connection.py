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

    def close(self) -> None: ...
