"""How long commits take to another node: told by what ships them, once for each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from chaos.sim.loop import SimLoop
from envd.core.errors import Unavailable
from envd.node.acknowledging import Acknowledging
from envd.node.holdings import Holdings
from envd.node.peer import PeerLink
from envd.node.shipping import LogShipper
from envd.node.tail import LogTail
from envd.storage.memory import MemoryStore
from envd.telemetry.node import PROPAGATION_BOUNDS_S, Telemetry
from envd.wire import peers as wire
from tests.node.channels import FakeChannel, pair
from tests.storage.world import StillClock, Writer

OWN, PEER = 1, 2


def simulate(main: Coroutine[Any, Any, None]) -> None:
    loop = SimLoop()
    try:
        loop.simulate(main)
    finally:
        loop.close()


@dataclass
class Shipping:
    """A node that ships to a peer, whose words are said here."""

    peer: FakeChannel
    writer: Writer

    async def batch(self) -> wire.Batch:
        """The next batch that the peer gets."""
        while True:
            frame = wire.decode(await self.peer.receive())
            if isinstance(frame, wire.Batch):
                return frame

    async def acknowledge(self, number: int) -> None:
        await self.peer.send(wire.encode(wire.Ack(number)))
        await asyncio.sleep(0.01)  # The shipper has its turns.


def ships(
    story: Callable[[Shipping], Coroutine[Any, Any, None]],
    *,
    tail_bytes: int = 1 << 20,
    before: int = 0,
) -> list[float]:
    """What was told in a story; `before` it so many commits were made that the peer lacks."""
    told: list[float] = []

    async def main() -> None:
        store = MemoryStore()
        tail = LogTail(store, OWN, max_bytes=tail_bytes)
        tail.kept = True
        writer = Writer(store, OWN)
        for number in range(before):
            await writer.commit("web/prod", {"A": str(number)})
        ours, theirs = pair()
        shipper = LogShipper(
            PeerLink(PEER, 0.0),
            store,
            tail,
            StillClock(),
            OWN,
            Acknowledging(),
            lambda _, __: 1e9,
            Holdings(OWN),
            propagated=told.append,
        )
        running = asyncio.ensure_future(shipper.run(ours))
        await theirs.send(wire.encode(wire.Resume(0, 0, ())))
        await story(Shipping(theirs, writer))
        theirs.close()
        with pytest.raises(Unavailable):
            await running

    simulate(main())
    return told


def test_a_batch_took_from_when_its_first_commit_was_durable_until_the_peer_had_synced_it() -> None:
    async def story(shipping: Shipping) -> None:
        await shipping.writer.commit("web/prod", {"A": "1"})
        batch = await shipping.batch()
        await asyncio.sleep(0.25)
        await shipping.acknowledge(batch.number)

    assert ships(story) == [pytest.approx(0.25, abs=1e-6)]


def test_many_commits_in_one_batch_are_one_observation() -> None:
    async def story(shipping: Shipping) -> None:
        batch = await shipping.batch()
        await shipping.acknowledge(batch.number)
        assert len(batch.rows) == 50

    assert len(ships(story, before=50)) == 1


def test_one_answer_for_several_batches_tells_of_each() -> None:
    async def story(shipping: Shipping) -> None:
        for number in range(3):
            await shipping.writer.commit("web/prod", {"A": str(number)})
            last = await shipping.batch()
            await asyncio.sleep(0.1)
        await shipping.acknowledge(last.number)

    assert ships(story) == pytest.approx([0.3, 0.2, 0.1], abs=1e-6)


def test_of_what_only_the_log_has_nobody_knows_since_when() -> None:
    async def story(shipping: Shipping) -> None:
        batch = await shipping.batch()
        await shipping.acknowledge(batch.number)

    assert ships(story, before=50, tail_bytes=1) == []


def test_a_time_of_whole_milliseconds_falls_into_the_bucket_that_it_bounds() -> None:
    telemetry = Telemetry()

    for bound in PROPAGATION_BOUNDS_S:
        telemetry.propagated((1234.567 + bound) - 1234.567)

    assert telemetry.propagation.counts == [1] * len(PROPAGATION_BOUNDS_S) + [0]
