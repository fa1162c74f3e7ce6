"""Questions and answers between two nodes over one channel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from envd.core.errors import NotFound, Unavailable, Unsupported
from envd.node import calls
from envd.node.calls import CallClient, Method, Patient
from envd.node.handshake import Peer
from tests.node.channels import FakeChannel, pair

PEER = Peer(1, 1, b"b" * 16, "c1", "call", 1, b"")


class World:
    """A client and what it calls; each dial makes a new channel to a new server."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self.served: list[tuple[FakeChannel, asyncio.Task[Any]]] = []
        self.dialed = asyncio.Event()
        self.client = CallClient(self._open)

    async def _open(self) -> FakeChannel:
        near, far = pair()
        serving = asyncio.ensure_future(calls.serve(far, PEER, self._methods))
        self.served.append((far, serving))
        self.dialed.set()
        return near


async def echo(peer: Peer, body: bytes) -> bytes:
    return body + str(peer.uid).encode()


async def test_calls_are_answered_over_one_channel() -> None:
    world = World({"echo": echo})

    answers = await asyncio.gather(*(world.client.call("echo", b"%d-" % n) for n in range(50)))

    assert answers == [b"%d-1" % n for n in range(50)]
    assert len(world.served) == 1
    await world.client.close()


async def test_a_slow_answer_holds_back_no_other() -> None:
    gate = asyncio.Event()

    async def slow(_: Peer, body: bytes) -> bytes:
        await gate.wait()
        return body

    world = World({"slow": slow, "echo": echo})
    waiting = asyncio.ensure_future(world.client.call("slow", b"s"))

    assert await world.client.call("echo", b"x") == b"x1"

    gate.set()
    assert await waiting == b"s"
    await world.client.close()


async def test_calls_that_wait_for_others_hold_back_none_that_those_ask() -> None:
    gate = asyncio.Event()

    async def slow(_: Peer, body: bytes) -> bytes:
        await gate.wait()
        return body

    world = World({"slow": Patient(slow), "echo": echo})
    waiting = [asyncio.ensure_future(world.client.call("slow", b"s")) for _ in range(100)]

    assert await world.client.call("echo", b"x", timeout_s=1) == b"x1"

    gate.set()
    assert await asyncio.gather(*waiting) == [b"s"] * 100
    await world.client.close()


async def test_a_call_too_many_that_would_wait_for_others_is_refused_at_once() -> None:
    gate = asyncio.Event()

    async def slow(_: Peer, body: bytes) -> bytes:
        await gate.wait()
        return body

    world = World({"slow": Patient(slow)})
    waiting = [asyncio.ensure_future(world.client.call("slow", b"s")) for _ in range(512)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable, match="nothing was done") as caught:
        await world.client.call("slow", b"one more", timeout_s=5)

    assert caught.value.reason == "BUSY"
    gate.set()
    await asyncio.gather(*waiting)
    assert await world.client.call("slow", b"again") == b"again"
    await world.client.close()


async def test_an_error_comes_back_as_it_was() -> None:
    async def absent(_: Peer, __: bytes) -> bytes:
        raise NotFound("it is not there", hint="look elsewhere", reason="GONE_AWAY")

    world = World({"absent": absent})

    with pytest.raises(NotFound, match="not there") as caught:
        await world.client.call("absent", b"")

    assert (caught.value.reason, caught.value.hint) == ("GONE_AWAY", "look elsewhere")
    await world.client.close()


async def test_a_fault_of_ours_is_told_without_its_words() -> None:
    async def broken(_: Peer, __: bytes) -> bytes:
        raise RuntimeError("value-that-nobody-may-see")

    world = World({"broken": broken})

    with pytest.raises(Unavailable) as caught:
        await world.client.call("broken", b"")

    assert "value-that" not in caught.value.message
    assert not world.served[-1][1].done()
    await world.client.close()


async def test_an_unknown_call_is_refused_and_the_channel_stays() -> None:
    world = World({"echo": echo})

    with pytest.raises(Unsupported):
        await world.client.call("of a later version", b"")

    assert await world.client.call("echo", b"") == b"1"
    assert len(world.served) == 1
    await world.client.close()


async def test_a_channel_that_ends_ends_its_calls_and_the_next_call_dials_again() -> None:
    gate = asyncio.Event()

    async def never(_: Peer, body: bytes) -> bytes:
        await gate.wait()
        return body

    world = World({"never": never, "echo": echo})
    waiting = asyncio.ensure_future(world.client.call("never", b""))
    await world.dialed.wait()
    await asyncio.sleep(0)

    world.served[0][0].close()

    with pytest.raises(Unavailable) as caught:
        await waiting
    assert caught.value.reason in calls.UNDECIDED
    assert await world.client.call("echo", b"") == b"1"
    assert len(world.served) == 2
    gate.set()
    await world.client.close()


async def test_a_call_that_is_given_up_leaves_nothing_behind() -> None:
    gate = asyncio.Event()

    async def late(_: Peer, body: bytes) -> bytes:
        await gate.wait()
        return body

    world = World({"late": late, "echo": echo})
    waiting = asyncio.ensure_future(world.client.call("late", b""))
    await world.dialed.wait()
    waiting.cancel()
    await asyncio.wait((waiting,))
    gate.set()

    assert await world.client.call("echo", b"") == b"1"
    await world.client.close()
