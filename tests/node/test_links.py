"""When one node dials another for its log, and when it lets itself be dialed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from envd.core.errors import EnvdError, Unavailable
from envd.core.hlc import HybridClock
from envd.core.members import Member, MemberState
from envd.node import handshake
from envd.node.acknowledging import Acknowledging
from envd.node.handshake import Introduction, Peer
from envd.node.holdings import Holdings
from envd.node.intake import Intake
from envd.node.peering import Surroundings
from envd.node.repair import Repairer
from envd.node.replication import ELSEWHERE_PAUSE_S, LONGEST_PAUSE_S, Replication
from envd.node.tail import LogTail
from envd.node.vectors import VectorFeed
from envd.ports import PeerChannel
from envd.security.cluster_secret import SharedSecret
from envd.storage.memory import MemoryStore
from envd.wire import peers as wire
from tests.node.channels import CountingRng, FakeChannel, pair
from tests.node.conftest import DIGEST_KEY, StillClock
from tests.node.virtual_loop import run_virtually

SECRET = SharedSecret((b"s" * 32,))
ME, OTHER, THIRD = 7, 8, 9


def introduced(uid: int) -> Introduction:
    return Introduction("prod", "c1", uid, 1, b"b" * 16)


class Dials:
    """A transport on which the node `answers` answers, or None: nobody; `times` of its dials."""

    def __init__(self, answers: int | None) -> None:
        self._answers = answers
        self.times: list[float] = []
        self._serving: set[asyncio.Task[None]] = set()

    def on_channel(self, serve: Callable[[PeerChannel], Awaitable[None]]) -> None:
        """Nobody dials this node."""

    async def dial(self, address: str) -> FakeChannel:
        self.times.append(asyncio.get_running_loop().time())
        if self._answers is None:
            raise Unavailable(f"{address} refused", reason="PEER_UNREACHABLE")
        near, far = pair()
        serving = asyncio.ensure_future(self._serve(far, self._answers))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        return near

    async def _serve(self, channel: FakeChannel, uid: int) -> None:
        try:
            await handshake.accept(channel, lambda: introduced(uid), SECRET, CountingRng(1000))
        except EnvdError:
            channel.close()

    def pauses(self) -> list[float]:
        """How long it was from each dial to the next."""
        return [late - early for early, late in zip(self.times, self.times[1:], strict=False)]


def streams_of(dials: Dials) -> Replication:
    """The streams of a node that knows one other storage node, OTHER."""
    store, clock, rng = MemoryStore(), StillClock(), CountingRng()
    tail, feed = LogTail(store, ME), VectorFeed(store)
    intake = Intake(store, clock, HybridClock(ME, 0), DIGEST_KEY, ME)
    around = Surroundings(ME, store, clock, rng, dials, SECRET, lambda: introduced(ME))
    repairer = Repairer(store, intake, feed, DIGEST_KEY, ME)
    made = Replication(
        around, tail, feed, intake, Acknowledging(), repairer, {}, lambda _: None, Holdings(ME)
    )
    made.member_changed(Member(OTHER, 1, 0, MemberState.ALIVE, "n2", "n2:7421", "n2:7420"))
    return made


def dialed(dials: Dials, *, for_s: float, sign_every_s: float = 0) -> list[float]:
    """The pauses between the dials of a node that runs so long, with a sign of life so often."""

    async def main() -> None:
        streams = streams_of(dials)
        running = asyncio.ensure_future(streams.run())
        ends_s = asyncio.get_running_loop().time() + for_s
        while asyncio.get_running_loop().time() < ends_s:
            await asyncio.sleep(sign_every_s or for_s)
            if sign_every_s:
                streams.poke(OTHER)
        running.cancel()
        await asyncio.wait((running,))

    run_virtually(main())
    return dials.pauses()


# -- dialing -------------------------------------------------------------------------------


def test_where_another_node_answers_is_dialed_seldom() -> None:
    pauses = dialed(Dials(THIRD), for_s=120)

    assert 12 <= len(pauses) <= 24
    assert min(pauses) > 0.99 * ELSEWHERE_PAUSE_S / 2


def test_a_sign_of_life_has_it_dialed_again_but_not_at_once() -> None:
    pauses = dialed(Dials(THIRD), for_s=60, sign_every_s=0.01)

    assert min(pauses) > 0.99 * LONGEST_PAUSE_S / 2
    assert max(pauses) < LONGEST_PAUSE_S


def test_where_nobody_answers_is_dialed_again_and_again() -> None:
    pauses = dialed(Dials(None), for_s=60)

    assert max(pauses) <= LONGEST_PAUSE_S


def test_where_nobody_answered_a_sign_of_life_is_reason_enough_to_dial() -> None:
    pauses = dialed(Dials(None), for_s=60, sign_every_s=0.01)

    assert max(pauses) < 0.02


# -- being dialed --------------------------------------------------------------------------


async def answered(streams: Replication) -> wire.Frame | None:
    """What a node says first to OTHER, who dials it for its log."""
    near, far = pair()
    serving = asyncio.ensure_future(
        streams.serve(far, Peer(OTHER, 1, b"b" * 16, "c1", "log", 1, b""))
    )
    frame = wire.decode(await near.receive())
    near.close()
    await serving
    return frame


def test_a_node_that_leaves_takes_no_log_and_says_why() -> None:
    async def main() -> None:
        streams = streams_of(Dials(None))
        leaving = asyncio.ensure_future(streams.hand_over(5.0))
        await asyncio.sleep(1)

        meanwhile = await answered(streams)
        handed_over = await leaving
        afterwards = await answered(streams)

        assert isinstance(meanwhile, wire.Refusal)
        assert meanwhile.reason == "LEAVING"
        assert not handed_over
        assert isinstance(afterwards, wire.Resume)

    run_virtually(main())


def test_a_node_that_begins_to_leave_ends_the_logs_that_it_takes() -> None:
    async def main() -> None:
        streams = streams_of(Dials(None))
        near, far = pair()
        serving = asyncio.ensure_future(
            streams.serve(far, Peer(OTHER, 1, b"b" * 16, "c1", "log", 1, b""))
        )
        assert isinstance(wire.decode(await near.receive()), wire.Resume)

        leaving = asyncio.ensure_future(streams.hand_over(1.0))
        await serving

        assert not leaving.done()
        assert far.closed
        await leaving

    run_virtually(main())
