"""What a node answers other nodes about what it holds: from its own copy, asking nobody else.

The asker has checked the caller's rights, and is trusted for that (both know the cluster's
secret). Whether this node holds what it is asked about is for its own view of the topology to
say: where it does not, the asker tries another one (`routing`, `gathering`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from envd.core import shares
from envd.core.answers import ConflictPage, EnvironmentView, ListedEnvironment
from envd.core.names import check_environment, check_prefix
from envd.core.requests import ConflictsRequest, Consistency, ReadRequest
from envd.core.ring import partition_of
from envd.node import forwarding, session_reads
from envd.node.calls import Method, Patient
from envd.node.coordinator import Coordinator
from envd.node.handshake import Peer
from envd.node.reader import MAX_LIST_PAGE
from envd.node.routing import (
    CONFLICTS,
    HERE,
    HISTORY,
    READ,
    WRITE,
    Routing,
    not_holder,
)
from envd.ports import Store
from envd.wire import api, api_conflicts, api_streams
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

LIST: Final = "list.page"
CONFLICTS_BELOW: Final = "conflicts.page"
EXPORT: Final = "export.page"
MAX_EXPORTED: Final = 256
"""After so many names of which hardly any is asked for, a page ends early and says where."""


class Held:
    """Answers about the partitions that this node has all of."""

    def __init__(self, uid: int, store: Store, coordinator: Coordinator, routing: Routing) -> None:
        self._uid = uid
        self._store = store
        self._coordinator = coordinator
        self._routing = routing

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves. Reads may wait for a record, or for a majority."""
        return {
            HERE: _here,
            READ: Patient(self._read),
            HISTORY: self._history,
            CONFLICTS: self._conflicts,
            WRITE: Patient(self._write),
            LIST: self._list,
            CONFLICTS_BELOW: self._conflicts_below,
            EXPORT: self._export,
            **session_reads.methods(self._session_read),
        }

    # -- one environment -------------------------------------------------------------------

    def _check(self, name: str) -> None:
        if not self._routing.reads(name):
            raise not_holder(name)

    async def read(self, request: ReadRequest) -> EnvironmentView:
        """A read of one environment that this node holds, without its layers, as its level asks."""
        if request.consistency is Consistency.STRONG:
            await self._coordinator.prepare_strong(request.environment)
        elif request.token and not await self._coordinator.reaches(request.token):
            raise session_reads.stale()
        return self._coordinator.read(replace(request, token="") if request.token else request)

    async def _read(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.ForwardedRead, body)
        request = api.read_from(pb.GetRequest.FromString(said.message))
        self._check(request.environment)
        return api.get_bytes(await self.read(request))

    def _session_read(self, request: ReadRequest) -> EnvironmentView:
        """A read that a node asks for which takes this one for one that holds everything."""
        if not self._routing.whole:
            self._check(request.environment)
            if request.resolve:
                self._coordinator.look_at_layers(request.environment, self._check)
        return self._coordinator.read(request)

    async def _history(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.ForwardedRead, body)
        request = api.history_from(pb.HistoryRequest.FromString(said.message))
        self._check(request.environment)
        page = self._coordinator.history(request)
        return api.history_page_message(page).SerializeToString()

    async def _conflicts(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.ForwardedRead, body)
        request = api_conflicts.conflicts_from(pb.ConflictsRequest.FromString(said.message))
        self._check(request.environment)
        page = self._coordinator.conflicts(request)
        return api_conflicts.conflict_page_message(page).SerializeToString()

    async def _write(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.Forwarded, body)
        request = forwarding.decoded(said)
        if not self._routing.writes(request.environment):
            raise not_holder(request.environment)
        answer = await self._coordinator.write_held(request, said.author, said.may_reveal)
        return api.written_message(answer).SerializeToString()

    # -- several ---------------------------------------------------------------------------

    def mine(self, wanted: int) -> int:
        """Those of a set of partitions that this node has all of."""
        if self._routing.whole:
            return wanted
        return wanted & self._routing.readable().get(self._uid, 0)

    def listed(
        self, prefix: str, after: str, limit: int, partitions: int
    ) -> shares.Page[ListedEnvironment]:
        """Environments of these partitions, in order of name, at most `limit`."""
        wanted = None if partitions == shares.EVERY else shares.members(partitions)
        found = self._store.environments(prefix, after, limit + 1, wanted)
        if len(found) > limit:
            return shares.Page(found[:limit], found[limit - 1].environment)
        return shares.Page(found)

    async def _list(self, _: Peer, body: bytes) -> bytes:
        asked = wire.unpack(wire.ListAsked, body)
        mine = wire.mask_in(asked.partitions) & self._routing.followable()
        limit = max(1, min(asked.limit, MAX_LIST_PAGE))
        page = self.listed(check_prefix(asked.prefix), check_prefix(asked.after), limit, mine)
        share = wire.ListShare(
            [each.environment for each in page.items],
            [bytes.fromhex(each.revision) for each in page.items],
            [each.variables for each in page.items],
            shares.pack_mask(mine),
            page.through,
        )
        return wire.pack(share)

    def conflicts_below(self, request: ConflictsRequest, partitions: int) -> ConflictPage:
        """A page of the conflicts below a prefix, of the environments in these partitions."""

        def counts(name: str) -> bool:
            return shares.holds(partitions, partition_of(name))

        return self._coordinator.conflicts(request, counts)

    async def _conflicts_below(self, _: Peer, body: bytes) -> bytes:
        asked = wire.unpack(wire.ConflictsAsked, body)
        mine = self.mine(wire.mask_in(asked.partitions))
        request = api_conflicts.conflicts_from(pb.ConflictsRequest.FromString(asked.message))
        message = api_conflicts.conflict_page_message(self.conflicts_below(request, mine))
        return wire.pack(wire.ConflictsShare(message.SerializeToString(), shares.pack_mask(mine)))

    async def _export(self, _: Peer, body: bytes) -> bytes:
        asked = wire.unpack(wire.ExportAsked, body)
        message, covered, size = pb.ExportResponse(), 0, 0
        for name in asked.names[:MAX_EXPORTED]:
            if not self._routing.reads(check_environment(name)):
                break
            exported = self._coordinator.columns(name, reveal=asked.reveal)
            if exported is not None:
                size += api_streams.characters(exported)
                if covered and size > api_streams.MAX_BATCH_CHARACTERS:
                    break
                message.environments.append(api_streams.export_item(exported))
            covered += 1
        if not covered and asked.names:
            raise not_holder(asked.names[0])
        return wire.pack(wire.ExportShare(message.SerializeToString(), covered))


async def _here(_: Peer, __: bytes) -> bytes:
    return b""
