"""A fake of DigitalOcean's App Platform: what its API is documented to do with specs of apps.

It is no App Platform: it deploys nothing, counts deployments, and encrypts by remembering. It shows
no secret that it was given, and takes back only those encrypted values that it has given out.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.backends.fake_vault import serving

APP: Final = "4f6c71e2-1e90-4762-9fee-6cc4a0a9f2cf"
TOKEN: Final = "dop_v1_of_a_test"
COMPONENTS: Final = ("services", "workers", "jobs", "functions", "static_sites")
_SCOPES: Final = ("UNSET", "RUN_TIME", "BUILD_TIME", "RUN_AND_BUILD_TIME")


def spec() -> dict[str, Any]:
    """An app with a component, and much that is none of envd's business."""
    return {
        "name": "shop",
        "region": "fra",
        "domains": [{"domain": "shop.example.com", "type": "PRIMARY"}],
        "services": [
            {
                "name": "web",
                "github": {"repo": "example/shop", "branch": "main", "deploy_on_push": True},
                "instance_count": 2,
                "instance_size_slug": "basic-xs",
                "http_port": 8080,
            }
        ],
        "databases": [{"name": "db", "engine": "PG"}],
        "features": ["something-new"],
    }


@dataclass
class FakeDigitalOcean:
    """Specs of apps by id, and what was asked."""

    url: str = ""
    token: str = TOKEN
    specs: dict[str, dict[str, Any]] = field(default_factory=lambda: {APP: spec()})
    deployments: int = 0
    asked: list[str] = field(default_factory=list)
    shows_at_once: bool = True
    """Whether the answer to a write has the values encrypted already."""
    _plain: dict[str, str] = field(default_factory=dict)

    def holder(self, component: str = "") -> dict[str, Any]:
        """What has the variables: an app as a whole, or a component of it."""
        whole = self.specs[APP]
        parts = (each for kind in COMPONENTS for each in whole.get(kind, []))
        return next((each for each in parts if each["name"] == component), whole)

    def entry(self, key: str, component: str = "") -> dict[str, Any] | None:
        envs = self.holder(component).get("envs", [])
        return next((each for each in envs if each["key"] == key), None)

    def edit(self, key: str, value: str, *, component: str = "", **about: str) -> None:
        """Set a variable as somebody else; one that is there stays secret, or not."""
        envs = self.holder(component).setdefault("envs", [])
        found = self.entry(key, component)
        if found is None:
            found = {"key": key}
            envs.append(found)
        found.update(value=value, **about)
        self._encrypt(self.specs[APP])

    def remove(self, key: str, *, component: str = "") -> None:
        holder = self.holder(component)
        holder["envs"] = [each for each in holder["envs"] if each["key"] != key]

    def plain(self, entry: dict[str, Any]) -> str:
        """What the app gets: the value itself."""
        value: str = entry["value"]
        return self._plain.get(value, value)

    def values(self, component: str = "") -> dict[str, str]:
        envs = self.holder(component).get("envs", [])
        return {each["key"]: self.plain(each) for each in envs}

    # The API.

    async def serve(self, request: web.Request) -> web.Response:
        self.asked.append(request.method)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return refused(401, "Unauthorized")
        name = request.path.removeprefix("/v2/apps/")
        if name not in self.specs:
            return refused(404, "not_found")
        if request.method == "PUT":
            sent = json.loads(await request.read())["spec"]
            if not self._is_legal(sent):
                return refused(422, "unprocessable_entity")
            answer = copy.deepcopy(sent)
            self._encrypt(sent)
            self.specs[name] = sent
            self.deployments += 1
            return _app(name, sent if self.shows_at_once else answer)
        return _app(name, self.specs[name])

    def _is_legal(self, sent: dict[str, Any]) -> bool:
        return bool(sent.get("name")) and all(
            re.fullmatch(r"[_A-Za-z][_A-Za-z0-9]*", each["key"])
            and each.get("scope", "UNSET") in _SCOPES
            and each.get("type", "GENERAL") in ("GENERAL", "SECRET")
            and (not each["value"].startswith("EV[") or each["value"] in self._plain)
            for each in _entries(sent)
        )

    def _encrypt(self, held: dict[str, Any]) -> None:
        for each in _entries(held):
            if each.get("type") == "SECRET" and each["value"] not in self._plain:
                encrypted = f"EV[1:{len(self._plain):032}:c2VjcmV0]"
                self._plain[encrypted] = each["value"]
                each["value"] = encrypted


def _entries(held: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from held.get("envs", [])
    for kind in COMPONENTS:
        for each in held.get(kind, []):
            yield from each.get("envs", [])


def _app(name: str, held: dict[str, Any]) -> web.Response:
    return web.json_response({"app": {"id": name, "spec": held, "updated_at": "2026-01-02"}})


def refused(status: int, kind: str) -> web.Response:
    """An error as DigitalOcean answers it, with a text that nobody should ever see."""
    return web.json_response({"id": kind, "message": "it may quote a value"}, status=status)


@asynccontextmanager
async def fake_digitalocean() -> AsyncIterator[FakeDigitalOcean]:
    """A fake on a free port of the loopback, for as long as the block."""
    fake = FakeDigitalOcean()
    async with serving(fake.serve) as url:
        fake.url = url
        yield fake
