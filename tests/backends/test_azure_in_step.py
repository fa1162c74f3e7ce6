"""The reconciler with the stores of Azure, over fakes: both sides come to be equal, and stay so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("azure.keyvault.secrets", reason="pip install 'envd-cluster[azure]'")

from envd.backends.azure_app_configuration import AppConfigurationBackend
from envd.backends.azure_functions import FunctionsBackend
from envd.backends.azure_key_value import REFERENCE_TYPE
from envd.backends.azure_key_vault import KeyVaultBackend
from envd.backends.contract import Backend, Options
from envd.core.syncing import BindingView
from envd.sync.applying import Leave
from envd.sync.layouts import Place, place_of
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
from tests.sync.world import World, bound, done, fingerprint

ALLOWED = Leave(deletes=99, restart=True)


class AzureWorld(World):
    """The world of the reconciler with a store of Azure in it."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend

    def place(self, binding: BindingView) -> Place:
        return place_of(binding, self.backend, fingerprint)


def _key_vault(vault: FakeKeyVault) -> KeyVaultBackend:
    options = Options(
        "acme-prod/web",
        settings={"ca_file": certificate().ca_file},
        endpoint=vault.url,
        fingerprint=fingerprint,
    )
    return KeyVaultBackend(options, credentials=fake_credential)


@pytest.fixture
async def vault() -> AsyncIterator[FakeKeyVault]:
    async with fake_key_vault(tls=certificate().context) as running:
        yield running


@pytest.fixture
async def world(vault: FakeKeyVault) -> AsyncIterator[AzureWorld]:
    backend = _key_vault(vault)
    await backend.open()
    yield AzureWorld(backend)
    await backend.close()


async def test_edits_on_both_sides_meet_and_an_idle_day_writes_nothing(
    vault: FakeKeyVault, world: AzureWorld
) -> None:
    world.environments.set("web", A="1", B="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    vault.now_s += 5
    vault.put("web---b", "2")

    view = await world.run(bound())
    writes = len(vault.writes())
    for _ in range(3):
        assert not (await world.run(bound())).operations

    assert done(view) == [("update", "A", "applied"), ("update", "B", "applied")]
    assert world.environments.values("web") == {"A": "2", "B": "2"}
    assert {name: vault.value(name) for name in vault.secrets} == {"web---a": "2", "web---b": "2"}
    assert len(vault.writes()) == writes


async def test_what_was_edited_in_the_portal_is_ours_again_once_it_is_written(
    vault: FakeKeyVault, world: AzureWorld
) -> None:
    world.environments.set("web", A="1")
    await world.run(bound())
    vault.now_s += 5
    vault.put("web---a", "2")
    await world.run(bound())
    world.environments.set("web", A="3")

    await world.run(bound())

    assert vault.value("web---a") == "3"
    assert vault.secrets["web---a"].latest.tags["managed-by"] == "envd"


@pytest.mark.parametrize("is_same_node", [True, False])
async def test_a_name_that_the_vault_is_busy_with_gets_its_new_value_and_never_its_old_one(
    vault: FakeKeyVault, world: AzureWorld, is_same_node: bool
) -> None:
    world.environments.set("web", A="old")
    await world.run(bound())
    world.environments.unset("web", "A")
    await world.run(bound(), ALLOWED)
    world.environments.set("web", A="new")
    vault.lag = 5

    busy = await world.run(bound())
    vault.busy.clear()
    if not is_same_node:
        await world.backend.close()
        world.backend = _key_vault(vault)
        await world.backend.open()
    for _ in range(3):
        await world.run(bound())

    assert done(busy) == [("create", "A", "failed")]
    assert vault.value("web---a") == "new"
    assert world.environments.values("web") == {"A": "new"}
    await world.backend.close()


async def test_an_edit_in_the_very_moment_is_put_on_record(
    vault: FakeKeyVault, world: AzureWorld
) -> None:
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    vault.before["PUT"] = lambda: vault.put("web---a", "theirs")

    await world.run(bound())

    assert vault.value("web---a") == "2"
    assert [each.lost for each in world.environments.on_record.values()] == ["theirs"]


async def test_a_secret_that_is_disabled_is_deleted_nowhere(
    vault: FakeKeyVault, world: AzureWorld
) -> None:
    world.environments.set("web", A="1", B="1")
    await world.run(bound())
    vault.secrets["web---a"].latest.is_enabled = False
    vault.secrets["web---a"].latest.changed_s += 5
    world.environments.set("web", B="2")

    view = await world.run(bound(), ALLOWED)

    assert ("update", "B", "applied") in done(view)
    assert world.environments.values("web") == {"A": "1", "B": "2"}
    assert "web---a" in vault.secrets


# App Configuration.


@pytest.fixture
async def store() -> AsyncIterator[FakeAppConfiguration]:
    async with fake_app_configuration(tls=certificate().context) as running:
        yield running


async def test_what_is_plain_is_kept_in_app_configuration_and_what_is_secret_is_not(
    store: FakeAppConfiguration,
) -> None:
    options = Options(
        "acme-config/web@prod",
        settings={"ca_file": certificate().ca_file},
        endpoint=store.url,
        fingerprint=fingerprint,
    )
    backend = AppConfigurationBackend(options, credentials=fake_credential)
    await backend.open()
    world = AzureWorld(backend)
    world.environments.set("web", COLOUR="blue", TOKEN="hunter2")
    world.environments.mark_secret("web", "TOKEN")
    try:
        view = await world.run(bound())
        store.put("web/COLOUR", "red", label="prod")
        await world.run(bound())
    finally:
        await backend.close()

    assert done(view) == [("create", "COLOUR", "applied"), ("skip", "TOKEN", "")]
    assert world.environments.values("web") == {"COLOUR": "red", "TOKEN": "hunter2"}
    assert store.kept.keys() == {("web/COLOUR", "prod")}


async def test_what_refers_to_a_secret_holds_nothing_up_and_comes_nowhere(
    store: FakeAppConfiguration,
) -> None:
    options = Options(
        "acme-config/web",
        settings={"ca_file": certificate().ca_file},
        endpoint=store.url,
        fingerprint=fingerprint,
    )
    backend = AppConfigurationBackend(options, credentials=fake_credential)
    await backend.open()
    world = AzureWorld(backend)
    store.put("web/TOKEN", "{}", content_type=f"{REFERENCE_TYPE};charset=utf-8")
    world.environments.set("web", COLOUR="blue")
    try:
        view = await world.run(bound(), ALLOWED)
    finally:
        await backend.close()

    assert ("create", "COLOUR", "applied") in done(view)
    assert world.environments.values("web") == {"COLOUR": "blue"}
    assert store.kept["web/TOKEN", ""]["value"] == "{}"


# Function apps.


@pytest.fixture
async def app() -> AsyncIterator[FakeFunctionApp]:
    async with fake_function_app(tls=certificate().context) as running:
        yield running


async def test_the_variables_of_an_app_are_in_step_and_the_rest_stays_azures(
    app: FakeFunctionApp,
) -> None:
    options = Options(
        "acme-web/acme-orders",
        "document",
        settings={"ca_file": certificate().ca_file, "subscription_id": SUBSCRIPTION},
        endpoint=app.url,
        fingerprint=fingerprint,
    )
    backend = FunctionsBackend(options, credentials=fake_credential)
    await backend.open()
    world = AzureWorld(backend)
    binding = bound(layout="document")
    app.settings[""]["THEIRS"] = "1"
    world.environments.set("web", OURS="1", GONE="1")
    try:
        await world.run(binding, ALLOWED)
        app.settings[""]["OURS"] = "2"
        world.environments.unset("web", "GONE")
        await world.run(binding, ALLOWED)
        writes = len(app.writes())
        idle = await world.run(binding, ALLOWED)
    finally:
        await backend.close()

    assert world.environments.values("web") == {"OURS": "2", "THEIRS": "1"}
    assert app.settings[""].items() >= {**AZURES, "OURS": "2", "THEIRS": "1"}.items()
    assert "GONE" not in app.settings[""]
    assert not idle.operations
    assert len(app.writes()) == writes
