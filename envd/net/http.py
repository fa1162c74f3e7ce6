"""The HTTP server of a node: REST, and whether it lives and is ready.

Every resource is a module of its own that declares its operations; together they are one table,
from which come the routes and the OpenAPI document. What they share stands here, from the
outside in: errors become problems, foreign hosts and origins are refused, the caller is told
by their token. Only `/livez` and `/readyz` are open. Nothing may be stored by a cache, and the
server does not tell its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from envd.logs import get_logger
from envd.net import (
    http_conflicts,
    http_environments,
    http_history,
    http_metrics,
    http_node,
    http_openapi,
    http_watch,
)
from envd.net.access import Access
from envd.net.faults import Faults
from envd.net.http_guard import authenticated, same_host_only
from envd.net.http_problems import SERVER_NAME, problem_below, problem_of_framework, problems
from envd.net.http_routes import AnyOperation, route
from envd.net.listening import bind
from envd.node.api import EnvironmentApi
from envd.settings.units import Address
from envd.telemetry.node import Telemetry

_log = get_logger(__name__)
MAX_BODY_BYTES: Final = 8 << 20
BODY_TIMEOUT_S: Final = 30.0
IDLE_TIMEOUT_S: Final = 75.0
"""How long a connection may stay without a whole request head; nginx's keep-alive is as long."""
_LINGERING_S: Final = 2.0
"""How long the rest of a refused body is read, so that the client gets to see why."""
_NO_GRACE_S: Final = 0.001
"""Zero is for ever to aiohttp: a client that does not read would keep the server up."""
MAX_CONNECTIONS: Final = 1024


class HttpServer:
    """Serves `api` on `address`; `ready` tells whether the node takes requests."""

    _what, _flag = "HTTP", "--http"

    def __init__(
        self,
        api: EnvironmentApi,
        access: Access,
        address: Address,
        allowed_hosts: Iterable[str],
        ready: Callable[[], bool],
        *,
        body_timeout_s: float = BODY_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._api = api
        self._access = access
        self._address = address
        self._allowed_hosts = (address.host, *allowed_hosts)
        self._ready = ready
        self._body_timeout_s = body_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_connections = max_connections
        self._faults = Faults()
        self._telemetry = telemetry or Telemetry()
        self._telemetry.fault_counts.append(lambda: self._faults.count)
        self._stopping = False
        self._runner: _Runner | None = None

    @property
    def faults(self) -> int:
        """How many requests ended in an exception that nobody meant to raise."""
        return self._faults.count

    async def start(self) -> int:
        """Listen; return the port. Raises StartupError where the address can't be had."""
        sockets = bind(self._address, self._what, self._flag)
        runner = _Runner(
            self._application(),
            self._faults,
            self._max_connections,
            keepalive_timeout=self._idle_timeout_s,
            lingering_time=_LINGERING_S,
            access_log=None,
        )
        await runner.setup()
        for one in sockets:
            await web.SockSite(runner, one).start()
        self._runner = runner
        port: int = sockets[0].getsockname()[1]
        return port

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, let running ones end for `grace_s` seconds, cut the rest."""
        self._stopping = True
        if self._runner is not None:
            self._runner.grace_s = grace_s
            await self._runner.cleanup()
            self._runner = None

    def _operations(self) -> tuple[AnyOperation, ...]:
        """All that this server answers."""
        listed = (
            *http_node.operations(self._api, self._readiness),
            http_metrics.operation(self._api, self._telemetry),
            *http_environments.operations(self._api),
            *http_history.operations(self._api),
            *http_conflicts.operations(self._api),
            *http_watch.operations(self._api, self._faults),
        )
        return (*listed, http_openapi.operation(listed))

    def _application(self) -> web.Application:
        operations = self._operations()
        open_paths = frozenset(one.path for one in operations if one.open)
        application = web.Application(
            middlewares=[
                http_metrics.counted(self._telemetry.requests, operations),
                problems(self._faults),
                same_host_only(self._allowed_hosts, open_paths),
                authenticated(self._access, open_paths),
            ],
            client_max_size=MAX_BODY_BYTES,
        )
        application.on_response_prepare.append(_prepare)
        application.add_routes(
            route(one, body_timeout_s=self._body_timeout_s) for one in operations
        )
        return application

    def _readiness(self) -> str:
        """What the node does instead of serving, "" where it is ready."""
        if self._stopping:
            return "stopping"
        return "" if self._ready() else "starting"


class MetricsServer(HttpServer):
    """Serves `/metrics` and nothing else, behind the same guards."""

    _what, _flag = "the metrics server", "observability.metrics_port"

    def _operations(self) -> tuple[AnyOperation, ...]:
        return (http_metrics.operation(self._api, self._telemetry),)


async def _prepare(_: web.Request, response: web.StreamResponse) -> None:
    """The headers of every response."""
    response.headers["Server"] = SERVER_NAME
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


def _with_problems(handler: Handler) -> Handler:
    """A handler that answers with a problem also what is refused before any middleware.

    That is an `Expect` other than 100-continue, whose text the framework would quote.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return problem_of_framework(error)

    return handle


class _Runner(web.AppRunner):
    """Runs the application over connections that answer with problems also below it."""

    __slots__ = ("_faults", "_max_connections", "grace_s")

    def __init__(
        self, app: web.Application, faults: Faults, max_connections: int, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._faults = faults
        self._max_connections = max_connections
        self.grace_s = 0.0

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            _with_problems(made.request_handler),
            self._faults,
            self._max_connections,
            request_factory=made.request_factory,
            handler_cancellation=True,
            **self._kwargs,
        )

    async def shutdown(self) -> None:
        self._shutdown_timeout = max(self.grace_s, _NO_GRACE_S)
        await super().shutdown()


class _Server(web.Server):
    """Makes a `_Connection` for each client, up to a number of them."""

    def __init__(self, handler: Any, faults: Faults, max_connections: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self._faults = faults
        self._max_connections = max_connections

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._faults, loop=asyncio.get_running_loop(), **self._kwargs)

    @property
    def is_overfull(self) -> bool:
        return len(self._connections) > self._max_connections


class _Connection(web.RequestHandler):
    """A connection whose errors below the application quote nothing of the request."""

    __slots__ = ("_faults", "_server")

    def __init__(self, server: _Server, faults: Faults, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._faults = faults

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up at once where there are too many."""
        super().connection_made(transport)
        if self._server.is_overfull:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP (400), or an exception that no middleware saw."""
        del message  # it quotes the request
        if status == 500 and exc is not None and not isinstance(exc, ConnectionError):
            self._faults.report("http", exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun already")
        response = problem_below(status, exc)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Say what went wrong, but not with the text: it may quote the request.

        A body that can't be decoded, read after the answer, is the client's mistake: no word.
        """
        error = options.get("exc_info")
        if not isinstance(error, web.RequestPayloadError | HttpProcessingError | ConnectionError):
            _log.error("http.connection_failed", error=type(error).__name__)
