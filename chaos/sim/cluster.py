"""Machines, the nodes that run on them one after the other, and what can be done to them.

A `Machine` has a name, a region, clocks and a disk; a `Boot` is one run of a node on it: the
process and the ports it gets. What a node is made of is the `NodeFactory`'s business, so the same
cluster runs the real node and the simulator's own test.

A crash works from the outside in: first the ports are dead, then the process is killed, so whatever
its `finally` blocks do reaches nobody, then the disk forgets what was not synced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any, Generic, Protocol, TypeVar

from chaos.sim.chance import Chance, SimRng
from chaos.sim.channels import SimTransport
from chaos.sim.clocks import SimClock
from chaos.sim.loop import Process, SimFuture, SimLoop
from chaos.sim.network import Host, SimDatagrams, SimNetwork
from chaos.sim.trace import Trace

GOSSIP_PORT = 7946
PEER_PORT = 7947
_T = TypeVar("_T")


class NodeDied(Exception):
    """The node's process ended before it answered: what was asked may have happened."""


@dataclass(frozen=True)
class Boot:
    """What one run of a node gets from the world."""

    machine: Machine
    number: int
    process: Process
    clock: SimClock
    rng: SimRng
    datagrams: SimDatagrams
    transport: SimTransport
    chance: Chance


class Running(Protocol):
    """A node that takes requests."""

    async def stop(self) -> None:
        """End in good order; returns when everything is closed."""
        ...

    async def leave(self) -> None:
        """Leave the cluster for good; returns once the others have all that this node had."""
        ...


NodeT = TypeVar("NodeT", bound=Running)
NodeT_co = TypeVar("NodeT_co", bound=Running, covariant=True)


class NodeFactory(Protocol[NodeT_co]):
    """How nodes are made, and what their disks hold between two runs."""

    async def start(self, boot: Boot) -> NodeT_co:
        """Start a node on what its machine's disk holds; runs in the node's process."""
        ...

    def crashed(self, machine: Machine) -> None:
        """The machine's process died: its disk forgets what was not synced."""
        ...

    def wipe(self, machine: Machine) -> None:
        """Put a new, empty disk into the machine."""
        ...


@dataclass
class Machine:
    """One machine; `boot` is its run now or the last one, `boots` counts them."""

    name: str
    region: str
    host: Host
    clock: SimClock
    boots: int = 0
    boot: Boot | None = None

    @property
    def gossip(self) -> str:
        return f"{self.name}:{GOSSIP_PORT}"

    @property
    def peer(self) -> str:
        return f"{self.name}:{PEER_PORT}"

    @property
    def is_up(self) -> bool:
        """Whether a process runs here, paused or not, ready or not."""
        return self.boot is not None and self.boot.process.alive


class Cluster(Generic[NodeT]):
    """All machines of a run. `nodes` has those that are ready, by the name of their machine."""

    def __init__(
        self, loop: SimLoop, chance: Chance, trace: Trace, factory: NodeFactory[NodeT]
    ) -> None:
        self.loop = loop
        self.trace = trace
        self.network = SimNetwork(loop, chance.stream("network"), trace)
        self.machines: dict[str, Machine] = {}
        self.nodes: dict[str, NodeT] = {}
        self.added = 0
        self._chance = chance
        self._factory = factory

    def add(self, name: str, region: str = "here") -> Machine:
        """A new machine with an empty disk, not started yet."""
        clock = SimClock(self.loop.time)
        machine = Machine(name, region, Host(name, region), clock)
        self.machines[name] = machine
        self.added += 1
        self.network.bind(machine.gossip, machine.host)
        self.network.bind(machine.peer, machine.host)
        return machine

    async def start(self, machine: Machine) -> NodeT:
        """Boot, and wait until the node is ready; raises what its start raises, or NodeDied.

        Where it does not get ready, or its caller is cancelled before, the machine is off again.
        """
        assert not machine.is_up, f"{machine.name} runs already"
        boot = self._boot(machine)
        self.trace.note("boot", f"{machine.name} {boot.number}")
        try:
            node = await self.call(boot.process, self._factory.start(boot))
        except BaseException:
            self.crash(machine)
            raise
        if boot.process.alive:
            self.nodes[machine.name] = node
            self.trace.note("ready", f"{machine.name} {boot.number}")
        return node

    def _boot(self, machine: Machine) -> Boot:
        machine.boots += 1
        machine.host.off = False
        name = f"{machine.name}.{machine.boots}"
        process = Process(self.loop, name)
        machine.host.process = process
        chance = self._chance.below(name)
        network = self.network
        machine.boot = Boot(
            machine,
            machine.boots,
            process,
            machine.clock,
            SimRng(chance.stream("rng")),
            network.datagrams(machine.host, machine.gossip, process),
            SimTransport(network, machine.host, machine.peer, process),
            chance,
        )
        network.retry()
        return machine.boot

    async def call(self, process: Process, asked: Coroutine[Any, Any, _T]) -> _T:
        """Run something as part of a process and wait for it; raises NodeDied if it dies first."""
        if not process.alive:
            asked.close()
            raise NodeDied(process.name)
        answer: SimFuture[_T] = self.loop.create_future()

        def died() -> None:
            asked.close()
            if not answer.done():
                answer.set_exception(NodeDied(process.name))

        process.on_death(died)
        task = process.spawn(_answer(process, asked, answer), getattr(asked, "__name__", "call"))
        try:
            return await answer
        finally:
            process.forget(died)
            if not task.done() and process.alive:
                task.cancel()
                if getcoroutinestate(asked) == CORO_CREATED:
                    asked.close()  # The process stood still all the while.

    # -- what befalls a machine ----------------------------------------------------

    def crash(self, machine: Machine, *, silently: bool = False) -> None:
        """The process dies (kill -9), or with `silently` the machine loses power."""
        if machine.boot is None or not machine.boot.process.alive:
            return
        self.trace.note("crash", f"{machine.name} {'silently' if silently else ''}")
        self.nodes.pop(machine.name, None)
        self.network.unplug(machine.host, silently=silently)
        machine.boot.process.kill()
        self._factory.crashed(machine)

    async def stop(self, machine: Machine) -> None:
        """Let the node end in good order, then its process; raises what that raises."""
        node = self.nodes.pop(machine.name, None)
        if node is None or machine.boot is None:
            return
        self.trace.note("stop", machine.name)
        try:
            await self.call(machine.boot.process, node.stop())
        finally:
            self.crash(machine)

    async def leave(self, machine: Machine) -> None:
        """Let the node leave the cluster for good, and take its machine away.

        Raises what leaving raises; the machine then stays.
        """
        node = self.nodes.get(machine.name)
        if node is None or machine.boot is None:
            raise NodeDied(machine.name)
        self.trace.note("leave", machine.name)
        await self.call(machine.boot.process, node.leave())
        self.crash(machine)
        del self.machines[machine.name]

    def wipe(self, machine: Machine) -> None:
        """The disk is lost, and the process with it; the machine comes back as a new node."""
        self.crash(machine)
        self.trace.note("wipe", machine.name)
        self._factory.wipe(machine)

    def pause(self, machine: Machine) -> None:
        """SIGSTOP."""
        if machine.boot is not None and machine.boot.process.alive:
            self.trace.note("pause", machine.name)
            machine.boot.process.pause()

    def resume(self, machine: Machine) -> None:
        """SIGCONT."""
        if machine.boot is not None and machine.boot.process.paused:
            self.trace.note("resume", machine.name)
            machine.boot.process.resume()

    # -- looking -------------------------------------------------------------------

    def up(self) -> list[Machine]:
        """The machines whose node is ready, in order of their names."""
        return [self.machines[name] for name in sorted(self.nodes)]

    def names(self, machines: Iterable[Machine]) -> list[str]:
        """Their names, in order."""
        return sorted(machine.name for machine in machines)


async def _answer(process: Process, asked: Coroutine[Any, Any, _T], answer: SimFuture[_T]) -> None:
    """Hand the outcome over to who waits outside of the process, while it lives."""
    try:
        result = await asked
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - it is the caller's
        if process.alive and not answer.done():
            answer.set_exception(error)
    else:
        if process.alive and not answer.done():
            answer.set_result(result)
