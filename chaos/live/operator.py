"""What an operator tells the nodes: who leaves, is removed, votes alone (`envctl cluster`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final, TypeVar

import envd
from chaos.live.processes import LiveNode
from envd.client.rpc import GrpcConnection
from envd.core.answers import TopologyView
from envd.core.requests import LeaveRequest, RecoverRequest, RemoveRequest, TopologyRequest

_AGAIN_S: Final = 1.0
AnswerT = TypeVar("AnswerT")


class Operator:
    """Asks one node at a time. Each raises what the node answers with, an EnvdError."""

    async def topology(self, node: LiveNode) -> TopologyView:
        """As this node knows it."""
        return await self._ask(node, lambda connection: connection.topology())

    async def holders(
        self, node: LiveNode, environments: Sequence[str]
    ) -> Mapping[str, frozenset[str]]:
        """The uids of the nodes that each environment is read from, as this node knows it."""

        def call(connection: GrpcConnection) -> Mapping[str, frozenset[str]]:
            found = {}
            for name in environments:
                place = connection.topology(TopologyRequest(name)).place
                found[name] = frozenset(place.holders if place else ())
            return found

        return await self._ask(node, call)

    async def leave(self, node: LiveNode, within_s: float) -> None:
        """Have a node leave, and ask again as long as it hands over; raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await self._ask(
                        node, lambda connection: connection.leave(LeaveRequest(node.place.name))
                    )
                except envd.Unavailable as error:
                    if error.reason != "DRAINING":
                        raise
                else:
                    return

    async def remove(self, asked: LiveNode, uid: str, within_s: float) -> None:
        """Strike a node that is gone, as soon as it counts as down; raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await self._ask(asked, lambda connection: connection.remove(RemoveRequest(uid)))
                except envd.Conflict:
                    await asyncio.sleep(_AGAIN_S)
                else:
                    return

    async def recover(self, node: LiveNode, within_s: float) -> None:
        """Have a node vote alone, as soon as the voters count as down; raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await self._ask(node, lambda connection: connection.recover(RecoverRequest("")))
                except envd.Conflict:
                    await asyncio.sleep(_AGAIN_S)
                else:
                    return

    async def _ask(self, node: LiveNode, call: Callable[[GrpcConnection], AnswerT]) -> AnswerT:
        def blocking() -> AnswerT:
            with closing(
                GrpcConnection([node.place.client_address], token=node.token)
            ) as connection:
                return call(connection)

        return await asyncio.to_thread(blocking)
