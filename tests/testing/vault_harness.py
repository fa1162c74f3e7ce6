"""The harness of the `vault` backend: a place in any server that speaks Vault's API, by a proxy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import aiohttp

from envd.backends.contract import Backend, Options
from envd.backends.vault import LIMITS, VaultBackend
from envd.testing.conformance import ALL_ABILITIES, Ability
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Layout
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
from tests.backends.fake_vault import ROOT_TOKEN, fake_vault

MOUNT = "secret"
PREFIX = "envd"
_DATA = f"/v1/{MOUNT}/data/.*"
_NAMES = f"/v1/{MOUNT}/metadata/.*"


def _answer(status: int, error: str, **headers: str) -> Respond:
    body = json.dumps({"errors": [error]}).encode()
    return Respond(status, {"Content-Type": "application/json", **headers}, body)


class VaultHarness(WireHarness):
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
    missing = {"CURSORS": "a scan reads all names at its beginning"}  # noqa: RUF012
    foreign: Sequence[str] = ("1st", "no variable", "app1/lower/NAME", "UP/NAME")

    def __init__(
        self, name: str, place: str, *, layout: Layout, below: bool, token: str, others: str
    ) -> None:
        """`token` is that of the backend, `others` that of everybody else."""
        super().__init__()
        self.name = name
        self.layout = layout
        self.place = place
        self._token = token
        self._others = others
        self._below = below
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

    async def begin(self) -> None:
        self.upstream = await self.find_upstream()
        self.proxy = Proxy(self.upstream)
        await super().begin()
        self._session = aiohttp.ClientSession(headers={"X-Vault-Token": self._others})

    async def end(self) -> None:
        for native in await self._natives():
            await self.others_delete(native)
        assert self._session is not None
        await self._session.close()
        await super().end()

    def backend(self, options: Options) -> Backend:
        settings = {"mount": MOUNT, "path_prefix": PREFIX, "token_env": "TOKEN"}
        return VaultBackend(
            replace(options, settings=settings, endpoint=self.proxy.url),
            environ={"TOKEN": self._token},
        )

    # What others do.

    async def contents(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for native in await self._natives():
            status, body = await self._ask("GET", f"data/{self._path(native)}")
            data = body["data"]["data"] if status == 200 else None
            if data is not None:
                found[native] = self._value(data)
        return found

    def _value(self, data: dict[str, Any]) -> str | None:
        if self.layout == "per-variable":
            return str(data["value"])
        texts = {name: each for name, each in data.items() if name != "_envd"}
        return json.dumps(texts, ensure_ascii=False)

    async def _natives(self) -> list[str]:
        """All names at the place, those of deleted secrets too."""
        if not self._below:
            return ["_"]
        folders, found = [""], list[str]()
        for folder in folders:
            path = f"{PREFIX}/{self.place}/{folder}".rstrip("/")
            _, body = await self._ask("GET", f"metadata/{path}?list=true")
            keys = body.get("data", {}).get("keys", [])
            folders += [f"{folder}{each}" for each in keys if each.endswith("/")]
            found += [f"{folder}{each}" for each in keys if not each.endswith("/")]
        return found

    def _path(self, native: str) -> str:
        place = f"{PREFIX}/{self.place}"
        return f"{place}/{native}" if self._below else place

    async def others_put(self, native: str, value: str) -> None:
        data = {"value": value} if self.layout == "per-variable" else json.loads(value)
        await self._ask("POST", f"data/{self._path(native)}", {"data": data})

    async def others_delete(self, native: str) -> None:
        await self._ask("DELETE", f"metadata/{self._path(native)}")

    def write_of(self, native: str) -> Match:
        return Match(method="POST", path=re.escape(f"/v1/{MOUNT}/data/{self._path(native)}"))

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Ask the server itself, and not by the proxy."""
        assert self._session is not None
        url = f"{self.upstream}/v1/{MOUNT}/{path}"
        async with self._session.request(method, url, json=body) as reply:
            assert reply.status in (200, 204, 404), f"{method} answered {reply.status}"
            return reply.status, await reply.json() if reply.status != 204 else {}

    # What goes wrong, and what it costs.

    def rules(self, fault: Fault) -> Sequence[Rule]:
        rule = Rule(self._match(fault), self._action(fault), self._after(fault), fault.times)
        if fault.kind is not Kind.AUTH_EXPIRED:
            return [rule]
        denied = _answer(403, "permission denied")
        about = Match(path="/v1/auth/token/lookup-self")
        return [rule, Rule(about, denied, times=fault.times)]

    def _match(self, fault: Fault) -> Match:
        if fault.call is Call.APPLY:
            return Match(method="POST", path=_DATA)
        names = fault.call in (Call.SCAN, Call.PROBE) and self._below and not fault.after
        return Match(method="GET", path=_NAMES if names else _DATA)

    def _after(self, fault: Fault) -> int:
        """Of a scan the secrets of each page are read, one by one."""
        return fault.after * LIMITS.page_items if fault.call is Call.SCAN else fault.after

    def _action(self, fault: Fault) -> Action:
        wait = {"Retry-After": f"{fault.retry_after_s:.0f}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return _answer(429, "request path: rate limit quota exceeded", **wait)
            case Kind.AUTH_EXPIRED | Kind.FORBIDDEN:
                return _answer(403, "permission denied")
            case Kind.UNAVAILABLE:
                return _answer(503, "Vault is sealed")
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case _:
                return Rewrite(lambda reply: Reply(200, reply.headers, b'{"data": {"data'))

    def is_write(self, noted: Noted) -> bool:
        return noted.method != "GET"


class FakeVaultHarness(VaultHarness):
    """A fake for each case."""

    def __init__(self, name: str, layout: Layout, *, below: bool) -> None:
        super().__init__(
            f"vault ({name})",
            "place",
            layout=layout,
            below=below,
            token=ROOT_TOKEN,
            others=ROOT_TOKEN,
        )
        self._server = AsyncExitStack()

    async def find_upstream(self) -> str:
        return (await self._server.enter_async_context(fake_vault())).url

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()
