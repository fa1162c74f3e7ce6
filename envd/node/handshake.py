"""How two nodes make sure of each other before a channel carries anything.

Both draw a nonce, both prove that they know the cluster's secret by an HMAC over all that was
said, each under a purpose of its own, so that no proof can be sent back as the other side's
(mutual challenge and response, ISO/IEC 9798-4). A stranger learns the cluster's name and ids,
which are no secrets, and nothing else.

    dialer                     acceptor
    Hello          ->
                   <-          HelloBack, Proof
    Proof          ->
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from envd.core.errors import Corrupt, EnvdError, Unauthenticated, Unavailable, Unsupported
from envd.ports import ClusterSecret, PeerChannel, Rng
from envd.wire import peers as wire

HANDSHAKE_S = 5.0
_ACCEPTING = b"envd peer accepts"
_DIALING = b"envd peer dials"
FrameT = TypeVar("FrameT", bound=wire.Frame)


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who this start of this node is; `cluster_id` is "" for one that belongs to none yet."""

    cluster_name: str
    cluster_id: str
    uid: int
    generation: int
    boot_id: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """Who proved itself on a channel, what for, and which version is spoken.

    `transcript` is what both sides saw of the handshake, different each time.
    """

    uid: int
    generation: int
    boot_id: bytes
    cluster_id: str
    purpose: str
    version: int
    transcript: bytes


async def dial(
    channel: PeerChannel, me: Introduction, purpose: str, secret: ClusterSecret, rng: Rng
) -> Peer:
    """Introduce this node on a channel that it opened.

    Raises Unauthenticated where the other side does not know the secret, Unsupported where no
    version is common, Unavailable where it refuses or ends.
    """
    async with _in_time():
        hello = wire.encode(
            wire.Hello(
                wire.LOWEST_VERSION,
                wire.HIGHEST_VERSION,
                me.cluster_name,
                me.cluster_id,
                me.uid,
                me.generation,
                me.boot_id,
                rng.token_bytes(wire.NONCE_BYTES),
                purpose,
            )
        )
        await channel.send(hello)
        back, said = await _expect(channel, wire.HelloBack)
        transcript = _transcript(hello, said)
        proof, _ = await _expect(channel, wire.Proof)
        if not secret.proves(_ACCEPTING, transcript, proof.proof):
            raise _stranger()
        if not wire.LOWEST_VERSION <= back.version <= wire.HIGHEST_VERSION:
            raise _no_common_version()
        await channel.send(wire.encode(wire.Proof(secret.proof(_DIALING, transcript))))
        channel.trusted()
    return Peer(
        back.uid,
        back.generation,
        back.boot_id,
        back.cluster_id,
        purpose,
        back.version,
        transcript,
    )


async def accept(
    channel: PeerChannel, me: Callable[[], Introduction], secret: ClusterSecret, rng: Rng
) -> Peer:
    """Let the one who opened the channel introduce itself.

    Raises as `dial` does; the other side is told of a refusal that may help it.
    """
    try:
        async with _in_time():
            return await _accept(channel, me(), secret, rng)
    except (Unsupported, Unauthenticated) as error:
        await refuse(channel, error)
        raise


async def _accept(channel: PeerChannel, me: Introduction, secret: ClusterSecret, rng: Rng) -> Peer:
    hello, said = await _expect(channel, wire.Hello)
    version = min(hello.highest, wire.HIGHEST_VERSION)
    if version < max(hello.lowest, wire.LOWEST_VERSION):
        raise _no_common_version()
    if hello.cluster_name != me.cluster_name:
        raise Unauthenticated("this node belongs to a cluster of another name")
    if hello.cluster_id != me.cluster_id and not (hello.purpose == "join" and not hello.cluster_id):
        raise Unauthenticated(
            "this node belongs to another cluster of this name", reason="OTHER_CLUSTER"
        )
    nonce = rng.token_bytes(wire.NONCE_BYTES)
    back = wire.encode(
        wire.HelloBack(version, me.cluster_id, me.uid, me.generation, me.boot_id, nonce)
    )
    transcript = _transcript(said, back)
    await channel.send(back)
    await channel.send(wire.encode(wire.Proof(secret.proof(_ACCEPTING, transcript))))
    proof, _ = await _expect(channel, wire.Proof)
    if not secret.proves(_DIALING, transcript, proof.proof):
        raise _stranger()
    channel.trusted()
    return Peer(
        hello.uid,
        hello.generation,
        hello.boot_id,
        hello.cluster_id,
        hello.purpose,
        version,
        transcript,
    )


async def refuse(channel: PeerChannel, error: EnvdError) -> None:
    """Tell the other side why the channel ends, as far as it still listens."""
    try:
        await channel.send(wire.encode(wire.Refusal(error.reason, error.message)))
    except Unavailable:
        return


async def receive(channel: PeerChannel) -> wire.Frame:
    """The next frame that this version knows; raises Unavailable at the end or for a refusal."""
    frame, _ = await _receive(channel)
    return frame


async def _receive(channel: PeerChannel) -> tuple[wire.Frame, bytes]:
    while True:
        raw = await channel.receive()
        frame = wire.decode(raw)
        if isinstance(frame, wire.Refusal):
            raise Unavailable(f"the peer refuses: {frame.message[:300]}", reason=frame.reason[:60])
        if frame is not None:
            return frame, raw


async def _expect(channel: PeerChannel, kind: type[FrameT]) -> tuple[FrameT, bytes]:
    frame, raw = await _receive(channel)
    if not isinstance(frame, kind):
        raise Corrupt("a peer said something else than the handshake asks for")
    return frame, raw


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            yield
    except TimeoutError:
        raise Unavailable("the peer did not finish its introduction in time") from None


def _transcript(hello: bytes, back: bytes) -> bytes:
    """Both as they were sent: a newer version's fields, unknown to the other side, count too."""
    return len(hello).to_bytes(4) + hello + back


def _stranger() -> Unauthenticated:
    return Unauthenticated(
        "the node at the other end does not know the cluster's secret",
        hint="give all nodes of a cluster the same --cluster-secret-file",
        reason="OTHER_SECRET",
    )


def _no_common_version() -> Unsupported:
    return Unsupported(
        "the two nodes speak no common version of the peer protocol",
        hint="upgrade step by step: neighbouring versions talk to each other",
        reason="VERSION_SKEW",
    )
