"""For whom a governor waits before it takes a round of the floor a step further."""

from __future__ import annotations

from collections.abc import Callable, Collection

from envd.core.placement import Site
from envd.core.sealing import Floor, FloorPace, Sealed
from envd.core.topology import Topology
from envd.node.balancing import Change
from envd.node.rounds import Rounds
from envd.wire import peers as wire
from tests.node.conftest import StillClock
from tests.node.voters import virtually

ME, OTHER, NEW = 1, 2, 3
FLOOR = Floor(40, 7)
TOPOLOGY = Topology(8, (Site(ME), Site(OTHER)), (ME,), floor=FLOOR).seal(50).gather()


class World:
    """Both nodes have gathered; `on_ask` runs while one is asked."""

    def __init__(self) -> None:
        self.there: set[int] = {ME, OTHER}
        self.asked: list[int] = []
        self.on_ask: Callable[[], None] = lambda: None
        assert TOPOLOGY.sealing is not None
        self._said = Sealed(FLOOR.hlc, TOPOLOGY.sealing.round, TOPOLOGY.sealing.round)
        self.rounds = Rounds(FloorPace(), StillClock(), ME, lambda: self._said, self._ask)

    async def _ask(self, uid: int, method: str, body: bytes) -> bytes:
        self.asked.append(uid)
        self.on_ask()
        return wire.pack(wire.FloorProgress(*self._said))

    def seen(self) -> Collection[int]:
        return frozenset(self.there)

    async def change(self) -> Change | None:
        return await self.rounds.change(TOPOLOGY, self.seen)


@virtually
async def test_the_floor_is_raised_once_all_that_are_there_have_gathered() -> None:
    world = World()

    change = await world.change()

    assert change is not None
    assert change.topology.floor == Floor(50, 9)
    assert (world.asked, world.rounds.awaited) == ([OTHER], ())


@virtually
async def test_who_is_about_to_join_is_waited_for_and_nobody_is_asked() -> None:
    world = World()
    world.there.add(NEW)

    assert await world.change() is None

    assert (world.asked, world.rounds.awaited) == ([], (NEW,))


@virtually
async def test_who_comes_while_the_others_are_asked_is_waited_for_too() -> None:
    world = World()
    world.on_ask = lambda: world.there.add(NEW)

    assert await world.change() is None

    assert (world.asked, world.rounds.awaited) == ([OTHER], (NEW,))


@virtually
async def test_who_is_away_is_waited_for() -> None:
    world = World()
    world.there.discard(OTHER)

    assert await world.change() is None

    assert (world.asked, world.rounds.awaited) == ([], (OTHER,))
