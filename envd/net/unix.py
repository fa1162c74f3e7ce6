"""The Unix socket for clients on this machine: `wire.framing`, answers in order of requests.

Who calls is known from the kernel (SO_PEERCRED) or from a token in the request. A frame that
can't be read is answered with an error, and the connection closed, for what follows it can't be
told apart. The socket's file is `unix_file`'s.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from envd.core.answers import Identity
from envd.core.backups import BackupRequest
from envd.core.errors import (
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    ConflictsRequest,
    DeleteRequest,
    HistoryRequest,
    JoinRequest,
    LeaveRequest,
    ListRequest,
    Put,
    ReadRequest,
    RecoverRequest,
    RemoveRequest,
    ResolveRequest,
    RollbackRequest,
    Seen,
    TopologyRequest,
    Unset,
    WatchRequest,
    WriteRequest,
)
from envd.core.syncing import BindingView, BindRequest
from envd.net import backup_service, sync_service
from envd.net.access import Access
from envd.net.faults import Faults, bare
from envd.net.unix_file import BACKLOG, bind
from envd.node.api import EnvironmentApi
from envd.node.backups import Backups
from envd.sync.api import SyncApi
from envd.telemetry.node import Telemetry
from envd.telemetry.requests import CANCELLED, OK, Kind, Requests, Underway
from envd.wire import plain
from envd.wire.api_errors import code_name
from envd.wire.framing import CALLS, LENGTH, MAX_FRAME_BYTES, STREAMS, WRITES, encode_frame
from envd.wire.trace_context import TRACEPARENT

MAX_CONNECTIONS: Final = 256
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_MAX_SHOWN: Final = 32
_NESTED: Final[Mapping[type[Any], tuple[tuple[str, type[Any]], ...]]] = {
    WriteRequest: (("puts", Put), ("unsets", Unset), ("seen", Seen)),
    BindRequest: (("binding", BindingView),),
}
"""The fields of requests that hold further ones, and their types."""
RequestT = TypeVar("RequestT")
_Items = AsyncGenerator[dict[str, Any], None]
_Stream = Callable[[Identity, object], _Items]
_Perform = Callable[[Identity, Any], Awaitable[object]]


class UnixServer:
    """Serves `api` on the socket file `path`."""

    def __init__(
        self,
        api: EnvironmentApi,
        access: Access,
        path: Path,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        telemetry: Telemetry | None = None,
        backups: Backups | None = None,
        sync: SyncApi | None = None,
    ) -> None:
        self._api = api
        self._access = access
        self._path = path
        self._max_connections = max_connections
        self._max_frame_bytes = max_frame_bytes
        self._faults = Faults()
        counting = telemetry or Telemetry()
        counting.fault_counts.append(lambda: self._faults.count)
        self._requests = counting.requests
        self._calls = _calls(api, backups, sync)
        self._streams = _streams(api, backups)
        self._connections: dict[asyncio.Task[Any], _Connection] = {}
        self._stopping = False
        self._server: asyncio.Server | None = None
        self._inode: int | None = None

    @property
    def faults(self) -> int:
        """How many calls ended in an exception that nobody meant to raise."""
        return self._faults.count

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen; raises StartupError where the path can't be had."""
        listening = bind(self._path)
        self._inode = self._path.lstat().st_ino
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, backlog=BACKLOG)

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, let calls end for `grace_s` seconds, cut the rest."""
        self._stopping = True
        if self._server is None:
            return
        self._server.close()
        tasks = list(self._connections)
        for connection in self._connections.values():
            connection.end()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._server = None
        self._remove()

    def _remove(self) -> None:
        """Remove the socket file, unless it is another one's by now."""
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            return

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(
            self._calls,
            self._streams,
            self._access,
            self._faults,
            self._requests,
            reader,
            writer,
        )
        try:
            if self._stopping or len(self._connections) >= self._max_connections:
                connection.refuse(_too_many(len(self._connections)))
                return
            self._connections[task] = connection
            await connection.serve(self._max_frame_bytes)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client went away
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            self._connections.pop(task, None)
            await _close(writer)


class _Connection:
    """One client: reads a frame, answers it, reads the next."""

    def __init__(
        self,
        calls: Mapping[str, _Call],
        streams: Mapping[str, _Stream],
        access: Access,
        faults: Faults,
        requests: Requests,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._calls = calls
        self._streams = streams
        self._access = access
        self._faults = faults
        self._requests = requests
        self._reader = reader
        self._writer = writer
        self._ending = False
        self._idle: asyncio.Task[Any] | None = None
        self._peer_uid = _peer_uid(writer)

    def end(self) -> None:
        """Close once the call that runs, if one does, is answered."""
        self._ending = True
        if self._idle is not None:
            self._idle.cancel()

    def refuse(self, error: EnvdError) -> None:
        """Send an error that belongs to no request."""
        self._send_frame(encode_frame({"error": plain.error_to_plain(error)}))

    def _send_frame(self, frame: bytes) -> None:
        """Give a frame to the transport; raises ConnectionError where the client went away.

        Only asyncio's own transport passes over what is written after that; uvloop's does not.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the client went away")
        self._writer.write(frame)

    async def serve(self, max_frame_bytes: int) -> None:
        """Answer requests until the client goes, or sends what is no frame."""
        while not self._ending:
            try:
                body = await self._frame(max_frame_bytes)
            except EnvdError as error:
                self.refuse(error)
                return
            answer, readable = await self._answer(body)
            self._send_frame(answer)
            await self._writer.drain()
            if not readable:
                return

    async def _frame(self, max_frame_bytes: int) -> bytes:
        self._idle = asyncio.current_task()
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > max_frame_bytes:
                raise LimitExceeded(
                    f"the frame would be {length} bytes long; "
                    f"at most {max_frame_bytes} are allowed",
                    hint="frames are a 4-byte length, most significant byte first, and JSON",
                )
            return await self._reader.readexactly(length)
        finally:
            self._idle = None

    async def _answer(self, body: bytes) -> tuple[bytes, bool]:
        """The answer's frame, and whether the request was at least one to be read."""
        try:
            request = _decoded(body)
        except EnvdError as error:
            return encode_frame({"error": plain.error_to_plain(error)}), False
        underway, code, call = self._begin(request), CANCELLED, "?"
        try:
            call, arguments, token = _opened(request)
            identity = self._identity(token)
            if call in STREAMS:
                stall_s = None if call == "watch" else backup_service.STALL_S
                await self._stream(self._streams[call](identity, arguments), stall_s)
                code = OK
                return b"", False
            answer = plain.to_plain(await self._calls[call].perform(identity, arguments))
            frame, code = _bounded(encode_frame({"answer": answer})), OK
            return frame, True
        except EnvdError as error:
            failure, code = bare(error), code_name(error)
        except Exception as error:  # noqa: BLE001 - the call's outermost guard
            failure = self._faults.report(call, error, writes=call in WRITES)
            code = code_name(failure)
        finally:
            underway.end(code)
        return encode_frame({"error": plain.error_to_plain(failure)}), call not in STREAMS

    def _begin(self, request: object) -> Underway:
        """Begin to count a request, which may be anything yet."""
        known = request if isinstance(request, dict) else {}
        call, traceparent = known.get("call"), known.get(TRACEPARENT)
        method = f"socket {call if call in CALLS else 'other'}"
        underway = self._requests.begin(
            self._requests.of(method),
            traceparent if isinstance(traceparent, str) else "",
            Kind.WAIT if method.removeprefix("socket ") in STREAMS else Kind.CALL,
        )
        arguments = known.get("arguments")
        named = arguments.get("environment") if isinstance(arguments, dict) else None
        underway.about(named if isinstance(named, str) else "")
        return underway

    async def _stream(self, items: _Items, stall_s: float | None) -> None:
        """Send items until they end, the client goes, or it sends something."""
        self._idle = asyncio.current_task()
        sending = asyncio.create_task(self._send(items, stall_s))
        leaving = asyncio.create_task(self._reader.read(1))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._idle = None
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        with suppress(ConnectionError):  # the client went away
            if not sending.cancelled():
                sending.result()

    async def _send(self, items: _Items, stall_s: float | None) -> None:
        """Send items; a client that takes nothing for `stall_s` is given up."""
        async with aclosing(items):
            async for item in items:
                self._send_frame(_bounded(_item_frame(item)))
                try:
                    async with asyncio.timeout(stall_s):
                        await self._writer.drain()
                except TimeoutError:
                    raise backup_service.stalled() from None

    def _identity(self, token: str) -> Identity:
        if token:
            return self._access.by_token(token)
        return self._access.by_peer(self._peer_uid)


class _Call:
    """One call of the protocol: its arguments' type, and what performs it."""

    def __init__(self, request: type[Any] | None, perform: _Perform) -> None:
        self._request = request
        self._perform = perform

    async def perform(self, identity: Identity, arguments: object) -> object:
        """Read the arguments and do it; raises InvalidRequest where they don't fit."""
        request = None if self._request is None else converted(arguments or {}, self._request)
        return await self._perform(identity, request)


def _streams(api: EnvironmentApi, backups: Backups | None) -> Mapping[str, _Stream]:
    async def watch(identity: Identity, arguments: object) -> _Items:
        async with aclosing(api.watch(identity, converted(arguments, WatchRequest))) as events:
            async for event in events:
                yield plain.watch_event_to_plain(event)

    def backup(identity: Identity, arguments: object) -> _Items:
        return backup_service.items(backups, identity, converted(arguments, BackupRequest))

    return {"watch": watch, "backup": backup}


def _calls(
    api: EnvironmentApi, backups: Backups | None, sync: SyncApi | None
) -> Mapping[str, _Call]:
    async def status(identity: Identity, _: object) -> object:
        return await api.status(identity)

    async def members(identity: Identity, _: object) -> object:
        return await api.cluster.members(identity)

    async def listing(identity: Identity, _: object) -> object:
        return await backup_service.listing(backups, identity)

    calls = {
        "get": _Call(ReadRequest, api.get),
        "list": _Call(ListRequest, api.list),
        "write": _Call(WriteRequest, api.write),
        "delete": _Call(DeleteRequest, api.delete),
        "rollback": _Call(RollbackRequest, api.rollback),
        "history": _Call(HistoryRequest, api.history),
        "conflicts": _Call(ConflictsRequest, api.conflicts),
        "resolve": _Call(ResolveRequest, api.resolve),
        "status": _Call(None, status),
        "members": _Call(None, members),
        "join": _Call(JoinRequest, api.cluster.join),
        "leave": _Call(LeaveRequest, api.cluster.leave),
        "remove": _Call(RemoveRequest, api.cluster.remove),
        "topology": _Call(TopologyRequest, api.cluster.topology),
        "recover": _Call(RecoverRequest, api.cluster.recover),
        "backups": _Call(None, listing),
        **{name: _Call(*each) for name, each in sync_service.socket_calls(sync).items()},
    }
    assert calls.keys() | STREAMS == set(CALLS)
    return calls


def converted(arguments: object, kind: type[RequestT]) -> RequestT:
    """A request from the document that `plain.to_plain` makes of it.

    Raises InvalidRequest for a field that is unknown, missing or of another type; what the
    field held is never told.
    """
    if not isinstance(arguments, dict):
        raise _misfit("the arguments are no object")
    _refuse_unknown(arguments, kind)
    for field, nested in _NESTED.get(kind, ()):
        items = arguments.get(field)
        for item in items if isinstance(items, list) else (items,):
            if isinstance(item, dict):
                _refuse_unknown(item, nested)
    try:
        return msgspec.convert(arguments, kind, strict=True)
    except msgspec.ValidationError as error:
        # Not chained: the text of an enum's error quotes what was there.
        _, _, place = str(error).rpartition(" - at `$.")
        raise _misfit(
            f"{place.rstrip('`') or 'an argument'} is missing or of a wrong type"
        ) from None


def _refuse_unknown(document: Mapping[object, object], kind: type[Any]) -> None:
    unknown = document.keys() - {field.name for field in fields(kind)}
    if unknown:
        shown = ascii(min(map(str, unknown))[:_MAX_SHOWN])
        raise _misfit(f"{shown} is no argument that this version knows")


def _misfit(message: str) -> InvalidRequest:
    return InvalidRequest(
        message, hint="is envctl of the same version as envd?", reason="INVALID_ARGUMENT"
    )


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not chained: the cause may quote the document.
        raise InvalidRequest("the frame is no JSON document", reason="MALFORMED") from None


def _opened(request: object) -> tuple[str, object, str]:
    """The call, arguments and token of a request's document."""
    if not isinstance(request, dict) or not isinstance(request.get("token", ""), str):
        raise InvalidRequest("the request is not one that this socket takes", reason="MALFORMED")
    call = request.get("call")
    if call not in CALLS:
        shown = ascii(call[:_MAX_SHOWN]) if isinstance(call, str) else "this"
        raise Unsupported(
            f"{shown} is no call of this socket", hint=f"there are {', '.join(CALLS)}"
        )
    return str(call), request.get("arguments"), request.get("token", "")


def _item_frame(item: dict[str, Any]) -> bytes:
    """As `encode_frame`, which takes eight times as long for the bytes of a backup."""
    body = msgspec.json.encode({"item": item})
    return LENGTH.pack(len(body)) + body


def _bounded(frame: bytes) -> bytes:
    if len(frame) > MAX_FRAME_BYTES:
        raise LimitExceeded(
            f"the answer is {len(frame)} bytes long; at most {MAX_FRAME_BYTES} are allowed",
            hint="ask for less at once: with a limit",
        )
    return frame


def _too_many(count: int) -> Unavailable:
    return Unavailable(
        f"the socket has {count} connections and takes no more now",
        hint="try again a little later",
        reason="OVERLOADED",
        retry_after_ms=1000,
    )


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """The uid of the process at the other end, -1 where the kernel does not tell."""
    peer = writer.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if peer is None or option is None:
        return -1
    raw = peer.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except (ConnectionError, asyncio.CancelledError):
        return
