"""A fake of Azure App Configuration: what its HTTP API is documented to do with key-values.

It is no App Configuration: it keeps them in this process, and knows no roles, no snapshots and no
revisions. What is kept is what an answer has, by key and label ("" for none).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.backends.fake_azure import is_let_in, serving

MAX_BYTES = 10 << 10
PAGE = 100
_NOW = "2026-01-02T03:04:05+00:00"
_KIND = "application/vnd.microsoft.appconfig.kv+json; charset=utf-8"


@dataclass
class FakeAppConfiguration:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    kept: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    made: int = 0

    def put(self, key: str, value: str, *, label: str = "", **changes: Any) -> dict[str, Any]:
        """Set a value as somebody else: what else was there stays, unless it is changed too."""
        self.made += 1
        usual: dict[str, Any] = {"content_type": None, "tags": {}, "locked": False}
        before = self.kept.get((key, label), usual)
        found = {
            **before,
            **changes,
            "key": key,
            "label": label or None,
            "value": value,
            "etag": f"etag-{self.made}",
            "last_modified": _NOW,
        }
        self.kept[key, label] = found
        return found

    def writes(self) -> list[str]:
        return [each for each in self.asked if not each.startswith("GET")]

    # The API.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if not is_let_in(request):
            return _problem(401, "Unauthorized")
        if "api-version" not in request.query:
            return _problem(400, "Bad Request")
        if request.path == "/kv":
            return self._list(request)
        key, label = request.path.removeprefix("/kv/"), request.query.get("label", "")
        if any(each in ("", ".", "..") for each in (key,)) or "%" in key:
            return _problem(400, "Bad Request")
        seen = self.kept.get((key, label))
        if request.method == "GET":
            return _problem(404, "Not Found") if seen is None else _told(seen)
        if not _is_as_expected(request, seen):
            return _problem(412, "Precondition Failed")
        if seen is not None and seen["locked"]:
            return _problem(409, "Key modification not allowed.")
        if request.method == "DELETE":
            if seen is None:
                return web.Response(status=204)
            return _told(self.kept.pop((key, label)))
        return self._set(key, label, await request.json())

    def _set(self, key: str, label: str, body: dict[str, Any]) -> web.Response:
        about = [key, label, body["value"], body.get("content_type") or ""]
        about += [part for pair in (body.get("tags") or {}).items() for part in pair]
        if sum(len(each.encode()) for each in about) > MAX_BYTES:
            return _problem(413, "Request Entity Too Large")
        kind, tags = body.get("content_type"), body.get("tags") or {}
        return _told(self.put(key, body["value"], label=label, content_type=kind, tags=tags))

    def _list(self, request: web.Request) -> web.Response:
        begins = request.query.get("key", "*")
        wanted = request.query.get("label", "*").replace("\0", "")
        after = request.query.get("after", "")
        keys = sorted(
            key
            for key, label in self.kept
            if label == wanted
            and (key.startswith(begins[:-1]) if begins.endswith("*") else key == begins)
            and key > after
        )
        page = keys[:PAGE]
        found: dict[str, Any] = {"items": [self.kept[key, wanted] for key in page]}
        if len(keys) > PAGE:
            query = request.rel_url.update_query({"after": page[-1]}).raw_query_string
            found["@nextLink"] = f"/kv?{query}"
        return web.json_response(found)


def _is_as_expected(request: web.Request, seen: dict[str, Any] | None) -> bool:
    match, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if match is not None:
        return seen is not None and match in ("*", f'"{seen["etag"]}"')
    return none_match != "*" or seen is None


def _told(found: dict[str, Any]) -> web.Response:
    headers = {"Content-Type": _KIND, "ETag": f'"{found["etag"]}"'}
    return web.Response(body=json.dumps(found).encode(), headers=headers)


def _problem(status: int, title: str) -> web.Response:
    body = {"title": title, "detail": "a text that may quote a value", "status": status}
    headers = {"Content-Type": "application/problem+json; charset=utf-8"}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers)


@asynccontextmanager
async def fake_app_configuration(
    *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeAppConfiguration]:
    """A fake on a free port of the loopback, for as long as the block."""
    store = FakeAppConfiguration()
    async with serving(store.serve, tls=tls) as url:
        store.url = url
        yield store
