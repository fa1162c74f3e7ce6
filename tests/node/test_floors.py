"""Up to which time what is taken in, as the topology and the store say."""

from __future__ import annotations

import pytest

from envd.core.partitions import first_table
from envd.core.placement import Site
from envd.core.topology import Topology
from envd.node.floors import Floors
from envd.node.holdings import Holdings
from envd.storage.memory import MemoryStore

ME, PEER, STRANGER = 1, 2, 9
PLAIN = Topology(1, (Site(ME, "a", ""), Site(PEER, "b", "")), (ME,))
RAISED = PLAIN.seal(50).gather().raise_floor()


class World:
    """One node's floors."""

    def __init__(self, *, is_agent: bool = False, began_empty: bool = False) -> None:
        self.store = MemoryStore()
        self.holdings = Holdings(ME, is_agent=is_agent)
        self.floors = Floors(self.store, self.holdings, is_agent=is_agent, began_empty=began_empty)
        self.told = 0
        self.floors.subscribe(self._tell)

    def _tell(self) -> None:
        self.told += 1

    def follow(self, topology: Topology) -> Floors:
        self.holdings.follow(topology.table)
        self.floors.follow(topology)
        return self.floors


async def test_a_node_at_the_floor_judges_what_is_below() -> None:
    world = World()
    await world.store.raise_floor(50)
    floors = world.follow(RAISED)

    assert not floors.behind
    assert (floors.judges_below(3), floors.passes_below(3)) == (50, 0)


async def test_one_below_it_can_not_tell_and_passes_over_what_comes_by_a_log() -> None:
    floors = World().follow(RAISED)

    assert floors.behind
    assert (floors.judges_below(3), floors.passes_below(3)) == (0, 50)


async def test_an_agent_takes_everything() -> None:
    floors = World(is_agent=True).follow(RAISED)

    assert not floors.behind
    assert (floors.judges_below(3), floors.passes_below(3)) == (0, 0)


async def test_of_a_partition_that_is_coming_nothing_can_be_told() -> None:
    table = first_table((ME, PEER), {"": 1}).begin({3: (ME,)}, 2)
    gaining = World()
    gaining.holdings.uid = STRANGER
    await gaining.store.raise_floor(50)
    floors = gaining.follow(RAISED.with_table(table.begin({4: (STRANGER,)}, 5)))

    assert (floors.judges_below(4), floors.passes_below(4)) == (0, 50)


@pytest.mark.parametrize(("uid", "refused"), [(PEER, 0), (STRANGER, 50), (0, 0)])
def test_while_a_round_is_under_way_strangers_bring_nothing_below(uid: int, refused: int) -> None:
    floors = World().follow(PLAIN.seal(50))

    assert floors.refuses_below(uid) == refused
    assert floors.sealed_to == 50


def test_what_is_open_is_closed_once_it_is_gathered() -> None:
    world = World()

    assert world.follow(PLAIN.seal(50)).closed_to == 0
    assert world.follow(PLAIN.seal(50).gather()).closed_to == 50
    assert world.follow(RAISED).closed_to == 50
    assert world.told == 3
    world.follow(RAISED)
    assert world.told == 3


async def test_who_began_empty_takes_from_those_at_the_floor_until_it_is_there() -> None:
    world = World(began_empty=True)
    assert world.floors.lacks_topology
    assert not world.floors.fills_from(50)

    floors = world.follow(RAISED)

    assert [floors.fills_from(floor) for floor in (0, 49, 50, 60)] == [False, False, True, True]
    await world.store.raise_floor(50)
    assert floors.fills_from(0)


def test_any_other_takes_from_all() -> None:
    world = World()
    assert world.floors.fills_from(0)
    assert world.follow(RAISED).fills_from(0)


def test_what_comes_from_below_its_own_time_is_not_proven() -> None:
    floors = World().floors
    floors.note_taken(40, 50)
    floors.note_taken(70, 60)
    floors.note_taken(90, 60)

    assert floors.unproven == 70
