"""The harness of the `digitalocean-app` backend: an app of the fake, behind the proxy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from envd.backends.contract import Backend, Options
from envd.backends.digitalocean_app import AppBackend
from envd.backends.turns import Turns
from envd.testing.conformance import Ability
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.proxy import DropReply, Match, Noted, Proxy, Reply, Reset, Respond, Rewrite, Rule
from envd.testing.proxy_rules import Action
from envd.testing.wire import WireHarness
from tests.backends.fake_digitalocean import APP, TOKEN, FakeDigitalOcean, fake_digitalocean

_JSON: Final = {"Content-Type": "application/json"}


def _refusal(status: int, **headers: str) -> Respond:
    body = json.dumps({"id": "refused", "message": "it may quote a value"}).encode()
    return Respond(status, {**_JSON, **headers}, body)


class DigitalOceanHarness(WireHarness):
    """The variables of the app as a whole, or those of one component."""

    abilities = Ability.OTHERS | Ability.MEANWHILE | Ability.RESTART | Ability.COUNTS
    missing = {  # noqa: RUF012
        "BELOW": "an app is one environment",
        "FOREIGN_NAMES": "every name that an app can have is one of ours",
        "TEMPLATES": "an app is one environment, so names have just one part",
        "CURSORS": "there is one page",
        "OWNERSHIP": "a spec has no room to say who made a variable",
        "POSTCHECK": "the store keeps no version that shows whom a write overtook",
        "EMPTY_PAGE": "there is one page",
        "LIST_VALUES": "secrets are shown encrypted only",
        "WHOLE_DOCUMENT": "each variable of a spec is an item",
    }
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

    def __init__(self, component: str = "") -> None:
        super().__init__()
        self.component = component
        self.place = f"{APP}/{component}" if component else APP
        self.name = f"digitalocean-app ({'fake, a component' if component else 'fake'})"
        self.turns = Turns()
        self.fake = FakeDigitalOcean()
        self._server = AsyncExitStack()

    async def begin(self) -> None:
        self.fake = await self._server.enter_async_context(fake_digitalocean())
        self.proxy = Proxy(self.fake.url)
        await super().begin()

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()

    def backend(self, options: Options) -> Backend:
        return AppBackend(
            replace(options, endpoint=self.proxy.url, credentials="token-env:TOKEN"),
            self.turns,
            environ={"TOKEN": TOKEN},
        )

    # What others do.

    async def contents(self) -> Mapping[str, str | None]:
        return self.fake.values(self.component)

    async def others_put(self, native: str, value: str) -> None:
        self.fake.edit(native, value, component=self.component)

    async def others_delete(self, native: str) -> None:
        self.fake.remove(native, component=self.component)

    def write_of(self, native: str) -> Match:
        return Match(method="PUT")

    # What goes wrong, and what it costs.

    def rules(self, fault: Fault) -> Sequence[Rule]:
        method = "PUT" if fault.call is Call.APPLY else "GET"
        return [Rule(Match(method=method), self._action(fault), fault.after, fault.times)]

    def _action(self, fault: Fault) -> Action:
        wait = {"Retry-After": f"{fault.retry_after_s:g}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return _refusal(429, **wait)
            case Kind.AUTH_EXPIRED:
                return _refusal(401)
            case Kind.FORBIDDEN:
                return _refusal(403)
            case Kind.UNAVAILABLE:
                return _refusal(503)
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case _:
                return Rewrite(
                    lambda reply: Reply(200, reply.headers, reply.body[: len(reply.body) // 2])
                )

    def is_write(self, noted: Noted) -> bool:
        return noted.method != "GET"
