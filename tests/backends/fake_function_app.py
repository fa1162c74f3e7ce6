"""A fake of Azure Resource Manager: what it is documented to do with the settings of an app.

It is no Azure: it has one app, and a write replaces its settings, and restarts nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.backends.fake_azure import is_let_in, refusal, serving

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
AZURES = {
    "FUNCTIONS_WORKER_RUNTIME": "python",
    "AzureWebJobsStorage": "DefaultEndpointsProtocol=https;AccountName=acme",
    "WEBSITE_RUN_FROM_PACKAGE": "1",
    "SIGNING_KEY": "@Microsoft.KeyVault(SecretUri=https://acme.vault.azure.net/secrets/key)",
}


@dataclass
class FakeFunctionApp:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    group: str = "acme-web"
    name: str = "acme-orders"
    settings: dict[str, dict[str, str]] = field(default_factory=lambda: {"": dict(AZURES)})
    """By the slot, "" for the app itself."""
    busy: int = 0
    """So many writes meet another operation."""
    asked: list[str] = field(default_factory=list)

    def writes(self) -> list[str]:
        return [each for each in self.asked if each.startswith("PUT")]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if not is_let_in(request):
            return refusal(401, "AuthenticationFailed")
        if "api-version" not in request.query:
            return refusal(400, "MissingApiVersionParameter")
        site = (
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{self.group}"
            f"/providers/Microsoft.Web/sites/{self.name}"
        )
        if not request.path.startswith(f"{site}/"):
            return refusal(404, "ResourceNotFound")
        rest = request.path.removeprefix(f"{site}/")
        slot, _, rest = (
            rest.removeprefix("slots/").partition("/")
            if rest.startswith("slots/")
            else ("", "", rest)
        )
        if slot not in self.settings:
            return refusal(404, "ResourceNotFound")
        match (request.method, rest):
            case ("POST", "config/appsettings/list"):
                return self._told(slot)
            case ("PUT", "config/appsettings"):
                return await self._replace(request, slot)
        return refusal(405, "MethodNotAllowed")

    async def _replace(self, request: web.Request, slot: str) -> web.Response:
        if self.busy:
            self.busy -= 1
            return refusal(409, "Conflict")
        body = await request.json()
        self.settings[slot] = dict(body["properties"])
        return self._told(slot)

    def _told(self, slot: str) -> web.Response:
        about = {"name": "appsettings", "type": "Microsoft.Web/sites/config"}
        return web.json_response({**about, "properties": self.settings[slot]})


@asynccontextmanager
async def fake_function_app(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeFunctionApp]:
    """A fake on a free port of the loopback, for as long as the block."""
    app = FakeFunctionApp()
    async with serving(app.serve, tls=tls) as url:
        app.url = url
        yield app
