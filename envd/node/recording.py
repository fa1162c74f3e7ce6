"""What was written elsewhere and lost against what stands here, put on record: conflicts.

A store that is kept in step with an environment is one more place where it is written, and of two
writes that did not know of each other one loses. It is put on record as what comes too late is
(`core.floor`): a commit that changes nothing salvages it, so it is a conflict on every node until
somebody settles it, and its lost side can be written again. Of serial environments too: such a
commit is no link of their chain.

Nodes that hold the environment do this; any other has one of them do it. What is on record already,
by the stamp and the name, is not put there again, so it can be asked again after a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from envd.core.commit import Change, Commit, Kind
from envd.core.errors import Corrupt, LimitExceeded
from envd.core.history import contests
from envd.core.names import (
    MAX_ENVIRONMENT_BYTES,
    MAX_VARIABLES,
    check_environment,
    check_value,
    check_variable,
)
from envd.core.requests import WriteRequest
from envd.core.stamp import ZERO, Stamp
from envd.node import conflicts, revisions
from envd.node.calls import Method, Patient
from envd.node.coordinator import Coordinator
from envd.node.forwarding import Forwarder
from envd.node.handshake import Peer
from envd.node.routing import Routing, not_holder
from envd.ports import Store
from envd.sync.ports import Lost
from envd.wire import peers as wire
from envd.wire import records

METHOD: Final = "sync.record"
PATIENCE_S: Final = 10.0
_Place = tuple[Stamp, Kind, str]


class Recording:
    """Puts lost writes on record, here or by another node."""

    def __init__(
        self, store: Store, coordinator: Coordinator, routing: Routing, forwarder: Forwarder
    ) -> None:
        self._store = store
        self._coordinator = coordinator
        self._routing = routing
        self._forwarder = forwarder
        self._turn = asyncio.Lock()

    async def put_on_record(self, environment: str, lost: Sequence[Lost]) -> Sequence[str]:
        """Put writes on record that lost against what stands there; see `Environments`.

        What stands there may have seen one (`core.history.contests`), or be equal to it: that is no
        conflict. Returns the id of each, in their order: "" for what is none, or is settled.
        """
        lates = commits_of(environment, lost)
        if not lates:
            return ()
        ids = dict(zip(_places(lates), await self._recorded(environment, lates), strict=True))
        return tuple(ids[each.stamp, Kind.VARIABLE, each.variable] for each in lost)

    async def _recorded(self, environment: str, lates: Sequence[Commit]) -> Sequence[str]:
        held = self._routing.writes(environment)
        if held and not self._coordinator.hands_over:
            return await self._record(environment, lates)
        rows = [records.encode_commit(late) for late in lates]
        asked = wire.pack(wire.LostAsked(environment, rows))
        if held:
            raw = await self._forwarder.ask_any(METHOD, asked)
        else:
            raw = await self._routing.ask_holder(environment, METHOD, asked, PATIENCE_S)
        return wire.unpack(wire.LostShare, raw).ids

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves; it waits for other nodes to have a copy."""
        return {METHOD: Patient(self._serve)}

    async def _serve(self, _: Peer, body: bytes) -> bytes:
        said = wire.unpack(wire.LostAsked, body)
        environment = check_environment(said.environment)
        lates = [records.decode_commit(row) for row in said.commits]
        if any(late.environment != environment for late in lates):
            raise Corrupt("a peer sent commits to another environment than it says")
        if not self._routing.writes(environment):
            raise not_holder(environment)
        self._coordinator.check_clock()
        return wire.pack(wire.LostShare(await self._record(environment, lates)))

    async def _record(self, environment: str, lates: Sequence[Commit]) -> tuple[str, ...]:
        async with self._turn:
            await self._coordinator.settle()
            known = self._on_record(environment)
            for late in lates:
                await self._coordinator.admit()
                await self._salvage(late, known)
        found = {record.place: record.id for record in conflicts.of(self._store, environment)}
        return tuple(found.get(place, "") for place in _places(lates))

    async def _salvage(self, late: Commit, known: set[_Place]) -> None:
        """Put on record what is not `known` to be, and conflicts with what stands there.

        No await stands between reading the head and the append.
        """
        coordinator = self._coordinator
        head = coordinator.drafter.head(late.environment).environment
        left = [
            change
            for change in late.changes
            if (late.stamp, change.kind, change.name) not in known and contests(late, change, head)
        ]
        if left:
            late = replace(late, changes=tuple(left))
            message = f"what {late.author} had; see the conflicts"
            draft = coordinator.drafter.salvaging(late, "", message)
            await coordinator.finish(WriteRequest(late.environment), draft)

    def _on_record(self, environment: str) -> set[_Place]:
        """What is on record as lost, settled or not."""
        found = {record.place for record in conflicts.of(self._store, environment)}
        for commit in revisions.newest_first(self._store, environment):
            late = commit.salvages
            if late is not None:
                found |= {(late.stamp, change.kind, change.name) for change in late.changes}
        return found


def _places(lates: Sequence[Commit]) -> list[_Place]:
    return [(late.stamp, each.kind, each.name) for late in lates for each in late.changes]


def commits_of(environment: str, lost: Sequence[Lost]) -> list[Commit]:
    """The commits that lost writes are: one for those of equal stamp, author and time, in order.

    Raises InvalidRequest for illegal names and values, LimitExceeded for more than an environment
    can hold.
    """
    size = 0
    found: dict[tuple[Stamp, str, int], list[Change]] = {}
    for each in lost:
        size += len(check_variable(each.variable))
        if each.value is not None:
            size += check_value(each.variable, each.value)
        change = Change(Kind.VARIABLE, each.variable, each.value, each.secret, ZERO)
        found.setdefault((each.stamp, each.author, each.time_ms), []).append(change)
    if len(lost) > MAX_VARIABLES or size > MAX_ENVIRONMENT_BYTES:
        raise LimitExceeded(f"more lost writes to {environment} than an environment can hold")
    return [
        Commit(environment, stamp, tuple(changes), author=author, time_ms=time_ms)
        for (stamp, author, time_ms), changes in sorted(found.items(), key=lambda each: each[0])
    ]
