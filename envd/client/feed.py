"""Follows one environment over a watch, for as long as its client lives.

It begins with a snapshot of the node and goes on with changes. Where the connection breaks it
resumes with the token of the last event, at the same server first; where a node can't resume
(it is another one, or too much time has passed) it tells the state anew, and the difference
becomes one change. A node that says nothing for four heartbeats counts as gone.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from envd.client.changes import change_of
from envd.client.keeping import Keeper
from envd.client.live import LiveEnvironment
from envd.client.rpc_errors import is_without_answer
from envd.client.servers import Servers
from envd.client.tasks import place_of
from envd.core.answers import (
    Changed,
    EnvironmentView,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.errors import (
    Conflict,
    Denied,
    EnvdError,
    NotFound,
    SnapshotError,
    Unavailable,
)
from envd.core.requests import WatchRequest
from envd.wire import api_streams
from envd.wire._pb import environment_pb2 as pb

SILENCE_S: Final = 60.0
"""Four heartbeats of a node (node.watch)."""
PARTIAL: Final = "PARTIAL"
"""Of the nodes that hold what is watched, none answers the one that is asked."""
_log: Final = logging.getLogger("envd.client")
_REFUSED_FACTOR: Final = 10
"""After a refusal the wait is so many times longer: it will hardly change at once."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How an environment is followed; see `Client.environment`."""

    environment: str
    reveal: bool = True
    resolve: bool = True
    must_exist: bool = True


class Feed:
    """What keeps `live` current; `run` until cancelled, `first` is done once it shows a state."""

    def __init__(
        self,
        servers: Servers,
        path: str,
        wish: Wish,
        live: LiveEnvironment,
        keeper: Keeper | None,
    ) -> None:
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._servers = servers
        self._path = path
        self._wish = wish
        self._live = live
        self._keeper = keeper
        self._request = WatchRequest(
            wish.environment,
            values=True,
            reveal=wish.reveal,
            resolve=wish.resolve,
            exact=True,
        )
        self._at = ""
        self._failed_at = ""
        self._told = False
        self._told_reveal = wish.reveal
        self._telling: EnvironmentView | None = None
        self._moved = False

    @property
    def began(self) -> bool:
        """Whether a first state is shown."""
        return self.first.done() and not self.failed

    @property
    def failed(self) -> bool:
        """Whether there will be no first state."""
        return self.first.done() and self.first.exception() is not None

    async def run(self) -> None:
        """Follow for ever; ends early only where the first state is refused."""
        try:
            await self._run()
        except Exception as error:  # noqa: BLE001 - the task's outermost guard
            _log.error(
                "watch.failed environment=%s error=%s at=%s",
                self._wish.environment,
                type(error).__name__,
                place_of(error),
            )
            failure = EnvdError("the watch failed; that is an error of envd's client")
            self._live.lost(failure)
            self.fail_first(failure)

    async def _run(self) -> None:
        failures = 0
        while True:
            self._moved = False
            try:
                await self._follow()
            except EnvdError as error:
                failures = 1 if self._moved else failures + 1
                if self._goes_on_masked(error):
                    continue
                self._live.lost(error)
                if not self.first.done() and await self._fails_first(error, failures):
                    return
                await self._wait(error, failures)

    async def _wait(self, error: EnvdError, failures: int) -> None:
        servers = self._servers
        rounds = failures - len(servers.addresses) + 1
        if isinstance(error, Unavailable):
            if rounds <= 0 and not self._moved:
                return  # Another one may answer at once.
            wait_s = servers.backoff.delay_s(
                max(1, rounds), error.retry_after_ms if rounds > 0 else 0
            )
        else:
            wait_s = _REFUSED_FACTOR * servers.backoff.delay_s(failures)
        await servers.rest(wait_s)

    async def _follow(self) -> None:
        """Watch until it fails, which it does in the end."""
        avoid = {self._failed_at} if self._failed_at else set()
        self._at = self._servers.choose(avoid=avoid, prefer=self._at)
        try:
            channel = await self._servers.ready(self._at)
        except Unavailable:
            self._leave()
            raise
        self._failed_at = ""
        self._telling = None
        request = self._request
        if request.reveal != self._told_reveal:  # The states are others: have it told whole.
            request = replace(request, token="")
        raw = api_streams.watch_message(request, batched=True).SerializeToString()
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        watch = channel.unary_stream(self._path, None, None)
        call = watch(raw, metadata=self._servers.metadata())
        if request.token:
            self._live.reached()
        try:
            await self._read(call, request)
        except grpc.aio.AioRpcError as error:
            found = self._servers.outcome(self._at, channel, error)
            if isinstance(found, Unavailable) and not is_without_answer(error):
                self._leave()
            raise found from error
        except TimeoutError:
            self._servers.failed(self._at, channel)
            raise Unavailable(f"{self._leave()} has fallen silent", reason="NO_ANSWER") from None
        except DecodeError:
            raise Unavailable(f"{self._leave()} is no envd", reason="NO_ANSWER") from None
        finally:
            call.cancel()
        self._leave()
        raise Unavailable("the node ended the watch", reason="STOPPING")

    def _leave(self) -> str:
        """Try another server next, if there is one; returns the one that is left."""
        self._failed_at, self._at = self._at, ""
        return self._failed_at

    async def _read(
        self, call: grpc.aio.UnaryStreamCall[bytes, bytes], request: WatchRequest
    ) -> None:
        loop = asyncio.get_running_loop()
        parse = pb.WatchResponse.FromString
        async with asyncio.timeout(SILENCE_S) as silence:
            while isinstance(raw := await call.read(), bytes):
                events = api_streams.events_from(parse(raw))
                if not self._moved:
                    self._moved = True
                    self._request, self._told_reveal = request, request.reveal
                    self._servers.answered(self._at)
                for event in events:
                    self._take(event)
                silence.reschedule(loop.time() + SILENCE_S)

    def _take(self, event: WatchEvent) -> None:
        match event:
            case Reset(reason):
                _log.info("watch.reset environment=%s reason=%s", self._wish.environment, reason)
                self._telling = None
                self._request = replace(self._request, token="")
                return
            case SnapshotItem(state):
                if state.environment == self._wish.environment:
                    self._telling = state
                return
            case SnapshotEnd(_, True, why) if self._telling is None:
                raise Unavailable(why, reason=PARTIAL)
            case SnapshotEnd():
                self._show_told()
            case Changed(commit, _, state, through):
                if commit.environment == self._wish.environment:
                    self._live.changed(change_of(commit, through), state)
                    self._keep(state)
            case Heartbeat(_, True, why):
                self._live.lost(Unavailable(why, reason=PARTIAL))
            case Heartbeat():
                self._live.reached()
                if self._keeper is not None:
                    self._keeper.still_so()
        self._request = replace(self._request, token=event.token)

    def _show_told(self) -> None:
        """The node has told the state whole."""
        told, self._telling = self._telling, None
        if not self._told and not self.first.done():
            if told is None and self._wish.must_exist:
                raise NotFound(
                    f"{self._wish.environment} does not exist",
                    hint=f"make it with: envctl create {self._wish.environment}",
                )
            if told is not None and told.unresolved:
                raise Conflict(told.unresolved, reason="UNRESOLVED")
        self._live.caught_up(told, first=not self.first.done())
        self._told = True
        self._keep(told)
        if not self.first.done():
            self.first.set_result(None)

    def _keep(self, state: EnvironmentView | None) -> None:
        if self._keeper is not None:
            self._keeper.keep(state)

    # -- where it can't begin ----------------------------------------------------------

    def _goes_on_masked(self, error: EnvdError) -> bool:
        """Without the right to reveal, follow what may be seen; ask for the right next time."""
        wanted = self._wish.reveal
        if isinstance(error, Denied) and self._request.reveal:
            self._request = replace(self._request, reveal=False)
            return True
        self._request = replace(self._request, reveal=wanted)
        return False

    async def _fails_first(self, error: EnvdError, failures: int) -> bool:
        """Begin with the offline snapshot, or fail where that is of no use; True: it ends."""
        servers = self._servers
        if isinstance(error, Unavailable):
            if failures < len(servers.addresses):
                return False
            refusal = await self._begins_offline()
            if refusal is None or not servers.backoff.gives_up(failures):
                return False
            error.hint = "; ".join(filter(None, (refusal.message, error.hint)))
        self.fail_first(error)
        return True

    def fail_first(self, error: EnvdError) -> None:
        """Tell who waits for the first state that there will be none."""
        if not self.first.done():
            self.first.set_exception(error)
            self.first.exception()  # It may be that nobody waits any more.

    async def _begins_offline(self) -> EnvdError | None:
        """Show the snapshot; returns why not."""
        if self._keeper is None:
            return SnapshotError("snapshots are off", reason="SNAPSHOT_OFF")
        try:
            kept = await self._keeper.load()
        except SnapshotError as error:
            return error
        self._live.start_from(kept.state, kept.age_s(self._servers.world.wall_ms()))
        self.first.set_result(None)
        return None
