"""How `vault` logs in, keeps its token alive, and tells one that ended from one that may not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from envd.backends import vault_settings
from envd.backends.contract import Options
from envd.backends.errors import AuthExpired, Forbidden, StoreUnsupported
from envd.backends.vault import VaultBackend
from envd.backends.vault_settings import (
    AppRoleLogin,
    KubernetesLogin,
    TokenLogin,
    read_settings,
)
from tests.backends.driving import one, put, values
from tests.backends.fake_vault import ROOT_TOKEN, FakeToken, FakeVault, fake_vault

pytest.importorskip("hvac", reason="hvac is not installed: pip install 'envd-cluster[vault]'")

RENEWAL = "POST auth/token/renew-self"
HOUR_S = 3600


@pytest.fixture
async def vault() -> AsyncIterator[FakeVault]:
    async with fake_vault() as running:
        yield running


class Opened:
    """Backends on a fake, with its clock; they are closed with the test."""

    def __init__(self, vault: FakeVault) -> None:
        self.vault = vault
        self.made: list[VaultBackend] = []

    async def backend(
        self, environ: dict[str, str], *, credentials: str = "", **settings: object
    ) -> VaultBackend:
        options = Options(
            "web", credentials=credentials, settings=settings, endpoint=self.vault.url
        )
        backend = VaultBackend(options, environ=environ, clock=lambda: self.vault.now_s)
        self.made.append(backend)
        await backend.open()
        return backend


@pytest.fixture
async def opened(vault: FakeVault) -> AsyncIterator[Opened]:
    made = Opened(vault)
    yield made
    for backend in made.made:
        await backend.close()


def lend(vault: FakeVault, text: str, ttl_s: int = HOUR_S, *, renewable: bool = True) -> None:
    """Have a token that ends."""
    vault.tokens[text] = FakeToken("lent", ttl_s, vault.now_s + ttl_s, renewable)


async def test_a_token_is_renewed_after_two_thirds_of_its_life(
    vault: FakeVault, opened: Opened
) -> None:
    lend(vault, "t")
    backend = await opened.backend({"VAULT_TOKEN": "t"})

    vault.now_s = HOUR_S * 2 / 3 - 1
    await values(backend)
    before = vault.asked.count(RENEWAL)
    vault.now_s = HOUR_S * 2 / 3
    await values(backend)
    await values(backend)

    assert (before, vault.asked.count(RENEWAL)) == (0, 1)
    vault.now_s = HOUR_S + 1
    assert await values(backend) == {}


async def test_a_token_that_can_not_be_renewed_is_used_to_its_end(
    vault: FakeVault, opened: Opened
) -> None:
    lend(vault, "t", renewable=False)
    backend = await opened.backend({"VAULT_TOKEN": "t"})

    vault.now_s = HOUR_S - 1
    assert await values(backend) == {}
    vault.now_s = HOUR_S
    with pytest.raises(AuthExpired):
        await values(backend)

    assert RENEWAL not in vault.asked


async def test_a_renewal_that_is_refused_does_not_end_a_token(
    vault: FakeVault, opened: Opened
) -> None:
    lend(vault, "t")
    backend = await opened.backend({"VAULT_TOKEN": "t"})
    vault.forbidden.add("auth/token/renew-self")

    vault.now_s = HOUR_S - 1
    await values(backend)
    await values(backend)

    assert vault.asked.count(RENEWAL) == 1


async def test_a_token_without_an_end_is_never_renewed(vault: FakeVault, opened: Opened) -> None:
    backend = await opened.backend({"VAULT_TOKEN": ROOT_TOKEN})

    vault.now_s = HOUR_S * 24 * 365
    await values(backend)

    assert RENEWAL not in vault.asked


async def test_a_role_that_was_opened_anew_has_a_new_token(
    vault: FakeVault, opened: Opened
) -> None:
    vault.roles["role", "secret"] = FakeToken("approle", HOUR_S, renewable=False)
    environ = {"VAULT_ROLE_ID": "role", "VAULT_SECRET_ID": "secret"}
    backend = await opened.backend(environ, auth="approle")
    vault.now_s = HOUR_S
    with pytest.raises(AuthExpired):
        await values(backend)

    await backend.close()
    await backend.open()

    assert await values(backend) == {}


async def test_a_write_with_a_token_that_was_revoked_has_not_begun(
    vault: FakeVault, opened: Opened
) -> None:
    lend(vault, "t")
    backend = await opened.backend({"VAULT_TOKEN": "t"})
    del vault.tokens["t"]

    outcome = await one(backend, put("NAME", "value"))

    assert isinstance(outcome.error, AuthExpired)
    assert vault.writes() == []


async def test_a_token_in_a_file_is_read_each_time_it_is_opened(
    vault: FakeVault, opened: Opened, tmp_path: Path
) -> None:
    lend(vault, "first")
    lend(vault, "second", HOUR_S * 2)
    file = tmp_path / "token"
    file.write_text("first\n", "ascii")
    backend = await opened.backend({}, token_file=file)
    vault.now_s = HOUR_S

    file.write_text("second\n", "ascii")
    await backend.open()

    assert await values(backend) == {}


async def test_a_service_account_logs_in_for_its_role(
    vault: FakeVault, opened: Opened, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("jwt of the pod", "ascii")
    vault.roles["web", "jwt of the pod"] = FakeToken("kubernetes", HOUR_S)
    settings: dict[str, Any] = {"auth": "kubernetes", "kubernetes_role": "web"}
    settings |= {"auth_mount": "cluster-eu", "kubernetes_token_file": file}

    backend = await opened.backend({}, **settings)

    assert (await backend.probe()).identity == "kubernetes web"
    assert vault.asked[0] == "POST auth/cluster-eu/login"


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, {}),
        ({"VAULT_TOKEN": " "}, {}),
        ({"VAULT_TOKEN": "of nobody"}, {}),
        ({"VAULT_TOKEN": "tökén"}, {}),
        ({"VAULT_ROLE_ID": "role"}, {"auth": "approle"}),
        ({}, {"auth": "approle"}),
        ({}, {"token_file": Path("/nonexistent/token")}),
    ],
)
async def test_who_has_no_good_credentials_is_not_let_in(
    vault: FakeVault, opened: Opened, environ: dict[str, str], settings: dict[str, Any]
) -> None:
    with pytest.raises(Forbidden):
        await opened.backend(environ, **settings)


async def test_the_address_may_come_from_the_environment(vault: FakeVault) -> None:
    environ = {"VAULT_TOKEN": ROOT_TOKEN, "VAULT_ADDR": f"{vault.url}/"}
    backend = VaultBackend(Options("web"), environ=environ)

    await backend.open()
    await backend.close()

    assert vault.asked[0] == "GET auth/token/lookup-self"


async def test_without_an_address_nothing_is_opened() -> None:
    backend = VaultBackend(Options("web"), environ={"VAULT_TOKEN": "t"})

    with pytest.raises(StoreUnsupported, match="where Vault is"):
        await backend.open()


@pytest.mark.parametrize(
    ("credentials", "login"),
    [
        ("", TokenLogin("VAULT_TOKEN")),
        ("token-env:TEAM_TOKEN", TokenLogin("TEAM_TOKEN")),
        ("token-file:/run/token", TokenLogin(file=Path("/run/token"))),
        ("approle:TEAM", AppRoleLogin("TEAM_ROLE_ID", "TEAM_SECRET_ID")),
        ("kubernetes:web", KubernetesLogin("web")),
    ],
)
def test_a_binding_names_its_login(credentials: str, login: object) -> None:
    assert read_settings(Options("web", credentials=credentials)).login == login


def test_where_a_login_is_mounted_is_said_of_the_settings_own_alone() -> None:
    settings = {"auth": "kubernetes", "kubernetes_role": "web", "auth_mount": "cluster-eu"}

    theirs = read_settings(Options("web", settings=settings, credentials="kubernetes:other"))
    another = read_settings(Options("web", settings=settings, credentials="approle:TEAM"))

    assert (theirs.auth_mount, another.auth_mount) == ("cluster-eu", "approle")


@pytest.mark.parametrize("settings", [{"auth": "kubernetes"}, {"auth": "ldap"}, {"mount": 1}])
def test_settings_that_can_not_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(StoreUnsupported):
        read_settings(Options("web", settings=settings))


@pytest.mark.parametrize(
    "credentials", ["hvs.CAESIJ", "token-env:hvs.CAESIJ", "token-file:token", "approle:", "role:x"]
)
def test_credentials_that_name_nothing_are_refused_and_not_quoted(credentials: str) -> None:
    with pytest.raises(StoreUnsupported) as caught:
        read_settings(Options("web", credentials=credentials))

    assert "CAESIJ" not in f"{caught.value} {caught.value.hint}"


def test_a_file_of_a_token_that_is_no_text_is_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"secret\xff")

    with pytest.raises(Forbidden) as caught:
        vault_settings.from_file(file)

    assert caught.value.__context__ is None
    assert "secret" not in str(caught.value)


def test_a_session_shows_no_token() -> None:
    assert ROOT_TOKEN not in repr(VaultBackend(Options("web"), environ={"VAULT_TOKEN": ROOT_TOKEN}))
