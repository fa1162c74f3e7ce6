"""`envd.v1.ClusterService` over the node's API: who the node is, how it does, who is with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from envd.core.answers import Identity
from envd.net.grpc_calls import Calls, Handler
from envd.node.api import EnvironmentApi
from envd.wire import api as wire
from envd.wire import api_cluster as cluster
from envd.wire._pb import cluster_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ClusterService"].full_name


class ClusterService:
    """The methods; `handlers` is what a server registers."""

    def __init__(self, api: EnvironmentApi, calls: Calls) -> None:
        self._api = api
        self._calls = calls

    def handlers(self) -> Mapping[str, Handler]:
        """One handler for each method of the service."""
        unary = self._calls.unary
        return {
            "Status": unary("Status", pb.StatusRequest.FromString, self._status),
            "Members": unary("Members", pb.MembersRequest.FromString, self._members),
            "Join": unary("Join", pb.JoinRequest.FromString, self._join),
            "Leave": unary("Leave", pb.LeaveRequest.FromString, self._leave),
            "Remove": unary("Remove", pb.RemoveRequest.FromString, self._remove),
            "Topology": unary("Topology", pb.TopologyRequest.FromString, self._topology),
            "Recover": unary("Recover", pb.RecoverRequest.FromString, self._recover),
        }

    async def _status(self, identity: Identity, _: pb.StatusRequest) -> pb.StatusResponse:
        return wire.status_message(await self._api.status(identity))

    async def _members(self, identity: Identity, _: pb.MembersRequest) -> pb.MembersResponse:
        return cluster.membership_message(await self._api.cluster.members(identity))

    async def _join(self, identity: Identity, message: pb.JoinRequest) -> pb.MembersResponse:
        request = cluster.join_from(message)
        return cluster.membership_message(await self._api.cluster.join(identity, request))

    async def _leave(self, identity: Identity, message: pb.LeaveRequest) -> pb.MembersResponse:
        request = cluster.leave_from(message)
        return cluster.membership_message(await self._api.cluster.leave(identity, request))

    async def _remove(self, identity: Identity, message: pb.RemoveRequest) -> pb.MembersResponse:
        request = cluster.remove_from(message)
        return cluster.membership_message(await self._api.cluster.remove(identity, request))

    async def _topology(
        self, identity: Identity, message: pb.TopologyRequest
    ) -> pb.TopologyResponse:
        request = cluster.topology_request_from(message)
        return cluster.topology_message(await self._api.cluster.topology(identity, request))

    async def _recover(self, identity: Identity, message: pb.RecoverRequest) -> pb.TopologyResponse:
        request = cluster.recover_from(message)
        return cluster.topology_message(await self._api.cluster.recover(identity, request))
