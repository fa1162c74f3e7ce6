"""What `envctl` can ask of a node, whichever way it is reached. Blocking, one at a time."""

from __future__ import annotations

from typing import Protocol

from envd.core.answers import EnvironmentView, HistoryPage, ListPage, Status, WriteAnswer
from envd.core.requests import (
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    ReadRequest,
    RollbackRequest,
    WriteRequest,
)


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

    def status(self) -> Status: ...

    def close(self) -> None: ...
