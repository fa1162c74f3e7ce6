"""The bindings that a node stands for: what is wrong with one is no matter to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from chaos.sim.loop import SimLoop
from envd.backends.contract import Backend, Options
from envd.backends.memory import MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.core.syncing import BindingView
from envd.sync.binding import RECORD, encoded, record_key
from envd.sync.keeping import Keeper
from envd.sync.picture import Looking
from envd.sync.ports import Held
from envd.sync.pricing import Estimate
from tests.sync.world import Environments, LoopClock, Records, bound, fingerprint


class Alone:
    """There is one node, so it leads everything."""

    async def lead(self, name: str, ttl_s: float, work: Callable[[Held], Awaitable[None]]) -> None:
        await work(Held(name, 1))

    async def leader(self, name: str) -> tuple[str, int]:
        return "n1", 1


class House:
    """A keeper with its world, on a loop whose time is virtual."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.environments = Environments(self.clock)
        self.records = Records()
        self.store = MemoryStore("place")
        self.keeper = Keeper(
            Looking(self.environments, self.records, fingerprint),
            Alone(),
            self.clock,
            self._open,
            node="n1",
            region="",
            estimate=lambda _: Estimate(),
        )

    async def _open(self, binding: BindingView, target: str) -> Backend:
        return MemoryBackend(Options(target, wall_ms=self.clock.wall_ms), store=self.store)

    async def keeps_for(self, seconds: float, *seeded: BindingView) -> None:
        keeping = asyncio.ensure_future(self.keeper.run(seeded))
        await asyncio.sleep(seconds)
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


def simulate(work: Coroutine[Any, Any, None]) -> None:
    loop = SimLoop()
    try:
        loop.simulate(work)
    finally:
        loop.close()


def test_a_kept_binding_that_cannot_be_read_stops_no_other() -> None:
    async def work() -> None:
        house = House()
        house.environments.set("web", A="1")
        kept = {record_key("bad"): "{", record_key("good"): encoded(bound(name="good"))}
        await house.records.update(RECORD, kept)

        await house.keeps_for(60)

        assert house.store.values() == {"A": "1"}
        assert [each.name for each in await house.keeper.all()] == ["good"]

    simulate(work())


def test_a_binding_of_the_settings_that_cannot_be_stops_no_other() -> None:
    async def work() -> None:
        house = House()
        house.environments.set("web", A="1")
        wrong = bound(name="wrong", windows=("when it suits",), origin="file")

        await house.keeps_for(60, wrong, bound(name="good", origin="file"))

        assert house.store.values() == {"A": "1"}
        assert [each.name for each in await house.keeper.all()] == ["good"]

    simulate(work())


def test_bindings_of_the_settings_are_kept_once_the_records_can_be_written() -> None:
    async def work() -> None:
        house = House()
        house.environments.set("web", A="1")
        house.records.away = True
        asyncio.get_running_loop().call_later(20, setattr, house.records, "away", False)

        await house.keeps_for(60, bound(name="good", origin="file"))

        assert house.store.values() == {"A": "1"}

    simulate(work())
