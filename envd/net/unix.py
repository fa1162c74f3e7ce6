"""The Unix socket for clients on this machine: `wire.framing`, answers in order of requests.

Who calls is known from the kernel (SO_PEERCRED) or from a token in the request. The socket
file is made with mode 0600, never with more for a moment. One that a dead daemon left is
replaced; one that somebody listens on is not. A frame that can't be read is answered with an
error, and the connection closed, for what follows it can't be told apart.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from envd.core.answers import Identity, WatchEvent
from envd.core.errors import (
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    StartupError,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    RollbackRequest,
    Unset,
    WatchRequest,
    WriteRequest,
)
from envd.net.access import Access
from envd.net.faults import Faults
from envd.node.api import EnvironmentApi
from envd.wire import plain
from envd.wire.framing import CALLS, LENGTH, MAX_FRAME_BYTES, STREAMS, WRITES, encode_frame

MAX_CONNECTIONS: Final = 256
_BACKLOG: Final = 64
_MODE: Final = 0o600
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_MAX_SHOWN: Final = 32
_CONNECT_TIMEOUT_S: Final = 1.0
RequestT = TypeVar("RequestT")
_Watch = Callable[[Identity, WatchRequest], AsyncGenerator[WatchEvent, None]]
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
    ) -> None:
        self._api = api
        self._access = access
        self._path = path
        self._max_connections = max_connections
        self._max_frame_bytes = max_frame_bytes
        self._faults = Faults()
        self._calls = _calls(api)
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
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, backlog=_BACKLOG
        )

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
            self._calls, self._api.watch, self._access, self._faults, reader, writer
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
        watch: _Watch,
        access: Access,
        faults: Faults,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._calls = calls
        self._watch = watch
        self._access = access
        self._faults = faults
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
        self._writer.write(encode_frame({"error": plain.error_to_plain(error)}))

    async def serve(self, max_frame_bytes: int) -> None:
        """Answer requests until the client goes, or sends what is no frame."""
        while not self._ending:
            try:
                body = await self._frame(max_frame_bytes)
            except EnvdError as error:
                self.refuse(error)
                return
            answer, readable = await self._answer(body)
            self._writer.write(answer)
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
        call = "?"
        try:
            call, arguments, token = _opened(request)
            identity = self._identity(token)
            if call in STREAMS:
                await self._stream(self._watch(identity, converted(arguments, WatchRequest)))
                return b"", False
            answer = plain.to_plain(await self._calls[call].perform(identity, arguments))
            return _bounded(encode_frame({"answer": answer})), True
        except EnvdError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the call's outermost guard
            failure = self._faults.report(call, error, writes=call in WRITES)
        return encode_frame({"error": plain.error_to_plain(failure)}), call not in STREAMS

    async def _stream(self, events: AsyncGenerator[WatchEvent, None]) -> None:
        """Send events until they end, the client goes, or it sends something."""
        self._idle = asyncio.current_task()
        sending = asyncio.create_task(self._send(events))
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

    async def _send(self, events: AsyncGenerator[WatchEvent, None]) -> None:
        async with aclosing(events):
            async for event in events:
                item = plain.watch_event_to_plain(event)
                self._writer.write(_bounded(encode_frame({"item": item})))
                await self._writer.drain()

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
        request = None if self._request is None else converted(arguments, self._request)
        return await self._perform(identity, request)


def _calls(api: EnvironmentApi) -> Mapping[str, _Call]:
    async def status(identity: Identity, _: object) -> object:
        return await api.status(identity)

    calls = {
        "get": _Call(ReadRequest, api.get),
        "list": _Call(ListRequest, api.list),
        "write": _Call(WriteRequest, api.write),
        "delete": _Call(DeleteRequest, api.delete),
        "rollback": _Call(RollbackRequest, api.rollback),
        "history": _Call(HistoryRequest, api.history),
        "status": _Call(None, status),
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
    for field, nested in (("puts", Put), ("unsets", Unset)):
        items = arguments.get(field) if kind is WriteRequest else None
        for item in items if isinstance(items, list) else ():
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


# -- the socket file ---------------------------------------------------------------


def bind(path: Path) -> socket.socket:
    """Bind the socket file, mode 0600; raises StartupError where that can't be."""
    _make_way(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        # On Linux the file gets the mode of the socket, so it is never open to others, and
        # the umask, which is the whole process's, stays as it is.
        os.fchmod(one.fileno(), _MODE)
        one.bind(str(path))
        path.chmod(_MODE)
        one.listen(_BACKLOG)
    except OSError as error:
        one.close()
        raise _unusable(path, error) from error
    return one


def _make_way(path: Path) -> None:
    """Remove the socket file of a daemon that is dead; raises StartupError for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISSOCK(mode):
        raise StartupError(
            f"{path} is there already and is no socket",
            hint="choose another path with --socket PATH",
            reason="SOCKET_UNUSABLE",
        )
    if _answers(path):
        raise StartupError(
            f"another process listens on {path}",
            hint="is envd running already? Stop it, or choose another path with --socket PATH",
            reason="ADDRESS_IN_USE",
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error


def _answers(path: Path) -> bool:
    """Tell whether somebody listens; a full backlog is somebody too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(_CONNECT_TIMEOUT_S)
        try:
            one.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
                return True
            raise _unusable(path, error) from error
        return True


def _unusable(path: Path, error: OSError) -> StartupError:
    why = error.strerror or str(error)
    return StartupError(
        f"can't listen on the Unix socket {path}: {why}",
        hint="choose a shorter path, in a directory of this user, with --socket PATH",
        reason="SOCKET_UNUSABLE",
    )
