"""When a write counts as acknowledged, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from chaos.sim.loop import SimLoop
from envd.core.errors import OutcomeUnknown, Unavailable
from envd.core.requests import Durability
from envd.node.acknowledging import PATIENCE_S, Acknowledging
from envd.node.writing import Copies

ResultT = TypeVar("ResultT")


def simulate(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    loop = SimLoop()
    try:
        return loop.simulate(main)
    finally:
        loop.close()


def logged_at(lsn: int) -> asyncio.Future[int]:
    """What the store gives for a record that is durable as `lsn`."""
    logged: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    logged.set_result(lsn)
    return logged


def with_peers(*reachable: bool) -> Acknowledging:
    acknowledging = Acknowledging()
    for uid, there in enumerate(reachable, 1):
        acknowledging.expect(uid)
        acknowledging.reach(uid, reachable=there)
    return acknowledging


def test_a_node_alone_in_its_cluster_waits_for_nobody() -> None:
    async def main() -> None:
        logged = logged_at(1)

        assert Acknowledging().confirm(logged, Durability.DEFAULT, 0) is logged

    simulate(main())


def test_a_write_is_acknowledged_once_one_peer_has_synced_it() -> None:
    async def main() -> None:
        acknowledging = with_peers(True, True)
        first, second = (
            acknowledging.confirm(logged_at(lsn), Durability.DEFAULT, 0) for lsn in (5, 6)
        )
        await asyncio.sleep(0)

        acknowledging.synced(2, 5)

        assert first.done()
        assert not second.done()
        assert await first == Copies(2, detached=False)

    simulate(main())


def test_a_write_is_detached_after_a_second_without_an_answer() -> None:
    async def main() -> float:
        acknowledging = with_peers(True)
        loop = asyncio.get_running_loop()
        began = loop.time()

        outcome = await acknowledging.confirm(logged_at(5), Durability.DEFAULT, 0)

        assert outcome == Copies(1, detached=True)
        assert acknowledging.detached == 1
        return loop.time() - began

    assert simulate(main()) == pytest.approx(PATIENCE_S)


def test_each_write_waits_its_own_second() -> None:
    async def main() -> None:
        acknowledging = with_peers(True)
        first = acknowledging.confirm(logged_at(5), Durability.DEFAULT, 0)
        await asyncio.sleep(0.6)
        second = acknowledging.confirm(logged_at(6), Durability.DEFAULT, 0)
        await asyncio.sleep(0.6)

        assert first.done()
        assert not second.done()

        acknowledging.synced(1, 6)

        assert await second == Copies(2, detached=False)

    simulate(main())


def test_nobody_reachable_means_detached_at_once() -> None:
    async def main() -> None:
        acknowledging = with_peers(False, False)
        began = asyncio.get_running_loop().time()

        outcome = await acknowledging.confirm(logged_at(5), Durability.DEFAULT, 0)

        assert outcome == Copies(1, detached=True)
        assert asyncio.get_running_loop().time() == began

    simulate(main())


def test_those_who_wait_are_answered_when_the_last_peer_goes() -> None:
    async def main() -> None:
        acknowledging = with_peers(True, True)
        waiting = acknowledging.confirm(logged_at(5), Durability.DEFAULT, 0)
        await asyncio.sleep(0)

        acknowledging.reach(1, reachable=False)
        assert not waiting.done()
        acknowledging.reach(2, reachable=False)

        assert await waiting == Copies(1, detached=True)

    simulate(main())


def test_local_durability_never_waits_and_is_not_called_detached() -> None:
    async def main() -> None:
        acknowledging = with_peers(True)

        outcome = await acknowledging.confirm(logged_at(5), Durability.LOCAL, 0)

        assert outcome == Copies(1, detached=False)
        assert acknowledging.detached == 0

    simulate(main())


def test_strict_is_refused_before_anything_is_done_where_nobody_is_there() -> None:
    async def main() -> None:
        acknowledging = with_peers(False)

        acknowledging.check(Durability.DEFAULT, 0)
        with pytest.raises(Unavailable, match="nothing was done"):
            acknowledging.check(Durability.STRICT, 0)

    simulate(main())


def test_strict_without_an_answer_is_of_unknown_outcome() -> None:
    async def main() -> None:
        acknowledging = with_peers(True)

        with pytest.raises(OutcomeUnknown):
            await acknowledging.confirm(logged_at(5), Durability.STRICT, 0)

    simulate(main())


def test_a_refused_record_is_told_as_it_is() -> None:
    async def main() -> None:
        acknowledging = with_peers(True)
        logged: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        confirmation = acknowledging.confirm(logged, Durability.DEFAULT, 0)

        logged.set_exception(Unavailable("the disk is full"))

        with pytest.raises(Unavailable, match="disk is full"):
            await confirmation

    simulate(main())


def test_a_peer_that_is_removed_counts_for_nothing_any_more() -> None:
    async def main() -> None:
        acknowledging = with_peers(True)
        waiting = acknowledging.confirm(logged_at(5), Durability.DEFAULT, 0)
        await asyncio.sleep(0)

        acknowledging.dismiss(1)
        acknowledging.synced(1, 9)

        assert await waiting == Copies(1, detached=False)
        assert acknowledging.alone

    simulate(main())


def test_closing_answers_all_who_wait() -> None:
    async def main() -> None:
        acknowledging = with_peers(True)
        waiting = acknowledging.confirm(logged_at(5), Durability.DEFAULT, 0)
        await asyncio.sleep(0)

        acknowledging.close()

        assert await waiting == Copies(1, detached=True)

    simulate(main())
