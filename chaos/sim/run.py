"""One seed: nodes, clients and faults drawn from it, then the heal, then the verdict.

Phases: all nodes start and find each other; clients work under faults while the checkers look;
everything is mended; the nodes must become equal within a bound of virtual time, nothing that was
acknowledged may be missing, and every node must again have a write acknowledged by two.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from chaos.sim import floor_faults, shares
from chaos.sim.chance import Chance
from chaos.sim.checkers import Acknowledged, Checker, Sighting, Violation
from chaos.sim.checkers.adjacent_quorums import AdjacentQuorums
from chaos.sim.checkers.below_floor import BelowFloor
from chaos.sim.checkers.equal_roots import EqualRoots
from chaos.sim.checkers.growing_stamps import GrowingStamps
from chaos.sim.checkers.lost_writes import LostWrites
from chaos.sim.checkers.merge_laws import MergeLaws
from chaos.sim.checkers.readable import Dropped, Readable
from chaos.sim.checkers.same_everywhere import Convergence, SameHistory, difference
from chaos.sim.checkers.serial_history import SerialHistory
from chaos.sim.checkers.session_tokens import SessionTokens
from chaos.sim.checkers.whole_commits import GROUP, WholeCommits
from chaos.sim.cluster import Cluster, Machine, NodeDied
from chaos.sim.collection import unforgotten
from chaos.sim.controls import SOUND, Control
from chaos.sim.faults import MACHINES, Faults
from chaos.sim.floor_faults import FloorFaults, MovingFloorFaults
from chaos.sim.hearing import Hearing
from chaos.sim.held import Commits, Held, newest_ms
from chaos.sim.linearizability import SerialOperation
from chaos.sim.loop import RunFailed, SimLoop
from chaos.sim.moving_faults import MovingFaults
from chaos.sim.nodes import EnvdFactory, Settings, SimNode
from chaos.sim.outcome import Outcome
from chaos.sim.serial import CLIENTS as SERIAL_CLIENTS
from chaos.sim.serial import ENVIRONMENTS, SerialClients
from chaos.sim.trace import Trace
from chaos.sim.workload import Workload
from envd.core.answers import EnvironmentView, Identity, WriteAnswer
from envd.core.errors import EnvdError
from envd.core.history import Retention
from envd.core.requests import Put, WriteRequest
from envd.core.sealing import FloorPace
from envd.core.stamp import Stamp
from envd.core.topology import Topology
from envd.ports import Applied

CONVERGES_WITHIN_S: Final = 120.0
SETTLES_WITHIN_S: Final = 600.0
"""Where partitions have to move before all is as it is to stay."""
MEETS_WITHIN_S: Final = 60.0
LOOKS_EVERY_S: Final = 2.0
_FEW: Final = (3, 8)
_MANY: Final = (8, 13)
_MORE_OR_LESS: Final = 2
_SETTLED_FIRST: Final = 0.6
_FORGETS: Final = 0.25
_KEPT_COMMITS: Final = (3, 12)
_BACKUPS: Final = 8
_CLIENTS: Final = 6
_POLL_S: Final = 0.1
_LOOK_AGAIN_S: Final = 0.25
_WATCHED_S: Final = 2.0
_QUIET: Final = frozenset({"datagram", "frame", "call", "answer", "dial"})
_WATCHES: Final = "watches: who watches ends up with what there is"
_EXPECTED_LOGS: Final = frozenset({"node.identity_lost"})


def pace_of(drawn: Random) -> FloorPace:
    """How fast a cluster that forgets does so: in seconds where it is hours and days."""
    age_ms, every_ms = drawn.randrange(4_000, 10_000), drawn.randrange(3_000, 8_000)
    return FloorPace(age_ms, every_ms, drawn.uniform(10, 25))


class Run:
    """One run; `outcome` is filled in by `go`."""

    def __init__(
        self,
        seed: int,
        minutes: float,
        nodes: int | None = None,
        control: Control = SOUND,
        kinds: Sequence[str] = (),
        copies: int = 0,
        *,
        forgets: bool | None = None,
    ) -> None:
        """`kinds` of faults, all of them; else each seed draws its own. With `copies` of each
        partition its nodes are more than these, and partitions move; 0: by how many nodes
        there are. In one that `forgets` the floor rises every few seconds, and who is away is soon
        given up; None: some seeds do, where no rule is switched off."""
        self._minutes = minutes
        self._control = control
        self._kinds = kinds
        self._chance = Chance(seed)
        self._drawn = self._chance.stream("run")
        count = nodes or self._drawn.randrange(*(_MANY if copies else _FEW))
        self._copies = copies
        pacing = self._chance.stream("floor")
        drawn = pacing.random() < _FORGETS and control is SOUND
        self._pace = pace_of(pacing) if (drawn if forgets is None else forgets) else None
        self.outcome = Outcome(seed, count)
        self._loop = SimLoop()
        self._trace = Trace(self._loop.time)
        self._violation: Violation | None = None
        self._healed_at = 0
        self._losers: dict[str, None] = {}
        settings = self._settings()
        self._retention = settings.retention
        self._factory = EnvdFactory(
            self._loop,
            self._chance.below("nodes"),
            settings,
            self._applied,
            self._identity_lost,
            control.sabotage,
            self._dropped,
            self._emptied,
            control.amend,
        )
        self._cluster: Cluster[SimNode] = Cluster(
            self._loop, self._chance.below("cluster"), self._trace, self._factory
        )
        self._factory.cluster = self._cluster
        self._add_machines(count)
        self._checkers = self._make_checkers()
        self._faults = self._make_faults(count)
        self._workload = Workload(
            self._cluster,
            self._chance.below("workload"),
            self._acknowledged,
            self._see,
            self._read_back,
            deletes=self._pace is not None,
        )
        self._serial = SerialClients(
            self._cluster, self._workload, self._chance.below("serial"), self._acknowledged
        )

    def _add_machines(self, count: int) -> None:
        regions = [f"r{number}" for number in range(self._drawn.randrange(1, 4))]
        for number in range(1, count + 1):
            self._cluster.add(f"n{number}", self._drawn.choice(regions))

    def _make_checkers(self) -> list[Checker]:
        checkers = self._chance.below("checkers")
        self._below = BelowFloor(self._factory.disks, self._raised)
        truth = self._below.truth
        self._lost_writes = LostWrites(truth)
        self._whole = WholeCommits(checkers.stream("whole commits"))
        return [
            self._below,
            MergeLaws(checkers.stream("merge laws"), self._control.merge),
            EqualRoots(self._retention),
            self._lost_writes,
            self._whole,
            GrowingStamps(),
            Convergence(self._retention),
            SameHistory(),
            SessionTokens(truth),
            SerialHistory(ENVIRONMENTS, self._serial_operations),
            AdjacentQuorums(),
            Readable(self._factory.sightings, truth),
            Dropped(self._factory.sightings, self._kept),
        ]

    def _make_faults(self, count: int) -> Faults:
        cluster, factory, lost = self._cluster, self._factory, self._disk_lost
        chance, machines = self._chance.stream("faults"), MACHINES
        if self._copies:
            fewest = max(self._copies + 1, count - _MORE_OR_LESS)
            machines = range(fewest, count + _MORE_OR_LESS + 1)
        if self._pace is not None:
            kind: type[FloorFaults] = MovingFloorFaults if self._copies else FloorFaults
            return kind(cluster, factory, chance, lost, machines, self._pace.gives_up_s)
        if self._copies:
            return MovingFaults(cluster, factory, chance, lost, machines)
        return Faults(cluster, factory, chance, lost, machines)

    def _serial_operations(
        self, environment: str, nodes: Sequence[Sighting]
    ) -> Sequence[SerialOperation]:
        return self._serial.operations(environment, nodes)

    def _settings(self) -> Settings:
        """Some clusters keep little history, or little of their logs, so that repair has work."""
        drawn = self._drawn
        retention = Retention(drawn.randrange(8, 60), 0) if drawn.random() < 0.3 else Retention()
        kept = drawn.randrange(50, 400) if drawn.random() < 0.5 else 1_000_000
        settings = Settings(retention, kept, self._control.lying_disk, self._copies)
        if self._pace is None:
            return settings
        few = Retention(self._chance.stream("retention").randrange(*_KEPT_COMMITS), 0)
        return replace(settings, retention=few, pace=self._pace, backups=_BACKUPS)

    # -- what is told -------------------------------------------------------------------

    def _check(self, look: Callable[[Checker], None]) -> None:
        """Let every checker look; the first violation ends the run."""
        if self._violation is not None:
            return
        for checker in self._checkers:
            try:
                look(checker)
            except Violation as violation:
                self._fail(violation)
                return

    def _fail(self, violation: Violation) -> None:
        if self._violation is None:
            self._violation = violation
            self._trace.note("violation", str(violation))
            self._loop.failures.append(str(violation))
            self._loop.stop()

    def _applied(self, node: Sighting, applied: Applied) -> None:
        self._check(lambda checker: checker.applied(node, applied))

    def _acknowledged(self, write: Acknowledged) -> None:
        origin = self._factory.machine_of.get(write.stamp.node_uid, write.machine)
        told = replace(write, machine=origin)
        self._check(lambda checker: checker.answered(told))

    def _see(self, machine: str, view: EnvironmentView) -> None:
        """A client was shown a state: no part of a commit may be in it."""
        shown = {view.variables[name].value if name in view.variables else None for name in GROUP}
        if len(shown) > 1:
            told = f"{machine} showed a client a part of a commit to {view.environment}"
            self._fail(Violation(self._whole.name, told))

    def _read_back(self, machine: str, written: WriteAnswer, view: EnvironmentView) -> None:
        uid = Stamp.from_hex(written.stamp).node_uid
        origin = self._factory.machine_of.get(uid, machine)
        self._check(lambda checker: checker.read_back(machine, origin, written, view))

    def _disk_lost(self, machine: Machine, back_to_s: float) -> None:
        self._losers[machine.name] = None
        others = {one.machine: one for one in self._factory.sightings()}
        self._check(lambda checker: checker.disk_lost(machine.name, others, back_to_s))

    def _dropped(self, machine: str, partition: int, commits: Commits) -> None:
        self._trace.note("dropped", f"{machine} {partition}")
        self._check(lambda checker: checker.dropped(machine, partition, commits))

    def _kept(self, machine: str) -> Mapping[int, Held]:
        """What is on the disks of the other machines, by the uids of their nodes."""
        factory = self._factory
        others = sorted(factory.directories.keys() - {machine})
        return {factory.directories[name].uid: factory.kept(name) for name in others}

    def _identity_lost(self, machine: str, why: str) -> None:
        self._trace.note("new uid", f"{machine}: {why}")
        if machine not in self._losers:
            told = f"{machine} lost its identity though its disk was never lost: {why}"
            self._fail(Violation("identity: only who lost a disk takes a new uid", told))

    def _raised(self, topology: Topology) -> None:
        self._trace.note("floor", f"{topology.floor.hlc} {topology.epoch}")

    def _emptied(self, node: Sighting, why: str) -> None:
        """A node gave what it had and begins anew: its disk went back, or a floor was raised
        without it."""
        self._trace.note("emptied", f"{node.machine}: {why}")
        if node.machine not in self._losers and not self._below.may_begin_anew(node):
            told = f"{node.machine} begins anew though it was in each round and its disk never lost"
            self._fail(Violation("identity: only whom a floor left behind begins anew", told))

    def _logged(self, record: logging.LogRecord) -> None:
        if self._loop.unwinding:
            return
        message = record.getMessage()
        self.outcome.logs[message] += 1
        self._trace.note("log", message)
        if record.levelno >= logging.CRITICAL and message not in _EXPECTED_LOGS:
            error = getattr(record, "error", "")
            cause = record.exc_info[1] if record.exc_info else None
            self._fail(Violation("no fault of our own", f"{message} {error} {cause!r}"))

    # -- the phases ---------------------------------------------------------------------

    def go(self) -> Outcome:
        """Run it all."""
        began = time.process_time()
        handler = Hearing(self._logged)
        logger = logging.getLogger("envd")
        level, propagates = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        try:
            self._loop.simulate(self._main())
        except RunFailed as failed:
            self._note_failure(str(failed))
        except Violation as violation:
            self._violation = violation
            self._note_failure(str(violation))
        finally:
            self._finish(time.process_time() - began)
            self._loop.close()
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagates
        return self.outcome

    def _note_failure(self, told: str) -> None:
        outcome, violation = self.outcome, self._violation
        outcome.violation = told
        outcome.invariant = violation.invariant if violation else "the run goes on"
        outcome.last_events = self._trace.last(60, _QUIET)

    def _finish(self, real_s: float) -> None:
        outcome = self.outcome
        outcome.real_s = real_s
        outcome.virtual_s = self._loop.time() - 1000.0
        outcome.trace_hash = self._trace.hexdigest()
        outcome.faults = self._faults.counts
        outcome.clients = self._workload.counts
        outcome.operations = self._workload.counts["operations"]
        outcome.events = self._trace.counts
        outcome.floors = self._below.counts

    async def _main(self) -> None:
        await self._meet()
        looking = self._loop.create_task(self._keep_looking(), name="checkers")
        operating = [
            self._loop.create_task(self._factory.keep_saving(), name="backups"),
            self._loop.create_task(self._factory.keep_removing(), name="removals"),
        ]
        clients = [
            self._loop.create_task(self._workload.client(number), name=f"client {number}")
            for number in range(_CLIENTS)
        ]
        clients += [
            self._loop.create_task(self._serial.client(number), name=f"serial client {number}")
            for number in range(SERIAL_CLIENTS)
        ]
        shown: dict[str, dict[str, str]] = {name: {} for name in list(self._cluster.machines)[:2]}
        watchers = [
            self._loop.create_task(self._workload.watcher(name, seen), name=f"watcher {name}")
            for name, seen in shown.items()
        ]
        await self._faults.run(self._minutes * 60, self._enabled())
        self._workload.stop_clients()
        self._serial.stop()
        await asyncio.wait(clients)
        for client in clients:
            client.result()
        saving, removing = operating
        saving.cancel()
        if not self._copies:
            removing.cancel()
        await self._heal()
        removing.cancel()  # Until who is gone for good is struck, partitions wait for it.
        looking.cancel()
        await asyncio.sleep(_WATCHED_S)
        self._look_at_watches(shown)
        for watcher in watchers:
            watcher.cancel()
        self.outcome.healed = True

    def _enabled(self) -> list[str]:
        """Each run has some kinds of faults, so that some runs have few and some have many."""
        if self._kinds:
            return list(self._kinds)
        kinds = sorted(self._faults.kinds.keys() - set(floor_faults.KINDS))
        drawn = self._drawn.sample(kinds, self._drawn.randrange(4, len(kinds) + 1))
        return sorted(drawn if self._pace is None else [*drawn, *floor_faults.KINDS])

    async def _meet(self) -> None:
        """Start all nodes, the first one first, and wait until each ships to every other."""
        machines = list(self._cluster.machines.values())
        await self._cluster.start(machines[0])
        starts = [self._loop.create_task(self._cluster.start(one)) for one in machines[1:]]
        for start in starts:
            await start
        until = self._loop.time() + MEETS_WITHIN_S
        while not self._all_connected():
            if self._loop.time() > until:
                raise Violation("12 convergence", "the nodes did not find each other")
            await asyncio.sleep(_POLL_S)
        if self._copies and self._drawn.random() < _SETTLED_FIRST:
            await self._become_placed(self._loop.time() + SETTLES_WITHIN_S)

    async def _become_placed(self, until: float) -> None:
        """Wait until there is a partition table and nothing moves."""
        while not shares.of(nodes := self._factory.sightings()).is_placed(nodes):
            if self._loop.time() > until:
                raise Violation("12 convergence", "partitions did not find their places")
            await asyncio.sleep(_POLL_S)

    def _all_connected(self) -> bool:
        wanted = len(self._cluster.machines)
        nodes = self._cluster.nodes.values()
        return len(nodes) == wanted and all(
            len(one.node.membership.alive_storage()) == wanted and one.node.acknowledging.anybody
            for one in nodes
        )

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            nodes, now_s = self._factory.sightings(), self._loop.time()
            if nodes:
                self._check(lambda checker: checker.looked(nodes, now_s))  # noqa: B023

    # -- the heal -----------------------------------------------------------------------

    async def _heal(self) -> None:
        await self._faults.heal()
        self._mend_clocks()
        began, self._healed_at = self._loop.time(), self._rounds()[0]
        slow = bool(self._copies) or self._pace is not None
        until = began + (SETTLES_WITHIN_S if slow else CONVERGES_WITHIN_S)
        await self._become_equal(until)
        self.outcome.converged_s = self._loop.time() - began
        await self._write_again(until)
        await self._serial.settle()
        await self._become_equal(until)
        nodes = self._factory.sightings()
        self._check(lambda checker: checker.ended(nodes))
        await asyncio.sleep(0)

    async def _become_equal(self, until: float) -> None:
        while told := await self._apart():
            if self._loop.time() > until:
                raise Violation("12 convergence after the heal", told)
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _mend_clocks(self) -> None:
        """All clocks go right; and where a stamp is from the future, that is now."""
        nodes = self._factory.sightings()
        latest_ms = max((newest_ms(node.store) for node in nodes), default=0)
        for machine in self._cluster.machines.values():
            machine.clock.mend(max(0, latest_ms - machine.clock.true_ms()))

    async def _apart(self) -> str:
        """Why the nodes are not equal yet, "" where they are."""
        machines = self._cluster.machines
        nodes = self._factory.sightings()
        if len(nodes) < len(machines):
            down = sorted(set(machines) - {node.machine for node in nodes})
            return f"not ready: {', '.join(down)}"
        try:
            for node in nodes:
                await self._flush(node)
        except NodeDied as died:
            return f"not ready: {died}"
        if self._copies and shares.of(nodes).table is None:
            return "there is no partition table"
        if self._pace is not None and self._rounds()[1] <= self._healed_at:
            return "no round that began since the heal has raised the floor"
        return unforgotten(nodes, self._retention) or difference(nodes)

    def _rounds(self) -> tuple[int, int]:
        """The newest epoch, and the round that raised the floor, named by the epoch it began in."""
        topology = self._factory.shares().topology
        return (0, 0) if topology is None else (topology.epoch, topology.floor.round)

    async def _flush(self, node: Sighting) -> None:
        boot = self._cluster.machines[node.machine].boot
        assert boot is not None
        await self._cluster.call(boot.process, node.store.flush())

    async def _write_again(self, until: float) -> None:
        """Every node takes a write that two hold, by then."""
        for name in sorted(self._cluster.machines):
            while not await self._write_on(name):
                if self._loop.time() > until:
                    raise Violation("12 convergence after the heal", f"{name} writes alone")
                await asyncio.sleep(_POLL_S)

    async def _write_on(self, name: str) -> bool:
        number = self._workload.next_number()
        puts = tuple(Put(one, f"after {number}") for one in GROUP)
        request = WriteRequest("team0/app0", puts, operation=f"after-{number}")
        try:
            answer = await self._workload.ask(
                name, lambda api: api.write(Identity("healed", "simulator"), request)
            )
        except (EnvdError, NodeDied, TimeoutError):
            return False
        return not answer.detached and answer.acknowledged > 1

    def _look_at_watches(self, shown: dict[str, dict[str, str]]) -> None:
        """What watchers were told last is what there is."""
        nodes = self._factory.sightings()
        for node in nodes:
            told = {name: at for name, at in shown.get(node.machine, {}).items() if at}
            there = shares.listed(nodes, node)
            if node.machine in shown and told != there:
                names = sorted(n for n in {*told, *there} if told.get(n) != there.get(n))
                raise Violation(_WATCHES, f"a watch on {node.machine} is wrong about {names}")
