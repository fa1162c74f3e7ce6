"""What the fakes of Azure's services share: a server, tokens, and how errors look.

A token is good if it begins with TOKEN. Nothing here is Azure: a fake does what the documents of a
service say that it does, in this process, by a clock that stands still until it is moved.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from envd.backends.azure_settings import Credential

TOKEN = "token-of-a-test"
NOW_S = 1_767_323_045
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeCredential:
    """A credential of the SDK that always has a token."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.scopes: list[str] = []
        self.is_closed = False

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.credentials import AccessToken

        del options
        self.scopes += scopes
        return AccessToken(self.token, 4_000_000_000)

    async def close(self) -> None:
        self.is_closed = True


def fake_credential(transport: Any) -> Credential:
    """Credentials that are always good."""
    del transport
    return Credential(FakeCredential(), "a test")


def is_let_in(request: web.Request) -> bool:
    """Whether a request has a token that is good."""
    return request.headers.get("Authorization", "").startswith(f"Bearer {TOKEN}")


def refusal(status: int, code: str, *, inner: str = "", **headers: str) -> web.Response:
    """An error as Azure answers it, with a text that nobody should ever see."""
    error: dict[str, Any] = {"code": code, "message": "a text that may quote a value"}
    if inner:
        error["innererror"] = {"code": inner}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": error}, status=status, headers=named)


@asynccontextmanager
async def serving(handle: Handle, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request with this; its URL."""
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"{'https' if tls else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()
