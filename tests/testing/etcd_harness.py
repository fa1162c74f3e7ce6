"""The harness of the `etcd` backend: a place in any server that speaks the gateway's API, by a
proxy."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp

from envd.backends.contract import Backend, Options
from envd.backends.etcd import EtcdBackend
from envd.testing.conformance import ALL_ABILITIES, Ability
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Calls, Layout
from envd.testing.proxy import (
    DropReply,
    Match,
    Noted,
    Proxy,
    Reply,
    Reset,
    Respond,
    Rewrite,
    Rule,
)
from envd.testing.proxy_rules import Action
from envd.testing.wire import WireHarness

PREFIX = "/envd"
_RANGE = "/v3/kv/range"
_TXN = "/v3/kv/txn"
_JSON = {"Content-Type": "application/json"}


def _answer(status: int, code: int, words: str, **headers: str) -> Respond:
    body = json.dumps({"error": words, "code": code, "message": words}).encode()
    return Respond(status, {**_JSON, **headers}, body)


def _writes(body: bytes) -> bool:
    return b'"request_put"' in body or b'"request_delete_range"' in body


def _reads(body: bytes) -> bool:
    return not _writes(body)


class EtcdHarness(WireHarness):
    """`place` is one that nobody has used before; everything below it goes with the case."""

    abilities = ALL_ABILITIES & ~Ability.CURSORS
    wire_faults = frozenset(
        {
            Kind.THROTTLED,
            Kind.AUTH_EXPIRED,
            Kind.FORBIDDEN,
            Kind.UNAVAILABLE,
            Kind.RESET,
            Kind.LOST_REPLY,
            Kind.MALFORMED,
        }
    )
    missing = {"CURSORS": "a scan is one revision, which nobody keeps"}  # noqa: RUF012
    foreign: Sequence[str] = ("1st", "no variable", "app1/lower/NAME", "UP/NAME", "NAME_000!other")

    def __init__(
        self,
        name: str,
        place: str,
        *,
        layout: Layout,
        below: bool,
        user: tuple[str, str] = ("", ""),
    ) -> None:
        """`user` is the name and the password of the backend."""
        super().__init__()
        self.name = name
        self.layout = layout
        self.place = place
        self._below = below
        self._user = user
        self._written = 0
        self._session: aiohttp.ClientSession | None = None
        if layout == "document":
            self.foreign = ("Upper", "no environment", "app1/Upper")
        if not below:
            self._lack(Ability.BELOW, "it is one document")
            self._lack(Ability.FOREIGN_NAMES, "there is nothing but the document")
            self._lack(Ability.TEMPLATES, "it has one name, the place's")

    def _lack(self, ability: Ability, why: str) -> None:
        self.abilities &= ~ability
        self.missing = {**self.missing, str(ability.name): why}

    async def find_upstream(self) -> str:
        """The server's URL; it is there already, or is started now."""
        raise NotImplementedError(f"{type(self).__name__} has no server")

    async def token(self) -> str:
        """The token of everybody else."""
        return ""

    async def begin(self) -> None:
        self.upstream = await self.find_upstream()
        self.proxy = Proxy(self.upstream)
        # What writes and what reads is told by the body, so it is counted here.
        self.proxy.add(Rule(Match(path=_TXN, body=self._count), Reset()))
        await super().begin()
        headers = {"Authorization": await self.token()}
        self._session = aiohttp.ClientSession(headers=headers if headers["Authorization"] else {})

    def _count(self, body: bytes) -> bool:
        self._written += _writes(body)
        return False

    async def end(self) -> None:
        await self._ask("kv/deleterange", self._span())
        assert self._session is not None
        await self._session.close()
        await super().end()

    def backend(self, options: Options) -> Backend:
        user, password = self._user
        named = {"user_env": "NAME", "password_env": "WORD"} if user else {}
        return EtcdBackend(
            replace(options, settings={"path_prefix": PREFIX, **named}, endpoint=self.proxy.url),
            environ={"NAME": user, "WORD": password},
        )

    # What others do.

    def _path(self, native: str) -> str:
        place = f"{PREFIX}/{self.place}"
        return f"{place}/{native}" if self._below else place

    def _span(self) -> dict[str, str]:
        start = self._path("")
        end = f"{start[:-1]}0" if self._below else f"{start}~"
        return {"key": _coded(start), "range_end": _coded(end)}

    async def contents(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for each in (await self._ask("kv/range", self._span())).get("kvs", []):
            path = base64.b64decode(each["key"]).decode()
            if not path.endswith("!envd"):
                native = path.removeprefix(self._path("")) if self._below else "_"
                found[native] = base64.b64decode(each.get("value", "")).decode()
        return found

    async def others_put(self, native: str, value: str) -> None:
        await self._ask("kv/put", {"key": _coded(self._path(native)), "value": _coded(value)})

    async def others_delete(self, native: str) -> None:
        await self._ask("kv/deleterange", {"key": _coded(self._path(native))})

    def write_of(self, native: str) -> Match:
        key = json.dumps(_coded(self._path(native))).encode()
        return Match(path=_TXN, body=lambda body: _writes(body) and key in body)

    async def _ask(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask the server itself, and not by the proxy."""
        assert self._session is not None
        async with self._session.post(f"{self.upstream}/v3/{path}", json=body) as reply:
            assert reply.status == 200, f"{path} answered {reply.status}"
            found: dict[str, Any] = await reply.json()
            return found

    # What goes wrong, and what it costs.

    def rules(self, fault: Fault) -> Sequence[Rule]:
        match fault.call:
            case Call.APPLY:
                match = Match(path=_TXN, body=_writes)
            case Call.GET:
                match = Match(path=_TXN, body=_reads)
            case Call.SCAN if not self._below:
                match = Match(path=_TXN, body=_reads)
            case _:
                match = Match(path=_RANGE)
        return [Rule(match, self._action(fault), fault.after, fault.times)]

    def _action(self, fault: Fault) -> Action:
        wait = {"Retry-After": f"{fault.retry_after_s:.0f}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return _answer(429, 8, "etcdserver: too many requests", **wait)
            case Kind.AUTH_EXPIRED:
                return _answer(401, 16, "etcdserver: invalid auth token")
            case Kind.FORBIDDEN:
                return _answer(403, 7, "etcdserver: permission denied")
            case Kind.UNAVAILABLE:
                return _answer(503, 14, "etcdserver: no leader")
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case _:
                return Rewrite(lambda reply: Reply(200, reply.headers, b'{"header": {"revision'))

    def is_write(self, noted: Noted) -> bool:
        return False

    def calls(self) -> Calls:
        whole = super().calls()
        return Calls(whole.reads - self._written, self._written)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
