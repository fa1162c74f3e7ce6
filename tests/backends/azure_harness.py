"""The stores of Azure for the conformance kit: fakes of them behind a proxy that speaks HTTPS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from envd.backends.azure_app_configuration import AppConfigurationBackend
from envd.backends.azure_app_settings import MARK
from envd.backends.azure_functions import FunctionsBackend
from envd.backends.azure_key_vault import KeyVaultBackend
from envd.backends.contract import Backend, Op, Options, Outcome, Reject
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
from envd.testing.wire import WireHarness
from tests.backends.fake_app_configuration import FakeAppConfiguration, fake_app_configuration
from tests.backends.fake_azure import fake_credential
from tests.backends.fake_function_app import (
    AZURES,
    SUBSCRIPTION,
    FakeFunctionApp,
    fake_function_app,
)
from tests.backends.fake_key_vault import FakeKeyVault, fake_key_vault
from tests.backends.tls import certificate

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_LET_IN: Final = {"authorization": "Bearer .+"}
"""Requests that only ask how to log in meet no fault: they would be made again anyway."""


def answer(status: int, code: str, **headers: str) -> Respond:
    """An error as Azure answers it, with a text that nobody should ever see."""
    body = {"error": {"code": code, "message": "a text that may quote a value"}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Respond(status, {**_JSON, **named}, json.dumps(body).encode())


class AzureHarness(WireHarness):
    """A subclass has the fake, and says which requests are which call of the contract."""

    wire_faults = frozenset(
        {
            Kind.THROTTLED,
            Kind.AUTH_EXPIRED,
            Kind.FORBIDDEN,
            Kind.UNAVAILABLE,
            Kind.RESET,
            Kind.LOST_REPLY,
            Kind.MALFORMED,
            Kind.EMPTY_PAGE,
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self._servers = AsyncExitStack()
        self.missing = {}

    async def serve(self, servers: AsyncExitStack) -> str:
        """Start the fake; its URL."""
        raise NotImplementedError

    async def begin(self) -> None:
        self.upstream = await self.serve(self._servers)
        self.proxy = Proxy(self.upstream, tls=certificate().context)
        await super().begin()

    async def end(self) -> None:
        await super().end()
        await self._servers.aclose()

    def options(self, options: Options, **settings: object) -> Options:
        given = {"ca_file": certificate().ca_file, **settings}
        return replace(options, endpoint=self.proxy.url, settings=given)

    def calls(self) -> Calls:
        """Without those that were told how to log in, which is once for each address."""
        noted = [each for each in self.proxy.requests if each.status != 401]
        writes = sum(self.is_write(each) for each in noted)
        return Calls(len(noted) - writes, writes)

    def match(self, fault: Fault) -> Match:
        """The requests that a fault meets."""
        raise NotImplementedError

    def empty_page(self) -> Respond:
        """A page without anything, and one after it."""
        raise NotImplementedError

    def rules(self, fault: Fault) -> Sequence[Rule]:
        match = replace(self.match(fault), headers=_LET_IN)
        return [Rule(match, self._action(fault), fault.after, fault.times)]

    def _action(self, fault: Fault) -> Any:
        wait = {"Retry-After": f"{fault.retry_after_s:.0f}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return answer(429, "Throttled", **wait)
            case Kind.AUTH_EXPIRED:
                # Without a challenge, for the SDK would answer that, and be told the same again.
                return answer(401, "Unauthorized")
            case Kind.FORBIDDEN:
                return answer(403, "Forbidden")
            case Kind.UNAVAILABLE:
                return answer(503, "ServiceUnavailable")
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case Kind.EMPTY_PAGE:
                return self.empty_page()
            case _:
                return Rewrite(lambda reply: Reply(200, _JSON, reply.body[: len(reply.body) // 2]))


class KeyVaultHarness(AzureHarness):
    """A fake of a vault for each case."""

    abilities = ALL_ABILITIES
    place = "acme-prod/web/prod"

    def __init__(self, layout: Layout, *, second_each: bool = False) -> None:
        """With `second_each` no two writes of others are within one second."""
        super().__init__()
        self._second_each = second_each
        self.name = f"azure-key-vault ({layout})"
        self.layout = layout
        self.vault = FakeKeyVault()
        if layout == "document":
            self.foreign = ("web--prod2", "web--prod---name-000", "another")
        else:
            self.foreign = ("web--prod2---name-000", "web--prod", "name-000")

    async def serve(self, servers: AsyncExitStack) -> str:
        self.vault = await servers.enter_async_context(fake_key_vault())
        return self.vault.url

    def backend(self, options: Options) -> Backend:
        return KeyVaultBackend(self.options(options), credentials=fake_credential)

    async def contents(self) -> Mapping[str, str | None]:
        return {name: kept.latest.value for name, kept in self.vault.secrets.items()}

    async def others_put(self, native: str, value: str) -> None:
        # As `az keyvault secret set` does it: the tags are gone.
        self.vault.now_s += self._second_each
        self.vault.put(native, value)

    async def others_delete(self, native: str) -> None:
        self.vault.purge(native)

    def write_of(self, native: str) -> Match:
        return Match(method="PUT", path=f"/secrets/{re.escape(native)}", headers=_LET_IN)

    def match(self, fault: Fault) -> Match:
        match fault.call:
            case Call.SCAN | Call.PROBE:
                return Match(method="GET", path="/secrets")
            case Call.GET:
                return Match(method="GET", path="/secrets/[^/]+")
            case _:
                return Match(path="/secrets/[^/]+")

    def rules(self, fault: Fault) -> Sequence[Rule]:
        return _either(super().rules(fault)) if fault.call is Call.APPLY else super().rules(fault)

    def empty_page(self) -> Respond:
        link = f"{self.proxy.url}/secrets?api-version=7.4&maxresults=25"
        return Respond(200, _JSON, json.dumps({"value": [], "nextLink": link}).encode())

    def is_write(self, noted: Noted) -> bool:
        return noted.method != "GET"


class _Plain(AppConfigurationBackend):
    """What the kit writes is taken for plain; what is secret is refused, and tried elsewhere."""

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        rejects: list[Reject] = []
        for op in ops:
            rejects += [Reject(op, each.error) for each in super().check([self._plainly(op)])]
        return rejects

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        plain = [self._plainly(op) for op in ops]
        outcomes = await super().apply(plain, idempotency=idempotency)
        return [replace(each, op=op) for op, each in zip(ops, outcomes, strict=True)]

    @staticmethod
    def _plainly(op: Op) -> Op:
        return replace(op, secret=False)


class AppConfigurationHarness(AzureHarness):
    """A fake of a store for each case, with a label and without."""

    abilities = ALL_ABILITIES
    foreign = ("web/prod2/NAME_000", "web/prod/1st", ".appconfig.featureflag/beta")

    def __init__(self, label: str, *, for_the_kit: bool = True) -> None:
        """The kit does not know that only what is plain is taken; others do."""
        super().__init__()
        self._type = _Plain if for_the_kit else AppConfigurationBackend
        self.name = f"azure-app-configuration ({'label' if label else 'no label'})"
        self.place = f"acme-config/web/prod@{label}" if label else "acme-config/web/prod"
        self.label = label
        self.store = FakeAppConfiguration()

    async def serve(self, servers: AsyncExitStack) -> str:
        self.store = await servers.enter_async_context(fake_app_configuration())
        self.store.put("web/prod/NAME_000", "of another label", label="another")
        return self.store.url

    def backend(self, options: Options) -> Backend:
        return self._type(self.options(options), credentials=fake_credential)

    async def contents(self) -> Mapping[str, str | None]:
        kept = self.store.kept.items()
        return {key: each["value"] for (key, label), each in kept if label == self.label}

    async def others_put(self, native: str, value: str) -> None:
        # As the portal does it: the tags stay.
        self.store.put(native, value, label=self.label)

    async def others_delete(self, native: str) -> None:
        self.store.kept.pop((native, self.label), None)

    def write_of(self, native: str) -> Match:
        return Match(method="PUT", path=f"/kv/{re.escape(native)}", headers=_LET_IN)

    def match(self, fault: Fault) -> Match:
        match fault.call:
            case Call.SCAN | Call.PROBE:
                return Match(method="GET", path="/kv")
            case Call.GET:
                return Match(method="GET", path="/kv/.+")
            case _:
                return Match(path="/kv/.+")

    def rules(self, fault: Fault) -> Sequence[Rule]:
        return _either(super().rules(fault)) if fault.call is Call.APPLY else super().rules(fault)

    def empty_page(self) -> Respond:
        label = self.label or "%00"
        link = f"/kv?api-version=2023-11-01&key=web/prod/*&label={label}"
        return Respond(200, _JSON, json.dumps({"items": [], "@nextLink": link}).encode())

    def is_write(self, noted: Noted) -> bool:
        return noted.method != "GET"


class FunctionsHarness(AzureHarness):
    """A fake of an app for each case."""

    name = "azure-functions"
    layout = "document"
    place = "acme-web/acme-orders"
    abilities = (
        ALL_ABILITIES
        & ~Ability.BELOW
        & ~Ability.CURSORS
        & ~Ability.FOREIGN_NAMES
        & ~Ability.TEMPLATES
    )
    wire_faults = AzureHarness.wire_faults - {Kind.EMPTY_PAGE}
    _READING = "/subscriptions/.*/config/appsettings/list"
    _WRITING = "/subscriptions/.*/config/appsettings"

    def __init__(self) -> None:
        super().__init__()
        self.missing = {
            "BELOW": "an app has one map",
            "CURSORS": "there is one item",
            "FOREIGN_NAMES": "the map has one name",
            "TEMPLATES": "the map has no name to make",
            "CAS": "the store compares nothing, and has no versions",
            "POSTCHECK": "the store has no versions",
        }
        self.app = FakeFunctionApp()

    async def serve(self, servers: AsyncExitStack) -> str:
        self.app = await servers.enter_async_context(fake_function_app())
        return self.app.url

    async def end(self) -> None:
        kept = {name: self.app.settings[""].get(name) for name in AZURES}
        await super().end()
        assert kept == AZURES, "what is Azure's was changed"

    def backend(self, options: Options) -> Backend:
        return FunctionsBackend(
            self.options(options, subscription_id=SUBSCRIPTION), credentials=fake_credential
        )

    def _variables(self) -> dict[str, str]:
        hidden = {*AZURES, MARK}
        return {name: each for name, each in self.app.settings[""].items() if name not in hidden}

    async def contents(self) -> Mapping[str, str | None]:
        found = self._variables()
        is_there = bool(found) or MARK in self.app.settings[""]
        text = json.dumps(dict(sorted(found.items())), ensure_ascii=False)
        return {"appsettings": text} if is_there else {}

    async def others_put(self, native: str, value: str) -> None:
        # As the portal does it: all that is there goes back as it was, but what was edited.
        await self._edit(json.loads(value))

    async def others_delete(self, native: str) -> None:
        await self._edit({})
        self.app.settings[""].pop(MARK, None)

    async def _edit(self, variables: dict[str, str]) -> None:
        settings = self.app.settings[""]
        for name in self._variables():
            del settings[name]
        settings.update(variables)

    def write_of(self, native: str) -> Match:
        return Match(method="PUT", path=self._WRITING, headers=_LET_IN)

    def match(self, fault: Fault) -> Match:
        if fault.call is Call.APPLY:
            return Match(method="PUT", path=self._WRITING)
        return Match(method="POST", path=self._READING)

    def is_write(self, noted: Noted) -> bool:
        return noted.method == "PUT"


def _either(rules: Sequence[Rule]) -> Sequence[Rule]:
    """Rules for writes: a case makes one that puts, or one that deletes, and a fault meets it."""
    return [
        replace(each, match=replace(each.match, method=method))
        for each in rules
        for method in ("PUT", "DELETE")
    ]
