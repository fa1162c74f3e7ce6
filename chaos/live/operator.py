"""What an operator tells the nodes: who leaves, is removed, votes alone (`envctl cluster`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Final, TypeVar

import envd
from chaos.live.processes import LiveNode
from envd.client.rpc import GrpcConnection
from envd.core.answers import TopologyView
from envd.core.requests import LeaveRequest, RecoverRequest, RemoveRequest

_AGAIN_S: Final = 1.0
AnswerT = TypeVar("AnswerT")


class Operator:
    """Asks one node at a time. Each raises what the node answers with, an EnvdError."""

    async def topology(self, node: LiveNode) -> TopologyView:
        """As this node knows it."""
        return await self._ask(node, lambda connection: connection.topology())

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
