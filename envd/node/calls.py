"""Questions and answers between two nodes over one channel, several at a time.

A channel for calls is dialed when there is something to ask and kept; the log has a channel of
its own, so a large answer never holds back records or their acknowledgements.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from envd.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from envd.node import handshake
from envd.node.handshake import Peer
from envd.ports import PeerChannel
from envd.wire import peers as wire

Method = Callable[[Peer, bytes], Awaitable[bytes]]
CALL_S: Final = 10.0
UNDECIDED: Final = frozenset({"PEER_GONE", "PEER_TIMEOUT"})
"""The reasons of an Unavailable after which the call may have been carried out."""
_AT_ONCE: Final = 16
_PATIENT_AT_ONCE: Final = 512
_PATIENT_BYTES: Final = 64 << 20
"""Room for a few of the largest writes, or for hundreds of small ones: they last for seconds."""
_log = logging.getLogger(__name__)
_KINDS: Final[dict[str, type[EnvdError]]] = {
    kind.__name__: kind
    for kind in (
        InvalidRequest,
        LimitExceeded,
        NotFound,
        Conflict,
        Denied,
        Unavailable,
        OutcomeUnknown,
        Unsupported,
        Corrupt,
    )
}


class NotAsked(Unavailable):
    """The peer can't be reached, so the question never left this node: nothing was done."""


class Patient:
    """A method that asks other nodes before it answers.

    What they ask in turn must not wait behind it, or two nodes wait for each other: so its calls
    have room of their own, and those for which there is none are refused, not left unread.
    """

    def __init__(self, method: Method) -> None:
        self._method = method

    async def __call__(self, peer: Peer, body: bytes) -> bytes:
        return await self._method(peer, body)


class _Room:
    """The calls of one patient method that are open on one channel."""

    def __init__(self) -> None:
        self._calls = 0
        self._bytes = 0

    def take(self, call: wire.Call) -> bool:
        """Let a call in, unless it is full."""
        full = self._calls == _PATIENT_AT_ONCE or self._bytes + len(call.body) > _PATIENT_BYTES
        if full and self._calls:
            return False
        self._calls += 1
        self._bytes += len(call.body)
        return True

    def leave(self, call: wire.Call) -> None:
        self._calls -= 1
        self._bytes -= len(call.body)


async def serve(channel: PeerChannel, peer: Peer, methods: Mapping[str, Method]) -> None:
    """Answer calls until the channel ends; at most a few at a time, then nothing is read."""
    quick = asyncio.Semaphore(_AT_ONCE)
    patient = {name: _Room() for name, method in methods.items() if isinstance(method, Patient)}
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                frame = await handshake.receive(channel)
            except Unavailable:
                return
            if not isinstance(frame, wire.Call):
                raise Corrupt("a peer sent something else than a call")
            room = patient.get(frame.method)
            if room is None:
                await quick.acquire()
                done: Callable[[], None] = quick.release
            elif room.take(frame):
                done = partial(room.leave, frame)
            else:
                await _send(channel, _busy(frame))
                continue
            group.create_task(_answer(channel, peer, methods, frame, done))


async def _answer(
    channel: PeerChannel,
    peer: Peer,
    methods: Mapping[str, Method],
    call: wire.Call,
    done: Callable[[], None],
) -> None:
    try:
        await _send(channel, await _outcome(peer, methods, call))
    finally:
        done()


async def _send(channel: PeerChannel, frame: wire.Frame) -> None:
    with suppress(Unavailable):  # Who asked is gone; nobody else waits for it.
        await channel.send(wire.encode(frame))


def _busy(call: wire.Call) -> wire.Fault:
    return wire.Fault(
        call.number, "Unavailable", "BUSY", "the node has too much to do; nothing was done"
    )


async def _outcome(peer: Peer, methods: Mapping[str, Method], call: wire.Call) -> wire.Frame:
    method = methods.get(call.method)
    try:
        if method is None:
            raise Unsupported("this node does not know the call", reason="UNKNOWN_CALL")
        return wire.Reply(call.number, await method(peer, call.body))
    except EnvdError as error:
        kind = next(
            kind for kind in type(error).__mro__ if kind.__name__ in _KINDS or kind is EnvdError
        )
        return wire.Fault(call.number, kind.__name__, error.reason, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - one call must not end the others
        _log.critical(
            "peer.call_failed",
            extra={"method": call.method, "error": type(error).__name__},
            exc_info=True,
        )
        return wire.Fault(call.number, "Unavailable", "INTERNAL", "the peer failed to answer")


class CallClient:
    """The calls of this node to one peer; `open_channel` dials and introduces itself."""

    def __init__(self, open_channel: Callable[[], Awaitable[PeerChannel]]) -> None:
        self._open_channel = open_channel
        self._channel: PeerChannel | None = None
        self._opening = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0

    async def call(self, method: str, body: bytes, *, timeout_s: float = CALL_S) -> bytes:
        """Ask; raises what the peer raised, or Unavailable where no answer came (see UNDECIDED).

        That is NotAsked where it is certain that the peer knows nothing of the question.
        """
        kind: type[Unavailable] = NotAsked
        try:
            async with asyncio.timeout(timeout_s):
                channel = await self._opened()
                kind = Unavailable
                return await self._call(channel, method, body)
        except TimeoutError:
            raise kind("the peer did not answer in time", reason="PEER_TIMEOUT") from None

    async def _opened(self) -> PeerChannel:
        async with self._opening:
            if self._channel is None:
                try:
                    self._channel = await self._open_channel()
                except Unavailable as error:
                    raise NotAsked(error.message, hint=error.hint, reason=error.reason) from error
                self._reader = asyncio.get_running_loop().create_task(
                    self._read(self._channel), name="peer-calls"
                )
            return self._channel

    async def _call(self, channel: PeerChannel, method: str, body: bytes) -> bytes:
        self._number += 1
        number = self._number
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            try:
                await channel.send(wire.encode(wire.Call(number, method, body)))
            except Unavailable as error:
                raise Unavailable(error.message, reason="PEER_GONE") from error
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def _read(self, channel: PeerChannel) -> None:
        ended = Unavailable("the channel to the peer ended", reason="PEER_GONE")
        try:
            while True:
                self._settle(await handshake.receive(channel))
        except EnvdError as error:
            ended = Unavailable(error.message, reason="PEER_GONE")
        finally:
            channel.close()
            if self._channel is channel:
                self._channel = None
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ended)

    def _settle(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Reply():
                answer = self._waiting.get(frame.number)
                if answer is not None and not answer.done():
                    answer.set_result(frame.body)
            case wire.Fault():
                answer = self._waiting.get(frame.number)
                if answer is not None and not answer.done():
                    kind = _KINDS.get(frame.kind, Unavailable)
                    answer.set_exception(kind(frame.message, hint=frame.hint, reason=frame.reason))
            case _:
                raise Corrupt("a peer answered with something else than a reply")

    async def close(self) -> None:
        """End the channel and every call that waits."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait((self._reader,))
            self._reader = None
