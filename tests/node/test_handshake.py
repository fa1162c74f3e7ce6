"""How two nodes make sure of each other."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from envd.core.errors import Corrupt, EnvdError, Unauthenticated, Unavailable, Unsupported
from envd.node import handshake
from envd.node.handshake import Introduction, Peer
from envd.security.cluster_secret import SharedSecret
from envd.wire import peers as wire
from tests.node.channels import CountingRng, FakeChannel, pair

SECRET = SharedSecret((b"s" * 32,))
OTHER_SECRET = SharedSecret((b"o" * 32,))
DIALER = Introduction("prod", "c1", 1, 5, b"d" * 16)
ACCEPTOR = Introduction("prod", "c1", 2, 9, b"a" * 16)


async def meet(
    dialer: Introduction = DIALER,
    acceptor: Introduction = ACCEPTOR,
    *,
    dialer_secret: SharedSecret = SECRET,
    purpose: str = "log",
) -> tuple[Peer | BaseException, Peer | BaseException]:
    """What each side learns, or the error that it ends with."""
    one, two = pair()
    dialing = handshake.dial(one, dialer, purpose, dialer_secret, CountingRng())
    accepting = handshake.accept(two, lambda: acceptor, SECRET, CountingRng(1000))

    async def closing(channel: FakeChannel, ending: asyncio.Task[Peer]) -> Peer:
        try:
            return await ending
        finally:
            if ending.exception() is not None:
                channel.close()

    first, second = (asyncio.ensure_future(each) for each in (dialing, accepting))
    dialed, accepted = await asyncio.gather(
        closing(one, first), closing(two, second), return_exceptions=True
    )
    return dialed, accepted


async def test_each_side_learns_who_the_other_is() -> None:
    dialed, accepted = await meet()

    assert isinstance(dialed, Peer)
    assert isinstance(accepted, Peer)
    assert (dialed.uid, dialed.generation, dialed.boot_id) == (2, 9, b"a" * 16)
    assert (accepted.uid, accepted.generation, accepted.boot_id) == (1, 5, b"d" * 16)
    assert accepted.purpose == "log"
    assert dialed.transcript == accepted.transcript


async def test_a_channel_is_trusted_only_after_the_proof() -> None:
    one, two = pair()
    accepting = asyncio.ensure_future(
        handshake.accept(two, lambda: ACCEPTOR, SECRET, CountingRng(7))
    )
    hello = wire.Hello(1, 1, "prod", "c1", 1, 5, b"d" * 16, b"n" * 32, "log")
    await one.send(wire.encode(hello))
    await one.receive()

    assert not two.is_trusted

    await one.send(wire.encode(wire.Proof(b"x" * 32)))
    with pytest.raises(Unauthenticated):
        await accepting
    assert not two.is_trusted


async def test_a_proof_can_not_be_sent_back_as_the_other_sides() -> None:
    one, two = pair()
    accepting = asyncio.ensure_future(
        handshake.accept(two, lambda: ACCEPTOR, SECRET, CountingRng(7))
    )
    hello = wire.Hello(1, 1, "prod", "c1", 1, 5, b"d" * 16, b"n" * 32, "log")
    await one.send(wire.encode(hello))
    await one.receive()
    its_own = await one.receive()

    await one.send(its_own)

    with pytest.raises(Unauthenticated):
        await accepting


async def test_another_secret_is_refused_by_both_sides() -> None:
    dialed, accepted = await meet(dialer_secret=OTHER_SECRET)

    assert isinstance(dialed, Unauthenticated)
    assert isinstance(accepted, EnvdError)


@pytest.mark.parametrize(
    ("dialer", "purpose"),
    [
        (replace(DIALER, cluster_name="test"), "log"),
        (replace(DIALER, cluster_id="c2"), "log"),
        (replace(DIALER, cluster_id="c2"), "join"),
        (replace(DIALER, cluster_id=""), "log"),
        (replace(DIALER, cluster_id=""), "call"),
    ],
)
async def test_nodes_of_other_clusters_never_get_in(dialer: Introduction, purpose: str) -> None:
    dialed, accepted = await meet(dialer, purpose=purpose)

    assert isinstance(dialed, Unavailable)
    assert "another" in dialed.message
    assert isinstance(accepted, Unauthenticated)


async def test_a_node_without_a_cluster_may_ask_to_join() -> None:
    dialed, accepted = await meet(replace(DIALER, cluster_id=""), purpose="join")

    assert isinstance(dialed, Peer)
    assert dialed.cluster_id == "c1"
    assert isinstance(accepted, Peer)


async def test_a_newer_version_and_its_unknown_fields_are_understood() -> None:
    """A field that is added later counts in both transcripts, though only one side knows it."""
    one, two = pair()
    accepting = asyncio.ensure_future(
        handshake.accept(two, lambda: ACCEPTOR, SECRET, CountingRng(7))
    )
    hello = wire.encode(wire.Hello(1, 2, "prod", "c1", 1, 5, b"d" * 16, b"n" * 32, "log"))
    newer = hello[:1] + bytes([hello[1] + 1]) + hello[2:] + b"\xa3new"

    await one.send(newer)
    said = await one.receive()
    await one.receive()
    proof = SECRET.proof(b"envd peer dials", len(newer).to_bytes(4) + newer + said)
    await one.send(wire.encode(wire.Proof(proof)))

    accepted = await accepting
    assert accepted.version == wire.HIGHEST_VERSION


async def test_versions_too_far_apart_are_told() -> None:
    one, two = pair()
    accepting = asyncio.ensure_future(
        handshake.accept(two, lambda: ACCEPTOR, SECRET, CountingRng(7))
    )

    await one.send(wire.encode(wire.Hello(7, 9, "prod", "c1", 1, 5, b"d" * 16, b"n" * 32, "log")))

    with pytest.raises(Unsupported, match="no common version"):
        await accepting
    refusal = wire.decode(await one.receive())
    assert isinstance(refusal, wire.Refusal)
    assert refusal.reason == "VERSION_SKEW"


@pytest.mark.parametrize("rubbish", [b"\x01\x90", b"\x11\x93\x01\x00\x90", b"", b"\x01\xff\xff"])
async def test_rubbish_ends_the_handshake(rubbish: bytes) -> None:
    one, two = pair()
    await one.send(rubbish)

    with pytest.raises(Corrupt):
        await handshake.accept(two, lambda: ACCEPTOR, SECRET, CountingRng(7))


async def test_frames_of_unknown_kinds_are_passed_over() -> None:
    one, two = pair()
    await one.send(b"\xfa anything")
    await one.send(wire.encode(wire.Ack(3)))

    assert await handshake.receive(two) == wire.Ack(3)
