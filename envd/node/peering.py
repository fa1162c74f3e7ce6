"""The other storage nodes that a node knows, and how it opens channels to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from envd.core.errors import Unavailable
from envd.core.members import Member
from envd.node import handshake
from envd.node.calls import CallClient
from envd.node.handshake import Introduction
from envd.node.peer import PeerLink
from envd.node.vectors import Ahead
from envd.ports import Clock, ClusterSecret, PeerChannel, PeerTransport, Rng, Store

DIAL_S: Final = 1.0
HANGS_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the streams of a node work with; `introduce` tells who this start of it is now."""

    uid: int
    store: Store
    clock: Clock
    rng: Rng
    transport: PeerTransport
    secret: ClusterSecret
    introduce: Callable[[], Introduction]


class KnownPeer:
    """One other storage node, and the tasks that belong to it.

    `poked` is set by a sign of life; `reached`: somebody answered when it was dialed last;
    `early`: of what was last pulled from it some went into quarantine.
    """

    def __init__(
        self, member: Member, now_s: float, asking: CallClient, *, held_lsn: int, lsn: int
    ) -> None:
        self.member = member
        self.link = PeerLink(member.uid, now_s, lsn=lsn)
        self.asking = asking
        self.held_lsn = held_lsn
        self.poked = asyncio.Event()
        self.reached = False
        self.task: asyncio.Task[None] | None = None
        self.receiving: PeerChannel | None = None
        self.catching_up = False
        self.early = False
        self.ahead: tuple[float, Ahead] = (0.0, ())


class Dialer:
    """Opens channels to peers; `on_heard` is told which node proved itself on one."""

    def __init__(self, around: Surroundings, on_heard: Callable[[int], None]) -> None:
        self._around = around
        self._on_heard = on_heard
        self._loop = asyncio.get_running_loop()

    async def open(self, peer: KnownPeer, purpose: str) -> PeerChannel:
        """Dial and introduce this node; raises Unavailable, Unauthenticated, Unsupported."""
        around = self._around
        address = peer.member.peer
        channel = await (self._dial(peer) if purpose == "log" else self._transport_dial(peer))
        peer.reached = True
        try:
            other = await handshake.dial(
                channel, around.introduce(), purpose, around.secret, around.rng
            )
            if other.uid != peer.member.uid:
                raise Unavailable(f"another node answers at {address}", reason="PEER_ELSEWHERE")
        except BaseException:
            channel.close()
            raise
        self._on_heard(other.uid)
        return channel

    async def _dial(self, peer: KnownPeer) -> PeerChannel:
        """Dial; a sign of life breaks off what hangs, for its first packet may be lost.

        Else it would be sent again after a second (RFC 6298), which a heal has to wait for.
        """
        dialing = self._loop.create_task(self._transport_dial(peer), name="peer-dial")
        poked = self._loop.create_task(peer.poked.wait(), name="peer-poked")
        try:
            await asyncio.wait((dialing,), timeout=HANGS_S)
            if not dialing.done():
                await asyncio.wait((dialing, poked), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            dialing.add_done_callback(_close)
            dialing.cancel()
            raise
        finally:
            poked.cancel()
        if dialing.done():
            return dialing.result()
        dialing.add_done_callback(_close)
        dialing.cancel()
        raise Unavailable("a sign of life came while it was dialed", reason="PEER_UNREACHABLE")

    async def _transport_dial(self, peer: KnownPeer) -> PeerChannel:
        address = peer.member.peer
        try:
            async with asyncio.timeout(DIAL_S):
                return await self._around.transport.dial(address)
        except TimeoutError:
            raise Unavailable(f"{address} does not answer", reason="PEER_UNREACHABLE") from None


def _close(dialing: asyncio.Task[PeerChannel]) -> None:
    """Nobody wants the channel any more, should there be one."""
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()
