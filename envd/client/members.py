"""Keeps a client's list of servers fresh: to those it was given come the members they tell of.

Whenever a server answers and the last look was some time ago, the members are asked for, beside
the calls of the program; sooner after a server failed. What the client was given always stays. A
member is added once this machine has reached its gRPC address, for a node may advertise one that
is of use inside its own network only; it stays until the cluster says that it left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from envd.client.calls import CLUSTER
from envd.client.discovery import usable_members
from envd.client.picking import Server
from envd.client.servers import Servers
from envd.core.answers import MemberView
from envd.core.errors import EnvdError, Unsupported
from envd.wire import api_cluster
from envd.wire._pb import cluster_pb2 as pb

REFRESH_S: Final = 30.0
SOON_S: Final = 2.0
"""After a failure: often enough to find the others, and no load where failures are many."""
UNTOLD_S: Final = 300.0
"""Where the servers can't say, as those of a version without clusters can't."""
MAX_LEARNT: Final = 64
_CALL_S: Final = 5.0
_REACH_S: Final = 2.0
_PATH: Final = f"/{CLUSTER}/Members"


async def reachable(address: str) -> bool:
    """Tell whether something listens at HOST:PORT for this machine."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_REACH_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError, OverflowError):
        return False
    writer.close()
    return True


class Members:
    """What is learnt goes into `servers`; `given` are those that always stay there."""

    def __init__(
        self,
        servers: Servers,
        given: Sequence[Server],
        reach: Callable[[str], Awaitable[bool]] = reachable,
    ) -> None:
        self._servers = servers
        self._given = tuple(given)
        self._reach = reach
        self._learnt: dict[str, Server] = {}
        self._due_s = float("-inf")
        self._looking = False
        servers.on_answer, servers.on_failure = self._answered, self._failed

    def _answered(self) -> None:
        if not self._looking and self._servers.world.monotonic_s() >= self._due_s:
            self._looking = True
            self._servers.in_background(self._look())

    def _failed(self) -> None:
        self._due_s = min(self._due_s, self._servers.world.monotonic_s() + SOON_S)

    async def _look(self) -> None:
        again_s = REFRESH_S
        try:
            raw = await self._servers.call(_PATH, b"", timeout_s=_CALL_S)
            told = api_cluster.membership_from(pb.MembersResponse.FromString(raw)).members
            await self._learn(told)
        except Unsupported:
            again_s = UNTOLD_S
        except EnvdError:
            again_s = SOON_S  # What is known stays.
        finally:
            self._due_s = self._servers.world.monotonic_s() + again_s
            self._looking = False

    async def _learn(self, told: Sequence[MemberView]) -> None:
        given = {server.address for server in self._given}
        usable = usable_members(told, given)
        here = {each.address: each for each in usable if each.state != "left"}
        known = {address: one for address, one in self._learnt.items() if address in here}
        new = [
            each
            for address, each in here.items()
            if each.state == "alive" and address not in given and address not in known
        ]
        for each in new[: MAX_LEARNT - len(known)]:
            if await self._reach(each.address):
                known[each.address] = Server(each.address, each.zone)
        if known != self._learnt:
            self._learnt = known
            self._servers.replace([*self._given, *known.values()])
