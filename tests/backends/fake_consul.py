"""A fake of Consul: what its HTTP API is documented to do with keys, transactions and tokens.

It is no Consul, whose licence keeps it out of these tests: one process, policies by prefix alone,
and no datacenters but one.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.backends.fake_vault import serving

MAX_BODY_BYTES = 512 << 10
MAX_OPERATIONS = 64
ANONYMOUS = "00000000-0000-0000-0000-000000000002"


@dataclass
class Entry:
    """A key: its value, the indexes that made and changed it, and the flags that go with it."""

    value: bytes
    made: int
    changed: int
    flags: int = 0


@dataclass
class FakeConsul:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    index: int = 10
    entries: dict[str, Entry] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    """The index of the last deletion, by key."""
    tokens: dict[str, str] = field(default_factory=dict)
    """What the keys begin with that a token may read and write, by token, that of "" by who has
    none; without any everybody may everything."""
    default_token: str = ""
    """What the agent shows for those who have none."""
    asked: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    wake_ups: int = 0
    is_over: bool = False

    # What tests do.

    async def put(self, key: str, value: str, flags: int = 0) -> None:
        """Write as somebody else."""
        self.index += 1
        self._set(key, value.encode(), flags)
        await self.wake()

    async def delete(self, key: str) -> None:
        """Delete as somebody else."""
        self.index += 1
        self._delete(key)
        await self.wake()

    async def restore(self, entries: dict[str, Entry], index: int) -> None:
        """Have everything be as it was once, as after a snapshot."""
        self.entries, self.index = dict(entries), index
        self.deleted.clear()
        await self.wake()

    async def wake(self) -> None:
        """Have all blocking queries answer, whether there is anything new or not."""
        self.wake_ups += 1
        async with self.changed:
            self.changed.notify_all()

    def values(self) -> dict[str, str]:
        return {key: each.value.decode() for key, each in sorted(self.entries.items())}

    # Keys.

    def _set(self, key: str, value: bytes, flags: int) -> None:
        """What is equal already is left as it is."""
        before = self.entries.get(key)
        if before is not None and (before.value, before.flags) == (value, flags):
            return
        made = before.made if before is not None else self.index
        self.entries[key] = Entry(value, made, self.index, flags)

    def _delete(self, key: str) -> None:
        if self.entries.pop(key, None) is not None:
            self.deleted[key] = self.index

    def _index_of(self, prefix: str) -> int:
        changes = [each.changed for key, each in self.entries.items() if key.startswith(prefix)]
        changes += [index for key, index in self.deleted.items() if key.startswith(prefix)]
        return max(changes, default=self.index if not self.entries else 1)

    async def asked_for(self, count: int) -> dict[str, str]:
        """The query that comes after so many, as soon as it has come."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.queries) > count)
        return self.queries[count]

    async def _read(
        self, request: web.Request, prefix: str, token: str, wake_ups: int
    ) -> web.Response:
        query = request.query
        if "recurse" not in query and "keys" not in query:
            raise web.HTTPNotImplemented
        wanted = int(query.get("index", "0"))
        if wanted:
            async with self.changed:
                await self.changed.wait_for(
                    lambda: (
                        self._index_of(prefix) != wanted
                        or self.wake_ups != wake_ups
                        or self.is_over
                    )
                )
        below = sorted(key for key in self.entries if key.startswith(prefix))
        found = [key for key in below if key.startswith(self._allowed(token))]
        headers = {"X-Consul-Index": str(self._index_of(prefix))}
        # Who shows no token is not told.
        if found != below and token:
            headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
        if not found:
            return web.Response(status=404, headers=headers)
        body: list[Any] = list(found)
        if "recurse" in query:
            body = [_row(key, self.entries[key]) for key in found]
        return web.json_response(body, headers=headers)

    def _allowed(self, token: str) -> str:
        return self.tokens.get(token, "-" if self.tokens else "")

    def _self(self, token: str) -> web.Response:
        """What a token is; without policies nobody has any."""
        if not self.tokens:
            return web.Response(status=401, text="ACL support disabled")
        accessor = f"accessor-of-{token}" if token else ANONYMOUS
        return web.json_response({"AccessorID": accessor})

    async def _txn(self, raw: bytes, allowed: str) -> web.Response:
        if len(raw) > MAX_BODY_BYTES:
            return web.Response(status=413, text="Request body too large")
        ops = [each["KV"] for each in json.loads(raw)]
        assert len(ops) <= MAX_OPERATIONS
        self.operations += ops
        errors = [
            {"OpIndex": at, "What": what}
            for at, op in enumerate(ops)
            if (what := self._problem(op, allowed))
        ]
        if errors:
            return web.json_response({"Results": None, "Errors": errors}, status=409)
        self.index += 1
        results = []
        for op in ops:
            if op["Verb"].startswith("delete"):
                self._delete(op["Key"])
                continue
            self._set(op["Key"], base64.b64decode(op["Value"]), op.get("Flags", 0))
            row = _row(op["Key"], self.entries[op["Key"]])
            results.append({"KV": {**row, "Value": None}})
        await self.wake()
        return web.json_response({"Results": results, "Errors": None})

    def _problem(self, op: dict[str, Any], allowed: str) -> str:
        key = op["Key"]
        if not key.startswith(allowed):
            return f"Permission denied: token lacks permission 'key:write' on {key!r}"
        before = self.entries.get(key)
        now = before.changed if before is not None else 0
        if op["Verb"] in ("cas", "delete-cas") and op["Index"] != now:
            return f"failed to set key {key!r}, index is stale"
        return ""

    # The API.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        wake_ups = self.wake_ups
        self.asked.append(f"{request.method} {request.path}")
        self.queries.append(dict(request.query))
        async with self.changed:
            self.changed.notify_all()
        token = request.headers.get("X-Consul-Token", "") or self.default_token
        if self.tokens and token and token not in self.tokens:
            return web.Response(status=403, text="ACL not found")
        if request.path == "/v1/acl/token/self":
            return self._self(token)
        if request.path == "/v1/txn":
            return await self._txn(raw, self._allowed(token))
        key = request.path.removeprefix("/v1/kv/")
        match request.method:
            case "GET":
                return await self._read(request, key, token, wake_ups)
            case "PUT":
                await self.put(key, raw.decode())
            case "DELETE":
                await self.delete(key)
        return web.json_response(True)


def _row(key: str, entry: Entry) -> dict[str, Any]:
    value = base64.b64encode(entry.value).decode() if entry.value else None
    return {
        "LockIndex": 0,
        "Key": key,
        "Flags": entry.flags,
        "Value": value,
        "CreateIndex": entry.made,
        "ModifyIndex": entry.changed,
    }


@asynccontextmanager
async def fake_consul() -> AsyncIterator[FakeConsul]:
    """A fake on a free port of the loopback, for as long as the block."""
    consul = FakeConsul()
    async with serving(consul.serve) as url:
        consul.url = url
        try:
            yield consul
        finally:
            consul.is_over = True
            await consul.wake()
