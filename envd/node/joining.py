"""How a node without a cluster finds one, and what it gets there.

It asks its seeds by datagrams, for ever, until one tells where a node of the cluster takes
channels; there it proves that it knows the cluster's secret, and receives the cluster's id and
digest key, sealed. A node that has seeds never founds a cluster by itself, or two halves of one
that start apart would never meet, unless it was told how many empty nodes are to found it
(`--bootstrap-expect`): where that many know of each other, the one with the lowest uid does, and
the others join it.

A discovery datagram is sealed under the cluster's secret; the first byte tells it from gossip.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from envd.core.errors import Corrupt, EnvdError, Unauthenticated, Unavailable
from envd.node import handshake
from envd.node.calls import CallClient, Method
from envd.node.handshake import Introduction, Peer
from envd.ports import ClusterSecret, Datagrams, PeerChannel, PeerTransport, Rng
from envd.wire import peers as wire
from envd.wire.peers import Ticket

ASK: Final = 0xD0
ANSWER: Final = 0xD1
EVERY_S: Final = 0.5
_NONCE_BYTES: Final = 16
_PURPOSE: Final = {ASK: b"envd discover", ANSWER: b"envd discovered"}
_TICKET: Final = b"envd ticket"
_FORGOTTEN_S: Final = 10.0
_MAX_EMPTY: Final = 64
_MAX_DATAGRAM: Final = 4096
_log = logging.getLogger(__name__)
Resolve = Callable[[], Awaitable[Sequence[str]]]
"""The datagram addresses to ask, as they are now."""


class Discovery:
    """The datagrams by which nodes without a cluster find one; `answer` answers those of others."""

    def __init__(
        self, datagrams: Datagrams, secret: ClusterSecret, rng: Rng, cluster_name: str, uid: int
    ) -> None:
        self._datagrams = datagrams
        self._secret = secret
        self._rng = rng
        self._cluster_name = cluster_name
        self._uid = uid

    @staticmethod
    def is_one(datagram: bytes) -> bool:
        """Tell whether a datagram is of this kind, from its first byte."""
        return bool(datagram) and datagram[0] in (ASK, ANSWER)

    def ask(self, address: str, empty: Sequence[tuple[int, int]]) -> None:
        body = wire.Discover(self._cluster_name, self._uid, empty)
        self._send(address, ASK, wire.pack(body))

    def answer(
        self, address: str, cluster_id: str, peer: str, empty: Sequence[tuple[int, int]] = ()
    ) -> None:
        body = wire.Discovered(self._cluster_name, self._uid, cluster_id, peer, empty)
        self._send(address, ANSWER, wire.pack(body))

    def _send(self, address: str, kind: int, body: bytes) -> None:
        nonce = self._rng.token_bytes(_NONCE_BYTES)
        sealed = self._secret.seal(_PURPOSE[kind], nonce, body)
        self._datagrams.send(address, bytes([kind]) + nonce + sealed)

    def open(self, datagram: bytes) -> wire.Discover | wire.Discovered | None:
        """What a datagram of this kind says; None where it is not from this cluster."""
        kind, nonce = datagram[0], datagram[1 : 1 + _NONCE_BYTES]
        if len(datagram) > _MAX_DATAGRAM:
            return None
        try:
            body = self._secret.open(_PURPOSE[kind], nonce, datagram[1 + _NONCE_BYTES :])
            said: wire.Discover | wire.Discovered
            if kind == ASK:
                said = wire.unpack(wire.Discover, body)
            else:
                said = wire.unpack(wire.Discovered, body)
        except (Unauthenticated, Corrupt):
            return None
        return said if said.cluster_name == self._cluster_name else None


def join_methods(ticket: Ticket, secret: ClusterSecret) -> Mapping[str, Method]:
    """What a channel for joining serves: the ticket, sealed for the one who asks."""

    async def give(peer: Peer, _: bytes) -> bytes:
        _log.info("cluster.ticket_given", extra={"uid": f"{peer.uid:016x}"})
        return secret.seal(_TICKET, peer.transcript, wire.pack(ticket))

    return {"join": give}


@dataclass(slots=True)
class _Empty:
    """A node without a cluster, those that are to found one as it knows them, when it said so."""

    expect: int
    knows: frozenset[int]
    at_s: float


class Joiner:
    """Looks for a cluster; `run` returns the ticket of one, or None: found it yourself."""

    def __init__(
        self,
        introduction: Introduction,
        datagrams: Datagrams,
        transport: PeerTransport,
        secret: ClusterSecret,
        rng: Rng,
        seeds: Resolve,
        expect: int = 0,
    ) -> None:
        self._me = introduction
        self._datagrams = datagrams
        self._transport = transport
        self._secret = secret
        self._rng = rng
        self._seeds = seeds
        self._expect = expect
        self._discovery = Discovery(
            datagrams, secret, rng, introduction.cluster_name, introduction.uid
        )
        self._loop = asyncio.get_running_loop()
        self._empty: dict[int, _Empty] = {}
        self._found: asyncio.Queue[str] = asyncio.Queue(_MAX_EMPTY)
        self._problem = ""

    async def run(self) -> Ticket | None:
        """Ask until there is a cluster; None where this node is the one to found it."""
        self._datagrams.on_datagram(self._hear)
        while not self._founds():
            for address in await self._seeds():
                self._discovery.ask(address, self._known_empty())
            try:
                async with asyncio.timeout(EVERY_S):
                    found = await self._found.get()
            except TimeoutError:
                continue
            ticket = await self._try(found)
            if ticket is not None:
                return ticket
        return None

    async def _try(self, peer_address: str) -> Ticket | None:
        try:
            return await self._ticket(peer_address)
        except EnvdError as error:
            if error.message != self._problem:
                self._problem = error.message
                _log.warning(
                    "cluster.join_failed", extra={"peer": peer_address, "detail": error.message}
                )
            return None

    async def _ticket(self, address: str) -> Ticket:
        channel = await self._transport.dial(address)
        calls = CallClient(lambda: _ready(channel))
        try:
            peer = await handshake.dial(channel, self._me, "join", self._secret, self._rng)
            body = wire.pack(wire.JoinRequest(f"{self._me.uid:016x}"))
            sealed = await calls.call("join", body)
            ticket = wire.unpack(Ticket, self._secret.open(_TICKET, peer.transcript, sealed))
        finally:
            await calls.close()
            channel.close()
        if not ticket.cluster_id or ticket.cluster_id != peer.cluster_id:
            raise Unavailable("the cluster is not ready to be joined yet")
        return ticket

    # -- founding --------------------------------------------------------------------------

    def _hear(self, address: str, datagram: bytes) -> None:
        said = self._discovery.open(datagram) if Discovery.is_one(datagram) else None
        if said is None or said.uid == self._me.uid:
            return
        if isinstance(said, wire.Discovered) and said.cluster_id:
            if not self._found.full():
                self._found.put_nowait(said.peer)
            return
        self._note(said.uid, said.empty)
        if isinstance(said, wire.Discover):
            self._discovery.answer(address, "", "", self._known_empty())

    def _note(self, uid: int, empty: Sequence[tuple[int, int]]) -> None:
        """An empty node says which empty nodes it knows of, itself first."""
        if not empty or empty[0][0] != uid or len(self._empty) >= _MAX_EMPTY:
            return
        known = frozenset(other for other, expect in empty if expect)
        self._empty[uid] = _Empty(empty[0][1], known, self._loop.time())

    def _known_empty(self) -> list[tuple[int, int]]:
        now = self._loop.time()
        self._empty = {
            uid: empty for uid, empty in self._empty.items() if now - empty.at_s < _FORGOTTEN_S
        }
        others = [(uid, empty.expect) for uid, empty in sorted(self._empty.items())]
        return [(self._me.uid, self._expect), *others]

    def _founds(self) -> bool:
        """Tell whether this node is the lowest of enough empty ones that all know of each other.

        Those that only wait for a cluster to join have no say.
        """
        if not self._expect:
            return False
        known = {uid for uid, expect in self._known_empty() if expect}
        agreed = [
            uid
            for uid, empty in self._empty.items()
            if empty.expect == self._expect and empty.knows == known
        ]
        enough = len(known) >= self._expect and len(agreed) == len(known) - 1
        return enough and min(known) == self._me.uid


async def _ready(channel: PeerChannel) -> PeerChannel:
    return channel
