"""How the node and its cluster do: `/v1/status`, `/v1/members`, `/v1/topology`.

`/livez` and `/readyz` are open to probes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from aiohttp import hdrs, web
from msgspec import Meta

from envd.core.answers import Membership, Status, TopologyView
from envd.core.errors import Unavailable
from envd.core.requests import TopologyRequest
from envd.net.http_json import respond
from envd.net.http_routes import AnyOperation, Call, NoQuery, Operation
from envd.node.api import EnvironmentApi


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe that succeeds is answered."""

    status: str = "ok"


@dataclass(frozen=True, slots=True)
class TopologyQuery:
    environment: Annotated[str, Meta(description="tell which nodes hold this one, too")] = ""


def operations(api: EnvironmentApi, readiness: Callable[[], str]) -> tuple[AnyOperation, ...]:
    """The operations; `readiness` is "" or what the node does instead of serving."""
    resource = _Node(api, readiness)
    return (
        Operation(
            "isAlive",
            hdrs.METH_GET,
            "/livez",
            "Whether the process answers.",
            resource.livez,
            NoQuery,
            answer=Health,
            open=True,
        ),
        Operation(
            "isReady",
            hdrs.METH_GET,
            "/readyz",
            "Whether the node takes requests.",
            resource.readyz,
            NoQuery,
            answer=Health,
            open=True,
        ),
        Operation(
            "getStatus",
            hdrs.METH_GET,
            "/v1/status",
            "The state of the node in figures, and who asks.",
            resource.status,
            NoQuery,
            answer=Status,
        ),
        Operation(
            "listMembers",
            hdrs.METH_GET,
            "/v1/members",
            "The members of the cluster as the node sees them, and how it stands with each.",
            resource.members,
            NoQuery,
            answer=Membership,
        ),
        Operation(
            "getTopology",
            hdrs.METH_GET,
            "/v1/topology",
            "Who votes on serial environments, whether enough can be reached, and who holds what.",
            resource.topology,
            TopologyQuery,
            answer=TopologyView,
        ),
    )


class _Node:
    def __init__(self, api: EnvironmentApi, readiness: Callable[[], str]) -> None:
        self._api = api
        self._readiness = readiness

    async def livez(self, _: Call[NoQuery]) -> web.Response:
        """Alive, since it answers."""
        return respond(Health())

    async def readyz(self, _: Call[NoQuery]) -> web.Response:
        """Ready, or 503."""
        if state := self._readiness():
            raise Unavailable(f"the node is {state}", reason="NOT_READY", retry_after_ms=1000)
        return respond(Health())

    async def status(self, call: Call[NoQuery]) -> web.Response:
        """The figures."""
        return respond(await self._api.status(call.identity))

    async def members(self, call: Call[NoQuery]) -> web.Response:
        """Who belongs to the cluster."""
        return respond(await self._api.cluster.members(call.identity))

    async def topology(self, call: Call[TopologyQuery]) -> web.Response:
        """Who votes, and who holds what."""
        request = TopologyRequest(call.query.environment)
        return respond(await self._api.cluster.topology(call.identity, request))
