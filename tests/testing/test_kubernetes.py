"""The `kubernetes` backend passes the conformance kit, over a fake of its API server: as Secrets
and as ConfigMaps, and with one object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from envd.backends.contract import Backend, Options
from envd.backends.kubernetes import KubernetesBackend
from envd.testing.conformance import ALL_ABILITIES, Ability, BackendConformance, Harness
from envd.testing.faulty import Call, Fault, Kind
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
from tests.backends.fake_kubernetes import FakeKubernetes, fake_kubernetes, kubeconfig

pytest.importorskip(
    "kubernetes_asyncio", reason="it is not installed: pip install 'envd-cluster[k8s]'"
)

_WRITES = ("POST", "PUT", "DELETE")
_WITH_BODY = {"Content-Type": ".+"}


def _answer(status: int, reason: str, **headers: str) -> Respond:
    body = {"kind": "Status", "apiVersion": "v1", "reason": reason, "code": status}
    return Respond(
        status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()
    )


class KubernetesHarness(WireHarness):
    """A fake for each case."""

    layout = "document"
    abilities = ALL_ABILITIES & ~(Ability.CURSORS | Ability.TEMPLATES)
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
    missing = {  # noqa: RUF012
        "CURSORS": "a scan is of one version, which is forgotten after minutes",
        "TEMPLATES": "objects are named after their environment",
    }
    foreign: Sequence[str] = ("other", "web2", "web.app-x41", "web.x-x2dy-x5", "web.app-x2da")

    def __init__(self, kind: str, sort: str, home: Path, *, below: bool) -> None:
        super().__init__()
        self.name = f"kubernetes ({kind})"
        self.place = f"team/{sort}/web"
        self._plural = f"{sort}s"
        self._home = home
        self._below = below
        self._server = AsyncExitStack()
        self._cluster = FakeKubernetes()
        if not below:
            self._lack(Ability.BELOW, "it is one object")
            self._lack(Ability.FOREIGN_NAMES, "there is nothing but the object")

    def _lack(self, ability: Ability, why: str) -> None:
        self.abilities &= ~ability
        self.missing = {**self.missing, str(ability.name): why}

    async def begin(self) -> None:
        self._cluster = await self._server.enter_async_context(fake_kubernetes())
        self.upstream = self._cluster.url
        self.proxy = Proxy(self.upstream)
        await super().begin()
        (self._home / "config").write_text(kubeconfig(self.proxy.url))

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()

    def backend(self, options: Options) -> Backend:
        settings = {"kubeconfig": str(self._home / "config")}
        return KubernetesBackend(replace(options, settings=settings), environ={})

    async def contents(self) -> Mapping[str, str | None]:
        return {
            name: json.dumps(self._cluster.data(plural, name), ensure_ascii=False)
            for _, plural, name in self._cluster.objects
        }

    async def others_put(self, native: str, value: str) -> None:
        await self._cluster.put(self._plural, native, json.loads(value))

    async def others_delete(self, native: str) -> None:
        await self._cluster.delete(self._plural, native)

    def write_of(self, native: str) -> Match:
        def is_about(body: bytes) -> bool:
            named = json.loads(body).get("metadata", {})
            return bool(named.get("name") == native)

        return Match(headers=_WITH_BODY, body=is_about)

    def rules(self, fault: Fault) -> Sequence[Rule]:
        action = self._action(fault)
        if fault.call is Call.APPLY:
            return [Rule(Match(headers=_WITH_BODY), action, fault.after, fault.times)]
        return [Rule(Match(method="GET"), action, fault.after, fault.times)]

    def _action(self, fault: Fault) -> Action:
        wait = {"Retry-After": f"{fault.retry_after_s:.0f}"} if fault.retry_after_s else {}
        match fault.kind:
            case Kind.THROTTLED:
                return _answer(429, "TooManyRequests", **wait)
            case Kind.AUTH_EXPIRED:
                return _answer(401, "Unauthorized")
            case Kind.FORBIDDEN:
                return _answer(403, "Forbidden")
            case Kind.UNAVAILABLE:
                return _answer(503, "ServiceUnavailable")
            case Kind.RESET:
                return Reset()
            case Kind.LOST_REPLY:
                return DropReply()
            case _:
                return Rewrite(lambda reply: Reply(200, reply.headers, b'{"kind": "Secr'))

    def is_write(self, noted: Noted) -> bool:
        return noted.method in _WRITES


class TestSecrets(BackendConformance):
    """Each case with a Secret for each environment."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return KubernetesHarness("fake, Secrets", "secret", tmp_path, below=True)


class TestConfigMaps(BackendConformance):
    """... with a ConfigMap for each."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return KubernetesHarness("fake, ConfigMaps", "configmap", tmp_path, below=True)


class TestSecret(BackendConformance):
    """... with one Secret."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return KubernetesHarness("fake, one Secret", "secret", tmp_path, below=False)
