"""Clients of serial environments, and what they were told, which must be linearizable.

A write says over which revision it goes, or none, and that the environment is serial, so it never
lands beside the chain. A write whose outcome is not known goes to other nodes under the same
operation id; whether one that stayed unknown happened is looked up in the end, in the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from chaos.sim.chance import Chance
from chaos.sim.checkers import Acknowledged, Sighting, Violation
from chaos.sim.cluster import Cluster, NodeDied
from chaos.sim.linearizability import (
    Operation,
    Read,
    Refused,
    SerialOperation,
    SerialPayload,
    Wrote,
)
from chaos.sim.nodes import SimNode
from chaos.sim.workload import Workload
from envd.core.answers import Identity, WriteAnswer
from envd.core.chain import MODE, SERIAL
from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    EnvdError,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from envd.core.requests import Consistency, Put, ReadRequest, WriteRequest
from envd.core.stamp import Stamp

ENVIRONMENTS: Final = ("serial/a", "serial/b")
CLIENTS: Final = 4
UNDONE: Final = "5 what was said to be undone never happens"
_TRIES: Final = 3
_THINKING_S: Final = (0.05, 0.8)
_RETRY_S: Final = (0.02, 0.4)
_VALUE: Final = "V"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A write whose outcome its client does not know.

    `undone`: it was told each time that nothing was done.
    """

    environment: str
    client: str
    operation: str
    called: float
    expected: str | None
    undone: bool


class SerialClients:
    """All of a run. `acknowledged` hears of writes that were said to be done."""

    def __init__(
        self,
        cluster: Cluster[SimNode],
        workload: Workload,
        chance: Chance,
        acknowledged: Callable[[Acknowledged], None],
    ) -> None:
        self._cluster = cluster
        self._workload = workload
        self._chance = chance
        self._acknowledged = acknowledged
        self._stopped = False
        self._number = 0
        self._told: dict[str, list[SerialOperation]] = {name: [] for name in ENVIRONMENTS}
        self._unknown: list[Unknown] = []

    def stop(self) -> None:
        """Let each client end after what it does now."""
        self._stopped = True

    async def client(self, number: int) -> None:
        """One client, until `stop`."""
        chance = self._chance.stream(f"serial client {number}")
        client = _Client(self, f"s{number}", chance)
        while not self._stopped:
            await asyncio.sleep(chance.uniform(*_THINKING_S))
            await client.act()

    async def settle(self) -> None:
        """Write once more to each environment, so that nothing is left open, if that can be."""
        client = _Client(self, "settling", self._chance.stream("serial settling"))
        await asyncio.gather(*(client.write(name, None, tries=1) for name in ENVIRONMENTS))

    # -- what came of it ---------------------------------------------------------------

    def operations(self, environment: str, nodes: Sequence[Sighting]) -> list[SerialOperation]:
        """All that clients were told of one environment, with what became of the unknown ones."""
        found = list(self._told[environment])
        for unknown in self._unknown:
            if unknown.environment == environment:
                made = what_became_of(unknown, nodes)
                payload = Wrote(made, unknown.expected, None if made is None else True)
                found.append(
                    Operation(unknown.operation, unknown.client, unknown.called, None, payload)
                )
        return found

    def names(self) -> list[str]:
        """The machines, in order."""
        return sorted(self._cluster.machines)

    def next_operation(self) -> str:
        self._number += 1
        return f"serial-{self._number}"

    def now_s(self) -> float:
        return self._cluster.loop.time()

    def note(self, kind: str, told: str) -> None:
        self._cluster.trace.note(kind, told)

    def tell(self, environment: str, operation: SerialOperation) -> None:
        self._told[environment].append(operation)
        self._workload.counts[f"serial {type(operation.payload).__name__.lower()}"] += 1

    def leave_open(self, unknown: Unknown) -> None:
        self._unknown.append(unknown)
        self._workload.counts["serial unknown"] += 1

    def tell_done(self, name: str, answer: WriteAnswer) -> None:
        """A write is done: what was acknowledged must never be lost."""
        stamp = Stamp.from_hex(answer.stamp)
        self._acknowledged(
            Acknowledged(
                answer.environment,
                stamp,
                (_VALUE,),
                name,
                stamp.node_uid,
                safe=answer.acknowledged > 1,
                at_s=self.now_s(),
            )
        )

    async def ask_write(self, name: str, caller: Identity, request: WriteRequest) -> WriteAnswer:
        return await self._workload.ask(name, lambda api: api.write(caller, request))

    async def ask_read(self, name: str, caller: Identity, request: ReadRequest) -> str:
        """The revision that a node shows, "" where it says that there is no environment."""
        try:
            view = await self._workload.ask(name, lambda api: api.get(caller, request))
        except NotFound:
            return ""
        return view.revision


class _Client:
    """One client: what it asks for next. It remembers the last revision that it was told."""

    def __init__(self, clients: SerialClients, name: str, chance: Random) -> None:
        self._clients = clients
        self._identity = Identity(name, "simulator")
        self._chance = chance
        self._seen: dict[str, str] = {}

    async def act(self) -> None:
        environment = self._chance.choice(ENVIRONMENTS)
        if self._chance.random() < 0.4:
            await self._read(environment)
            return
        seen = self._seen.get(environment, "")
        await self.write(environment, seen if seen and self._chance.random() < 0.5 else None)

    async def _read(self, environment: str) -> None:
        clients, name = self._clients, self._chance.choice(self._clients.names())
        request = ReadRequest(environment, consistency=Consistency.STRONG)
        called = clients.now_s()
        try:
            revision = await clients.ask_read(name, self._identity, request)
        except (EnvdError, NodeDied, TimeoutError) as error:
            clients.note("unread", f"{name} {type(error).__name__}")
            return
        self._seen[environment] = revision
        operation = clients.next_operation()
        self._tell(environment, operation, called, Read(revision))
        clients.note("serial read", f"{operation} {name} {revision}")

    async def write(self, environment: str, expected: str | None, *, tries: int = _TRIES) -> None:
        """Write, on another node where one does not answer; then it may stay unknown."""
        clients = self._clients
        operation = clients.next_operation()
        puts = (Put(MODE, SERIAL, kind=Kind.METADATA), Put(_VALUE, operation))
        request = WriteRequest(environment, puts, if_revision=expected or "", operation=operation)
        called, undone = clients.now_s(), True
        for _ in range(tries):
            name = self._chance.choice(clients.names())
            try:
                answer = await clients.ask_write(name, self._identity, request)
            except (OutcomeUnknown, NodeDied, TimeoutError, Unavailable, Unsupported) as error:
                clients.note("serial unknown", f"{operation} {name} {type(error).__name__}")
                undone = undone and isinstance(error, EnvdError) and error.changed == "nothing"
            except Conflict as error:
                clients.note("serial refused", f"{operation} {name} {error.reason}")
                assert expected is not None, "who wants no revision is refused none"
                self._seen.pop(environment, None)
                self._tell(environment, operation, called, Refused(expected))
                return
            else:
                self._seen[environment] = answer.revision
                clients.note("serial answer", f"{operation} {name} {answer.stamp}")
                self._tell(environment, operation, called, Wrote(answer.revision, expected, True))
                clients.tell_done(name, answer)
                return
            await asyncio.sleep(self._chance.uniform(*_RETRY_S))
        self._seen.pop(environment, None)
        identity = self._identity.name
        clients.leave_open(Unknown(environment, identity, operation, called, expected, undone))

    def _tell(
        self, environment: str, operation: str, called: float, payload: SerialPayload
    ) -> None:
        name, now_s = self._identity.name, self._clients.now_s()
        self._clients.tell(environment, Operation(operation, name, called, now_s, payload))


def what_became_of(unknown: Unknown, nodes: Sequence[Sighting]) -> str | None:
    """The revision that an unknown write made, None where no node has it in its history.

    Raises Violation where it was made though nothing was said to be done.
    """
    for node in nodes:
        known = node.store.find_operation(unknown.client, unknown.operation)
        if known is not None:
            if unknown.undone:
                raise Violation(UNDONE, f"{unknown.operation} of {unknown.environment} was made")
            return known.revision.hex()
    return None
