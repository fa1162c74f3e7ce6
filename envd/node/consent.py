"""What serial environments take of a node, put together: who votes, its votes, its proposals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from envd.core.placement import Site, rank
from envd.core.ring import partition_of
from envd.node import forwarding
from envd.node.acceptor import AcceptorService
from envd.node.calls import Method
from envd.node.coordinator import Coordinator
from envd.node.electorate import Electorate, Others
from envd.node.finishing import Finisher
from envd.node.guarding import guarded
from envd.node.holdings import Holdings
from envd.node.intake import Intake
from envd.node.leases import Leases
from envd.node.proposing import Ask, Proposer
from envd.node.repair import Repairer
from envd.node.serial import FORWARD, Serial
from envd.node.world import NodePorts


class Consent:
    """`run` it; `serial` writes; `leases` say who is to do what one does."""

    def __init__(
        self,
        ports: NodePorts,
        me: Site,
        coordinator: Coordinator,
        intake: Intake,
        repairer: Repairer,
        digest_key: bytes,
        holdings: Holdings,
        *,
        others: Callable[[], Others],
        ask: Ask,
        expects_others: bool,
    ) -> None:
        """`others` tells how the other nodes are now, `ask` asks one of them."""
        self._uid = me.uid
        self._repairer = repairer
        self._ask = ask
        self._others = others
        self._holdings = holdings
        self.electorate = Electorate(
            me, ports.store, others, holdings, expects_others=expects_others
        )
        self._acceptor = AcceptorService(
            ports.store, ports.registers, intake, ports.clock, self._pull, self._epoch
        )
        proposer = Proposer(
            me.uid,
            coordinator,
            self._acceptor,
            digest_key,
            ask=ask,
            pull=self._pull,
            seats=self.electorate.seats,
        )
        self.serial = Serial(
            me.uid,
            ports.store,
            coordinator,
            self._acceptor,
            proposer,
            ports.rng,
            ask=ask,
            seats=self.electorate.seats,
            preferred=self.proposers,
            reached=self.electorate.reached,
            digest_key=digest_key,
            clock_is_wrong=lambda: others().clock_is_wrong,
        )
        self.leases = Leases(f"{me.uid:016x}.{ports.rng.token_bytes(4).hex()}", self.serial)
        self.electorate.connect(self._acceptor, self.serial, repairer, ask)
        self._finisher = Finisher(self._acceptor, self.serial, ports.rng)

    async def run(self) -> None:
        """Do a storage node's part in it, for ever."""
        async with asyncio.TaskGroup() as group:
            for name, work in (("topology", self.electorate.run), ("left", self._finisher.run)):
                group.create_task(guarded(name, work), name=name)

    def _epoch(self) -> int:
        return self.electorate.epoch

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {
            **forwarding.methods(self.serial.write_here, name=FORWARD),
            **self._acceptor.methods(),
            **self.electorate.methods(),
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
        await self._repairer.look_at([name], partial(self._ask, uid))
