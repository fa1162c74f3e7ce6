"""Whose credentials the backends for Azure use, and that nothing of them is told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

pytest.importorskip("azure.identity", reason="pip install 'envd-cluster[azure]'")

from envd.backends.azure_key_vault import KeyVaultBackend
from envd.backends.azure_settings import AzureSettings, Credential, find_credential
from envd.backends.contract import Options
from envd.backends.errors import (
    BackendError,
    Forbidden,
    MissingLibrary,
    StoreUnavailable,
    StoreUnsupported,
)
from tests.backends.driving import key, one, put, values
from tests.backends.fake_azure import TOKEN, FakeCredential, serving
from tests.backends.fake_key_vault import FakeKeyVault, fake_key_vault
from tests.backends.tls import certificate

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
SECRET = "canary-4711"
PRINCIPAL = {"ENVD_CLIENT_ID": CLIENT, "ENVD_CLIENT_SECRET": SECRET}


def _credential(
    credentials: str = "", environ: dict[str, str] | None = None, **settings: object
) -> Credential:
    options = Options("acme-prod", credentials=credentials, settings=settings)
    return find_credential(AzureSettings.of(options), environ or {}, None)


@pytest.mark.parametrize(
    ("credentials", "environ", "settings", "kind", "identity"),
    [
        ("", {}, {}, "ManagedIdentityCredential", "managed identity"),
        (
            f"managed-identity:{CLIENT}",
            {},
            {},
            "ManagedIdentityCredential",
            f"managed identity {CLIENT}",
        ),
        ("cli", {}, {}, "AzureCliCredential", "whoever is logged in to az"),
        (
            "service-principal:ENVD",
            PRINCIPAL,
            {"tenant_id": TENANT},
            "ClientSecretCredential",
            f"service principal {CLIENT}",
        ),
        (
            "",
            PRINCIPAL,
            {
                "tenant_id": TENANT,
                "client_id_env": "ENVD_CLIENT_ID",
                "client_secret_env": "ENVD_CLIENT_SECRET",
            },
            "ClientSecretCredential",
            f"service principal {CLIENT}",
        ),
        (
            "",
            {
                "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token",
                "AZURE_TENANT_ID": TENANT,
                "AZURE_CLIENT_ID": CLIENT,
            },
            {},
            "WorkloadIdentityCredential",
            f"workload identity {CLIENT}",
        ),
    ],
)
async def test_what_a_reference_names(
    credentials: str,
    environ: dict[str, str],
    settings: dict[str, object],
    kind: str,
    identity: str,
) -> None:
    found = _credential(credentials, environ, **settings)

    assert type(found.sdk).__name__ == kind
    assert found.identity == identity
    assert SECRET not in repr(found)
    await found.sdk.close()


@pytest.mark.parametrize(
    "credentials", [SECRET, "cli:x", "managed-identity:x", "service-principal:a-b", "token:x"]
)
def test_what_is_no_reference_is_refused_and_not_told(credentials: str) -> None:
    with pytest.raises(StoreUnsupported) as caught:
        _credential(credentials)

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "environ", "settings", "error", "text"),
    [
        ("service-principal:ENVD", {}, {"tenant_id": TENANT}, Forbidden, "ENVD_CLIENT_ID"),
        ("service-principal:ENVD", PRINCIPAL, {}, StoreUnsupported, "tenant"),
        ("workload-identity", {"AZURE_TENANT_ID": TENANT}, {}, Forbidden, "AZURE_CLIENT_ID"),
        ("", {}, {"client_id_env": "A"}, StoreUnsupported, "go together"),
        ("", {}, {"tenant_id": 5}, StoreUnsupported, "tenant_id"),
    ],
)
def test_what_is_missing_is_named(
    credentials: str,
    environ: dict[str, str],
    settings: dict[str, object],
    error: type[BackendError],
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        _credential(credentials, environ, **settings)


class Authority:
    """Gives tokens to who has the secret, as Microsoft Entra ID does."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.post()
        scope = str(body.get("scope"))
        self.asked.append(f"{request.method} {request.path} {scope}")
        if self.status != 200 or body.get("client_secret") != SECRET:
            status = self.status if self.status != 200 else 401
            text = {"error": "invalid_client", "error_description": f"AADSTS7000215: not {SECRET}"}
            return web.json_response(text, status=status)
        token = {"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN}
        return web.json_response(token)


@pytest.fixture
async def vault() -> AsyncIterator[FakeKeyVault]:
    async with fake_key_vault(tls=certificate().context) as running:
        yield running


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def principal(vault: FakeKeyVault, authority: Authority) -> AsyncIterator[KeyVaultBackend]:
    async with serving(authority.serve, tls=certificate().context) as url:
        settings = {"ca_file": certificate().ca_file, "authority": url, "tenant_id": TENANT}
        options = Options(
            "acme-prod",
            credentials="service-principal:ENVD",
            settings=settings,
            endpoint=vault.url,
        )
        backend = KeyVaultBackend(options, environ=PRINCIPAL)
        await backend.open()
        yield backend
        await backend.close()


async def test_a_service_principal_logs_in_once_as_the_vault_says(
    principal: KeyVaultBackend, authority: Authority
) -> None:
    await one(principal, put("NAME", "value"))

    assert (await values(principal)).keys() == {key("NAME")}
    assert authority.asked == [f"POST /{TENANT}/oauth2/v2.0/token https://vault.azure.net/.default"]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Forbidden), (400, Forbidden), (503, StoreUnavailable)]
)
async def test_a_token_that_is_not_given_is_told_without_words_of_others(
    principal: KeyVaultBackend,
    authority: Authority,
    status: int,
    kind: type[BackendError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority.status = status

    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as caught:
        await values(principal)

    error = caught.value
    assert SECRET not in caplog.text
    assert ("AADSTS7000215" in error.message) == (kind is Forbidden)
    assert SECRET not in f"{error} {error.hint} {error!r}"
    assert error.__cause__ is None
    assert error.__context__ is None
    assert len(authority.asked) == 1, "it is tried once"


async def test_what_is_opened_is_closed_with_the_credential(vault: FakeKeyVault) -> None:
    made = FakeCredential()
    options = Options("acme-prod", settings={"ca_file": certificate().ca_file}, endpoint=vault.url)
    backend = KeyVaultBackend(options, credentials=lambda _: Credential(made, "a test"))

    await backend.open()
    health = await backend.probe()
    await backend.close()

    assert (health.ok, health.identity) == (True, "a test")
    assert made.is_closed
    assert made.scopes == ["https://vault.azure.net/.default"]
    assert not (await backend.probe()).ok


class Troubled(FakeCredential):
    """A credential that gets no token, nor is it closed without trouble."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.identity import CredentialUnavailableError

        raise CredentialUnavailableError(message=f"not {SECRET}") from self.cause

    async def close(self) -> None:
        raise OSError(f"not {SECRET}")


def _causes() -> list[Any]:
    from azure.core.exceptions import HttpResponseError, ServiceRequestError

    return [
        pytest.param(ServiceRequestError("no route"), StoreUnavailable, id="silence"),
        pytest.param(TimeoutError(), StoreUnavailable, id="timeout"),
        pytest.param(HttpResponseError("no identity"), Forbidden, id="refusal"),
    ]


@pytest.mark.parametrize(("cause", "kind"), _causes())
async def test_who_gives_tokens_and_is_not_there_now_is_asked_again_later(
    vault: FakeKeyVault, cause: Exception, kind: type[BackendError]
) -> None:
    options = Options("acme-prod", settings={"ca_file": certificate().ca_file}, endpoint=vault.url)
    made = Troubled(cause)
    backend = KeyVaultBackend(options, credentials=lambda _: Credential(made, "a test"))

    await backend.open()
    with pytest.raises(kind) as caught:
        await values(backend)
    await backend.close()

    error = caught.value
    assert SECRET not in f"{error} {error.hint} {error!r}"
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not (await backend.probe()).ok


async def test_a_file_of_an_authority_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = {"ca_file": tmp_path / "none.pem"}
    backend = KeyVaultBackend(Options("acme-prod", settings=settings), environ={})

    with pytest.raises(StoreUnsupported, match="No such file"):
        await backend.open()


async def test_without_the_sdk_it_is_told_how_to_get_it() -> None:
    def none(transport: Any) -> Credential:
        raise ImportError(name="azure.identity")

    backend = KeyVaultBackend(Options("acme-prod"), credentials=none)

    with pytest.raises(MissingLibrary) as caught:
        await backend.open()

    assert caught.value.hint == "pip install 'envd-cluster[azure]'"


async def test_settings_that_the_sdk_does_not_take_are_told(vault: FakeKeyVault) -> None:
    settings: dict[str, Any] = {"authority": "http://plain.example", "tenant_id": TENANT}
    options = Options("acme-prod", credentials="service-principal:ENVD", settings=settings)
    backend = KeyVaultBackend(options, environ=PRINCIPAL)

    with pytest.raises(StoreUnsupported, match="does not take the settings"):
        await backend.open()


async def test_a_vault_whose_certificate_nobody_signed_gets_no_token(vault: FakeKeyVault) -> None:
    made = FakeCredential()
    backend = KeyVaultBackend(
        Options("acme-prod", endpoint=vault.url), credentials=lambda _: Credential(made, "a test")
    )
    await backend.open()
    try:
        with pytest.raises(StoreUnavailable, match="gave no answer"):
            await values(backend)
    finally:
        await backend.close()

    assert made.scopes == []
