"""The simulated disk: syncs take time, and a crash loses what they did not cover."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from chaos.sim.chance import Chance
from chaos.sim.disk import SLOW_SYNC_S, SYNC_S, SimDisk
from chaos.sim.loop import SimLoop
from envd.core.errors import Unavailable


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    made = SimLoop()
    yield made
    made.close()


def disk_on(loop: SimLoop, seed: int = 1) -> SimDisk[int]:
    return SimDisk(loop, Chance(seed).stream("disk"))


@pytest.mark.parametrize(("slow", "between"), [(False, SYNC_S), (True, SLOW_SYNC_S)])
def test_a_write_is_durable_after_a_sync(
    loop: SimLoop, slow: bool, between: tuple[float, float]
) -> None:
    disk = disk_on(loop)
    disk.slow = slow

    async def main() -> tuple[int, float]:
        began = loop.time()
        written = disk.append(7)
        assert disk.durable == []
        return await written, loop.time() - began

    place, took_s = loop.simulate(main())

    assert (place, disk.durable) == (1, [7])
    assert between[0] <= took_s <= between[1]


def test_what_comes_while_a_sync_runs_shares_the_next_one(loop: SimLoop) -> None:
    disk = disk_on(loop)

    async def main() -> None:
        await asyncio.gather(*(disk.append(number) for number in range(100)))

    loop.simulate(main())

    assert disk.durable == list(range(100))
    assert disk.syncs == 2


def test_a_crash_keeps_what_was_synced_and_some_of_the_oldest_of_the_rest(loop: SimLoop) -> None:
    kept: set[int] = set()

    async def main(seed: int) -> None:
        disk = disk_on(loop, seed)
        await disk.append(0)
        for number in range(1, 6):
            disk.append(number)
        disk.crash()
        await asyncio.sleep(1)
        assert disk.durable == list(range(len(disk.durable)))
        kept.add(len(disk.durable))

    for seed in range(60):
        loop.simulate(main(seed))

    assert kept == {1, 2, 3, 4, 5, 6}


def test_a_full_disk_refuses_and_takes_again_once_there_is_room(loop: SimLoop) -> None:
    disk = disk_on(loop)

    async def main() -> None:
        disk.full = True
        with pytest.raises(Unavailable):
            await disk.append(1)
        disk.full = False
        await disk.append(2)

    loop.simulate(main())

    assert disk.durable == [2]


def test_a_new_disk_is_empty(loop: SimLoop) -> None:
    disk = disk_on(loop)

    async def main() -> None:
        await disk.append(1)
        disk.append(2)
        disk.wipe()
        await asyncio.sleep(1)

    loop.simulate(main())

    assert disk.durable == []
