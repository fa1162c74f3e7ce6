"""The faults of a run, drawn from its seed, and how each is mended.

Faults come one after the other and overlap. Everything that keeps what was synced may befall
any number of machines at once. A disk is lost (wiped, gone back, damaged) of one machine at a time,
and the next only once all machines are up and hold everything that any of them held after
the last loss: the promise is about the loss of any one node. Nor is one lost before another voter
has taken the place of those that lost theirs, if no majority of the voters were left: nothing is
promised to survive that, and nothing serial would go on without an operator (docs/cluster.md, "Who
votes"). One that votes alone may be lost: what it answered is in the log of another node too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any, Final, Protocol

from chaos.sim.cluster import Cluster, Machine, NodeDied
from chaos.sim.held import Held, are_enough, together
from chaos.sim.network import FAIR, Weather
from envd.core.errors import EnvdError

MAX_MACHINES: Final = 8
FEWEST_MACHINES: Final = 3
MACHINES: Final = range(FEWEST_MACHINES, MAX_MACHINES + 1)
HOUR_MS: Final = 3_600_000
_SETTLING_S: Final = 25.0
_POLL_S: Final = 0.5
BETWEEN_S: Final = (0.3, 3.5)
AT_ONCE: Final = 4
_COPIES: Final = 2


_METHODS: Final = {
    "loss": "_loss",
    "partition": "_partition",
    "one-way partition": "_one_way",
    "crash": "_crash",
    "power loss": "_power_loss",
    "kill during flush": "_kill_during_flush",
    "clock jump": "_clock_jump",
    "clock drift": "_clock_drift",
    "disk full": "_disk_full",
    "slow disk": "_slow_disk",
    "slow node": "_slow_node",
    "slow link": "_slow_link",
    "pause": "_pause",
    "restart": "_restart",
    "bit flip": "_bit_flip",
    "stale restore": "_stale_restore",
    "wipe": "_wipe",
    "join": "_join",
    "leave": "_leave",
}
KINDS: Final = tuple(sorted(_METHODS))


class Disks(Protocol):
    """What faults do to the disks of machines, and what they ask of them."""

    def set_full(self, machine: Machine, *, full: bool) -> None:
        """Let it refuse, or take, what is written."""
        ...

    def set_slow(self, machine: Machine, *, slow: bool) -> None:
        """Let every sync take long."""
        ...

    def is_flushing(self, machine: Machine) -> bool:
        """Whether a flush is under way now."""
        ...

    def go_back(self, machine: Machine) -> float | None:
        """Put an earlier state of its own disk into a machine that is down.

        Returns the virtual time (s) of that state, None where there is none.
        """
        ...

    def damage(self, machine: Machine) -> float | None:
        """Flip a bit in the last synced group of a machine that is down; as `go_back`.

        None: the node can't start on it, and the machine must be wiped.
        """
        ...

    def held(self, machine: Machine) -> Held | None:
        """What the node on a machine holds now, None where it is not ready."""
        ...

    def spares(self, machine: Machine) -> bool:
        """Whether a majority of the voters would keep their disks, were that machine's lost.

        Also where only one votes, as long as nobody waits for the floor to rise.
        """
        ...


class Faults:
    """The schedule. `on_disk_lost(machine, back_to_s)` is told before the machine's next start."""

    def __init__(
        self,
        cluster: Cluster[Any],
        disks: Disks,
        chance: Random,
        on_disk_lost: Callable[[Machine, float], None],
        machines: range = MACHINES,
    ) -> None:
        """`machines`: how many there may be, while some come and some leave."""
        self.counts: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            kind: getattr(self, method) for kind, method in _METHODS.items()
        }
        self._cluster = cluster
        self._disks = disks
        self._chance = chance
        self._on_disk_lost = on_disk_lost
        self._most, self._fewest = machines[-1], machines[0]
        self._between_s, self._at_once = BETWEEN_S, AT_ONCE
        self._running: dict[asyncio.Task[None], None] = {}
        self._losing = asyncio.Lock()
        self._must_hold: Held | None = None
        self._busy: dict[str, None] = {}

    async def run(self, seconds: float, enabled: list[str]) -> None:
        """Inflict faults of the enabled kinds for this long; what is under way may outlast it."""
        loop = self._cluster.loop
        until = loop.time() + seconds
        while loop.time() < until:
            await asyncio.sleep(self._chance.uniform(*self._between_s))
            self._running = {task: None for task in self._running if not task.done()}
            if len(self._running) < self._at_once:
                kind = self._chance.choice(enabled)
                self._running[loop.create_task(self._inflict(kind), name=kind)] = None

    async def _inflict(self, kind: str) -> None:
        await self.kinds[kind]()

    def _began(self, kind: str, told: str = "") -> None:
        self.counts[kind] += 1
        self._cluster.trace.note("fault", f"{kind} {told}")

    async def heal(self) -> None:
        """Mend everything, start every machine, and put the clocks right for good."""
        cluster = self._cluster
        leaving = [task for task in self._running if task.get_name() == "leave"]
        others = [task for task in self._running if task not in leaving]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        cluster.network.heal()
        cluster.trace.note("fault", "all mended")
        for machine in cluster.machines.values():
            machine.host.slow_s = 0.0
            cluster.resume(machine)
            self._disks.set_full(machine, full=False)
            self._disks.set_slow(machine, slow=False)
        if leaving:
            await asyncio.wait(leaving)  # who leaves can't be held back
        for machine in list(cluster.machines.values()):
            if not machine.is_up:
                await self._start(machine)

    # -- drawing -----------------------------------------------------------------------

    def _names(self) -> list[str]:
        return sorted(self._cluster.machines)

    def _any(self) -> Machine:
        return self._cluster.machines[self._chance.choice(self._names())]

    def _free(self) -> Machine | None:
        """A machine that no other fault holds, None for none."""
        names = [name for name in self._names() if name not in self._busy]
        return self._cluster.machines[self._chance.choice(names)] if names else None

    async def _for(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(least_s, most_s))

    # -- the network -------------------------------------------------------------------

    async def _loss(self) -> None:
        chance, network = self._chance, self._cluster.network
        weather = Weather(
            chance.uniform(0.01, 0.3), chance.uniform(0, 0.2), chance.uniform(0, 0.2), 0.5
        )
        self._began("loss", f"{weather.loss:.3f}")
        network.weather = weather
        try:
            await self._for(2, 10)
        finally:
            network.weather = FAIR

    async def _partition(self) -> None:
        names = self._names()
        self._chance.shuffle(names)
        at = self._chance.randrange(1, len(names))
        self._began("partition", f"{names[:at]} {names[at:]}")
        network = self._cluster.network
        network.partition(names[:at], names[at:])
        try:
            await self._for(1, 15)
        finally:
            for one in names[:at]:
                for other in names[at:]:
                    network.mend(one, other)
                    network.mend(other, one)

    async def _one_way(self) -> None:
        names = self._names()
        self._chance.shuffle(names)
        at = self._chance.randrange(1, len(names))
        self._began("one-way partition", f"{names[:at]} {names[at:]}")
        pairs = [(one, other) for one in names[:at] for other in names[at:]]
        network = self._cluster.network
        for one, other in pairs:
            network.cut(one, other)
        try:
            await self._for(1, 12)
        finally:
            for one, other in pairs:
                network.mend(one, other)

    async def _slow_link(self) -> None:
        machine = self._any()
        self._began("slow link", machine.name)
        machine.host.slow_s = self._chance.uniform(0.05, 0.8)
        try:
            await self._for(2, 8)
        finally:
            machine.host.slow_s = 0.0

    # -- processes ---------------------------------------------------------------------

    async def _crash(self) -> None:
        await self._die("crash", silently=False)

    async def _power_loss(self) -> None:
        await self._die("power loss", silently=True)

    async def _die(self, kind: str, *, silently: bool) -> None:
        machine = self._free()
        if machine is None or not machine.is_up:
            return
        self._began(kind, machine.name)
        async with Holding(self._busy, machine):
            self._cluster.crash(machine, silently=silently)
            await self._for(0.05, 8)
            await self._start(machine)

    async def _kill_during_flush(self) -> None:
        machine = self._free()
        if machine is None:
            return
        async with Holding(self._busy, machine):
            for _ in range(20_000):
                if not machine.is_up:
                    return
                if self._disks.is_flushing(machine):
                    break
                await asyncio.sleep(0.001)
            else:
                return
            self._began("kill during flush", machine.name)
            self._cluster.crash(machine)
            await self._for(0.05, 3)
            await self._start(machine)

    async def _restart(self) -> None:
        """As an upgrade does: let it end in good order, then start it again."""
        machine = self._free()
        if machine is None or machine.name not in self._cluster.nodes:
            return
        self._began("restart", machine.name)
        async with Holding(self._busy, machine):
            await self._stop(machine)
            await self._for(0.05, 2)
            await self._start(machine)

    async def _pause(self) -> None:
        machine = self._any()
        self._began("pause", machine.name)
        self._cluster.pause(machine)
        try:
            await self._for(0.5, 12)
        finally:
            self._cluster.resume(machine)

    async def _slow_node(self) -> None:
        machine, loop = self._any(), self._cluster.loop
        self._began("slow node", machine.name)
        until = loop.time() + self._chance.uniform(2, 8)
        try:
            while loop.time() < until:
                if machine.boot is not None:
                    machine.boot.process.pause()
                await self._for(0.02, 0.4)
                if machine.boot is not None:
                    machine.boot.process.resume()
                await self._for(0.005, 0.1)
        finally:
            if machine.boot is not None and machine.boot.process.paused:
                machine.boot.process.resume()

    # -- clocks and disks --------------------------------------------------------------

    async def _clock_jump(self) -> None:
        machine = self._any()
        hours = self._chance.random() < 0.3
        most_ms = 5 * HOUR_MS if hours else 40_000
        by_ms = self._chance.uniform(-most_ms, most_ms)
        self._began("clock jump", f"{machine.name} {by_ms:.0f} ms")
        machine.clock.jump(by_ms)
        try:
            await self._for(1, 15)
        finally:
            machine.clock.jump(-by_ms)

    async def _clock_drift(self) -> None:
        machine = self._any()
        self._began("clock drift", machine.name)
        machine.clock.drift(self._chance.uniform(-20_000, 20_000))
        try:
            await self._for(5, 20)
        finally:
            machine.clock.drift(0)

    async def _disk_full(self) -> None:
        machine = self._any()
        self._began("disk full", machine.name)
        self._disks.set_full(machine, full=True)
        try:
            await self._for(0.5, 6)
        finally:
            self._disks.set_full(machine, full=False)

    async def _slow_disk(self) -> None:
        machine = self._any()
        self._began("slow disk", machine.name)
        self._disks.set_slow(machine, slow=True)
        try:
            await self._for(1, 8)
        finally:
            self._disks.set_slow(machine, slow=False)

    # -- lost disks: one at a time -----------------------------------------------------

    async def _wipe(self) -> None:
        await self._lose_disk("wipe", lambda machine: None)

    async def _stale_restore(self) -> None:
        await self._lose_disk("stale restore", self._disks.go_back)

    async def _bit_flip(self) -> None:
        await self._lose_disk("bit flip", self._disks.damage)

    async def _lose_disk(self, kind: str, lose: Callable[[Machine], float | None]) -> None:
        """Crash a machine and lose its disk: `lose` tells to when it went back, None for empty."""
        async with self._losing:
            machine = self._free()
            if machine is None or not machine.is_up or not await self._may_lose(machine):
                return
            if machine.name in self._busy or machine.name not in self._cluster.nodes:
                return
            self._began(kind, machine.name)
            async with Holding(self._busy, machine):
                self._cluster.crash(machine)
                await self._for(0.05, 2)
                back_to_s = lose(machine)
                if back_to_s is None:
                    self._cluster.wipe(machine)
                self._on_disk_lost(machine, 0.0 if back_to_s is None else back_to_s)
                self._must_hold = None
                await self._for(0.05, 3)
                await self._start(machine)

    async def _may_lose(self, machine: Machine) -> bool:
        """Wait until all that was promised outlives the loss of a machine's disk."""
        loop = self._cluster.loop
        until = loop.time() + _SETTLING_S
        while loop.time() < until:
            if self._all_hold() and self._disks.spares(machine):
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def _all_hold(self) -> bool:
        """Tell whether every machine holds all that any held after the last loss of a disk.

        Of what it is to hold, where that is not everything.
        """
        if not self.counts["wipe"] + self.counts["stale restore"] + self.counts["bit flip"]:
            return True
        held = [self._disks.held(one) for one in self._cluster.machines.values()]
        ready = [one for one in held if one is not None]
        if len(ready) < len(held):
            return False
        wanted = self._must_hold = self._must_hold or together(ready)
        return are_enough(ready, wanted, _COPIES)

    # -- who belongs to the cluster ------------------------------------------------------

    async def _join(self, away_from: Iterable[str] = ()) -> None:
        cluster = self._cluster
        if len(cluster.machines) >= self._most:
            return
        regions = sorted({machine.region for machine in cluster.machines.values()})
        machine = cluster.add(f"j{cluster.added}", self._chance.choice(regions))
        cluster.network.partition([machine.name], away_from)
        self._began("join", machine.name)
        async with Holding(self._busy, machine):
            await self._start(machine)

    async def _leave(self) -> None:
        """A machine is drained and goes for good."""
        machine = self._free()
        cluster = self._cluster
        if machine is None or len(cluster.machines) <= self._fewest:
            return
        async with self._losing:
            if len(cluster.machines) <= self._fewest:  # Others left meanwhile.
                return
            if machine.name not in cluster.nodes or machine.name in self._busy:
                return
            self._began("leave", machine.name)
            async with Holding(self._busy, machine):
                try:
                    await cluster.leave(machine)
                except (NodeDied, EnvdError) as error:
                    cluster.trace.note("stayed", f"{machine.name} {type(error).__name__}")

    async def _start(self, machine: Machine) -> None:
        if machine.is_up:
            return
        try:
            await self._cluster.start(machine)
        except (NodeDied, EnvdError) as error:
            self._cluster.trace.note("not started", f"{machine.name} {type(error).__name__}")

    async def _stop(self, machine: Machine) -> None:
        try:
            await self._cluster.stop(machine)
        except (NodeDied, EnvdError) as error:
            self._cluster.trace.note("not stopped", f"{machine.name} {type(error).__name__}")


class Holding:
    """Keeps other faults that would end or start a machine away from it."""

    def __init__(self, busy: dict[str, None], machine: Machine) -> None:
        self._busy = busy
        self._name = machine.name

    async def __aenter__(self) -> None:
        self._busy[self._name] = None

    async def __aexit__(self, *_: object) -> None:
        self._busy.pop(self._name, None)
