"""A Connection over gRPC, to one node or to the first of several that can be reached.

A write carries an operation id, its caller's or one made here, so the node does it once however
often it is sent; one whose answer was lost is sent once more, to the same node, for only that
one surely knows the id. What stays unclear is OutcomeUnknown and names the id. A read, and a
write that surely did not arrive, go on to the next address. Proxies of the environment
(`http_proxy`) are not used: values do not go through them unasked.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import replace
from typing import Final, TypeVar, cast
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from envd.core.answers import (
    EnvironmentView,
    HistoryPage,
    ListPage,
    Status,
    WatchEvent,
    WriteAnswer,
)
from envd.core.errors import (
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    ReadRequest,
    RollbackRequest,
    WatchRequest,
    WriteRequest,
)
from envd.wire import api, api_errors, api_streams
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb

CLUSTER: Final = cluster.DESCRIPTOR.services_by_name["ClusterService"].full_name
SERVICE: Final = pb.DESCRIPTOR.services_by_name["EnvironmentService"].full_name
MAX_MESSAGE_BYTES: Final = 8 << 20
CONNECT_TIMEOUT_S: Final = 5.0
_NEVER_SENT: Final = "failed to connect to all addresses"
_MAX_FOREIGN_TEXT: Final = 200
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)
AnswerT = TypeVar("AnswerT")
_AnyWrite = TypeVar("_AnyWrite", WriteRequest, DeleteRequest, RollbackRequest)
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

    def status(self) -> Status:
        raw = self._read("Status", cluster.StatusRequest, CLUSTER)
        return api.status_from(cluster.StatusResponse.FromString(raw))

    def watch(self, request: WatchRequest) -> Iterator[WatchEvent]:
        raw = _serialized(_built(lambda: api_streams.watch_message(request)))
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes]
        stream = self._any_channel().unary_stream(f"/{SERVICE}/Watch", None, None)
        messages = stream(raw, metadata=self._metadata)
        try:
            for message in messages:
                yield api_streams.event_from(pb.WatchResponse.FromString(message))
        except grpc.RpcError as error:
            self._move_on()
            raise error_from_rpc(error) from error
        finally:
            messages.cancel()
        raise Unavailable("the node ended the watch", hint="watch again", reason="STOPPING")

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

    def _read(self, method: str, build: Callable[[], Message], service: str = SERVICE) -> bytes:
        return self._call(self._unary(method, service), _serialized(_built(build)), None)

    def _write(self, method: str, build: Callable[[], Message], operation: str) -> WriteAnswer:
        raw = _serialized(_built(build))
        answer = self._call(self._unary(method), raw, operation)
        return api.written_from(pb.WriteResponse.FromString(answer))

    def _call(self, send: _Send, raw: bytes, operation: str | None) -> bytes:
        """Send to the first node that takes it; `operation` is the id of a write."""
        unreached: MutableSequence[str] = []
        refused: EnvdError | None = None
        for _ in self._addresses:
            channel = self._reach(unreached)
            if channel is None:
                continue
            try:
                return send(channel, raw)
            except grpc.RpcError as error:
                if _lost(error):
                    if operation is not None and _NEVER_SENT not in (error.details() or ""):
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
            return call(raw, timeout=self._timeout_s, metadata=self._metadata)

        return send


def error_from_rpc(error: grpc.RpcError, *, operation: str | None = None) -> EnvdError:
    """The EnvdError that a node answered with, or what a failure of gRPC itself means.

    `operation` is the id of a write, None for a read: where it is unclear what became of a
    write, that is OutcomeUnknown.
    """
    code = error.code()
    found = _own_error(error)
    if found is not None and not (operation is not None and code is grpc.StatusCode.INTERNAL):
        return found
    if operation is not None and code in _UNCLEAR:
        return OutcomeUnknown(
            f"no answer to the write ({_IN_WORDS.get(code, 'the node failed')}); "
            "it may or may not be done",
            hint=f"repeat it with: --operation {operation}   It is done at most once",
        )
    if code in _IN_WORDS:
        reason = "TIMEOUT" if code is grpc.StatusCode.DEADLINE_EXCEEDED else "NO_ANSWER"
        return Unavailable(
            f"no answer from the node ({_IN_WORDS[code]})",
            hint="try again; envctl doctor tells how the node does",
            reason=reason,
        )
    return _foreign(code, error.details() or "")


_IN_WORDS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "it took too long",
    grpc.StatusCode.UNAVAILABLE: "the connection broke",
    grpc.StatusCode.CANCELLED: "the call was cancelled",
}
_UNCLEAR: Final = frozenset(
    {*_IN_WORDS, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
)


def _own_error(error: grpc.RpcError) -> EnvdError | None:
    """What a node of ours says in the details, None where they are not its."""
    trailers = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    for key, value in trailers:
        status = api_errors.parse_status(value) if key == api_errors.DETAILS_KEY else None
        if status is not None and api_errors.is_ours(status):
            return api_errors.error_of(status)
    return None


def _foreign(code: grpc.StatusCode, details: str) -> EnvdError:
    """A status that gRPC or something in between made."""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported("the node does not know this call", hint="is it an older envd?")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return LimitExceeded("the message is larger than 8 MiB", hint="ask for less at once")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Unavailable(
            "the node has more calls than it takes; nothing was done",
            hint="try again a little later",
            reason=api_errors.OVERLOADED,
            retry_after_ms=1000,
        )
    number: int = code.value[0]
    message = details[:_MAX_FOREIGN_TEXT] or code.value[1]
    kind = api_errors.class_of(number, "")
    if issubclass(kind, OutcomeUnknown):
        kind = EnvdError
    return api_errors.made(kind, message, hint="", reason="")


def _lost(error: grpc.RpcError) -> bool:
    """Tell whether a call ended without an answer of a node because the connection failed."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and _own_error(error) is None


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
