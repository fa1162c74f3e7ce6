"""`envd.v1.ClusterService` over the node's API: who the node is and how it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from envd.core.answers import Identity
from envd.net.grpc_calls import Calls, Handler
from envd.node.api import EnvironmentApi
from envd.wire import api as wire
from envd.wire._pb import cluster_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ClusterService"].full_name


class ClusterService:
    """The methods; `handlers` is what a server registers."""

    def __init__(self, api: EnvironmentApi, calls: Calls) -> None:
        self._api = api
        self._calls = calls

    def handlers(self) -> Mapping[str, Handler]:
        """One handler for each method of the service."""
        return {"Status": self._calls.unary("Status", pb.StatusRequest.FromString, self._status)}

    async def _status(self, identity: Identity, _: pb.StatusRequest) -> pb.StatusResponse:
        return wire.status_message(await self._api.status(identity))
