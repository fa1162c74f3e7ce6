"""The `consul` backend passes the conformance kit, over a fake of Consul, in all of its layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from envd.backends.consul import ConsulBackend
from envd.backends.contract import Backend, Options
from envd.testing.conformance import ALL_ABILITIES, Ability, BackendConformance, Harness
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
from tests.backends.fake_consul import FakeConsul, fake_consul

PREFIX = "envd"
PLACE = "place"
_TXN = "/v1/txn"


class ConsulHarness(WireHarness):
    """A fake for each case."""

    place = PLACE
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
    missing = {"CURSORS": "a scan is one answer"}  # noqa: RUF012
    foreign: Sequence[str] = ("1st", "no variable", "app1/lower/NAME", "UP/NAME", "NAME_000!other")

    def __init__(self, kind: str, layout: Layout, *, below: bool) -> None:
        super().__init__()
        self.name = f"consul ({kind})"
        self.layout = layout
        self._below = below
        self._server = AsyncExitStack()
        self._consul = FakeConsul()
        if layout == "document":
            self.foreign = ("Upper", "no environment", "app1/Upper")
        if not below:
            self._lack(Ability.BELOW, "it is one document")
            self._lack(Ability.FOREIGN_NAMES, "there is nothing but the document")
            self._lack(Ability.TEMPLATES, "it has one name, the place's")

    def _lack(self, ability: Ability, why: str) -> None:
        self.abilities &= ~ability
        self.missing = {**self.missing, str(ability.name): why}

    async def begin(self) -> None:
        self._consul = await self._server.enter_async_context(fake_consul())
        self.upstream = self._consul.url
        self.proxy = Proxy(self.upstream)
        await super().begin()

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()

    def backend(self, options: Options) -> Backend:
        # Who has no token makes a call more for each listing.
        environ = {"CONSUL_HTTP_TOKEN": "token"}
        return ConsulBackend(replace(options, endpoint=self.proxy.url), environ=environ)

    def _path(self, native: str) -> str:
        place = f"{PREFIX}/{PLACE}"
        return f"{place}/{native}" if self._below else place

    async def contents(self) -> Mapping[str, str | None]:
        start = self._path("")
        return {
            path.removeprefix(start) if self._below else "_": value
            for path, value in self._consul.values().items()
            if not path.endswith("!envd")
        }

    async def others_put(self, native: str, value: str) -> None:
        await self._consul.put(self._path(native), value)

    async def others_delete(self, native: str) -> None:
        await self._consul.delete(self._path(native))

    def write_of(self, native: str) -> Match:
        key = json.dumps(self._path(native)).encode()
        return Match(path=_TXN, body=lambda body: key in body)

    def rules(self, fault: Fault) -> Sequence[Rule]:
        is_write = fault.call is Call.APPLY
        match = Match(path=_TXN) if is_write else Match(path="/v1/kv/.*")
        action = self._action(fault, is_write=is_write)
        return [Rule(match, action, fault.after, fault.times)]

    def _action(self, fault: Fault, *, is_write: bool) -> Action:
        wait = {"Retry-After": f"{fault.retry_after_s:.0f}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return Respond(429, wait, b"rate limit exceeded for operation")
            case Kind.AUTH_EXPIRED:
                return Respond(403, {}, b"rpc error making call: ACL not found")
            case Kind.FORBIDDEN if is_write:
                errors = [{"OpIndex": 0, "What": "Permission denied: token lacks permission"}]
                return Respond(409, {}, json.dumps({"Results": None, "Errors": errors}).encode())
            case Kind.FORBIDDEN:
                return Respond(403, {}, b"Permission denied: token lacks permission")
            case Kind.UNAVAILABLE:
                return Respond(500, {}, b"No cluster leader")
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case _:
                return Rewrite(lambda reply: Reply(200, reply.headers, b'[{"Key": "envd'))

    def is_write(self, noted: Noted) -> bool:
        return noted.method != "GET"


class TestConsul(BackendConformance):
    """Each case with a key for each variable."""

    @pytest.fixture
    def harness(self) -> Harness:
        return ConsulHarness("fake", "per-variable", below=True)


class TestConsulDocuments(BackendConformance):
    """... with a key for each environment."""

    @pytest.fixture
    def harness(self) -> Harness:
        return ConsulHarness("fake, documents", "document", below=True)


class TestConsulDocument(BackendConformance):
    """... with one key."""

    @pytest.fixture
    def harness(self) -> Harness:
        return ConsulHarness("fake, one document", "document", below=False)
