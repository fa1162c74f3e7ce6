"""What the reconciler is given by the nodes under test, asked as the reconciler asks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from chaos.sim.cluster import NodeDied
from envd.core.stamp import COUNTER_BITS, Stamp
from envd.node.syncing import Syncing
from envd.sync.ports import Lost
from tests.node.machines import Machines

STORE_UID = 0x57
AUTHOR = "file:/etc/app"


def syncing(machines: Machines, name: str) -> Syncing:
    return machines.node(name).node.syncing


async def update(machines: Machines, name: str, document: str, **puts: str) -> None:
    await machines.run(name, syncing(machines, name).records.update(document, puts))


async def read(machines: Machines, name: str, document: str) -> dict[str, str]:
    return await machines.run(name, syncing(machines, name).records.read(document))


async def names(machines: Machines, name: str, prefix: str = "") -> list[str]:
    return list(await machines.run(name, syncing(machines, name).records.names(prefix)))


def lost(
    variable: str, value: str | None, n: int = 1, *, secret: bool = False, author: str = AUTHOR
) -> Lost:
    """A write that a store has the n-th of, long ago."""
    return Lost(variable, value, secret, Stamp(0, n << COUNTER_BITS, STORE_UID), author, n)


async def put_on_record(
    machines: Machines, name: str, environment: str, *writes: Lost
) -> list[str]:
    environments = syncing(machines, name).environments
    return list(await machines.run(name, environments.put_on_record(environment, writes)))


async def open_conflicts(machines: Machines, name: str, environment: str) -> frozenset[str]:
    environments = syncing(machines, name).environments
    return await machines.run(name, environments.open_conflicts(environment))


class Names:
    """The names that a node's `changes` tell, as they come."""

    def __init__(self, machines: Machines, name: str, prefix: str = "", *, own: bool = False):
        self.told: list[str] = []
        made = syncing(machines, name)
        self._changes = made.records.changes if own else made.environments.changes
        self._prefix = prefix
        self._inner: asyncio.Task[None] | None = None
        self._task = asyncio.ensure_future(machines.run(name, self._take()))

    async def _take(self) -> None:
        self._inner = asyncio.current_task()
        async with aclosing(self._changes(self._prefix)) as changes:
            async for name in changes:
                self.told.append(name)

    async def end(self) -> None:
        """Stop taking them."""
        assert self._inner is not None
        self._inner.cancel()
        await asyncio.wait((self._inner,))
        self._task.cancel()
        with suppress(asyncio.CancelledError, NodeDied):
            await self._task
