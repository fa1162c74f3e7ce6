"""The servers of a client: their connections, which of them are well, and single calls.

A call goes to the server that the picker chooses among those whose circuit is closed. A read
that fails for want of a connection or an answer goes on to the next one, at most as often as
the backoff allows and never past its deadline. A write does so too while it surely was not
done; one whose answer was lost is sent once more to the same server, which knows its operation
id, and then its outcome is unknown.

Proxies of the environment (`http_proxy`) are not used: values do not go through them unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc

from envd.client.backoff import Backoff
from envd.client.picking import Picker, Server
from envd.client.rpc_errors import error_from_rpc, is_without_answer, was_never_sent
from envd.client.tasks import end
from envd.core.breaker import Breaker
from envd.core.errors import EnvdError, InvalidRequest, OutcomeUnknown, Unauthenticated, Unavailable
from envd.wire import trace_context

MAX_MESSAGE_BYTES: Final = 8 << 20
CONNECT_TIMEOUT_S: Final = 5.0
_CLOSE_S: Final = 1.0
_FAILURES_IN_A_ROW: Final = 3
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0
REPEAT: Final = 'operation="{}"'
Metadata = tuple[tuple[str, str], ...]
T = TypeVar("T")
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    # A dead peer is noticed after 40 s; the server takes a ping every 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_READY: Final = grpc.ChannelConnectivity.READY
_BROKEN: Final = frozenset(
    {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}
)


@dataclass(frozen=True, slots=True)
class World:
    """Time and waiting, as a program has them; tests give their own."""

    monotonic_s: Callable[[], float]
    wall_ms: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def _breaker() -> Breaker:
    """A server's. A person waits for a client, so it is tried again soon and often."""
    return Breaker(
        _FAILURES_IN_A_ROW, first_pause_s=_FIRST_PAUSE_S, longest_pause_s=_LONGEST_PAUSE_S
    )


@dataclass(slots=True)
class _Link:
    """One server's connection; `worked` tells whether calls may run over `channel`."""

    server: Server
    breaker: Breaker = field(default_factory=_breaker)
    channel: grpc.aio.Channel | None = None
    connecting: asyncio.Task[Unavailable | None] | None = None
    worked: bool = False
    calls: int = 0
    away: bool = False


class AnswerLost(OutcomeUnknown):
    """The connection broke while a write waited for its answer."""


class Servers:
    """All servers of one client; close it with `close`."""

    def __init__(
        self,
        servers: Sequence[Server],
        picker: Picker,
        backoff: Backoff,
        world: World,
        *,
        token: str = "",
        may_have_token: Callable[[str], bool] = lambda _: True,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.on_answer: Callable[[], None] = _nothing
        self.on_failure: Callable[[], None] = _nothing
        """Called after each answer and each failure of a server."""
        self.backoff = backoff
        self.world = world
        self._picker = picker
        self._may_have_token = may_have_token
        self._connect_timeout_s = connect_timeout_s
        self._links: MutableMapping[str, _Link] = {}
        self._authorization: Metadata = ()
        self._closed = False
        self._back = asyncio.Event()
        self._background: set[asyncio.Task[Any]] = set()
        self.replace(servers)
        self.use_token(token)

    @property
    def addresses(self) -> Sequence[str]:
        """All addresses, in the order given."""
        return tuple(self._links)

    def replace(self, servers: Sequence[Server]) -> None:
        """Go on with these servers; connections to those that stay are kept."""
        kept = self._links
        self._links = {one.address: kept.pop(one.address, _Link(one)) for one in servers}
        for link in kept.values():
            _drop(link)

    def use_token(self, token: str) -> None:
        """Calls from now on carry this token; raises Unauthenticated for one that is none."""
        if not (token.isascii() and (token.isprintable() or not token)):
            raise Unauthenticated(
                "the token holds characters that no token has", reason="TOKEN_INVALID"
            )
        self._authorization = (("authorization", f"Bearer {token}"),) if token else ()

    def metadata(self) -> Metadata:
        """What goes along with a call made now."""
        return self._authorization + trace_context.metadata()

    async def close(self) -> None:
        """End all connections and what runs over them."""
        self._closed = True
        self._back.set()
        for link in self._links.values():
            if link.channel is not None:
                await link.channel.close(None)
                _drop(link)
        if self._background:
            await asyncio.wait(self._background, timeout=_CLOSE_S)
        await end(*self._background)

    # -- which server ------------------------------------------------------------------

    def choose(self, *, avoid: Collection[str] = (), prefer: str = "") -> str:
        """The address that a call made now should go to.

        It is `prefer` where that has a closed circuit. Raises Unavailable where none has.
        """
        if self._closed:
            raise closed()
        now_s = self.world.monotonic_s()
        able = [link for link in self._links.values() if not link.breaker.wait_s(now_s)]
        able = [link for link in able if link.server.address not in avoid] or able
        preferred = next((link for link in able if link.server.address == prefer), None)
        if preferred is None and able:
            picked = self._picker.pick([link.server for link in able], self._calls_to)
            preferred = self._links[picked.address]
        if preferred is None or not preferred.breaker.begin(now_s):
            raise self._none_able()
        return preferred.server.address

    def _none_able(self) -> Unavailable:
        return Unavailable(
            f"no envd answers at {', nor at '.join(self._links)}",
            hint="see that envd runs there, and try again",
            reason="NO_DAEMON",
        )

    def _calls_to(self, address: str) -> int:
        return self._links[address].calls

    def answered(self, address: str) -> None:
        """Note that this server is well; who waits for it goes on."""
        if link := self._links.get(address):
            link.breaker.succeeded()
            if link.away:
                link.away = False
                self._back.set()
                self._back = asyncio.Event()
        if not self._closed:
            self.on_answer()

    async def rest(self, wait_s: float) -> None:
        """Wait, but not longer than until a server that was away answers someone again."""
        waits = [
            asyncio.ensure_future(self.world.sleep(wait_s)),
            asyncio.ensure_future(self._back.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def failed(self, address: str, broken: grpc.aio.Channel | None = None) -> None:
        """Note that this server gave no answer, or that this connection to it broke.

        All that ran over one connection fails with it, and that counts once.
        """
        link = self._links.get(address)
        if link is None or (broken is not None and link.channel is not broken):
            return
        self.on_failure()
        link.breaker.failed(self.world.monotonic_s())
        link.away = True
        if broken is not None:
            _drop(link)

    def is_left_alone(self, address: str) -> bool:
        """Whether no call goes to this server at the moment."""
        link = self._links.get(address)
        return link is None or link.breaker.wait_s(self.world.monotonic_s()) > 0

    # -- connections -------------------------------------------------------------------

    async def ready(self, address: str, within_s: float = CONNECT_TIMEOUT_S) -> grpc.aio.Channel:
        """The connection to a server, made if need be.

        Raises Unavailable where there is none; that an attempt failed is noted as a failure of
        the server, that this caller could not wait for its end is not.
        """
        if self._closed:
            raise closed()
        link = self._links.get(address)
        if link is None:  # replaced meanwhile
            raise self._none_able()
        if link.channel is None:
            link.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        channel = link.channel
        if link.connecting is None:
            if channel.get_state() is _READY:
                return channel
            link.connecting = self.in_background(self._connect(link, channel))
        connecting = link.connecting
        await asyncio.wait([connecting], timeout=max(0.0, within_s))
        if self._closed:
            raise closed()
        if not connecting.done():
            raise Unavailable(
                f"no envd answers at {address} (it took too long)",
                hint="see that envd runs there, and try again",
                reason="TIMEOUT",
            )
        if refusal := connecting.result():
            raise Unavailable(refusal.message, hint=refusal.hint, reason=refusal.reason)
        return channel

    async def _connect(self, link: _Link, channel: grpc.aio.Channel) -> Unavailable | None:
        """One attempt, for all that wait for it; returns why it failed."""
        address = link.server.address
        waiting = self.in_background(_connected(channel))
        try:
            await asyncio.wait([waiting], timeout=self._connect_timeout_s)
            refusal = self._refusal(address, connected=waiting.done() and waiting.result())
            if refusal is None:
                link.worked = True
            else:
                worked = link.worked
                self.failed(address, channel)
                if not worked:  # Else what still runs over it ends by itself.
                    self.in_background(channel.close(None))
            return refusal
        finally:
            link.connecting = None

    def _refusal(self, address: str, *, connected: bool) -> Unavailable | None:
        if not connected:
            return Unavailable(
                f"no envd answers at {address}",
                hint="see that envd runs there, and try again",
                reason="NO_DAEMON",
            )
        if not self._may_have_token(address):
            return Unavailable(
                f"another user of this machine listens at {address}, and gets no token",
                hint="start envd; where that is it, set ENVD_TOKEN",
                reason="NO_DAEMON",
            )
        return None

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run to its end, and at the latest until the client is closed.

        gRPC must not be left waiting for something when the event loop ends.
        """
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # -- single calls ------------------------------------------------------------------

    async def call(
        self,
        path: str,
        raw: bytes,
        *,
        timeout_s: float,
        operation: str | None = None,
        anywhere: bool = False,
    ) -> bytes:
        """One message each way; `operation` is the id of a write, None for a read.

        A write whose answer was lost goes once more to the server that surely knows its id, and
        where that is gone, if it may go `anywhere`, to another one: what it does, done by both,
        comes to the same. Raises the EnvdError that the node answered with, Unavailable where
        nothing was done, OutcomeUnknown where that is not clear.
        """
        deadline_s = self.world.monotonic_s() + timeout_s
        failures, address, stay = 0, "", ""
        unclear: AnswerLost | None = None
        while True:
            try:
                if stay not in self._links:
                    stay = ""  # It left the cluster meanwhile.
                    if unclear is not None and not anywhere:
                        raise unclear
                address = stay or self.choose(avoid={address})
                return await self._once(address, path, raw, deadline_s, operation)
            except AnswerLost as error:
                failures += 1
                if unclear is not None and (not anywhere or self.backoff.gives_up(failures)):
                    raise
                unclear, stay = error, "" if stay else address
            except Unavailable as error:
                failures += 1
                wait_s = self.backoff.delay_s(failures, error.retry_after_ms)
                late = self.world.monotonic_s() + wait_s >= deadline_s
                if late or error.reason == "TIMEOUT" or self.backoff.gives_up(failures):
                    raise unclear or error from None
                if anywhere:
                    stay = ""
                await self.rest(wait_s)

    async def _once(
        self, address: str, path: str, raw: bytes, deadline_s: float, operation: str | None
    ) -> bytes:
        link = self._links[address]
        channel = await self.ready(address, deadline_s - self.world.monotonic_s())
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path, None, None)
        left_s = max(0.001, deadline_s - self.world.monotonic_s())
        link.calls += 1
        try:
            answer = await call(raw, timeout=left_s, metadata=self.metadata())
        except grpc.RpcError as error:
            raise self.outcome(address, channel, error, operation) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise closed() from None
        finally:
            link.calls -= 1
        self.answered(address)
        return answer

    def outcome(
        self,
        address: str,
        channel: grpc.aio.Channel,
        error: grpc.RpcError,
        operation: str | None = None,
    ) -> EnvdError:
        """What a failed call means, noted for the circuit of its server."""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED or not is_without_answer(error):
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self.failed(address)
            else:
                self.answered(address)
            return error_from_rpc(error, operation=operation, repeat=REPEAT)
        self.failed(address, channel)
        if operation is None or was_never_sent(error):
            return Unavailable(
                f"no answer from {address} (the connection broke)",
                hint="see that envd runs there, and try again",
                reason="NO_ANSWER",
            )
        found = error_from_rpc(error, operation=operation, repeat=REPEAT)
        return AnswerLost(found.message, hint=found.hint)


def _nothing() -> None:
    """Nobody wants to be told."""


def closed() -> InvalidRequest:
    """The error of a call on a client that was closed."""
    return InvalidRequest("the client is closed", hint="connect again", reason="CLOSED")


async def _connected(channel: grpc.aio.Channel) -> bool:
    """Wait until a connection is made, True, or an attempt failed, False."""
    try:
        state = channel.get_state(try_to_connect=True)
        while state is not _READY and state not in _BROKEN:
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
    except grpc.aio.UsageError:  # It was closed.
        return False
    return state is _READY


def _drop(link: _Link) -> None:
    """Let go of a connection; calls that still run over it end by themselves."""
    link.channel, link.worked = None, False
