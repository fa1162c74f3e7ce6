"""Answers about several environments that different nodes hold: layers, lists, conflicts, exports.

What this node has all of it answers itself; for the rest as few peers as possible are asked at the
same time, each for its share of the partitions (`core.shares`), and where one fails, others for
what was left to it. What nobody answers for is told: an answer is `partial`, never silently short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from envd.core import shares
from envd.core.answers import (
    ConflictPage,
    ConflictView,
    EnvironmentView,
    ExportedEnvironment,
    ListedEnvironment,
    ListPage,
)
from envd.core.errors import EnvdError, Unavailable
from envd.core.layers import EXTENDS, MAX_DEPTH, bases_of, layers
from envd.core.requests import (
    ConflictsRequest,
    ListRequest,
    PutColumns,
    ReadRequest,
    WriteRequest,
)
from envd.core.ring import PARTITIONS, partition_of
from envd.node import conflicts
from envd.node.coordinator import Coordinator
from envd.node.held import CONFLICTS_BELOW, EXPORT, LIST, Held
from envd.node.reader import check_list, check_read
from envd.node.routing import NOT_HOLDER, NoHolder, Routing
from envd.node.session_reads import STALE, point_of, stale
from envd.node.views import resolved_view
from envd.wire import api_conflicts, api_streams
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

LISTS_S: Final = 5.0
"""How long a peer is waited for that may have to look at every name it knows."""
_NAMED: Final = 8
PageT = TypeVar("PageT")
ItemT = TypeVar("ItemT")
Look = Callable[[str], None]
ReadOne = Callable[[ReadRequest], Awaitable[EnvironmentView]]
Share = Callable[[int, int], Awaitable[tuple[PageT, int]]]
"""(uid, partitions) -> what that peer answers, and for which partitions it does."""


class Gathering:
    """The requests of one node that are about more than one environment, or may be."""

    def __init__(self, uid: int, coordinator: Coordinator, held: Held, routing: Routing) -> None:
        self._uid = uid
        self._coordinator = coordinator
        self._held = held
        self.routing = routing

    # -- one, and its layers -----------------------------------------------------------------

    async def read(
        self, request: ReadRequest, look: Look, read_one: ReadOne | None = None
    ) -> EnvironmentView:
        """A read, of this node or of others; see ReadRequest.

        `look` is called for the environment and all that it extends, each before it is read, by
        `read_one` where that is given; raises what these do, and as `Coordinator.read`.
        """
        check_read(request)
        read_one = read_one or self.read_one
        if not request.resolve:
            look(request.environment)
            return await read_one(request)
        single = replace(request, resolve=False, variables=())
        views: dict[str, EnvironmentView] = {}
        names = await self._layers(single, look, {}, views, read_one)
        return resolved_view([views[name] for name in names], request.variables)

    async def read_one(self, request: ReadRequest) -> EnvironmentView:
        """A read of one environment without its layers.

        A session token says nothing of environments in other partitions than its own.
        """
        name = request.environment
        if request.token and point_of(request.token).partition != partition_of(name):
            request = replace(request, token="")
        if not self.routing.reads(name):
            return await self.routing.read(request)
        try:
            return await self._held.read(request)
        except Unavailable as error:
            if error.reason != STALE:
                raise
        try:
            return await self.routing.read(request)
        except NoHolder:
            raise stale() from None

    async def check_layers(self, request: WriteRequest) -> None:
        """Refuse a setting `extends` that could not be resolved; raises as `read` does."""
        if type(request.puts) is PutColumns:
            return
        for put in request.puts:
            if put.kind and put.name == EXTENDS:
                known = {request.environment: bases_of(put.value)}
                single = ReadRequest(request.environment)
                await self._layers(single, _anybody, known, {}, self.read_one)

    async def _layers(
        self,
        single: ReadRequest,
        look: Look,
        known: dict[str, tuple[str, ...]],
        views: dict[str, EnvironmentView],
        read_one: ReadOne,
    ) -> list[str]:
        """The layers of an environment, the lowest first; those of one depth are read at once.

        `known` has the bases of those that need not be read; what is read goes into `views`.
        """
        depth = [single.environment]
        for _ in range(MAX_DEPTH + 1):
            for name in depth:
                look(name)
            unread = [name for name in depth if name not in known]
            asked = [read_one(replace(single, environment=name)) for name in unread]
            for view in await all_of(asked):
                views[view.environment] = view
                known[view.environment] = bases_of(view.metadata.get(EXTENDS, ""))
            below = dict.fromkeys(base for name in depth for base in known[name])
            depth = [name for name in below if name not in known]
            if not depth:
                break
        return layers(single.environment, lambda name: known[name])

    # -- lists -----------------------------------------------------------------------------

    async def conflicts(self, request: ConflictsRequest) -> ConflictPage:
        """A page of the conflicts below a prefix, whoever holds the environments."""
        own = self._held.mine(shares.EVERY)
        page = self._held.conflicts_below(request, own)
        message = api_conflicts.conflicts_message(request).SerializeToString()

        async def ask(uid: int, share: int) -> tuple[shares.Page[ConflictView], int]:
            asked = wire.ConflictsAsked(message, shares.pack_mask(share))
            raw = await self.routing.ask(uid, CONFLICTS_BELOW, wire.pack(asked), LISTS_S)
            said = wire.unpack(wire.ConflictsShare, raw)
            found = pb.ConflictsResponse.FromString(said.message)
            return _of_conflicts(api_conflicts.conflict_page_from(found)), wire.mask_in(
                said.partitions
            )

        pages, left = await self._gathered(shares.EVERY & ~own, ask)
        everything = sum(len(each.items) for each in pages) + len(page.conflicts)
        whole = shares.merged(
            (*pages, _of_conflicts(page)), lambda each: each.environment, everything
        )
        told = conflicts.shortened(whole.items, request.limit, more=bool(whole.through))
        return replace(told, partial=bool(left), partial_reason=self.why(left))

    async def list(self, request: ListRequest) -> ListPage:
        """A page of the environments below a prefix, whoever holds them."""
        prefix, limit = check_list(request)
        own = self._held.mine(shares.EVERY)

        async def ask(uid: int, share: int) -> tuple[shares.Page[ListedEnvironment], int]:
            said = await self._ask_list(uid, prefix, request.after, limit, share)
            columns = (said.names, said.revisions, said.variables)
            items = [
                ListedEnvironment(name, revision.hex(), variables)
                for name, revision, variables in zip(*columns, strict=True)
            ]
            return shares.Page(items, said.through), wire.mask_in(said.partitions)

        pages, left = await self._gathered(shares.EVERY & ~own, ask)
        page = self._held.listed(prefix, request.after, limit, own)
        whole = shares.merged((*pages, page), lambda each: each.environment, limit)
        return ListPage(
            tuple(whole.items), whole.through, partial=bool(left), partial_reason=self.why(left)
        )

    async def _ask_list(
        self, uid: int, prefix: str, after: str, limit: int, share: int
    ) -> wire.ListShare:
        asked = wire.ListAsked(prefix, after, limit, shares.pack_mask(share))
        raw = await self.routing.ask(uid, LIST, wire.pack(asked), LISTS_S)
        return wire.unpack(wire.ListShare, raw)

    async def names(
        self, uid: int, prefix: str, after: str, limit: int, share: int
    ) -> shares.Page[str]:
        """Names below a prefix as one node, which may be this one, has them of some partitions.

        Raises Unavailable where it does not answer for all of these.
        """
        if uid == self._uid:
            page = self._held.listed(prefix, after, limit, share)
            return shares.Page([each.environment for each in page.items], page.through)
        said = await self._ask_list(uid, prefix, after, limit, share)
        if share & ~wire.mask_in(said.partitions):
            raise Unavailable("a peer holds less than was asked for", reason=NOT_HOLDER)
        return shares.Page(said.names, said.through)

    async def _gathered(self, wanted: int, ask: Share[PageT]) -> tuple[Sequence[PageT], int]:
        """What peers answer for a set of partitions, and those that nobody answers for."""
        pages = []
        able, asked = self.routing.readable(), {self._uid}
        for there in (self.routing.expected, self.routing.awake):
            while wanted:
                uids = await there([uid for uid in able if uid not in asked])
                plan = shares.cover(wanted, {uid: able[uid] for uid in uids})
                if not plan:
                    break
                asked |= plan.keys()
                outcomes = await asyncio.gather(
                    *(_unless_it_fails(ask(uid, share)) for uid, share in plan.items())
                )
                for share, outcome in zip(plan.values(), outcomes, strict=True):
                    if outcome is not None:
                        pages.append(outcome[0])
                        wanted &= ~(share & outcome[1])
        return pages, wanted

    def why(self, left: int) -> str:
        """Why a set of partitions is not in an answer, "" for none."""
        if not left:
            return ""
        holders = [uid for uid, mask in self.routing.readable().items() if mask & left]
        names = self.routing.named(uid for uid in holders if uid != self._uid)
        more = ", ..." if len(names) > _NAMED else ""
        those = ", ".join(names[:_NAMED]) + more if names else "there is none"
        return (
            f"{left.bit_count()} of {PARTITIONS} partitions are missing: "
            f"of the nodes that hold them none answers ({those})"
        )

    # -- exports ---------------------------------------------------------------------------

    async def exported(
        self, names: Sequence[str], *, reveal: bool
    ) -> tuple[Mapping[str, ExportedEnvironment], str]:
        """Those of these environments that exist, and why some are missing, "" where none is."""
        found: dict[str, ExportedEnvironment] = {}
        left = []
        for name in names:
            if not self.routing.reads(name):
                left.append(name)
            elif (columns := self._coordinator.columns(name, reveal=reveal)) is not None:
                found[name] = columns

        async def ask(uid: int, share: int) -> tuple[None, int]:
            wanted = [name for name in left if shares.holds(share, partition_of(name))]
            while wanted:
                asked = wire.pack(wire.ExportAsked(wanted, reveal))
                raw = await self.routing.ask(uid, EXPORT, asked, LISTS_S)
                said = wire.unpack(wire.ExportShare, raw)
                for item in pb.ExportResponse.FromString(said.message).environments:
                    found[item.environment] = api_streams.exported_from_item(item)
                wanted = wanted[max(said.covered, 1) :]
            return None, share

        _, missing = await self._gathered(shares.mask_of(map(partition_of, left)), ask)
        return found, self.why(missing)


async def all_of(asked: Collection[Awaitable[ItemT]]) -> list[ItemT]:
    """What all of these give, in order; raises what the first one does that fails."""
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    found = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found


async def _unless_it_fails(asked: Awaitable[ItemT]) -> ItemT | None:
    try:
        return await asked
    except (EnvdError, ValueError):
        return None  # Others are asked for its share; what is left then is told.


def _of_conflicts(page: ConflictPage) -> shares.Page[ConflictView]:
    through = page.conflicts[-1].environment if page.next and page.conflicts else ""
    return shares.Page(page.conflicts, through)


def _anybody(_: str) -> None:
    """A write may name any base: what it extends is only for who may read that."""


def chunks(items: Sequence[ItemT], size: int) -> Iterable[Sequence[ItemT]]:
    """These items, so many at a time."""
    return (items[at : at + size] for at in range(0, len(items), size))
