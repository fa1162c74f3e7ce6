"""A fake of etcd: what the JSON gateway is documented to do with keys, transactions and users.

It is no etcd: one process, one member, permissions by prefix alone, and tokens that end when a test
says so. What the real one does `make test-real` tries.
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

MAX_REQUEST_BYTES = 3 << 19
MAX_OPERATIONS = 128


@dataclass(frozen=True)
class Event:
    """What a revision did to a key; `value` is None for a deletion."""

    revision: int
    key: bytes
    value: bytes | None
    made: int


class Refused(Exception):
    """An answer that is not good."""

    def __init__(self, status: int, code: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.code = code


@dataclass
class FakeEtcd:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    revision: int = 1
    compacted: int = 0
    events: list[Event] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    """Passwords by name; without any nobody is asked who they are."""
    tokens: dict[str, str] = field(default_factory=dict)
    allowed: bytes = b""
    """What the keys begin with that a user may read and write."""
    hangs_up: bool = False
    """It closes the connection on a token that has ended, as some releases do."""
    fragments: bool = False
    """It tells each event in a message of its own, to who takes such."""
    asked: list[str] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    is_over: bool = False

    # What tests do.

    async def put(self, key: str, value: str) -> None:
        """Write as somebody else."""
        await self._commit([(key.encode(), value.encode())])

    async def delete(self, key: str) -> None:
        """Delete as somebody else."""
        await self._commit([(key.encode(), None)])

    async def put_many(self, values: dict[str, str]) -> None:
        """Write several in one revision."""
        await self.put_bytes({key.encode(): each.encode() for key, each in values.items()})

    async def put_bytes(self, values: dict[bytes, bytes]) -> None:
        """... of any bytes."""
        await self._commit(list(values.items()))

    def compact(self) -> None:
        """Forget everything before now."""
        self.compacted = self.revision

    async def end_watches(self) -> None:
        """Close all of them, as a member does that stops."""
        self.is_over = True
        async with self.changed:
            self.changed.notify_all()

    def values(self) -> dict[str, str]:
        return {key.decode(): (each.value or b"").decode() for key, each in self._at(self.revision)}

    # Keys.

    def _at(self, revision: int) -> list[tuple[bytes, Event]]:
        """What there was at a revision, by key."""
        now: dict[bytes, Event] = {}
        for event in self.events:
            if event.revision > revision:
                break
            now[event.key] = event
        return sorted((key, each) for key, each in now.items() if each.value is not None)

    async def _commit(self, writes: list[tuple[bytes, bytes | None]]) -> None:
        there = dict(self._at(self.revision))
        done = [each for each in writes if each[1] is not None or each[0] in there]
        if not done:
            return
        self.revision += 1
        for key, value in done:
            made = there[key].made if key in there else self.revision
            self.events.append(Event(self.revision, key, value, made))
        async with self.changed:
            self.changed.notify_all()

    def _range(self, body: dict[str, Any]) -> dict[str, Any]:
        revision = int(body.get("revision", 0)) or self.revision
        if revision < self.compacted:
            raise Refused(400, 11, "etcdserver: mvcc: required revision has been compacted")
        if revision > self.revision:
            raise Refused(400, 11, "etcdserver: mvcc: required revision is a future revision")
        start, end = _span(body)
        self._check(start, end)
        found = [each for each in self._at(revision) if start <= each[0] < end]
        limit = int(body.get("limit", 0))
        kvs = [_kv(each, body.get("keys_only", False)) for _, each in found[: limit or None]]
        # What is empty or 0 is left out.
        answer: dict[str, Any] = {"header": self._header()}
        answer |= {"kvs": kvs, "count": str(len(found))} if found else {}
        return {**answer, "more": True} if limit and len(found) > limit else answer

    async def _txn(self, body: dict[str, Any]) -> dict[str, Any]:
        ops = [*body.get("success", []), *body.get("failure", [])]
        if max(len(body.get(each, [])) for each in ("compare", "success")) > MAX_OPERATIONS:
            raise Refused(400, 3, "etcdserver: too many operations in txn request")
        for op in ops:
            ((_, about),) = op.items()
            self._check(*_span(about))
        there = dict(self._at(self.revision))
        is_so = all(
            (there[key].revision if key in there else 0) == int(each["mod_revision"])
            for each in body.get("compare", [])
            for key in [base64.b64decode(each["key"])]
        )
        chosen = body.get("success" if is_so else "failure", [])
        responses: list[dict[str, Any]] = [
            {"response_range": self._range(op["request_range"])}
            if "request_range" in op
            else {"response_put": {}}
            for op in chosen
        ]
        await self._commit([each for op in chosen for each in _write_of(op)])
        answer: dict[str, Any] = {"header": self._header(), "responses": responses}
        return {**answer, "succeeded": True} if is_so else answer

    def _header(self) -> dict[str, str]:
        return {"cluster_id": "1", "member_id": "1", "revision": str(self.revision)}

    # Users.

    def _authenticate(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.users:
            raise Refused(400, 9, "etcdserver: authentication is not enabled")
        if self.users.get(body["name"]) != body["password"]:
            words = "etcdserver: authentication failed, invalid user ID or password"
            raise Refused(400, 3, words)
        token = f"token-{len(self.asked)}"
        self.tokens[token] = body["name"]
        return {"header": self._header(), "token": token}

    def _check(self, start: bytes, end: bytes) -> None:
        if not start.startswith(self.allowed) or end[:-1] < self.allowed[:-1]:
            raise Refused(403, 7, "etcdserver: permission denied")

    # The API.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        raw = await request.read()
        try:
            return await self._served(request, raw)
        except Refused as refused:
            words = str(refused)
            body = {"error": words, "code": refused.code, "message": words}
            return web.json_response(body, status=refused.status)

    async def _served(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body = json.loads(raw)
        if request.path == "/v3/auth/authenticate":
            return web.json_response(self._authenticate(body))
        token = request.headers.get("Authorization", "")
        is_known = not self.users or token in self.tokens
        if not is_known and self.hangs_up and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if request.path == "/v3/watch":
            return await self._watch(request, body["create_request"], is_known=is_known)
        if not is_known and token:
            raise Refused(401, 16, "etcdserver: invalid auth token")
        if not is_known:
            raise Refused(400, 3, "etcdserver: user name is empty")
        if _size(body) > MAX_REQUEST_BYTES:
            raise Refused(400, 3, "etcdserver: request is too large")
        match request.path:
            case "/v3/kv/range":
                return web.json_response(self._range(body))
            case "/v3/kv/txn":
                return web.json_response(await self._txn(body))
            case "/v3/kv/put":
                await self._commit([*_write_of({"request_put": body})])
                return web.json_response({"header": self._header()})
            case "/v3/kv/deleterange":
                start, end = _span(body)
                keys = [key for key, _ in self._at(self.revision) if start <= key < end]
                await self._commit([(key, None) for key in keys])
                return web.json_response({"header": self._header()})
            case _:
                return web.Response(status=404, text="Not Found\n")

    async def _watch(
        self, request: web.Request, body: dict[str, Any], *, is_known: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        start, end = _span(body)
        told = int(body.get("start_revision", self.revision + 1)) - 1
        created: dict[str, Any] = {"header": self._header(), "created": True}
        if not is_known:
            reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
            await _say(response, {**created, "canceled": True, "cancel_reason": reason})
            return response
        await _say(response, created)
        if told < self.compacted - 1:
            about = {"canceled": True, "compact_revision": str(self.compacted)}
            await _say(response, {"header": {"cluster_id": "1"}, **about})
            return response
        while True:
            new = [each for each in self.events if each.revision > told and start <= each.key < end]
            told = self.revision
            events = [_event(each) for each in new]
            while self.fragments and body.get("fragment") and len(events) > 1:
                piece = {"header": self._header(), "fragment": True, "events": events[:1]}
                await _say(response, piece)
                del events[0]
            if events:
                await _say(response, {"header": self._header(), "events": events})
            await self._changed_since(told)
            if self.is_over:
                return response

    async def _changed_since(self, revision: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.revision > revision or self.is_over)


async def _say(response: web.StreamResponse, result: dict[str, Any]) -> None:
    await response.write(json.dumps({"result": result}).encode() + b"\n")


def _span(body: dict[str, Any]) -> tuple[bytes, bytes]:
    start = base64.b64decode(body["key"])
    return start, base64.b64decode(body["range_end"]) if "range_end" in body else start + b"\0"


def _write_of(op: dict[str, Any]) -> list[tuple[bytes, bytes | None]]:
    match op:
        case {"request_put": {"key": str(key), **rest}}:
            return [(base64.b64decode(key), base64.b64decode(str(rest.get("value", ""))))]
        case {"request_delete_range": {"key": str(key)}}:
            return [(base64.b64decode(key), None)]
        case _:
            return []


def _size(body: object) -> int:
    """About how many bytes a request has for etcd itself, which has no base64."""
    match body:
        case dict():
            return sum(map(_size, body.values()))
        case list():
            return sum(map(_size, body))
        case str():
            return len(body) * 3 // 4
        case _:
            return 8


def _kv(event: Event, keys_only: bool) -> dict[str, str]:
    found = {
        "key": base64.b64encode(event.key).decode(),
        "create_revision": str(event.made),
        "mod_revision": str(event.revision),
    }
    return found if keys_only or not event.value else {**found, "value": _coded(event.value)}


def _event(event: Event) -> dict[str, Any]:
    if event.value is None:
        kv = {"key": _coded(event.key), "mod_revision": str(event.revision)}
        return {"type": "DELETE", "kv": kv}
    return {"kv": _kv(event, False)}


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@asynccontextmanager
async def fake_etcd() -> AsyncIterator[FakeEtcd]:
    """A fake on a free port of the loopback, for as long as the block."""
    etcd = FakeEtcd()
    async with serving(etcd.serve) as url:
        etcd.url = url
        try:
            yield etcd
        finally:
            await etcd.end_watches()
