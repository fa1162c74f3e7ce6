"""A loopback HTTP proxy between an SDK and a store: it injects faults, and holds to real limits.

Emulators of stores are lax: they take values that the store refuses, and never throttle. And what a
backend makes of a status 429, of a reset connection or of half a document shows only on the wire.
So the SDK is given this proxy for an endpoint, and the proxy has the emulator for its upstream:

    async with Proxy("http://127.0.0.1:4566", operation_header="X-Amz-Target") as proxy:
        too_many = Respond(400, {"Content-Type": "application/json"}, b"...")
        proxy.add(Rule(Match(operation="AmazonSSM.PutParameter"), too_many, times=1))
        ...  # the SDK, with the endpoint proxy.url

Nothing in it depends on time: a rule meets the first requests, or those after so many others; a
quota is a bucket that a test refills; a request that is held is held until it is released. What it
notes of a request is its method, path, operation and sizes: never a body, a query, nor another
header.

It is a server in the running loop. An SDK that blocks is called from a thread.
"""

from __future__ import annotations

import asyncio
import io
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from envd.testing.proxy_rules import (
    Action,
    Armed,
    Before,
    DropReply,
    Hold,
    Limit,
    Match,
    Quota,
    Replay,
    Reply,
    Request,
    Reset,
    Respond,
    Rewrite,
    RewriteRequest,
    Rule,
)

__all__ = [
    "Before",
    "DropReply",
    "Hold",
    "Limit",
    "Match",
    "Noted",
    "Proxy",
    "Quota",
    "Replay",
    "Reply",
    "Reset",
    "Respond",
    "Rewrite",
    "RewriteRequest",
    "Rule",
]

MAX_BODY_BYTES: Final = 64 << 20
MAX_NOTED: Final = 100_000
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER without any time: to close is to reset."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One request, as far as it is noted.

    `status` is 0 where the caller was told nothing; `forwarded` is how many times the upstream had
    it. Sizes are those of bodies, in bytes.
    """

    method: str
    path: str
    operation: str
    size: int
    status: int
    forwarded: int


class Proxy:
    """Serves on a free port of the loopback from `__aenter__` until `__aexit__`."""

    def __init__(
        self,
        upstream: str,
        *,
        operation_header: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`operation_header` tells what a request is for, in APIs with one path for all. With `tls`
        the proxy speaks HTTPS; the upstream is whatever its URL says."""
        self._upstream = upstream.rstrip("/")
        self._operation_header = operation_header
        self._tls = tls
        self._armed: list[Armed] = []
        self._noted: deque[Noted] = deque(maxlen=MAX_NOTED)
        self._hung = asyncio.Event()
        self._released = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        self._runner = runner
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    @property
    def requests(self) -> tuple[Noted, ...]:
        """What came, oldest first, at most MAX_NOTED."""
        return tuple(self._noted)

    def count(self, *, method: str = "", path: str = "", operation: str = "") -> int:
        """How many requests came with this method, path (a regular expression) and operation."""
        return sum(
            method in ("", each.method)
            and operation in ("", each.operation)
            and (not path or re.fullmatch(path, each.path) is not None)
            for each in self._noted
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, in their order, those that are spent too."""
        return tuple(each.rule for each in self._armed)

    def add(self, *rules: Rule) -> None:
        """Add rules after those that are there; they count from now on."""
        self._armed += map(Armed, rules)

    def remove(self, rule: Rule) -> None:
        """Take a rule away; ValueError where it is not there."""
        place = next((at for at, each in enumerate(self._armed) if each.rule is rule), None)
        if place is None:
            raise ValueError("there is no such rule")
        del self._armed[place]

    def met(self, rule: Rule) -> int:
        """How many requests a rule has acted on; ValueError where it is not there."""
        found = next((each for each in self._armed if each.rule is rule), None)
        if found is None:
            raise ValueError("there is no such rule")
        return found.met

    def refill(self, tokens: int) -> None:
        """Put so many tokens into the bucket of every quota."""
        for each in self._armed:
            each.refill(tokens)

    async def hung(self) -> None:
        """Wait until a request is held."""
        await self._hung.wait()
        self._hung.clear()

    def release(self) -> None:
        """Let what is held, and will be, go on."""
        self._released.set()

    # One request.

    async def _serve(self, incoming: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        request = Request(
            incoming.method,
            incoming.rel_url.path,
            incoming.rel_url.query_string,
            headers.get(self._operation_header.lower(), ""),
            headers,
            await incoming.read(),
        )
        exchange = _Exchange(self, incoming, request)
        try:
            return await exchange.answer(self._action(request))
        finally:
            self._noted.append(
                Noted(
                    request.method,
                    request.path,
                    request.operation,
                    len(request.body),
                    exchange.status,
                    exchange.forwarded,
                )
            )

    def _action(self, request: Request) -> Action | None:
        """What happens to a request; None if nothing does."""
        due = [each for each in self._armed if each.is_due(request)]
        if not due:
            return None
        due[0].met += 1
        return due[0].rule.action

    async def hold(self) -> None:
        """Wait for the release."""
        self._hung.set()
        await self._released.wait()

    def ask(self, incoming: web.Request, body: bytes) -> aiohttp.client._RequestContextManager:
        """The same request to the upstream. It keeps its Host, which SDKs sign."""
        assert self._session is not None
        headers = CIMultiDict(
            (name, value)
            for name, value in incoming.headers.items()
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-length"
        )
        return self._session.request(
            incoming.method,
            URL(f"{self._upstream}{incoming.rel_url.raw_path_qs}", encoded=True),
            data=io.BytesIO(body) if body else None,  # aiohttp warns of large bytes.
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )


class _Exchange:
    """One request and what becomes of it."""

    def __init__(self, proxy: Proxy, incoming: web.Request, request: Request) -> None:
        self._proxy = proxy
        self._incoming = incoming
        self._request = request
        self.status = 0
        self.forwarded = 0

    async def answer(self, action: Action | None) -> web.StreamResponse:
        try:
            return await self._act(action)
        except aiohttp.ClientError:
            return self._tell(Reply(502, body=b"the upstream does not answer"))

    async def _act(self, action: Action | None) -> web.StreamResponse:
        match action:
            case Respond():
                return self._tell(Reply(action.status, action.headers, action.body))
            case Limit(then=then) | Quota(then=then):
                return self._tell(Reply(then.status, then.headers, then.body))
            case Reset():
                return self._reset()
            case DropReply():
                await self._whole(self._request.body)
                return self._reset()
            case Replay(times=times):
                replies = [await self._whole(self._request.body) for _ in range(times)]
                return self._tell(replies[-1])
            case Rewrite(change=change):
                return self._tell(change(await self._whole(self._request.body)))
            case RewriteRequest(change=change_body):
                return await self._pass_on(change_body(self._request.body))
            case Before(do=do):
                await do()
                return await self._pass_on(self._request.body)
            case Hold(done=True):
                reply = await self._whole(self._request.body)
                await self._proxy.hold()
                return self._tell(reply)
            case Hold():
                await self._proxy.hold()
                return await self._pass_on(self._request.body)
            case None:
                return await self._pass_on(self._request.body)

    async def _pass_on(self, body: bytes) -> web.StreamResponse:
        """Pass a reply on as it comes, for it may be one that never ends."""
        self.forwarded += 1
        async with self._proxy.ask(self._incoming, body) as reply:
            response = web.StreamResponse(status=reply.status, headers=_kept(reply.headers))
            self.status = reply.status
            await response.prepare(self._incoming)
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _whole(self, body: bytes) -> Reply:
        self.forwarded += 1
        async with self._proxy.ask(self._incoming, body) as reply:
            return Reply(reply.status, _kept(reply.headers), await reply.read())

    def _tell(self, reply: Reply) -> web.Response:
        self.status = reply.status
        headers = CIMultiDict(reply.headers)
        headers.popall("Content-Length", None)
        return web.Response(status=reply.status, headers=headers, body=reply.body)

    def _reset(self) -> web.Response:
        """Reset the connection; what is returned goes nowhere."""
        transport = self._incoming.transport
        if transport is not None:
            found = transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        return web.Response(status=500)


def _kept(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that are passed on."""
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP
    )
