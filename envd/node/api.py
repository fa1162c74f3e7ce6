"""What a node offers to callers, each call under the rights of its identity.

gRPC, HTTP and the Unix socket are thin shells around this one class.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    ExportedEnvironment,
    ExportGap,
    HistoryPage,
    Identity,
    ListPage,
    Status,
    WatchEvent,
    WriteAnswer,
)
from envd.core.errors import (
    Conflict,
    Denied,
    LimitExceeded,
    NotFound,
    Unavailable,
)
from envd.core.names import check_environment, check_prefix
from envd.core.requests import (
    ConflictsRequest,
    Consistency,
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    WatchRequest,
    WriteRequest,
)
from envd.node.cluster_view import Cluster, ClusterApi, SoleNode, sole_member
from envd.node.coordinator import Coordinator
from envd.node.gathering import Gathering, ReadOne, all_of, chunks
from envd.node.reader import check_history
from envd.node.spread import SpreadWatches, WideSight
from envd.node.views import exported_from, resolved_view
from envd.node.watch import Sight, WatchHub
from envd.node.writing import Writing
from envd.ports import Authorizer

_EXPORTED_AT_ONCE = 64
"""Environments that other nodes hold are asked for, and in memory, so many at a time."""


class EnvironmentApi:
    """The environments of a node. Every method raises Denied where a right is missing."""

    def __init__(
        self,
        coordinator: Coordinator,
        hub: WatchHub,
        authorizer: Authorizer,
        status_of: Callable[[Identity], Status],
        cluster: Cluster | None = None,
        gathering: Gathering | None = None,
        watches: SpreadWatches | None = None,
    ) -> None:
        """Without `cluster` the node is the only member of its own; without `gathering` and
        `watches`, which are of `hub`, it asks no other for what it does not hold."""
        node = coordinator.node
        sole = SoleNode(sole_member(node.uid, node.name, node.region))
        self.cluster = ClusterApi(cluster or sole, self._allow)
        self._status_of = status_of
        self._coordinator = coordinator
        self._hub = hub
        self._authorizer = authorizer
        self._gathering = gathering
        self._watches = watches
        self._stopping = False

    def stop(self) -> None:
        """Refuse what comes from now on and end every watch."""
        self._stopping = True
        self._hub.close()
        if self._watches is not None:
            self._watches.close()

    async def get(self, identity: Identity, request: ReadRequest) -> EnvironmentView:
        """Read one environment; see ReadRequest. With a token it may take a moment."""
        self._allow_read(identity, request)
        gathering = self._gathers(request)
        if gathering is not None:
            return await self._gathered(gathering, identity, request)
        request = await self._strengthened(identity, request)
        if request.token and not await self._coordinator.reaches(request.token):
            return await self._get_elsewhere(identity, request)
        if request.resolve:
            self._allow_layers(identity, request)
        return self._coordinator.read(request)

    async def get_rendered(
        self,
        identity: Identity,
        request: ReadRequest,
        render: Callable[[EnvironmentView], bytes],
    ) -> bytes:
        """What `render` makes of what `get` answers; see Coordinator.rendered."""
        self._allow_read(identity, request)
        gathering = self._gathers(request)
        if gathering is not None:
            return render(await self._gathered(gathering, identity, request))
        request = await self._strengthened(identity, request)
        if request.token and not await self._coordinator.reaches(request.token):
            return render(await self._get_elsewhere(identity, request))
        if request.resolve:
            self._allow_layers(identity, request)
        return self._coordinator.rendered(request, render)

    async def reaches(self, token: str) -> bool:
        """Tell whether this node has what a session token stands for; waits a moment for it.

        Of several reads with one token, the node is asked once, and where it has not, each is to
        be one of `get_rendered_elsewhere`. Where the nodes hold different partitions, each read
        sees to that itself.
        """
        if self._spread() is not None:
            return True
        return await self._coordinator.reaches(token)

    async def get_rendered_elsewhere(
        self,
        identity: Identity,
        request: ReadRequest,
        render: Callable[[EnvironmentView], bytes],
    ) -> bytes:
        """What `render` makes of the answer of a peer that has what the token stands for."""
        self._allow_read(identity, request)
        return render(await self._get_elsewhere(identity, request))

    async def _get_elsewhere(self, identity: Identity, request: ReadRequest) -> EnvironmentView:
        """What the environment extends is as the peer knows it, so that is looked at last."""
        view = await self._coordinator.read_elsewhere(request)
        for layer in view.bases:
            self._allow_layer(identity, request, layer)
        return view

    def _spread(self) -> Gathering | None:
        """What answers where the nodes hold different partitions; None where each holds all."""
        gathering = self._gathering
        return None if gathering is None or gathering.routing.whole else gathering

    def _gathers(self, request: ReadRequest) -> Gathering | None:
        """What answers a read that takes other nodes, or may; None: this one does."""
        gathering = self._spread()
        if gathering is None:
            return None
        several = request.resolve or bool(request.token)
        return None if not several and gathering.routing.reads(request.environment) else gathering

    async def _gathered(
        self, gathering: Gathering, identity: Identity, request: ReadRequest
    ) -> EnvironmentView:
        def look(layer: str) -> None:
            self._allow_layer(identity, request, layer)

        return await gathering.read(request, look)

    async def _strengthened(self, identity: Identity, request: ReadRequest) -> ReadRequest:
        """For a strong read, have this node show all that was chosen before, of all its layers.

        That has the write of a session token too, so the token is not needed any more.
        """
        if request.consistency is not Consistency.STRONG:
            return request
        await self._coordinator.prepare_strong(request.environment)
        confirmed = {request.environment}
        while request.resolve:
            unconfirmed = set(self._allow_layers(identity, request)) - confirmed
            if not unconfirmed:
                break
            for layer in sorted(unconfirmed):
                await self._coordinator.prepare_strong(layer)
            confirmed |= unconfirmed
        return replace(request, token="")

    def _allow_read(self, identity: Identity, request: ReadRequest) -> None:
        self._allow(identity, "read", request.environment)
        if request.reveal:
            self._allow(identity, "reveal", request.environment)
        if request.at:
            self._allow(identity, "history", request.environment)

    def _allow_layer(self, identity: Identity, request: ReadRequest, layer: str) -> None:
        self._allow(identity, "read", layer)
        if request.reveal:
            self._allow(identity, "reveal", layer)

    def _allow_layers(self, identity: Identity, request: ReadRequest) -> Sequence[str]:
        """What a layer extends, and whether it is there, is only for who may read it."""
        layers: list[str] = []

        def look(layer: str) -> None:
            self._allow_layer(identity, request, layer)
            layers.append(layer)

        self._coordinator.look_at_layers(check_environment(request.environment), look)
        return layers

    def _state(
        self, identity: Identity, name: str, *, reveal: bool, resolve: bool
    ) -> EnvironmentView | None:
        """The state of an environment, None where it does not exist.

        With `resolve` its layers are read too; where they can't be, it stands alone and says
        why in `unresolved`.
        """
        own = self._coordinator.state_view(name, reveal=reveal)
        if own is None or not resolve:
            return own
        request = ReadRequest(name, reveal=reveal, resolve=True)
        try:
            self._allow_layers(identity, request)
            return self._coordinator.read(request)
        except (NotFound, Conflict, LimitExceeded, Denied) as error:
            return replace(resolved_view((own,), ()), unresolved=error.message)

    async def list(self, identity: Identity, request: ListRequest) -> ListPage:
        """List environments; see ListRequest."""
        self._allow(identity, "list", request.prefix)
        gathering = self._spread()
        if gathering is not None:
            return await gathering.list(request)
        return self._coordinator.list(request)

    async def write(self, identity: Identity, request: WriteRequest) -> WriteAnswer:
        """Write one commit; see WriteRequest."""
        self._allow(identity, "write", request.environment)
        may_reveal = self._authorizer.allows(identity, "reveal", request.environment)
        return await self._coordinator.write(request, identity.name, may_reveal=may_reveal)

    async def begin_write(self, identity: Identity, request: WriteRequest) -> Writing:
        """Write one commit without waiting for it to be durable.

        Writes begun one after the other are applied in this order.
        """
        self._allow(identity, "write", request.environment)
        may_reveal = self._authorizer.allows(identity, "reveal", request.environment)
        return await self._coordinator.begin_write(request, identity.name, may_reveal=may_reveal)

    async def delete(self, identity: Identity, request: DeleteRequest) -> WriteAnswer:
        """Delete an environment; its history stays."""
        self._allow(identity, "delete", request.environment)
        return await self._coordinator.delete(request, identity.name)

    async def rollback(self, identity: Identity, request: RollbackRequest) -> WriteAnswer:
        """Write an earlier state again; see RollbackRequest."""
        self._allow(identity, "rollback", request.environment)
        may_reveal = self._authorizer.allows(identity, "reveal", request.environment)
        return await self._coordinator.rollback(request, identity.name, may_reveal=may_reveal)

    async def conflicts(self, identity: Identity, request: ConflictsRequest) -> ConflictPage:
        """Page through unsettled conflicts; see ConflictsRequest."""
        about = request.environment or check_prefix(request.prefix)
        self._allow(identity, "read", about)
        if request.reveal:
            self._allow(identity, "reveal", about)
        gathering = self._spread()
        if gathering is not None:
            if not request.environment:
                return await gathering.conflicts(request)
            if not gathering.routing.reads(request.environment):
                return await gathering.routing.conflicts(request)
        return self._coordinator.conflicts(request)

    async def resolve(self, identity: Identity, request: ResolveRequest) -> WriteAnswer:
        """Settle the conflicts of one name; see ResolveRequest."""
        self._allow(identity, "write", request.environment)
        may_reveal = self._authorizer.allows(identity, "reveal", request.environment)
        return await self._coordinator.resolve(request, identity.name, may_reveal=may_reveal)

    async def history(self, identity: Identity, request: HistoryRequest) -> HistoryPage:
        """Page through the commits of an environment, newest first."""
        self._allow(identity, "history", request.environment)
        gathering = self._spread()
        if gathering is not None and not gathering.routing.reads(request.environment):
            check_history(request)
            return await gathering.routing.history(request)
        return self._coordinator.history(request)

    async def watch(
        self, identity: Identity, request: WatchRequest
    ) -> AsyncGenerator[WatchEvent, None]:
        """Follow environments; see WatchRequest."""
        prefix = check_prefix(request.prefix)
        self._allow(identity, "read", prefix)
        if request.reveal:
            self._allow(identity, "reveal", prefix)

        def view(name: str) -> EnvironmentView | None:
            return self._state(identity, name, reveal=request.reveal, resolve=request.resolve)

        def may_read(base: str) -> bool:
            return self._authorizer.allows(identity, "read", base)

        near = Sight(view, may_read)
        if self._watches is None:
            events = self._hub.events(request, near)
        else:
            sight = WideSight(near, partial(self._state_elsewhere, identity, request))
            events = self._watches.events(request, sight)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _state_elsewhere(
        self, identity: Identity, watch: WatchRequest, name: str, read_one: ReadOne
    ) -> EnvironmentView | None:
        """As `_state`, of an environment that another node may hold; see `spread.StateOf`."""
        single = ReadRequest(name, reveal=watch.reveal)
        try:
            own = await read_one(single)
        except NotFound:
            return None
        gathering = self._gathering
        if not watch.resolve or gathering is None:
            return own

        async def read(request: ReadRequest) -> EnvironmentView:
            return own if request.environment == name else await read_one(request)

        def look(layer: str) -> None:
            self._allow_layer(identity, single, layer)

        try:
            return await gathering.read(replace(single, resolve=True), look, read)
        except (NotFound, Conflict, LimitExceeded, Denied, Unavailable) as error:
            return replace(resolved_view((own,), ()), unresolved=error.message)

    def check_observer(self, identity: Identity) -> None:
        """Raise Denied unless the identity may see the node's figures: it may read everything."""
        self._allow(identity, "read", "")

    async def status(self, identity: Identity) -> Status:
        """How the node does; every identity may ask."""
        return self.cluster.status(self._status_of(identity))

    def _exported(
        self, identity: Identity, name: str, *, reveal: bool, resolve: bool
    ) -> ExportedEnvironment | None:
        if not resolve:
            return self._coordinator.columns(name, reveal=reveal)
        view = self._state(identity, name, reveal=reveal, resolve=True)
        return None if view is None else exported_from(view)

    async def export(
        self, identity: Identity, prefix: str, *, reveal: bool, resolve: bool = False
    ) -> AsyncGenerator[ExportedEnvironment | ExportGap, None]:
        """Every environment below a prefix, in order of name, with `resolve` with its layers.

        Where some can't be had, the last item says so.
        """
        gathering, request = self._spread(), ListRequest(prefix)
        missing: dict[str, None] = {}
        while True:
            page = await self.list(identity, request)
            missing |= dict.fromkeys(filter(None, (page.partial_reason,)))
            for chunk in chunks(page.environments, _EXPORTED_AT_ONCE if gathering else 1):
                names = [listed.environment for listed in chunk]
                for name in names:
                    self._allow(identity, "read", name)
                    if reveal:
                        self._allow(identity, "reveal", name)
                if gathering is None:
                    exported = self._exported(identity, names[0], reveal=reveal, resolve=resolve)
                    if exported is not None:
                        yield exported
                    continue
                found, why = await self._exported_by_all(
                    gathering, identity, names, reveal=reveal, resolve=resolve
                )
                missing |= dict.fromkeys(filter(None, (why,)))
                for each in found:
                    yield each
            if not page.next:
                break
            request = replace(request, after=page.next)
        if missing:
            yield ExportGap("; ".join(missing))

    async def _exported_by_all(
        self,
        gathering: Gathering,
        identity: Identity,
        names: Sequence[str],
        *,
        reveal: bool,
        resolve: bool,
    ) -> tuple[Sequence[ExportedEnvironment], str]:
        """Those of these environments that exist, and why some are missing, "" where none is."""
        exported, why = await gathering.exported(names, reveal=reveal)
        found = [exported[name] for name in names if name in exported]
        if not resolve:
            return found, why
        asked = [self._with_layers(gathering, identity, each, reveal=reveal) for each in found]
        return await all_of(asked), why

    async def _with_layers(
        self, gathering: Gathering, identity: Identity, own: ExportedEnvironment, *, reveal: bool
    ) -> ExportedEnvironment:
        """An environment with its layers; where they can't be read, as it is, and why."""
        request = ReadRequest(own.environment, reveal=reveal, resolve=True)
        try:
            return exported_from(await self._gathered(gathering, identity, request))
        except (NotFound, Conflict, LimitExceeded, Denied, Unavailable) as error:
            return replace(own, unresolved=error.message)

    def _allow(self, identity: Identity, verb: str, environment: str) -> None:
        if self._stopping:
            raise Unavailable(
                "the node is stopping; nothing was done",
                hint="ask another node, or this one once it is back",
                reason="STOPPING",
                retry_after_ms=1000,
            )
        self._authorizer.check(identity, verb, environment)
