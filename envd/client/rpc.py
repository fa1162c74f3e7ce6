"""A Connection over gRPC, to one node or to the first of several that can be reached.

A write carries an operation id, its caller's or one made here, so the node does it once however
often it is sent; one whose answer was lost is sent once more, to the same node, for only that
one surely knows the id. What stays unclear is OutcomeUnknown and names the id. A read, and a
write that surely did not arrive, go on to the next address. Proxies of the environment
(`http_proxy`) are not used: values do not go through them unasked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import replace
from typing import Final, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from envd.client.rpc_errors import error_from_rpc, is_lost, unclear_from_rpc, was_never_sent
from envd.client.rpc_sync import GrpcSync
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
from envd.core.backups import BackupListing, BackupRequest
from envd.core.errors import (
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    Unauthenticated,
    Unavailable,
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
from envd.wire import api, api_backup, api_cluster, api_conflicts, api_streams, trace_context
from envd.wire._pb import backup_pb2 as backup
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb

CLUSTER: Final = cluster.DESCRIPTOR.services_by_name["ClusterService"].full_name
BACKUPS: Final = backup.DESCRIPTOR.services_by_name["BackupService"].full_name
SERVICE: Final = pb.DESCRIPTOR.services_by_name["EnvironmentService"].full_name
MAX_MESSAGE_BYTES: Final = 8 << 20
CONNECT_TIMEOUT_S: Final = 5.0
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)
AnswerT = TypeVar("AnswerT")
_AnyWrite = TypeVar("_AnyWrite", WriteRequest, DeleteRequest, RollbackRequest, ResolveRequest)
_Send = Callable[[grpc.Channel, bytes], bytes]


class GrpcConnection:
    """Raises Unavailable at once where none of the addresses can be reached."""

    def __init__(
        self, addresses: Sequence[str], *, token: str = "", timeout_s: float = 30.0
    ) -> None:
        if not addresses:
            raise InvalidRequest("there is no address to connect to")
        if not (token.isascii() and (token.isprintable() or not token)):
            raise Unauthenticated(
                "the token holds characters that no token has", reason="TOKEN_INVALID"
            )
        self._addresses = tuple(addresses)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        self._at = 0
        self._channel: grpc.Channel | None = None
        self._any_channel()

    @property
    def address(self) -> str:
        return self._addresses[self._at]

    def get(self, request: ReadRequest) -> EnvironmentView:
        raw = self._read("Get", lambda: api.read_message(request))
        return api.get_from(pb.GetResponse.FromString(raw))

    def list(self, request: ListRequest) -> ListPage:
        raw = self._read("List", lambda: api.list_message(request))
        return api.page_from(pb.ListResponse.FromString(raw))

    def history(self, request: HistoryRequest) -> HistoryPage:
        raw = self._read("History", lambda: api.history_message(request))
        return api.history_page_from(pb.HistoryResponse.FromString(raw))

    def conflicts(self, request: ConflictsRequest) -> ConflictPage:
        raw = self._read("Conflicts", lambda: api_conflicts.conflicts_message(request))
        return api_conflicts.conflict_page_from(pb.ConflictsResponse.FromString(raw))

    def resolve(self, request: ResolveRequest) -> WriteAnswer:
        named = _with_operation(request)
        return self._write("Resolve", lambda: api_conflicts.resolve_message(named), named.operation)

    def status(self) -> Status:
        raw = self._read("Status", cluster.StatusRequest, CLUSTER)
        return api.status_from(cluster.StatusResponse.FromString(raw))

    def members(self) -> Membership:
        return self._membership("Members", cluster.MembersRequest)

    def join(self, request: JoinRequest) -> Membership:
        return self._membership("Join", lambda: api_cluster.join_message(request))

    def leave(self, request: LeaveRequest) -> Membership:
        return self._membership("Leave", lambda: api_cluster.leave_message(request))

    def remove(self, request: RemoveRequest) -> Membership:
        return self._membership("Remove", lambda: api_cluster.remove_message(request))

    def topology(self, request: TopologyRequest | None = None) -> TopologyView:
        asked = request or TopologyRequest()
        return self._topology("Topology", lambda: api_cluster.topology_request_message(asked))

    def recover(self, request: RecoverRequest) -> TopologyView:
        return self._topology("Recover", lambda: api_cluster.recover_message(request))

    def _membership(self, method: str, build: Callable[[], Message]) -> Membership:
        raw = self._read(method, build, CLUSTER)
        return api_cluster.membership_from(cluster.MembersResponse.FromString(raw))

    def _topology(self, method: str, build: Callable[[], Message]) -> TopologyView:
        raw = self._read(method, build, CLUSTER)
        return api_cluster.topology_from(cluster.TopologyResponse.FromString(raw))

    def watch(self, request: WatchRequest) -> Iterator[WatchEvent]:
        raw = _serialized(_built(lambda: api_streams.watch_message(request, batched=True)))
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes]
        stream = self._any_channel().unary_stream(f"/{SERVICE}/Watch", None, None)
        messages = stream(raw, metadata=self._sent())
        try:
            for message in messages:
                yield from api_streams.events_from(pb.WatchResponse.FromString(message))
        except grpc.RpcError as error:
            self._move_on()
            raise error_from_rpc(error) from error
        finally:
            messages.cancel()
        raise Unavailable("the node ended the watch", hint="watch again", reason="STOPPING")

    def backup(self, request: BackupRequest) -> Iterator[bytes]:
        raw = _serialized(_built(lambda: api_backup.create_message(request)))
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes]
        stream = self._any_channel().unary_stream(f"/{BACKUPS}/Create", None, None)
        messages = stream(raw, metadata=self._sent())
        try:
            for message in messages:
                yield backup.CreateBackupResponse.FromString(message).data
        except grpc.RpcError as error:
            self._move_on()
            raise error_from_rpc(error) from error
        finally:
            messages.cancel()

    def backups(self) -> BackupListing:
        raw = self._read("List", backup.ListBackupsRequest, BACKUPS)
        return api_backup.listing_from(backup.ListBackupsResponse.FromString(raw))

    @property
    def sync(self) -> GrpcSync:
        return GrpcSync(self._read)

    def write(self, request: WriteRequest) -> WriteAnswer:
        named = _with_operation(request)
        return self._write("Write", lambda: api.write_message(named), named.operation)

    def delete(self, request: DeleteRequest) -> WriteAnswer:
        named = _with_operation(request)
        return self._write("Delete", lambda: api.delete_message(named), named.operation)

    def rollback(self, request: RollbackRequest) -> WriteAnswer:
        named = _with_operation(request)
        return self._write("Rollback", lambda: api.rollback_message(named), named.operation)

    def close(self) -> None:
        """May be called more than once; a call after it connects again."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # -- reaching a node ---------------------------------------------------------------

    def _any_channel(self) -> grpc.Channel:
        unreached: MutableSequence[str] = []
        for _ in self._addresses:
            channel = self._reach(unreached)
            if channel is not None:
                return channel
        raise _no_daemon(unreached)

    def _reach(self, unreached: MutableSequence[str]) -> grpc.Channel | None:
        """The channel to this address; where it can't be reached, note that and move on."""
        if self._channel is None:
            try:
                _probe(self.address, min(self._timeout_s, CONNECT_TIMEOUT_S))
            except OSError as error:
                unreached.append(f"{self.address} ({_why(error)})")
                self._move_on()
                return None
            self._channel = grpc.insecure_channel(self.address, options=_OPTIONS)
        return self._channel

    def _move_on(self) -> None:
        self.close()
        self._at = (self._at + 1) % len(self._addresses)

    # -- calls -------------------------------------------------------------------------

    def _sent(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call: the token, and the trace that the call is part of."""
        return (*self._metadata, *trace_context.metadata(os.environ))

    def _read(
        self, method: str, build: Callable[[], Message], service: str = SERVICE, mend: str = ""
    ) -> bytes:
        """The answer; with `mend`, to what is a change and has no id."""
        return self._call(self._unary(method, service), _serialized(_built(build)), None, mend)

    def _write(self, method: str, build: Callable[[], Message], operation: str) -> WriteAnswer:
        raw = _serialized(_built(build))
        answer = self._call(self._unary(method), raw, operation)
        return api.written_from(pb.WriteResponse.FromString(answer))

    def _call(self, send: _Send, raw: bytes, operation: str | None, mend: str = "") -> bytes:
        """Send to the first node that takes it; `operation` is the id of a write.

        `mend` is what to do where nobody knows what became of a change without an id.
        """
        unreached: MutableSequence[str] = []
        refused: EnvdError | None = None
        for _ in self._addresses:
            channel = self._reach(unreached)
            if channel is None:
                continue
            try:
                return send(channel, raw)
            except grpc.RpcError as error:
                if mend and not was_never_sent(error):
                    refused = unclear_from_rpc(error, mend)
                    if refused.reason != "STOPPING":
                        raise refused from error
                elif is_lost(error):
                    if operation is not None and not was_never_sent(error):
                        return self._once_more(send, raw, operation, error)
                    unreached.append(f"{self.address} (the connection broke)")
                else:
                    refused = error_from_rpc(error, operation=operation)
                    if refused.reason != "STOPPING":
                        raise refused from error
                self._move_on()
        raise refused or _no_daemon(unreached)

    def _once_more(self, send: _Send, raw: bytes, operation: str, lost: grpc.RpcError) -> bytes:
        """Send a write again whose answer was lost; the same node does it once only."""
        self.close()
        address = self.address
        try:
            _probe(address, min(self._timeout_s, CONNECT_TIMEOUT_S))
            self._channel = grpc.insecure_channel(address, options=_OPTIONS)
            return send(self._channel, raw)
        except OSError:
            raise error_from_rpc(lost, operation=operation) from lost
        except grpc.RpcError as error:
            again = error_from_rpc(error, operation=operation)
            if isinstance(again, Unavailable):  # says nothing of what was sent before
                raise error_from_rpc(lost, operation=operation) from error
            raise again from error

    def _unary(self, method: str, service: str = SERVICE) -> _Send:
        def send(channel: grpc.Channel, raw: bytes) -> bytes:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
            call = channel.unary_unary(f"/{service}/{method}", None, None)
            return call(
                raw,
                timeout=self._timeout_s,
                metadata=self._sent(),
            )

        return send


def _with_operation(request: _AnyWrite) -> _AnyWrite:
    return request if request.operation else replace(request, operation=uuid4().hex)


def _built(build: Callable[[], AnswerT]) -> AnswerT:
    try:
        return build()
    except (ValueError, TypeError):
        # Not chained: an encoding error carries the whole text.
        raise InvalidRequest(
            "the request can't be sent: a text is not valid UTF-8, or a number out of range"
        ) from None


def _serialized(message: Message) -> bytes:
    raw = message.SerializeToString()
    if len(raw) > MAX_MESSAGE_BYTES:
        raise LimitExceeded(
            f"the request is {len(raw)} bytes long; at most {MAX_MESSAGE_BYTES} are allowed",
            hint="write in several steps",
        )
    return raw


def _probe(address: str, timeout_s: float) -> None:
    """Raise OSError, which says why, unless something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not host:
        raise InvalidRequest(
            f"{address[:100]!a} is no address", hint="write HOST:PORT, with IPv6 [::1]:7420"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (UnicodeError, OverflowError) as error:
        raise OSError("no such address") from error


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error)


def _no_daemon(unreached: Sequence[str]) -> Unavailable:
    return Unavailable(
        f"no envd answers at {', '.join(unreached)}",
        hint="start one with: envd   (or name another with --server)",
        reason="NO_DAEMON",
    )
