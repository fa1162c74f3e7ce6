"""Stores of five kinds on the loopback, for real daemons, and what other people do in them.

AWS is moto, Vault a fake or a real server, the others are the fakes that the conformance kit is run
over; each in this process, but for a real one. `edit` writes as the store's own tools do.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests

from envd.backends.azure_app_configuration import AppConfigurationBackend
from envd.backends.azure_key_vault import KeyVaultBackend
from envd.backends.contract import Key, Options
from envd.backends.gcp_secret_manager import SecretManagerBackend
from envd.formats.secrets import looks_secret
from tests.backends import aws_emulator
from tests.backends.fake_app_configuration import FakeAppConfiguration, fake_app_configuration
from tests.backends.fake_key_vault import FakeKeyVault, fake_key_vault
from tests.backends.fake_secret_manager import PROJECT, FakeSecretManager
from tests.backends.fake_vault import ROOT_TOKEN, fake_vault
from tests.backends.tls import certificate
from tests.e2e.rerouted import VARIABLE

KEYS = {"KEY_ID": "id-of-a-test", "SECRET_KEY": "key-of-a-test"}
PATIENCE_S = 30
AnswerT = TypeVar("AnswerT")


@dataclass
class Store:
    """One store: its target for a binding, how a daemon gets there, and its other users.

    `environ` is what the daemon needs in its environment. `keeps_secrets` tells whether secret
    variables may be in it.
    """

    name: str
    place: str
    endpoint: str
    settings: Mapping[str, object]
    values: Callable[[], dict[str, str]]
    edit: Callable[[str, str], None]
    environ: Mapping[str, str] = field(default_factory=dict)
    keeps_secrets: bool = True

    @property
    def target(self) -> str:
        return f"test-{self.name}:{self.place}"


class Loop:
    """An event loop in a thread, for servers; what tests do with those they do there, too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stores", daemon=True)
        self._thread.start()

    @contextmanager
    def serving(self, server: AbstractAsyncContextManager[AnswerT]) -> Iterator[AnswerT]:
        found = self._result(server.__aenter__())
        try:
            yield found
        finally:
            self._result(server.__aexit__(None, None, None))

    def do(self, work: Callable[[], AnswerT]) -> AnswerT:
        async def done() -> AnswerT:
            return work()

        return self._result(done())

    def _result(self, work: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


def ssm(url: str) -> Store:
    """AWS's Parameter Store as moto plays it, used by boto3."""
    import boto3

    client = boto3.client(
        "ssm",
        region_name=aws_emulator.REGION,
        endpoint_url=url,
        aws_access_key_id=KEYS["KEY_ID"],
        aws_secret_access_key=KEYS["SECRET_KEY"],
    )

    def values() -> dict[str, str]:
        found: dict[str, str] = {}
        for page in client.get_paginator("get_parameters_by_path").paginate(
            Path="/web/prod", WithDecryption=True
        ):
            found |= {each["Name"].rpartition("/")[2]: each["Value"] for each in page["Parameters"]}
        return found

    def edit(name: str, value: str) -> None:
        kind = "SecureString" if looks_secret(name, value) else "String"
        client.put_parameter(Name=f"/web/prod/{name}", Value=value, Type=kind, Overwrite=True)

    return Store("ssm", "/web/prod", url, aws_emulator.SETTINGS, values, edit, KEYS)


def vault(url: str, token: str) -> Store:
    """Anything that speaks Vault's API, used over HTTP."""

    def ask(method: str, path: str, body: Any = None) -> Any:
        reply = requests.request(
            method,
            f"{url}/v1/secret/{path}",
            json=body,
            headers={"X-Vault-Token": token},
            timeout=PATIENCE_S,
        )
        return reply.json().get("data") or {}

    def values() -> dict[str, str]:
        names = ask("GET", "metadata/web/prod?list=true").get("keys", [])
        return {name: ask("GET", f"data/web/prod/{name}")["data"]["value"] for name in names}

    def edit(name: str, value: str) -> None:
        ask("POST", f"data/web/prod/{name}", {"data": {"value": value}})

    return Store("vault", "/web/prod", url, {}, values, edit, {"VAULT_TOKEN": token})


def key_vault(loop: Loop, fake: FakeKeyVault) -> Store:
    """A fake of a key vault, behind HTTPS."""
    settings = {"ca_file": str(certificate().ca_file)}
    backend = KeyVaultBackend(Options("acme-prod/web/prod", endpoint=fake.url, settings=settings))

    def values() -> dict[str, str]:
        kept = {name: each.latest.value for name, each in fake.secrets.items()}
        return {_variable(backend, name): value for name, value in kept.items()}

    def edit(name: str, value: str) -> None:
        fake.now_s += 1
        fake.put(backend.encode(Key("", name)), value)

    return Store(
        "key-vault",
        "acme-prod/web/prod",
        fake.url,
        settings,
        lambda: loop.do(values),
        lambda name, value: loop.do(lambda: edit(name, value)),
    )


def app_configuration(loop: Loop, fake: FakeAppConfiguration) -> Store:
    """A fake of an App Configuration store, behind HTTPS."""
    place = "acme-config/web/prod"
    settings = {"ca_file": str(certificate().ca_file)}
    backend = AppConfigurationBackend(Options(place, endpoint=fake.url, settings=settings))

    def values() -> dict[str, str]:
        kept = {name: each["value"] for (name, _), each in fake.kept.items()}
        return {_variable(backend, name): value for name, value in kept.items()}

    def edit(name: str, value: str) -> None:
        fake.put(backend.encode(Key("", name)), value)

    return Store(
        "app-configuration",
        place,
        fake.url,
        settings,
        lambda: loop.do(values),
        lambda name, value: loop.do(lambda: edit(name, value)),
        keeps_secrets=False,
    )


def secret_manager(fake: FakeSecretManager) -> Store:
    """A fake of Google's Secret Manager: a real gRPC server."""
    settings = {"project_id": PROJECT}
    endpoint = fake.server.endpoint
    backend = SecretManagerBackend(Options("web-prod", endpoint=endpoint, settings=settings))

    def values() -> dict[str, str]:
        return {_variable(backend, name): value for name, value in fake.values().items()}

    def edit(name: str, value: str) -> None:
        fake.put(backend.encode(Key("", name)), value)

    return Store("secret-manager", "web-prod", endpoint, settings, values, edit)


def _variable(backend: Any, native: str) -> str:
    key = backend.decode(native)
    return native if key is None else str(key.variable)


@contextmanager
def five(*, real_vault: tuple[str, str] | None = None) -> Iterator[list[Store]]:
    """One store of each kind; `real_vault` is the URL and the token of a server that runs."""
    loop = Loop()
    tls = certificate().context
    secrets = FakeSecretManager()
    with ExitStack() as servers:
        servers.callback(loop.close)
        url = servers.enter_context(aws_emulator.emulator())
        aws_emulator.empty()
        servers.enter_context(secrets.server.running())
        vaults = servers.enter_context(loop.serving(fake_key_vault(tls=tls)))
        configuration = servers.enter_context(loop.serving(fake_app_configuration(tls=tls)))
        if real_vault is None:
            fake = servers.enter_context(loop.serving(fake_vault()))
            real_vault = (fake.url, ROOT_TOKEN)
        yield [
            ssm(url),
            vault(*real_vault),
            key_vault(loop, vaults),
            secret_manager(secrets),
            app_configuration(loop, configuration),
        ]


def environ_of(stores: list[Store]) -> dict[str, str]:
    """What a daemon's environment has for these."""
    ways = {each.name: {"endpoint": each.endpoint, "settings": each.settings} for each in stores}
    found = {VARIABLE: json.dumps(ways)}
    for each in stores:
        found |= each.environ
    return found
