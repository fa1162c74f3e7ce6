"""A node behind an HTTP server, and a client of it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from envd.net.http import HttpServer
from tests.net.world import ANY_PORT, PATIENCE_S, TOKEN, FakeAccess, Node

ENVIRONMENT = "/v1/environments/web/prod"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of a problem, after checking that it is a whole one."""
        assert self.headers["Content-Type"] == "application/problem+json"
        problem = self.document
        assert {"type", "title", "status", "detail", "reason", "kind"} <= problem.keys()
        assert problem["status"] == self.status
        return str(problem["reason"])


@dataclass
class Http:
    """A node behind an HTTP server, and a client."""

    node: Node
    server: HttpServer
    port: int
    session: aiohttp.ClientSession
    ready: list[bool]

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `body` is bytes, or becomes JSON."""
        given = {"Authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = None if data is None else io.BytesIO(data)
        async with self.session.request(
            method, path, data=sent, headers={**given, **(headers or {})}
        ) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    def unsent_bytes(self) -> int:
        """How much the server holds that its clients have not taken yet."""
        assert self.server._runner is not None
        assert self.server._runner.server is not None
        transports = [one.transport for one in self.server._runner.server.connections]
        return sum(one.get_write_buffer_size() for one in transports if one is not None)

    async def raw(self, sent: bytes) -> bytes:
        """Whatever comes back for these bytes, until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        async with asyncio.timeout(PATIENCE_S):
            received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return received


@dataclass
class Event:
    """One server-sent event; a heartbeat has no name and no data."""

    name: str = ""
    data: Any = None
    id: str = ""


@dataclass
class Events:
    """The events of a watch."""

    response: aiohttp.ClientResponse

    async def next(self) -> Event | None:
        """The next event, or None once the stream has ended as it should."""
        event, some = Event(), False
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.response.content.readline()).decode():
                name, _, text = line.removesuffix("\n").partition(": ")
                if line == "\n" and some:
                    return event
                match name:
                    case "event":
                        event.name, some = text, True
                    case "data":
                        event.data, some = json.loads(text), True
                    case "id":
                        event.id, some = text, True
        return None

    async def take(self, count: int) -> list[Event]:
        """The next `count` events."""
        taken = [await self.next() for _ in range(count)]
        return [event for event in taken if event is not None]


@asynccontextmanager
async def watching(
    http: Http, query: str = "", *, last_id: str = "", token: str = TOKEN
) -> AsyncIterator[Events]:
    """Watch while inside."""
    headers = {"Authorization": f"Bearer {token}"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    async with http.session.get(f"/v1/watch{query}", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        yield Events(response)


@asynccontextmanager
async def http_to(node: Node, **options: Any) -> AsyncIterator[Http]:
    """Serve `node` over HTTP while inside."""
    ready = [True]
    server = HttpServer(
        node.api, FakeAccess(), ANY_PORT, ["envd.example"], lambda: ready[0], **options
    )
    port = await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield Http(node, server, port, session, ready)
    finally:
        node.api.stop()
        await server.stop(0)
