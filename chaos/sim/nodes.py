"""envd's real node on a simulated machine: what the daemon wires, wired to simulated ports.

A `Directory` is what the daemon's data directory holds: who the node is, which cluster it
belongs to, and its store. The first machine founds the cluster; every other start looks for it by
its seeds, as production does. Cluster secret, sealed datagrams and handshakes are the real ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final

from chaos.sim.chance import Chance, SimRng
from chaos.sim.checkers import Sighting
from chaos.sim.cluster import Boot, Cluster, Machine, NodeDied
from chaos.sim.directory import Directory
from chaos.sim.held import Commits, Held
from chaos.sim.loop import SimLoop
from chaos.sim.registers import SimRegisters
from chaos.sim.shares import Shares, newest, own
from chaos.sim.sim_node import CLUSTER_NAME, OPERATOR, status_of
from chaos.sim.sim_node import SimNode as SimNode
from chaos.sim.store import Platter, SimStore, damaged
from envd.core.errors import EnvdError, Unavailable
from envd.core.history import Retention
from envd.core.members import Member, MemberState
from envd.core.partitions import ANYWHERE
from envd.core.requests import RemoveRequest
from envd.core.sealing import DEFAULT_FLOOR_PACE, NO_FLOOR, FloorPace
from envd.node.api import EnvironmentApi
from envd.node.cluster import NodeCluster
from envd.node.handshake import Introduction
from envd.node.joining import Joiner
from envd.node.node import Node
from envd.node.watch import WatchHub
from envd.node.world import NodePlace, NodePorts
from envd.ports import Applied, Store
from envd.security.access import AllowAll
from envd.security.cluster_secret import SharedSecret
from envd.security.datagrams import SealedDatagrams
from envd.storage.memory import MemoryStore
from envd.wire.peers import Ticket

FLUSH_EVERY_S: Final = (0.2, 4.0)
SNAPSHOT_EVERY_S: Final = 5.0
_DIGEST_KEY_BYTES: Final = 32
_UID_BYTES: Final = 8
_RESTART_S: Final = 0.2
_LOOKS_S: Final = 1.0
_PATIENCE_S: Final = 5.0
_LIED_S: Final = 1.0
_UNREADABLE: Final = 0.3
_LARGEST_GROUP: Final = 12


@dataclass(frozen=True)
class Settings:
    """What all nodes of a run have in common; `kept` is how many records a log keeps.

    With `lying_disk` syncs are answered before they are done. `copies` of each partition are to be;
    EVERY_NODE (0) is to hold each, however many there are, None: as nodes decide by themselves.
    `pace` is that of the floor. `backups` are how many of the last copies of a directory may be put
    back.
    """

    retention: Retention = field(default_factory=Retention)
    kept: int = 100_000
    lying_disk: bool = False
    copies: int | None = None
    pace: FloorPace = DEFAULT_FLOOR_PACE
    backups: int = 3


Sabotage = Callable[[NodePorts], NodePorts]
"""Wraps ports, to switch off what a rule rests on."""
Amend = Callable[[Node], None]
"""Changes a part of a node, to the same end, before it runs."""


class EnvdFactory:
    """Makes nodes and keeps their disks. `told` hears of each record that becomes visible."""

    cluster: Cluster[SimNode]

    def __init__(
        self,
        loop: SimLoop,
        chance: Chance,
        settings: Settings,
        told: Callable[[Sighting, Applied], None],
        identity_lost: Callable[[str, str], None],
        sabotage: Sabotage = lambda ports: ports,
        dropped: Callable[[str, int, Commits], None] = lambda *_: None,
        emptied: Callable[[Sighting, str], None] = lambda *_: None,
        amend: Amend = lambda _: None,
    ) -> None:
        """`identity_lost(machine, why)` hears of nodes that had to take a new uid,
        `dropped(machine, partition, commits)` of what a node lets go of, and `emptied(node, why)`
        of those that begin anew with nothing, after they gave what others lack."""
        self.directories: dict[str, Directory] = {}
        self.machine_of: dict[int, str] = {}
        self.agents: set[str] = set()
        self.platters: dict[str, Platter] = {}
        self._loop = loop
        self._rng = SimRng(chance.stream("directories"))
        self._damage = chance.stream("damage")
        self._settings = settings
        self._told = told
        self._identity_lost = identity_lost
        self._dropped = dropped
        self._emptied = emptied
        self._amend = amend
        self._sabotage = sabotage
        self._saved: dict[str, deque[Directory]] = {}
        self._to_remove: dict[int, str] = {}
        self._stores: dict[str, SimStore] = {}
        self._registers_of: dict[str, SimRegisters] = {}
        self._context = copy_context()
        self._secret = SharedSecret.insecure(CLUSTER_NAME)
        self._founded = False

    # -- starting ----------------------------------------------------------------------

    async def start(self, boot: Boot) -> SimNode:
        machine = boot.machine
        directory = self._directory(machine)
        directory.empty()
        directory.generation += 1
        self.machine_of[directory.uid] = machine.name
        sealer = SealedDatagrams(
            self._secret, CLUSTER_NAME, directory.uid, directory.generation, boot.rng
        )
        await self._belong(boot, directory, sealer)
        store = self._open(boot, directory)
        registers = self._registers(boot, directory)
        ports = self._sabotage(
            NodePorts(
                store,
                boot.clock,
                boot.rng,
                boot.datagrams,
                sealer,
                boot.transport,
                self._secret,
                registers,
            )
        )
        running = self._assemble(boot, directory, sealer, ports)
        await running.node.prepare()
        directory.former_uids = ()
        sighting = Sighting(machine.name, directory.uid, boot.number, ports.store)
        ports.store.subscribe(lambda applied: self._told(sighting, applied))
        boot.process.spawn(running.node.run(), "node")
        boot.process.spawn(_keep_flushing(store, boot.chance.stream("flush")), "flush")
        return running

    def _directory(self, machine: Machine) -> Directory:
        known = self.directories.get(machine.name)
        if known is None:
            known = self.directories[machine.name] = Directory(self._new_uid())
            self.platters[machine.name] = Platter()
            if not self._founded:
                self._founded = True
                known.cluster_id = self._rng.token_bytes(8).hex()
                known.digest_key = self._rng.token_bytes(_DIGEST_KEY_BYTES)
        return known

    def _new_uid(self) -> int:
        return int.from_bytes(self._rng.token_bytes(_UID_BYTES))

    def _seeds(self, machine: Machine) -> Callable[[], Awaitable[Sequence[str]]]:
        async def seeds() -> Sequence[str]:
            others = sorted(self.cluster.machines)
            return [self.cluster.machines[name].gossip for name in others if name != machine.name]

        return seeds

    async def _belong(self, boot: Boot, directory: Directory, sealer: SealedDatagrams) -> None:
        """Find the cluster, unless the directory knows it."""
        if directory.cluster_id:
            return
        me = Introduction(CLUSTER_NAME, "", directory.uid, directory.generation, sealer.boot_id)
        joiner = Joiner(
            me, boot.datagrams, boot.transport, self._secret, boot.rng, self._seeds(boot.machine)
        )
        ticket: Ticket | None = await joiner.run()
        assert ticket is not None, "who has seeds never founds a cluster"
        directory.cluster_id, directory.digest_key = ticket.cluster_id, ticket.digest_key
        directory.joined = True

    def _open(self, boot: Boot, directory: Directory) -> SimStore:
        store = self._opened(directory)
        platter = self.platters[boot.machine.name]
        store.attach(platter, boot.chance.stream("disk"), boot.process, self._loop)
        store.synced_at[: len(directory.synced_at)] = directory.synced_at
        store.on_drop = partial(self._dropped, boot.machine.name)
        self._stores[boot.machine.name] = store
        return store

    def _registers(self, boot: Boot, directory: Directory) -> SimRegisters:
        platter, chance = self.platters[boot.machine.name], boot.chance.stream("registers")
        registers = SimRegisters(directory.registers, platter, chance, boot.process, self._loop)
        self._registers_of[boot.machine.name] = registers
        return registers

    def _assemble(
        self,
        boot: Boot,
        directory: Directory,
        sealer: SealedDatagrams,
        ports: NodePorts,
    ) -> SimNode:
        machine = boot.machine

        async def renew(generation: int) -> tuple[int, bytes]:
            await asyncio.sleep(0.001)
            directory.generation = max(directory.generation, generation) + 1
            sealer.become(directory.uid, directory.generation)
            return directory.generation, sealer.boot_id

        place = NodePlace(
            CLUSTER_NAME,
            directory.cluster_id,
            directory.digest_key,
            Member(
                directory.uid,
                directory.generation,
                0,
                MemberState.ALIVE,
                machine.name,
                machine.gossip,
                machine.peer,
                region=machine.region,
                role="agent" if machine.name in self.agents else "storage",
                boot_id=sealer.boot_id,
            ),
            self._seeds(machine),
            directory.former_uids,
            directory.known,
            directory.replaced_uids,
            expects_others=directory.joined,
            copies={} if (copies := self._settings.copies) is None else {ANYWHERE: copies},
            floor_pace=self._settings.pace,
        )
        node = Node(
            ports,
            place,
            renew=renew,
            on_identity_lost=lambda why: self._renew_identity(boot, directory, why),
            on_stale=lambda why: self._renew_empty(boot, directory, ports.store, why),
        )
        self._amend(node)
        node.membership.subscribe(lambda _, __: self._remember(directory, node))
        hub = WatchHub(ports.store, directory.uid)
        cluster = NodeCluster(node, (), lambda: None)
        api = EnvironmentApi(
            node.coordinator, hub, AllowAll(), status_of, cluster, node.gathering, node.watches(hub)
        )
        return SimNode(directory.uid, api, node, ports.store)

    def _remember(self, directory: Directory, node: Node) -> None:
        """What the daemon keeps of the other members for its next start."""
        directory.known = tuple(
            replace(each, incarnation=0, state=MemberState.ALIVE, boot_id=b"")
            for each in node.membership.members()
            if each.uid != directory.uid and each.state is not MemberState.GONE
        )

    # -- disks -------------------------------------------------------------------------

    def crashed(self, machine: Machine) -> None:
        registers = self._registers_of.pop(machine.name, None)
        if registers is not None:
            registers.lose_power()
        store = self._stores.pop(machine.name, None)
        if store is not None:
            directory = self.directories[machine.name]
            directory.durable = store.lose_power(_LIED_S if self._settings.lying_disk else 0.0)
            directory.synced_at = store.synced_at
            directory.empty()

    def wipe(self, machine: Machine) -> None:
        self._stores.pop(machine.name, None)
        self._registers_of.pop(machine.name, None)
        self._saved.pop(machine.name, None)
        known = self.directories.get(machine.name)
        if known is not None:
            self._to_remove[known.uid] = machine.name
        self.directories[machine.name] = Directory(self._new_uid())
        self.platters[machine.name] = Platter()

    async def keep_saving(self) -> None:
        """Copy every disk now and then, as an operator's backup would."""
        while True:
            await asyncio.sleep(SNAPSHOT_EVERY_S)
            for name, store in sorted(self._stores.items()):
                saved = self._saved.setdefault(name, deque(maxlen=self._settings.backups))
                saved.append(
                    replace(
                        self.directories[name],
                        durable=store.durable(),
                        registers=dict(self.directories[name].registers),
                        synced_at=list(store.synced_at),
                        saved_s=self._loop.time(),
                    )
                )

    async def keep_removing(self) -> None:
        """Strike who was on a wiped disk once the machine is back, as whoever replaces a node."""
        while True:
            await asyncio.sleep(_LOOKS_S)
            for uid, name in list(self._to_remove.items()):
                if name in self.cluster.nodes and await self._removed(uid):
                    del self._to_remove[uid]

    async def _removed(self, uid: int) -> bool:
        """Have a node remove a member; each refuses as long as it holds it for alive."""
        request = RemoveRequest(f"{uid:016x}")
        for machine in self.cluster.up():
            node, boot = self.cluster.nodes.get(machine.name), machine.boot
            if node is None or boot is None:
                continue
            asked = node.api.cluster.remove(OPERATOR, request)
            with suppress(EnvdError, NodeDied, TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self.cluster.call(boot.process, asked)
                self.cluster.trace.note("removed", f"{uid:016x} {machine.name}")
                return True
        return False

    def set_full(self, machine: Machine, *, full: bool) -> None:
        if machine.name in self.platters:
            self.platters[machine.name].full = full

    def set_slow(self, machine: Machine, *, slow: bool) -> None:
        if machine.name in self.platters:
            self.platters[machine.name].slow = slow

    def is_flushing(self, machine: Machine) -> bool:
        store = self._stores.get(machine.name)
        return store is not None and store.flushes_now

    def go_back(self, machine: Machine) -> float | None:
        saved = self._saved.get(machine.name)
        if not saved:
            return None
        chosen = self._damage.choice(list(saved))
        self.directories[machine.name] = replace(chosen, registers=dict(chosen.registers))
        return chosen.saved_s

    def damage(self, machine: Machine) -> float | None:
        directory = self.directories[machine.name]
        if self._damage.random() < _UNREADABLE:
            return None
        rows = self._damage.randrange(1, _LARGEST_GROUP)
        found = damaged(directory.durable, directory.synced_at, rows)
        directory.durable, since_s = found
        return since_s

    def held(self, machine: Machine) -> Held | None:
        running = self.cluster.nodes.get(machine.name)
        store = self._stores.get(machine.name)
        if running is None or store is None:
            return None
        shares = self.shares()
        return replace(
            store.held(), partitions=shares.read_by(running.uid), origins=self._origins(shares)
        )

    def _origins(self, shares: Shares) -> frozenset[int] | None:
        """Whose numbers count where nodes are given up: those of nodes that are not."""
        if self._settings.pace == DEFAULT_FLOOR_PACE or shares.topology is None:
            return None
        return frozenset(site.uid for site in shares.topology.nodes)

    def shares(self) -> Shares:
        """Who is to hold what, by the newest topology of those that run."""
        return newest(self._stores.values())

    def kept(self, name: str) -> Held:
        """What is on the disk of a machine, whether its node runs or not."""
        return self._disk(name).held()

    def disks(self, uids: Iterable[int]) -> dict[int, Store]:
        """What is on the disks of these nodes, running or not; of those whose disk there is."""
        wanted = frozenset(uids)
        names = [name for name in sorted(self.directories) if name in self.cluster.machines]
        places = [(self.directories[name].uid, name) for name in names]
        return {uid: self._read(name) for uid, name in places if uid in wanted}

    def _read(self, name: str) -> Store:
        directory = self.directories[name]
        return self._stores.get(name) or MemoryStore.recovered(
            directory.durable,
            self._settings.retention,
            node_uid=directory.uid,
            digest_key=directory.digest_key,
        )

    def _disk(self, name: str) -> SimStore:
        store = self._stores.get(name)
        return store or self._opened(self.directories[name])

    def _opened(self, directory: Directory) -> SimStore:
        settings = self._settings
        return SimStore.opened(
            directory.durable,
            settings.retention,
            directory.uid,
            directory.digest_key,
            settings.kept,
        )

    def spares(self, machine: Machine) -> bool:
        left = {
            self.directories[name].uid
            for name in self.cluster.machines
            if name != machine.name and name in self.directories and not self._is_stale(name)
        }
        known = [own(store) for store in self._stores.values()]
        quorums = [quorum for shares in known for quorum in shares.quorums()]
        alone = self._settings.pace == DEFAULT_FLOOR_PACE  # Else no floor would rise any more.
        return all((alone and len(each.members) == 1) or each.is_met(left) for each in quorums)

    def _is_stale(self, name: str) -> bool:
        """Whether what a machine has was given up, so that its node votes no more before long."""
        topology = self.shares().topology
        if topology is None or topology.floor == NO_FLOOR:
            return False
        disk, agreed = self._disk(name), topology.floor
        return disk.floor() < agreed.hlc and disk.gathered() < agreed.round

    def sightings(self) -> list[Sighting]:
        """The nodes that are ready, in order of their machines' names."""
        found = []
        for machine in self.cluster.up():
            node = self.cluster.nodes[machine.name]
            found.append(Sighting(machine.name, node.uid, machine.boots, node.store))
        return found

    # -- identities --------------------------------------------------------------------

    def _renew_identity(self, boot: Boot, directory: Directory, why: str) -> None:
        """A node must go on under a new uid: note it, end the node, start it again."""
        directory.former_uids = (directory.uid, *directory.former_uids)
        self._take_new_uid(boot, directory, partial(self._identity_lost, boot.machine.name, why))

    def _renew_empty(self, boot: Boot, directory: Directory, store: Store, why: str) -> None:
        """A node must not go on with what it has either: it comes back as one that joins."""
        node = Sighting(boot.machine.name, directory.uid, boot.number, store)
        directory.former_uids = ()
        directory.empties = directory.joined = True
        self._take_new_uid(boot, directory, partial(self._emptied, node, why))

    def _take_new_uid(self, boot: Boot, directory: Directory, told: Callable[[], None]) -> None:
        directory.replaced_uids |= {directory.uid}
        directory.uid = self._new_uid()
        self._loop.call_soon(self._restart, boot.machine, boot, told, context=self._context)

    def _restart(self, machine: Machine, boot: Boot, told: Callable[[], None]) -> None:
        if machine.boot is not boot or not boot.process.alive:
            return
        told()
        self.cluster.crash(machine)
        self._loop.create_task(self._start_again(machine), name="renewed")

    async def _start_again(self, machine: Machine) -> None:
        """As who watches over services does: again, until it starts."""
        while machine.name in self.cluster.machines:
            await asyncio.sleep(_RESTART_S)
            if machine.is_up:
                return
            try:
                await self.cluster.start(machine)
            except EnvdError:
                self.cluster.crash(machine)
            except NodeDied:
                return


async def _keep_flushing(store: SimStore, chance: Random) -> None:
    """What the durable store does by itself."""
    while True:
        await asyncio.sleep(chance.uniform(*FLUSH_EVERY_S))
        with suppress(Unavailable):
            await store.flush()
