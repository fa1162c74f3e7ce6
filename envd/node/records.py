"""The reconciler's documents: environments of the system's own, which all storage nodes hold.

A document NAME is the environment `sys/sync/NAME`. Callers neither read nor write it, and it is in
nothing that they are shown: their names are refused where they come in (`core.names`), whichever
node that is, so here only the node itself writes. A node that is to stamp nothing (its clock is
wrong, or it is an agent) has another one make the change, by a call of its own that reaches no
other environments than these.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import Final

from envd.core.commit import Kind
from envd.core.environment import Environment
from envd.core.errors import NotFound
from envd.core.history import SYNC
from envd.core.names import MAX_OPERATIONS, check_environment
from envd.core.requests import Put, Unset, WriteRequest
from envd.node.calls import Method, Patient
from envd.node.coordinator import Coordinator
from envd.node.following import Following
from envd.node.forwarding import Forwarder
from envd.node.handshake import Peer
from envd.ports import Store
from envd.wire import peers as wire

METHOD: Final = "sync.update"
_BELOW: Final = f"{SYNC}/"
_PAGE: Final = 1000


class SyncRecords:
    """The port `envd.sync.ports.Records` over one node."""

    def __init__(
        self, store: Store, coordinator: Coordinator, forwarder: Forwarder, following: Following
    ) -> None:
        self._store = store
        self._coordinator = coordinator
        self._forwarder = forwarder
        self._following = following

    async def names(self, prefix: str) -> Sequence[str]:
        """The documents at and below a prefix ("" for all), in order."""
        below = _environment(prefix) if prefix else SYNC
        found: list[str] = []
        after = ""
        while page := self._store.environments(below, after, _PAGE):
            found += [each.environment.removeprefix(_BELOW) for each in page]
            after = page[-1].environment
        return found

    async def read(self, name: str) -> dict[str, str]:
        """A document as this node has it; empty where there is none."""
        state = self._store.visible(_environment(name))
        if state is None:
            return {}
        live = state.environment.live(Kind.VARIABLE)
        return {key: entry.value for key, entry in live if entry.value is not None}

    async def update(self, name: str, puts: dict[str, str], unsets: Sequence[str] = ()) -> None:
        """Set and remove keys, durably; equal values and absent keys are no change.

        Raises InvalidRequest, LimitExceeded, and Unavailable where no storage node takes it; of
        more than 1,024 changes some may be made then.
        """
        _environment(name)
        if self._coordinator.hands_over:
            body = wire.pack(wire.NotesAsked(name, puts, list(unsets)))
            await self._forwarder.ask_any(METHOD, body)
        else:
            await self._update(name, puts, unsets)

    async def changes(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names of documents at and below a prefix as they change; "" where some were missed."""
        below = _environment(prefix) if prefix else SYNC
        async with aclosing(self._following.names(below)) as names:
            async for name in names:
                yield name.removeprefix(_BELOW)

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves; it waits for other nodes to have a copy."""
        return {METHOD: Patient(self._serve)}

    async def _serve(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.NotesAsked, body)
        self._coordinator.check_clock()
        await self._update(said.name, said.puts, said.unsets)
        return b""

    async def _update(self, name: str, puts: Mapping[str, str], unsets: Sequence[str]) -> None:
        environment = _environment(name)
        wanted: Iterator[Put | Unset] = iter((*map(Put, puts, puts.values()), *map(Unset, unsets)))
        while operations := list(islice(wanted, MAX_OPERATIONS)):
            await self._write(environment, operations)

    async def _write(self, environment: str, operations: Sequence[Put | Unset]) -> None:
        """Make those of these operations that change something, in one commit.

        Where none does, what they found may be on its way, and be refused yet.
        """
        coordinator = self._coordinator
        while True:
            head = coordinator.drafter.head(environment)
            changing = [each for each in operations if _changes(head.environment, each)]
            if changing:
                with suppress(NotFound):  # Another one has removed a key meanwhile.
                    await coordinator.write_own(_request(environment, changing))
                    return
            elif coordinator.is_durable(head):
                return
            else:
                await coordinator.settle()


def _changes(head: Environment, operation: Put | Unset) -> bool:
    entry = head.variables.get(operation.name)
    known = None if entry is None else entry.value
    wanted = operation.value if isinstance(operation, Put) else None
    return known != wanted


def _request(environment: str, operations: Sequence[Put | Unset]) -> WriteRequest:
    puts = tuple(each for each in operations if isinstance(each, Put))
    unsets = tuple(each for each in operations if isinstance(each, Unset))
    return WriteRequest(environment, puts, unsets)


def _environment(name: str) -> str:
    return check_environment(f"{_BELOW}{name}", system=True)
