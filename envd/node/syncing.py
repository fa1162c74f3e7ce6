"""What a node offers to the reconciler that runs in it: the ports of `envd.sync.ports`.

The reconciler sees all environments, whoever holds them, with their values and stamps, and writes
them as any caller does, but never blind: what it does not see it can't keep in step. Its documents
are `records`, what lost is put on record by `recording`, and who leads holds a lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from envd.core.answers import Changed, EnvironmentView, Reset, WriteAnswer
from envd.core.commit import Kind
from envd.core.errors import NotFound, Unavailable
from envd.core.members import Member
from envd.core.names import check_prefix
from envd.core.requests import (
    ConflictsRequest,
    ListRequest,
    ReadRequest,
    WatchRequest,
    WriteRequest,
)
from envd.core.stamp import Stamp
from envd.node import conflicts
from envd.node.calls import Method
from envd.node.coordinator import Coordinator
from envd.node.following import Following
from envd.node.forwarding import Forwarder
from envd.node.gathering import Gathering, ReadOne
from envd.node.leases import Lease, Leases, check_lease
from envd.node.peer_calls import PeerCalls
from envd.node.recording import Recording
from envd.node.records import SyncRecords
from envd.node.routing import NO_HOLDER, Routing
from envd.node.spread import SpreadWatches, WideSight
from envd.node.watch import Sight
from envd.ports import Store, StoredState
from envd.sync.ports import Held, Local, LocalState, Lost

_LEASE: Final = "sync-"
"""Before the names of leases, so that they are nobody else's."""


class SyncEnvironments:
    """The port `envd.sync.ports.Environments` over one node.

    `gathering` is None on an agent, which has everything. `watches` tell of what other nodes hold;
    until they are set, only of what this one does.
    """

    def __init__(
        self,
        store: Store,
        coordinator: Coordinator,
        routing: Routing,
        gathering: Gathering | None,
        recording: Recording,
        following: Following,
    ) -> None:
        self._store = store
        self._coordinator = coordinator
        self._routing = routing
        self._gathering = gathering
        self._recording = recording
        self._following = following
        self.watches: SpreadWatches | None = None

    async def names(self, prefix: str) -> Sequence[str]:
        """All environments at and below a prefix, in order.

        Raises Unavailable where nobody tells of some partitions: they would seem to be gone.
        """
        request, found = ListRequest(prefix), list[str]()
        gathering = None if self._routing.whole else self._gathering
        while True:
            if gathering is None:
                page = self._coordinator.list(request)
            else:
                page = await gathering.list(request)
            if page.partial:
                raise Unavailable(page.partial_reason, reason=NO_HOLDER, retry_after_ms=1000)
            found += [each.environment for each in page.environments]
            if not page.next:
                return found
            request = replace(request, after=page.next)

    async def read(self, environment: str) -> LocalState:
        """The whole state, as one that holds it has it."""
        if self._routing.reads(environment):
            floor = self._store.floor()
            return _of_store(environment, self._store.visible(environment), floor)
        try:
            view = await self._routing.read(ReadRequest(environment, reveal=True))
        except NotFound:
            return LocalState(environment, "", {})
        return _of_view(view)

    async def write(self, request: WriteRequest, author: str) -> WriteAnswer:
        """Write one commit of as many operations as an environment can take; never blind."""
        return await self._coordinator.write_seeing(replace(request, bulk=True), author)

    async def put_on_record(self, environment: str, lost: Sequence[Lost]) -> Sequence[str]:
        """Have these be conflicts; see `Recording.put_on_record`."""
        return await self._recording.put_on_record(environment, lost)

    async def open_conflicts(self, environment: str) -> frozenset[str]:
        """The ids of the conflicts that nobody has settled."""
        if self._routing.reads(environment):
            return frozenset(record.id for record in conflicts.of(self._store, environment))
        request, found = (
            ConflictsRequest(environment, limit=conflicts.MAX_CONFLICT_PAGE),
            set[str](),
        )
        while True:
            try:
                page = await self._routing.conflicts(request)
            except NotFound:
                return frozenset()
            found |= {each.id for each in page.conflicts}
            if not page.next:
                return frozenset(found)
            request = replace(request, after=page.next)

    async def changes(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names at and below a prefix as they change; "" where some may have been missed.

        Of partitions that nobody tells of there is nothing until somebody does, and then a "".
        Ends when the node stops; raises Unavailable where it has as many watches as it takes.
        """
        prefix = check_prefix(prefix)
        if self.watches is None:
            names = self._following.names(prefix)
        else:
            names = _names_of(self.watches, prefix)
        async with aclosing(names):
            async for name in names:
                yield name


async def _names_of(watches: SpreadWatches, prefix: str) -> AsyncGenerator[str, None]:
    """The names in the events of a watch that looks at no state."""
    request = WatchRequest(prefix)
    events = watches.events(replace(request, token=watches.now(request)), _NAMES_ONLY)
    async with aclosing(events):
        async for event in events:
            match event:
                case Changed(commit):
                    yield commit.environment
                case Reset():
                    yield ""
                case _:
                    pass


async def _unseen(_name: str, _read_one: ReadOne) -> EnvironmentView | None:
    return None


_NAMES_ONLY: Final = WideSight(Sight(lambda _: None, lambda _: True), _unseen)


def _of_store(name: str, state: StoredState | None, floor: int) -> LocalState:
    if state is None:
        return LocalState(name, "", {}, {}, floor=floor)
    environment = state.environment
    live, unset = dict[str, Local](), dict[str, Stamp]()
    for variable, entry in sorted(environment.entries(Kind.VARIABLE).items()):
        if entry.value is None:
            unset[variable] = entry.stamp
        else:
            live[variable] = Local(entry.stamp, entry.value, entry.secret)
    revision = state.revision.hex() if environment.exists else ""
    return LocalState(name, revision, live, unset, environment.deleted_at, floor)


def _of_view(view: EnvironmentView) -> LocalState:
    live = {
        name: Local(Stamp.from_hex(variable.stamp), variable.value, variable.secret)
        for name, variable in view.variables.items()
        if variable.value is not None
    }
    return LocalState(view.environment, view.revision, live)


class SyncLeading:
    """The port `envd.sync.ports.Leading`: the lease of NAME is `sync-NAME`.

    `member` tells who a node is, None for one that is not known. An agent never leads.
    """

    def __init__(
        self, uid: int, leases: Leases, member: Callable[[int], Member | None], *, is_agent: bool
    ) -> None:
        self._uid = uid
        self._leases = leases
        self._member = member
        self._is_agent = is_agent
        self._led: set[str] = set()

    async def lead(self, name: str, ttl_s: float, work: Callable[[Held], Awaitable[None]]) -> None:
        """Do `work` whenever this node holds the lease, for ever; see `Leases.hold`.

        What `work` raises is raised. Raises InvalidRequest where a lease can't be so named.
        """
        lease_name = check_lease(f"{_LEASE}{name}")
        if self._is_agent:
            await asyncio.Event().wait()

        async def held(lease: Lease) -> None:
            self._led.add(name)
            try:
                await work(Held(name, lease.token))
            finally:
                self._led.discard(name)

        await self._leases.hold(lease_name, ttl_s, held)

    async def leader(self, name: str) -> tuple[str, int]:
        """Who leads, as far as this node knows; nobody where that one seems to be gone."""
        uid = self._leases.holder(check_lease(f"{_LEASE}{name}"))
        member = self._member(uid) if uid else None
        stopped = uid == self._uid and name not in self._led
        if member is None or not member.reachable or stopped:
            return "", 0
        return member.name, uid


@dataclass(frozen=True, slots=True)
class Syncing:
    """All of it: what `Node.syncing` is. `peers` reach the reconcilers of other nodes."""

    environments: SyncEnvironments
    records: SyncRecords
    leading: SyncLeading
    peers: PeerCalls
    recording: Recording

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {**self.records.methods(), **self.recording.methods(), **self.peers.methods()}


def syncing_of(
    store: Store,
    coordinator: Coordinator,
    routing: Routing,
    forwarder: Forwarder,
    gathering: Gathering | None,
    leading: SyncLeading,
    peers: PeerCalls,
) -> Syncing:
    """All of it over the parts of one node."""
    following = Following(store)
    recording = Recording(store, coordinator, routing, forwarder)
    environments = SyncEnvironments(store, coordinator, routing, gathering, recording, following)
    notes = SyncRecords(store, coordinator, forwarder, following)
    return Syncing(environments, notes, leading, peers, recording)
