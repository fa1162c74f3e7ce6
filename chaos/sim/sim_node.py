"""One of envd's nodes as it runs on a simulated machine, and how it ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from envd.core.answers import Identity, Status
from envd.core.errors import EnvdError, Unavailable
from envd.core.requests import LeaveRequest
from envd.node.api import EnvironmentApi
from envd.node.node import Node
from envd.ports import Store

CLUSTER_NAME: Final = "simulated"
OPERATOR: Final = Identity("operator", "simulator")


@dataclass
class SimNode:
    """A node that takes requests."""

    uid: int
    api: EnvironmentApi
    node: Node
    store: Store

    async def stop(self) -> None:
        """End in good order, as the daemon does at SIGTERM."""
        self.api.stop()
        await self.node.drain()
        await self.node.leave()
        await self.store.close()

    async def leave(self) -> None:
        """Leave the cluster for good, as an operator asks for it; then the daemon stops."""
        leaves = False
        while not leaves:
            try:
                await self.api.cluster.leave(OPERATOR, LeaveRequest(f"{self.uid:016x}"))
                leaves = True
            except Unavailable as error:
                if error.reason != "DRAINING":
                    raise
        # Its disk may be full: it has handed over, and ends all the same.
        with suppress(EnvdError):
            await self.stop()


def status_of(identity: Identity) -> Status:
    """What nobody looks at here."""
    return Status("", "", CLUSTER_NAME, "", 0, 0, 0, 0, True, "", identity.name, identity.via)
