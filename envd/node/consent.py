"""What a node needs to agree with others, put together: who votes, its votes, its proposals.

And who holds which partition, which the voters decide about: its part in their moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

from envd.core.hlc import HybridClock
from envd.core.members import MemberState
from envd.core.placement import rank
from envd.core.ring import partition_of
from envd.node import forwarding
from envd.node.acceptor import AcceptorService
from envd.node.calls import Method
from envd.node.coordinator import Coordinator
from envd.node.electorate import Electorate, Others, site_of
from envd.node.finishing import Finisher
from envd.node.floors import Floors
from envd.node.guarding import guarded
from envd.node.holdings import Holdings
from envd.node.intake import Intake
from envd.node.leases import Leases
from envd.node.leftovers import Leftovers
from envd.node.letting_go import LettingGo
from envd.node.moving import Moving
from envd.node.proposing import Ask, Proposer
from envd.node.repair import Repairer
from envd.node.returning import Offers, Returning
from envd.node.rounds import Rounds
from envd.node.sealing import FloorKeeper
from envd.node.serial import FORWARD, Serial
from envd.node.taking_over import TakingOver
from envd.node.world import NodePlace, NodePorts


class Consent:
    """`run` it; `serial` writes; `leases` say who is to do what one does; `moving` and
    `letting_go` are this node's part in the moves of partitions, `kept` what it has of some that it
    does not hold; `floor` keeps it at the floor, `returning` is its way back from below."""

    def __init__(
        self,
        ports: NodePorts,
        place: NodePlace,
        coordinator: Coordinator,
        intake: Intake,
        repairer: Repairer,
        holdings: Holdings,
        floors: Floors,
        hlc: HybridClock,
        *,
        others: Callable[[], Others],
        ask: Ask,
        on_identity_lost: Callable[[str], None],
        isolate: Callable[[], None],
        ends: Callable[[], Awaitable[None]],
        on_stale: Callable[[str], None],
    ) -> None:
        """`others` tells how the other nodes are now, `ask` asks one of them; for `isolate` and
        `ends` see Returning."""
        me = site_of(place.member)
        self._uid = me.uid
        self._store = ports.store
        self._repairer = repairer
        self._ask = ask
        self._others = others
        self._holdings = holdings
        self._floors = floors
        self.electorate = Electorate(
            me,
            ports.store,
            others,
            holdings,
            floors,
            gives_up_s=place.floor_pace.gives_up_s,
            expects_others=place.expects_others,
            founds=place.founds,
            copies=place.copies,
        )
        self._acceptor = self._accepting(ports, intake)
        self.serial = self._proposing(ports, coordinator, place.digest_key)
        self.leases = Leases(f"{me.uid:016x}.{ports.rng.token_bytes(4).hex()}", self.serial)
        self._taking_over = TakingOver(self._acceptor, ask)
        self.kept = Leftovers(ports.store, holdings)
        self.moving = self._moving(ports, on_identity_lost)
        self.letting_go = self._letting_go(ports)
        self.returning = Returning(
            ports.store,
            holdings,
            floors,
            self.alive,
            ports.rng,
            ask=ask,
            isolate=isolate,
            ends=ends,
            on_stale=on_stale,
        )
        self._offers = Offers(ports.store, intake, holdings, floors)
        self.floor = self._keeping_floor(ports, hlc, coordinator, intake)
        rounds = Rounds(place.floor_pace, ports.clock, me.uid, self.floor.progress, ask)
        self.electorate.connect(
            self._acceptor, self.serial, repairer, ask, self.moving.progress, rounds
        )
        self._finisher = Finisher(self._acceptor, self.serial, ports.rng, self._decides)

    def _accepting(self, ports: NodePorts, intake: Intake) -> AcceptorService:
        return AcceptorService(
            ports.store,
            ports.registers,
            intake,
            ports.clock,
            self._pull,
            self._epoch,
            self._holdings.complete,
            lambda: self._floors.sealed_to,
            lambda: self._floors.closed_to,
        )

    def _proposing(self, ports: NodePorts, coordinator: Coordinator, digest_key: bytes) -> Serial:
        proposer = Proposer(
            self._uid,
            coordinator,
            self._acceptor,
            digest_key,
            ask=self._ask,
            pull=self._pull,
            seats=self.electorate.seats,
        )
        return Serial(
            self._uid,
            ports.store,
            coordinator,
            self._acceptor,
            proposer,
            ports.rng,
            ask=self._ask,
            seats=self.electorate.seats,
            preferred=self.proposers,
            reached=self.electorate.reached,
            digest_key=digest_key,
            clock_is_wrong=lambda: self._others().clock_is_wrong,
        )

    def _keeping_floor(
        self, ports: NodePorts, hlc: HybridClock, coordinator: Coordinator, intake: Intake
    ) -> FloorKeeper:
        return FloorKeeper(
            ports.store,
            self._holdings,
            self._floors,
            hlc,
            ports.clock,
            coordinator=coordinator,
            intake=intake,
            acceptor=self._acceptor,
            repairer=self._repairer,
            ask=self._ask,
            hand_back=self.returning.run,
        )

    def _moving(self, ports: NodePorts, on_identity_lost: Callable[[str], None]) -> Moving:
        return Moving(
            self._holdings,
            self._epoch,
            self.electorate.reached,
            self.kept,
            ports.rng,
            take_over=self._take_over,
            pull=self._catch_up,
            on_identity_lost=on_identity_lost,
        )

    def _letting_go(self, ports: NodePorts) -> LettingGo:
        return LettingGo(
            ports.store,
            self._holdings,
            self._epoch,
            self.electorate.reached,
            ports.rng,
            kept=self.kept,
            leaves=lambda: self.electorate.leaves,
            ask=self._ask,
            drop=self._drop,
        )

    async def run(self) -> None:
        """Do a storage node's part in it, for ever."""
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("topology", self.electorate.run),
                ("left", self._finisher.run),
                ("balancing", self.electorate.balancing.run),
                ("moving", self.moving.run),
                ("letting-go", self.letting_go.run),
                ("floor", self.floor.run),
            ):
                group.create_task(guarded(name, work), name=name)

    def alive(self) -> Sequence[int]:
        """The other storage nodes that membership takes for alive, heard by a log or not."""
        return sorted(
            member.uid
            for member in self._others().members
            if member.uid != self._uid
            and member.role == "storage"
            and member.state is MemberState.ALIVE
        )

    def _epoch(self) -> int:
        return self.electorate.epoch

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {
            **forwarding.methods(self.serial.write_here, name=FORWARD),
            **self._acceptor.methods(),
            **self.electorate.methods(),
            **self.moving.methods(),
            **self.floor.methods(),
            **self._offers.methods(),
        }

    def proposers(self, name: str) -> Sequence[int]:
        """Whom to hand a write of a serial environment to: acceptors that can be reached.

        The same order on all nodes, so that one proposes; another one for each partition. Of one
        that is moving, those that have all of it.
        """
        partition = partition_of(name)
        able = self._holdings.readers(partition)
        if able is None:
            able = tuple(self.electorate.seats(name).quorum.members)
        live = set(able).intersection((self._uid, *self._others().answering))
        return sorted(live, key=lambda uid: rank(partition, uid))

    async def _pull(self, name: str, uid: int) -> None:
        """Have this node hold what a peer holds of one environment."""
        await self._repairer.look_at([name], uid, partial(self._ask, uid))

    def _decides(self, name: str) -> bool:
        return self._holdings.mine(partition_of(name))

    # -- moves of partitions -------------------------------------------------------------------

    async def _catch_up(self, uid: int, partitions: Collection[int]) -> None:
        """Have this node hold what a peer holds of some partitions, by its name too."""
        ask = partial(self._ask, uid)
        await self._repairer.catch_up(uid, ask, frozenset(partitions), connects=False)

    async def _take_over(self, uid: int, epoch: int, partitions: Collection[int]) -> None:
        async def pull(_: object, wanted: Collection[int] | None) -> None:
            await self._catch_up(uid, wanted or ())

        await self._taking_over.take_over(uid, epoch, pull, partitions)

    async def _drop(self, partition: int, lsn: int) -> bool:
        return await self._store.drop(partition, lsn, self._uid)
