"""The simulator as a whole, under a toy of a replicated register, sound and unsound."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.sim.cluster import NodeDied
from chaos.sim.network import Weather
from tests.chaos.toy import ToyWorld, Value

ROOT = Path(__file__).parents[2]
FAULTS = ("crash", "silent crash", "pause", "cut", "partition")


class Run:
    """One seed of writes under faults; `acknowledged` is what the toys promised to keep."""

    def __init__(self, seed: int, *, sound: bool = True) -> None:
        self.world = ToyWorld(seed, 5, sound=sound)
        self.acknowledged: list[tuple[str, Value]] = []
        self.lost: list[tuple[str, Value]] = []
        self.equal = False
        self.world.run(self.main)
        self.hash = self.world.trace.hexdigest()

    async def main(self) -> None:
        world = self.world
        await world.start_all()
        clients = [world.loop.create_task(self.client(number)) for number in range(4)]
        await self.faults()
        for client in clients:
            await client
        world.cluster.network.heal()
        await asyncio.sleep(30)
        states = [node.state for _, node in sorted(world.cluster.nodes.items())]
        self.equal = len(states) == 5 and all(state == states[0] for state in states)
        self.lost = [
            (key, value)
            for key, value in self.acknowledged
            if value > states[0].get(key, (0, "", ""))
        ]

    async def client(self, number: int) -> None:
        world, chance = self.world, self.world.chance.stream(f"client {number}")
        for turn in range(120):
            name = chance.choice(world.machines).name
            key = f"k{chance.randrange(400)}"
            if name in world.cluster.nodes:
                try:
                    value = await world.write(name, key, f"{number}.{turn}")
                    self.acknowledged.append((key, value))
                except (NodeDied, TimeoutError):
                    world.trace.note("unknown", key)
            await asyncio.sleep(chance.uniform(0, 0.3))

    async def faults(self) -> None:
        world, network = self.world, self.world.cluster.network
        chance = world.chance.stream("faults")
        for turn in range(8):
            network.weather = Weather(0.05, 0.05, 0.1)
            await asyncio.sleep(1.5)
            machine, other = chance.sample(world.machines, 2)
            match chance.choice(FAULTS):
                case "crash" | "silent crash" as how:
                    world.cluster.crash(machine, silently=how == "silent crash")
                    await asyncio.sleep(1)
                    await world.cluster.start(machine)
                case "pause":
                    world.cluster.pause(machine)
                    await asyncio.sleep(2)
                    world.cluster.resume(machine)
                case "cut":
                    network.cut(machine.name, other.name)
                case _:
                    network.partition(
                        [machine.name], {m.name for m in world.machines} - {machine.name}
                    )
            if turn % 3 == 2:
                network.heal()


@pytest.mark.parametrize("seed", range(6))
def test_a_sound_toy_loses_nothing_and_converges(seed: int) -> None:
    run = Run(seed)

    assert len(run.acknowledged) > 100
    assert run.lost == []
    assert run.equal


def test_a_toy_that_answers_before_its_disk_does_is_found_out() -> None:
    found = [seed for seed in range(12) if Run(seed, sound=False).lost]

    assert found


def test_one_seed_gives_one_run_and_another_seed_another() -> None:
    assert Run(3).hash == Run(3).hash != Run(4).hash


def test_a_run_is_the_same_in_other_processes_whatever_their_hash_seed() -> None:
    program = "from tests.chaos.test_toy import Run; print(Run(5).hash)"

    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }

    assert len(hashes) == 1
