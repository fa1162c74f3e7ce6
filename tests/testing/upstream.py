"""A tiny store behind HTTP: texts by path, and a backend that asks it before it does anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from envd.backends.contract import Backend, Item, Key, Op, Outcome, Page, Scope
from envd.backends.errors import BackendError, StoreUnavailable, Throttled
from envd.backends.outcomes import unsuccessful
from tests.testing.broken import Around


@dataclass
class Upstream:
    """What the tiny store has, and what it was asked; `url` is where it is."""

    url: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.raw_path}")
        if request.method in ("PUT", "POST"):
            self.texts[request.path] = await request.read()
        if request.path == "/stream":
            return await self._stream(request)
        found = self.texts.get(request.path)
        if found is None:
            return web.Response(status=404)
        return web.Response(body=found, headers={"X-Host": request.headers["Host"]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Two pieces, and then nothing for as long as the caller likes."""
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b"one\n", b"two\n"):
            await response.write(piece)
        await request.read()
        if "end" in request.query:
            await response.write_eof()
        return response


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """A tiny store on a free port."""
    store = Upstream()
    app = web.Application(client_max_size=1 << 21)
    app.router.add_route("*", "/{path:.*}", store.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    store.url = f"http://{host}:{port}"
    try:
        yield store
    finally:
        await runner.cleanup()


class OverHttp(Around):
    """Asks the tiny store once for each call, and then does it in memory."""

    def __init__(self, inner: Backend, url: str) -> None:
        super().__init__(inner)
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession()
        await super().open()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await super().close()

    async def _ask(self, method: str, path: str) -> None:
        assert self._session is not None
        try:
            async with self._session.request(method, f"{self._url}/{path}") as reply:
                await reply.read()
                wait_s = float(reply.headers.get("Retry-After", "0"))
                status = reply.status
        except aiohttp.ClientError as error:
            raise StoreUnavailable("no answer") from error
        if status == 429:
            raise Throttled("too many calls", retry_after_s=wait_s)
        if status >= 500:
            raise StoreUnavailable("the store is ill")

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        async for page in self.inner.scan(scope, cursor):
            await self._ask("GET", "scan")
            yield page

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        await self._ask("GET", "get")
        return await self.inner.get_many(keys)

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        try:
            await self._ask("PUT", "apply")
        except BackendError as error:
            return [unsuccessful(op, error) for op in ops]
        return await self.inner.apply(ops, idempotency=idempotency)
