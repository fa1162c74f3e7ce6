"""A fake of Kubernetes: what its API server is documented to do with Secrets and ConfigMaps.

It is no Kubernetes: it knows two sorts of objects, keeps them in this process, and has one list of
what is allowed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.backends.fake_vault import serving

MAX_BYTES = 1 << 20
KINDS = {"secrets": "Secret", "configmaps": "ConfigMap"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
Place = tuple[str, str, str]
"""A namespace, a plural, and a name."""


class Refused(Exception):
    """An answer that is not good."""

    def __init__(self, status: int, reason: str, words: str = "") -> None:
        super().__init__(words or reason)
        self.status = status
        self.reason = reason


@dataclass
class FakeKubernetes:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    number: int = 100
    objects: dict[Place, dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[int, str, Place, dict[str, Any]]] = field(default_factory=list)
    forgotten: int = 0
    """Versions before this one are too old to go on from."""
    lists: dict[str, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)
    """What is left of lists that are read page by page."""
    tokens: set[str] = field(default_factory=lambda: {"token"})
    namespaces: set[str] = field(default_factory=lambda: {"team"})
    forbidden: str = "-"
    """The beginning of paths that no role allows."""
    quota_is_full: bool = False
    asked: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    watches: int = 0
    endings: int = 0
    expulsions: int = 0
    bookmark: bool = False
    is_over: bool = False

    # What tests do.

    async def put(
        self, plural: str, name: str, data: dict[str, str], **more: Any
    ) -> dict[str, Any]:
        """Write the data of an object as somebody else; all else of it stays as it is."""
        place = ("team", plural, name)
        made = deepcopy(self.objects.get(place)) or self._new(plural, name)
        encode = _coded if plural == "secrets" else str
        made["data"] = {key: encode(each) for key, each in data.items()}
        made |= more
        return await self._store(place, made)

    async def delete(self, plural: str, name: str) -> None:
        """Delete as somebody else."""
        await self._remove(("team", plural, name))

    def data(self, plural: str, name: str) -> dict[str, str]:
        """The texts in an object."""
        found = self.objects["team", plural, name].get("data", {})
        decode = _decoded if plural == "secrets" else str
        return {key: decode(each) for key, each in found.items()}

    async def forget(self) -> None:
        """Have everything before now be too old, also for the watches that there are."""
        self.forgotten = self.number
        self.expulsions += 1
        self.lists.clear()
        await self._wake()

    async def end_watches(self) -> None:
        """End all watches, as the server does after a while."""
        self.endings += 1
        await self._wake()

    async def send_bookmarks(self) -> None:
        """Have all watches say how far they are."""
        self.bookmark = True
        await self._wake()

    async def watched(self, count: int) -> None:
        """Wait until there have been so many watches."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.watches >= count)

    async def _wake(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # Objects.

    def _new(self, plural: str, name: str) -> dict[str, Any]:
        made: dict[str, Any] = {"apiVersion": "v1", "kind": KINDS[plural]}
        made["metadata"] = {"name": name}
        return {**made, "type": "Opaque"} if plural == "secrets" else made

    async def _store(self, place: Place, made: dict[str, Any]) -> dict[str, Any]:
        """Give an object the next version."""
        self.number += 1
        before = self.objects.get(place)
        uid = before["metadata"]["uid"] if before is not None else f"uid-{self.number}"
        about = {"namespace": place[0], "uid": uid, "resourceVersion": str(self.number)}
        made["metadata"] = {**made["metadata"], **about}
        self.objects[place] = made
        kind = "ADDED" if before is None else "MODIFIED"
        self.events.append((self.number, kind, place, deepcopy(made)))
        await self._wake()
        return made

    async def _remove(self, place: Place) -> None:
        gone = self.objects.pop(place, None)
        if gone is None:
            return
        self.number += 1
        gone["metadata"]["resourceVersion"] = str(self.number)
        self.events.append((self.number, "DELETED", place, gone))
        await self._wake()

    def _check(self, plural: str, made: dict[str, Any]) -> None:
        """What the server validates."""
        data = made.get("data") or {}
        if not _NAME.fullmatch(made["metadata"]["name"]):
            raise Refused(422, "Invalid", "a lowercase RFC 1123 subdomain")
        if not all(map(_KEY.fullmatch, data)):
            raise Refused(422, "Invalid", "a valid config key")
        raw = [
            base64.b64decode(each, validate=True) if plural == "secrets" else each.encode()
            for each in data.values()
        ]
        if sum(map(len, raw)) > MAX_BYTES:
            raise Refused(422, "Invalid", "Too long: may not be more than 1048576 bytes")

    async def _created(self, namespace: str, plural: str, made: dict[str, Any]) -> web.Response:
        place = (namespace, plural, made["metadata"]["name"])
        if namespace not in self.namespaces:
            raise Refused(404, "NotFound", "namespaces not found")
        if place in self.objects:
            raise Refused(409, "AlreadyExists")
        if self.quota_is_full:
            raise Refused(403, "Forbidden", "exceeded quota: objects")
        self._check(plural, made)
        return web.json_response(await self._store(place, made), status=201)

    async def _replaced(self, place: Place, made: dict[str, Any]) -> web.Response:
        now = self.objects[place]["metadata"]
        for name in ("resourceVersion", "uid"):
            if made["metadata"].get(name, now[name]) != now[name]:
                raise Refused(409, "Conflict", "the object has been modified")
        if self.objects[place].get("immutable"):
            raise Refused(422, "Invalid", "field is immutable when `immutable` is set")
        self._check(place[1], made)
        return web.json_response(await self._store(place, made))

    async def _deleted(self, place: Place, options: dict[str, Any]) -> web.Response:
        now = self.objects[place]["metadata"]
        for name, wanted in options.get("preconditions", {}).items():
            if wanted != now[name]:
                raise Refused(409, "Conflict", "the precondition does not hold")
        if self.objects[place]["metadata"].get("finalizers"):
            going = deepcopy(self.objects[place])
            going["metadata"]["deletionTimestamp"] = "2026-11-30T12:00:00Z"
            return web.json_response(await self._store(place, going))
        await self._remove(place)
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    # Lists and watches.

    def _listed(self, namespace: str, plural: str, query: dict[str, str]) -> web.Response:
        following = query.get("continue", "")
        if following and following not in self.lists:
            raise Refused(410, "Expired", "the provided continue parameter is too old")
        version, found = (
            self.lists.pop(following)
            if following
            else (self.number, self._selected(namespace, plural, query))
        )
        limit = int(query.get("limit", "0")) or len(found)
        about = {"resourceVersion": str(version)}
        if len(found) > limit:
            about["continue"] = f"continue-{len(self.asked)}"
            self.lists[about["continue"]] = (version, found[limit:])
        body = {"kind": f"{KINDS[plural]}List", "apiVersion": "v1", "metadata": about}
        return web.json_response({**body, "items": found[:limit]})

    def _selected(self, namespace: str, plural: str, query: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {name: each for name, each in deepcopy(made).items() if name != "kind"}
            for place, made in sorted(self.objects.items())
            if place[:2] == (namespace, plural) and _fits(made, query)
        ]

    async def _watch(self, request: web.Request, namespace: str, plural: str) -> web.StreamResponse:
        query = dict(request.query)
        told = int(query["resourceVersion"])
        if told < self.forgotten:
            raise Refused(410, "Expired", "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        endings, expulsions = self.endings, self.expulsions
        self.watches += 1
        await self._wake()
        while True:
            for number, kind, place, made in self.events:
                if number > told and place[:2] == (namespace, plural) and _fits(made, query):
                    await _say(response, kind, made)
            told = self.number
            if self.bookmark:
                self.bookmark = False
                about = {"resourceVersion": str(told)}
                await _say(response, "BOOKMARK", {"metadata": about})
            if self.is_over or self.endings != endings:
                return response
            if self.expulsions != expulsions:
                await _say(response, "ERROR", {"kind": "Status", "code": 410, "reason": "Gone"})
                return response
            await self._until_more(told, endings, expulsions)

    async def _until_more(self, told: int, endings: int, expulsions: int) -> None:
        async with self.changed:
            await self.changed.wait_for(
                lambda: (
                    self.number > told
                    or self.is_over
                    or self.bookmark
                    or self.endings != endings
                    or self.expulsions != expulsions
                )
            )

    # The API.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.asked.append(f"{request.method} {request.path}")
        self.queries.append(dict(request.query))
        try:
            return await self._served(request, json.loads(raw) if raw else {})
        except Refused as refused:
            about = {"status": "Failure", "reason": refused.reason, "message": str(refused)}
            body = {"kind": "Status", "apiVersion": "v1", "code": refused.status, **about}
            return web.json_response(body, status=refused.status)

    async def _served(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Refused(401, "Unauthorized")
        if request.path.startswith(self.forbidden):
            raise Refused(403, "Forbidden", "secrets is forbidden: User cannot list resource")
        parts = request.path.removeprefix("/api/v1/namespaces/").split("/")
        if len(parts) == 2:
            namespace, plural = parts
            if request.method == "POST":
                return await self._created(namespace, plural, body)
            if "watch" in request.query:
                return await self._watch(request, namespace, plural)
            return self._listed(namespace, plural, dict(request.query))
        place = (parts[0], parts[1], parts[2])
        if place not in self.objects:
            raise Refused(404, "NotFound", f'{parts[1]} "{parts[2]}" not found')
        match request.method:
            case "PUT":
                return await self._replaced(place, body)
            case "DELETE":
                return await self._deleted(place, body)
        return web.json_response(self.objects[place])


def _fits(made: dict[str, Any], query: dict[str, str]) -> bool:
    name, _, wanted = query.get("fieldSelector", "").partition("=")
    return not name or wanted == (made["metadata"]["name"] if "." in name else made.get("type"))


async def _say(response: web.StreamResponse, kind: str, made: dict[str, Any]) -> None:
    await response.write(json.dumps({"type": kind, "object": made}).encode() + b"\n")


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


@asynccontextmanager
async def fake_kubernetes() -> AsyncIterator[FakeKubernetes]:
    """A fake on a free port of the loopback, for as long as the block."""
    kubernetes = FakeKubernetes()
    async with serving(kubernetes.serve) as url:
        kubernetes.url = url
        try:
            yield kubernetes
        finally:
            kubernetes.is_over = True
            await kubernetes._wake()


def kubeconfig(url: str, token: str = "token") -> str:
    """What is in a kubeconfig whose context `here` leads to this server."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "here",
        }
    )
