"""gRPC over HTTP/2 with next to nothing in between: a generator that leaves the processors alone.

Three servers and the load share the machine, and a call over grpc.aio costs the generator more
than it costs some of the servers. Here a call is two frames out and three in. Headers are sent
as plain literals (RFC 7541, 6.2.2) and those of answers are not read: an error in gRPC has a
status and no message, so a call that ends without a message has failed, and so has a stream
that ends by itself.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
FRAME_BYTES: Final = 16_384
FIRST_WINDOW: Final = 65_535
"""What either side may send before the other has said anything: RFC 9113, 6.9.2."""
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW: Final = (1 << 31) - 1
_GRANTED_AGAIN: Final = 1 << 28
_INITIAL_WINDOW_SIZE: Final = 4
_SHORT_LENGTH: Final = 127


class CallFailed(Exception):
    """A call ended without an answer, a stream ended, or the connection did."""


@dataclass(slots=True)
class Stream:
    """One call under way; `on_message` gets each message, `on_end` is called once at the end."""

    number: int
    window: int
    on_message: Callable[[bytes], None]
    on_end: Callable[[], None]
    received: bytearray = field(default_factory=bytearray)
    waiting: deque[tuple[bytes, bool]] = field(default_factory=deque)


class Caller(Protocol):
    """Whoever carries single calls."""

    async def call(self, path: str, message: bytes) -> bytes:
        """One request, one answer; raises CallFailed."""
        ...


class Streamer(Protocol):
    """Whoever carries streams of messages."""

    def begin(
        self, path: str, on_message: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> Stream:
        """Begin a stream; raises CallFailed."""
        ...

    def send(self, stream: Stream, message: bytes) -> None:
        """One more message on it."""
        ...

    def finish(self, stream: Stream) -> None:
        """No more messages come on it."""
        ...


class Light(asyncio.Protocol):
    """One connection to a server; make it with `open`."""

    def __init__(self, address: str, metadata: Sequence[tuple[str, str]]) -> None:
        self._address = address
        self._metadata = metadata
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._heads: dict[str, bytes] = {}
        self._streams: dict[int, Stream] = {}
        self._stuck: deque[Stream] = deque()
        self._next = 1
        self._window = self._first_window = FIRST_WINDOW
        self._taken = 0
        self._buffer = bytearray()
        self._out: list[bytes] = []

    @classmethod
    async def open(cls, address: str, metadata: Sequence[tuple[str, str]] = ()) -> Light:
        """Connect; raises OSError where nobody listens."""
        host, _, port = address.rpartition(":")
        _, light = await asyncio.get_running_loop().create_connection(
            lambda: cls(address, metadata), host, int(port)
        )
        return light

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport = transport
        window = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WINDOW)
        grant = struct.pack(">I", _WINDOW - FIRST_WINDOW)
        transport.write(
            _PREFACE + frame(SETTINGS, 0, 0, window) + frame(WINDOW_UPDATE, 0, 0, grant)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.on_end()

    async def close(self) -> None:
        """End the connection, and all that goes on over it."""
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)

    # -- calls -------------------------------------------------------------------------

    async def call(self, path: str, message: bytes) -> bytes:
        """One request, one answer; raises CallFailed."""
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def answered(raw: bytes) -> None:
            if not answer.done():
                answer.set_result(raw)

        def ended() -> None:
            if not answer.done():
                answer.set_exception(CallFailed(f"{path} was answered by an error"))

        self.begin(path, answered, ended, message)
        return await answer

    def begin(
        self,
        path: str,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
        message: bytes | None = None,
    ) -> Stream:
        """Begin a call: with a message it is the only one, else `send` each. Raises CallFailed."""
        if self._transport is None:
            raise CallFailed("the connection is closed")
        stream = Stream(self._next, self._first_window, on_message, on_end)
        self._next += 2
        self._streams[stream.number] = stream
        head = self._heads.get(path) or self._heads.setdefault(path, self._head(path))
        self._write(frame(HEADERS, END_HEADERS, stream.number, head))
        if message is not None:
            self._send(stream, message, end=True)
        return stream

    def send(self, stream: Stream, message: bytes) -> None:
        """One more message on a stream."""
        self._send(stream, message, end=False)

    def finish(self, stream: Stream) -> None:
        """No more messages come on this stream."""
        stream.waiting.append((b"", True))
        self._drain(stream)

    def _head(self, path: str) -> bytes:
        pairs = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *self._metadata,
        ]
        return b"".join(literal(name, value) for name, value in pairs)

    # -- sending -----------------------------------------------------------------------

    def _send(self, stream: Stream, message: bytes, *, end: bool) -> None:
        data = struct.pack(">BI", 0, len(message)) + message
        for at in range(0, len(data), FRAME_BYTES):
            piece = data[at : at + FRAME_BYTES]
            stream.waiting.append((piece, end and at + FRAME_BYTES >= len(data)))
        self._drain(stream)

    def _drain(self, stream: Stream) -> None:
        """Send what the windows have room for; the rest waits for more."""
        while stream.waiting:
            piece, end = stream.waiting[0]
            if len(piece) > min(self._window, stream.window):
                if stream not in self._stuck:
                    self._stuck.append(stream)
                return
            stream.waiting.popleft()
            self._window -= len(piece)
            stream.window -= len(piece)
            self._write(frame(DATA, END_STREAM if end else 0, stream.number, piece))

    def _write(self, raw: bytes) -> None:
        """What one turn of the loop writes goes out together."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(raw)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    # -- receiving ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3])
            if len(buffer) - at - 9 < length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9]) & 0x7FFF_FFFF
            self._frame(kind, flags, number, bytes(buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        del buffer[:at]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if kind == DATA:
            self._take(stream, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._grant(stream, number, int.from_bytes(payload))
        elif kind == GO_AWAY and self._transport is not None:
            self._transport.close()
        ended = kind == RESET or (kind in {DATA, HEADERS} and flags & END_STREAM)
        if ended and self._streams.pop(number, None) is not None and stream is not None:
            stream.on_end()

    def _take(self, stream: Stream | None, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken > _GRANTED_AGAIN:
            self._write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0
        if stream is None:
            return
        received = stream.received
        received += payload
        at = 0
        while len(received) - at >= 5:
            length = int.from_bytes(received[at + 1 : at + 5])
            if len(received) - at - 5 < length:
                break
            stream.on_message(bytes(received[at + 5 : at + 5 + length]))
            at += 5 + length
        del received[:at]

    def _settings(self, payload: bytes) -> None:
        said: Mapping[int, int] = dict(struct.iter_unpack(">HI", payload))
        if _INITIAL_WINDOW_SIZE in said:
            more = said[_INITIAL_WINDOW_SIZE] - self._first_window
            self._first_window += more
            for stream in self._streams.values():
                stream.window += more
        self._write(frame(SETTINGS, ACK, 0, b""))
        self._retry()

    def _grant(self, stream: Stream | None, number: int, more: int) -> None:
        if number == 0:
            self._window += more
        elif stream is not None:
            stream.window += more
        self._retry()

    def _retry(self) -> None:
        stuck, self._stuck = self._stuck, deque()
        for stream in stuck:
            self._drain(stream)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4)
    return head + payload


def literal(name: str, value: str) -> bytes:
    """A header as two plain texts that no table has to remember."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    """A string with its length, an integer of a 7-bit prefix (RFC 7541, 5.1)."""
    raw = text.encode()
    length = len(raw)
    if length < _SHORT_LENGTH:
        return bytes((length,)) + raw
    size, digits = length - _SHORT_LENGTH, bytearray((_SHORT_LENGTH,))
    while size >= 128:
        digits.append(size % 128 + 128)
        size //= 128
    digits.append(size)
    return bytes(digits) + raw
