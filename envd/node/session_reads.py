"""Reads that must show a write the caller knows of, on a node that may not have it yet.

A session token names one record, `(partition, origin, seq)`, and means the same on every node
(read your writes: Terry et al. 1994, Session Guarantees). A node that lacks the record waits for
it a moment, for nearly always it is on its way. Then it asks the peers, those first that said they
hold it; one answers from its own copy, after its own check, and asks nobody else in turn. Where
none can, the read is refused: nothing older is ever shown.

The caller's rights are checked by the node that was asked, before anything is sent; a peer trusts
it for that, as with writes (`forwarding`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from envd.core.answers import EnvironmentView
from envd.core.errors import Conflict, EnvdError, InvalidRequest, NotFound, Unavailable
from envd.core.requests import ReadRequest
from envd.node.calls import Method
from envd.node.handshake import Peer
from envd.node.vectors import VectorFeed
from envd.node.views import read_session_token
from envd.wire import api
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

METHOD: Final = "read.forward"
STALE: Final = "STALE"
WAIT_S: Final = 0.05
"""A record takes a few milliseconds to a peer nearby, and a caller hardly notices this."""
PEER_S: Final = 1.0
"""As long as a write waits for a second copy (`acknowledging`)."""
ASKING_S: Final = 2.0
MAX_OPEN: Final = 1024


class Point(NamedTuple):
    """The record that a session token names."""

    partition: int
    origin: int
    seq: int


Holders = Callable[[int, int, int], Sequence[int]]
"""(partition, origin, seq) -> the peers to ask for that record, in order."""


def point_of(token: str) -> Point:
    """The record that a session token names; raises InvalidRequest where it is no token."""
    found = read_session_token(token)
    if found is None:
        raise InvalidRequest("the session token is none", reason="INVALID_TOKEN")
    return Point(*found)


def stale() -> Unavailable:
    """The refusal of a read that nobody can answer as its token asks."""
    return Unavailable(
        "this node can't prove that it has seen what the session token stands for",
        hint="read from the node that answered the write, or without the token",
        reason=STALE,
    )


class SessionReads:
    """The reads of one node that wait for a record, or that a peer answers; MAX_OPEN at once."""

    def __init__(
        self,
        feed: VectorFeed,
        holders: Holders,
        ask: Callable[[int, str, bytes], Awaitable[bytes]],
    ) -> None:
        self._feed = feed
        self._holders = holders
        self._ask = ask
        self._open = 0

    async def reaches(self, point: Point) -> bool:
        """Wait a moment until this node holds a record; tell whether it does."""
        with self._one_more():
            return await self._feed.reaches(*point, within_s=WAIT_S)

    async def read(self, request: ReadRequest) -> EnvironmentView:
        """What the first peer answers that has what the request's token stands for.

        Raises what that peer raises of the request, Unavailable where none answers in time.
        """
        with self._one_more():
            try:
                async with asyncio.timeout(ASKING_S):
                    return await self._from_peers(request)
            except TimeoutError:
                raise stale() from None

    async def _from_peers(self, request: ReadRequest) -> EnvironmentView:
        body = wire.pack(wire.ForwardedRead(api.read_message(request).SerializeToString()))
        for uid in self._holders(*point_of(request.token)):
            try:
                async with asyncio.timeout(PEER_S):
                    answer = await self._ask(uid, METHOD, body)
            except (InvalidRequest, NotFound, Conflict):
                if request.resolve:
                    break  # It may tell of a layer that the caller must not know of.
                raise
            except (EnvdError, TimeoutError):
                continue  # It lacks the record, is of an older version, or does not answer.
            return api.get_from(pb.GetResponse.FromString(answer))
        raise stale()

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._open >= MAX_OPEN:
            raise stale()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def methods(read: Callable[[ReadRequest], EnvironmentView]) -> Mapping[str, Method]:
    """What serves forwarded reads; `read` answers from this very node, or raises."""

    async def answer(_: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.ForwardedRead, body)
        return api.get_bytes(read(api.read_from(pb.GetRequest.FromString(said.message))))

    return {METHOD: answer}
