"""`/metrics`, and the counting of what HTTP is asked.

A scrape needs a credential with the right to read: the figures hold no value and no name of
an environment, but tell how much there is of what. It is answered as OpenMetrics, with the
trace ids of slow requests, where `Accept` names that, else in Prometheus's text format. The
text is made in a thread, since that takes milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from envd.net.http_guard import IDENTITY, resource_of
from envd.net.http_routes import AnyOperation, Call, NoQuery, Operation
from envd.node.api import EnvironmentApi
from envd.telemetry.node import OPENMETRICS, PLAIN, Telemetry
from envd.telemetry.requests import Kind, Requests
from envd.wire.trace_context import TRACEPARENT

PATH: Final = "/metrics"
_CLIENT_GONE: Final = "499"
_OTHER: Final = "HTTP other"


def operation(api: EnvironmentApi, telemetry: Telemetry) -> AnyOperation:
    """The operation that answers a scrape."""

    async def metrics(call: Call[NoQuery]) -> web.Response:
        api.check_observer(call.identity)
        telemetry.look()
        accept = ",".join(call.request.headers.getall(hdrs.ACCEPT, []))
        body, media_type = await asyncio.to_thread(telemetry.text, accept)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: media_type})

    return Operation(
        "getMetrics",
        hdrs.METH_GET,
        PATH,
        "The figures of the node for Prometheus; OpenMetrics where `Accept` names it.",
        metrics,
        NoQuery,
        media_types=(OPENMETRICS, PLAIN),
    )


def counted(requests: Requests, operations: Sequence[AnyOperation]) -> Middleware:
    """The outermost middleware: counts and times requests by operation and status."""
    known = {
        (one.method, one.path): (
            requests.of(f"{one.method} {one.path}"),
            Kind.WAIT if one.streams else Kind.CALL,
        )
        for one in operations
    }
    other = (requests.of(_OTHER), Kind.CALL)

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
        figures, kind = known.get((method, resource_of(request)), other)
        traceparent = request.headers.get(TRACEPARENT, "") if requests.traces else ""
        underway, code = requests.begin(figures, traceparent, kind), _CLIENT_GONE
        try:
            response = await handler(request)
            code = str(response.status)
            return response
        finally:
            if IDENTITY in request:  # What strangers name is not told to a collector.
                underway.about(request.match_info.get("name", ""))
            underway.end(code)

    return count
