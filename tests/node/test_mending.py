"""When a node compares what it holds with a peer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from chaos.sim.chance import Chance, SimRng
from chaos.sim.loop import SimLoop
from envd.node.holdings import Holdings
from envd.node.mending import COMPARE_S, SOON_S, Mending
from envd.node.repair import Pulled


class Comparisons:
    """A repairer that notes with whom is compared, and when; `found` are the commits it finds."""

    def __init__(self, *found: int) -> None:
        self._found = list(found)
        self.made: list[tuple[int, float]] = []

    async def compare(self, uid: int, _: object, __: object) -> Pulled:
        self.made.append((uid, asyncio.get_running_loop().time()))
        pulled = Pulled()
        pulled.commits = self._found.pop(0) if self._found else 0
        return pulled


class CatchingUp:
    """A repairer that notes when it catches up; all that it finds goes into quarantine or none."""

    def __init__(self, *, early: bool) -> None:
        self._early = early
        self.at_s: list[float] = []

    async def catch_up(self, _uid: int, _ask: object, _both: object) -> Pulled:
        self.at_s.append(asyncio.get_running_loop().time())
        return Pulled(commits=1, early={5} if self._early else set())


def peer(uid: int) -> Any:
    return SimpleNamespace(
        member=SimpleNamespace(uid=uid, name=f"n{uid}"),
        link=SimpleNamespace(
            answers=lambda _: True,
            vectors=SimpleNamespace(ahead_of=lambda _, __: (((5, uid), 2, 1),)),
        ),
        asking=SimpleNamespace(call=None),
        ahead=(0.0, ()),
        catching_up=False,
        early=False,
    )


def compared(comparisons: Comparisons, *hastened: int, for_s: float) -> list[tuple[int, float]]:
    """What is compared in so many seconds where these peers came up at the beginning."""
    loop = SimLoop()

    async def main() -> None:
        around = SimpleNamespace(rng=SimRng(Chance("mending").stream("rng")))
        peers = {uid: peer(uid) for uid in (7, 8)}
        mending = Mending(
            cast("Any", around),
            cast("Any", comparisons),
            Holdings(1),
            peers,
            lambda: None,
            lambda _: None,
        )
        work = mending.works(is_agent=False)["repair-compare"]
        task = asyncio.ensure_future(work())
        for uid in hastened:
            mending.hasten(uid)
        await asyncio.sleep(for_s)
        task.cancel()

    try:
        began = loop.time()
        loop.simulate(main())
    finally:
        loop.close()
    return [(uid, at - began) for uid, at in comparisons.made]


def caught_up(repairer: CatchingUp, for_s: float) -> list[float]:
    """When a peer that stays ahead is caught up with, in so many seconds."""
    loop = SimLoop()

    async def main() -> None:
        around = SimpleNamespace(store=SimpleNamespace(vectors=dict))
        mending = Mending(
            cast("Any", around),
            cast("Any", repairer),
            Holdings(1),
            {7: peer(7)},
            lambda: None,
            lambda _: None,
        )
        task = asyncio.ensure_future(mending.works(is_agent=False)["repair-ahead"]())
        await asyncio.sleep(for_s)
        task.cancel()

    try:
        began = loop.time()
        loop.simulate(main())
    finally:
        loop.close()
    return [at - began for at in repairer.at_s]


def test_a_peer_that_is_ahead_by_what_waits_in_quarantine_is_seldom_caught_up_with() -> None:
    early = caught_up(CatchingUp(early=True), 4 * COMPARE_S)
    other = caught_up(CatchingUp(early=False), 4 * COMPARE_S)

    assert early[0] == other[0] < COMPARE_S / 2
    assert len(early) <= 4 < len(other)


def test_nothing_is_compared_for_long_where_nothing_happens() -> None:
    made = compared(Comparisons(), for_s=4 * COMPARE_S)

    assert 2 <= len(made) <= 5
    assert made[0][1] > COMPARE_S / 2


def test_who_is_new_or_back_is_compared_with_soon_and_once() -> None:
    made = compared(Comparisons(), 7, 8, for_s=COMPARE_S / 2)

    assert [uid for uid, _ in made] == [7, 8]
    assert made[-1][1] < 3 * SOON_S


def test_where_something_was_found_is_looked_once_more_and_not_without_end() -> None:
    made = compared(Comparisons(5, 5, 5, 5), 7, for_s=COMPARE_S / 2)

    assert [uid for uid, _ in made] == [7, 7]
