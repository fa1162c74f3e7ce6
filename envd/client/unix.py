"""A Connection over the Unix socket of a node on this machine.

It needs neither grpc nor protobuf, so a simple `envctl` call takes tens of milliseconds.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
from envd.core.errors import EnvdError, InvalidRequest, OutcomeUnknown, Unavailable
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
from envd.wire import plain, trace_context
from envd.wire.framing import LENGTH, MAX_FRAME_BYTES, WRITES, encode_frame

if TYPE_CHECKING:
    from envd.client.connection import SyncConnection
    from envd.core.backups import BackupListing, BackupRequest

WATCH_SILENCE_S = 60.0
"""A watch that says nothing for so long is dead: four heartbeats of the node (node.watch)."""


class UnixConnection:
    """Raises Unavailable at once where nobody listens on `path`."""

    def __init__(self, path: str, *, token: str = "", timeout_s: float = 30.0) -> None:
        self.address = f"unix:{path}"
        self._token = token
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                f"no envd answers at {self.address} ({error.strerror or error})",
                hint="start one with: envd   (or name another with --server)",
                reason="NO_DAEMON",
            ) from error

    def get(self, request: ReadRequest) -> EnvironmentView:
        return plain.environment_view(self._call("get", request))

    def list(self, request: ListRequest) -> ListPage:
        return plain.list_page(self._call("list", request))

    def write(self, request: WriteRequest) -> WriteAnswer:
        return plain.write_answer(self._call("write", request))

    def delete(self, request: DeleteRequest) -> WriteAnswer:
        return plain.write_answer(self._call("delete", request))

    def rollback(self, request: RollbackRequest) -> WriteAnswer:
        return plain.write_answer(self._call("rollback", request))

    def history(self, request: HistoryRequest) -> HistoryPage:
        return plain.history_page(self._call("history", request))

    def conflicts(self, request: ConflictsRequest) -> ConflictPage:
        return plain.conflict_page(self._call("conflicts", request))

    def resolve(self, request: ResolveRequest) -> WriteAnswer:
        return plain.write_answer(self._call("resolve", request))

    def status(self) -> Status:
        return plain.status(self._call("status", None))

    def members(self) -> Membership:
        return plain.membership(self._call("members", None))

    def join(self, request: JoinRequest) -> Membership:
        return plain.membership(self._call("join", request))

    def leave(self, request: LeaveRequest) -> Membership:
        return plain.membership(self._call("leave", request))

    def remove(self, request: RemoveRequest) -> Membership:
        return plain.membership(self._call("remove", request))

    def topology(self, request: TopologyRequest | None = None) -> TopologyView:
        return plain.topology(self._call("topology", request))

    def recover(self, request: RecoverRequest) -> TopologyView:
        return plain.topology(self._call("recover", request))

    def backups(self) -> BackupListing:
        from envd.wire import plain_backup

        return plain_backup.listing(self._call("backups", None))

    @property
    def sync(self) -> SyncConnection:
        from envd.client.unix_sync import UnixSync

        return UnixSync(self._call)

    def backup(self, request: BackupRequest) -> Iterator[bytes]:
        from envd.wire import plain_backup

        for item in self._items("backup", request):
            try:
                data = plain_backup.chunk_from_plain(item)
            except ValueError as error:
                raise self._lost(error, may_be_done=False) from error
            if data is None:
                return
            yield data

    def watch(self, request: WatchRequest) -> Iterator[WatchEvent]:
        for item in self._items("watch", request):
            yield plain.watch_event(item)

    def _items(self, call: str, request: object) -> Iterator[dict[str, Any]]:
        frame = self._frame(call, request)
        self._socket.settimeout(max(WATCH_SILENCE_S, self._socket.gettimeout() or 0))
        try:
            self._socket.sendall(frame)
            while True:
                answer = json.loads(self._receive())
                if "error" in answer:
                    raise plain.error_from_plain(answer["error"])
                yield answer["item"]
        except (OSError, EOFError, ValueError) as error:
            raise self._lost(error, may_be_done=False) from error
        finally:
            self.close()

    def close(self) -> None:
        self._socket.close()

    def _frame(self, call: str, request: object) -> bytes:
        arguments = plain.request_to_plain(request)
        document = {"call": call, "arguments": arguments, "token": self._token}
        if traceparent := trace_context.current(os.environ):
            document[trace_context.TRACEPARENT] = traceparent
        try:
            return encode_frame(document)
        except UnicodeEncodeError:
            # Not chained: the error carries the whole text.
            raise InvalidRequest("the request can't be sent: a text is not valid UTF-8") from None

    def _call(self, call: str, request: object, mend: str = "") -> dict[str, Any]:
        """The answer; `mend` is for a change without an id whose answer is lost."""
        frame = self._frame(call, request)
        sent = False
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._socket.sendall(frame)
                sent = True
            answer = json.loads(self._receive())  # where it hung up, it may have said why
        except (OSError, EOFError, ValueError) as error:
            self.close()  # An answer that comes late must not be taken for the next call's.
            may_be_done = sent and (bool(mend) or call in WRITES)
            raise self._lost(error, may_be_done=may_be_done, mend=mend) from error
        if "error" in answer:
            raise plain.error_from_plain(answer["error"])
        result: dict[str, Any] = answer["answer"]
        return result

    def _receive(self) -> bytes:
        (length,) = LENGTH.unpack(self._receive_exactly(LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise ValueError("the answer is longer than an answer can be")
        return self._receive_exactly(length)

    def _receive_exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            chunk = self._socket.recv(min(size - len(received), 1 << 20))
            if not chunk:
                raise EOFError
            received += chunk
        return bytes(received)

    def _lost(self, error: Exception, *, may_be_done: bool, mend: str = "") -> EnvdError:
        """What a missing answer means; a request that was not sent whole is never performed."""
        why = "it took too long" if isinstance(error, TimeoutError) else "the connection broke"
        if may_be_done:
            return OutcomeUnknown(
                f"no answer from {self.address} ({why}); the write may or may not be done",
                hint=mend or "repeat it with the same --operation ID: it is done at most once",
            )
        return Unavailable(
            f"no answer from {self.address} ({why})",
            hint="try again; envctl doctor tells how the node does",
            reason="NO_ANSWER",
        )
