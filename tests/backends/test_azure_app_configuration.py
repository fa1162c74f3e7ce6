"""What `azure-app-configuration` makes of a store, beyond what the kit asks of every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

pytest.importorskip("azure.appconfiguration", reason="pip install 'envd-cluster[azure]'")

from envd.backends.azure_app_configuration import AppConfigurationBackend
from envd.backends.azure_key_value import REFERENCE_TYPE, Place
from envd.backends.contract import Key, Op, Options, Result, Scope
from envd.backends.errors import (
    Forbidden,
    InvalidName,
    InvalidValue,
    NotOwned,
    StoreUnsupported,
    ValueTooLarge,
)
from tests.backends.driving import delete, items, key, one, pages, put, values
from tests.backends.fake_app_configuration import FakeAppConfiguration, fake_app_configuration
from tests.backends.fake_azure import fake_credential
from tests.backends.tls import certificate

REFERENCE = '{"uri":"https://acme-prod.vault.azure.net/secrets/name"}'


def plain(op: Op) -> Op:
    return replace(op, secret=False)


@pytest.fixture
async def store() -> AsyncIterator[FakeAppConfiguration]:
    async with fake_app_configuration(tls=certificate().context) as running:
        yield running


@pytest.fixture
async def backend(store: FakeAppConfiguration) -> AsyncIterator[AppConfigurationBackend]:
    options = Options(
        "acme-config/web@prod",
        below=True,
        settings={"ca_file": certificate().ca_file},
        endpoint=store.url,
    )
    made = AppConfigurationBackend(options, credentials=fake_credential)
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("acme-config", Place("acme-config", "", "")),
        ("acme-config/web/prod", Place("acme-config", "web/prod", "")),
        ("acme-config/App:Web@prod", Place("acme-config", "App:Web", "prod")),
        ("acme-config@team/prod", Place("acme-config", "", "team/prod")),
    ],
)
def test_a_place_is_a_store_a_prefix_and_a_label(text: str, place: Place) -> None:
    assert Place.of(text) == place


@pytest.mark.parametrize(
    "text", ["", "a", "acme-config/a*", "acme-config/..", "acme-config@", "acme-config@a,b", "/web"]
)
def test_what_a_filter_would_take_for_more_is_no_place(text: str) -> None:
    with pytest.raises(InvalidName):
        Place.of(text)


def test_documents_have_no_place_here() -> None:
    with pytest.raises(StoreUnsupported, match="plain text"):
        AppConfigurationBackend(Options("acme-config", "document"))


async def test_a_secret_is_refused_without_a_call(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    outcome = await one(backend, put("NAME", "hunter2"))

    assert isinstance(outcome.error, InvalidValue)
    assert "azure-key-vault" in outcome.error.hint
    assert store.asked == []


async def test_a_variable_is_a_key_with_a_label_that_says_whose_it_is(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    store.put("web/NAME", "of another label")
    await one(backend, plain(put("NAME", "a", stamp="1-a")))
    await one(backend, plain(put("NAME", "b", environment="eu")))

    assert store.kept.keys() == {("web/NAME", ""), ("web/NAME", "prod"), ("web/eu/NAME", "prod")}
    assert store.kept["web/NAME", "prod"]["tags"]["managed-by"] == "envd"
    assert store.kept["web/NAME", ""]["value"] == "of another label"
    assert await values(backend, Scope("eu")) == {Key("eu", "NAME"): "b"}


async def test_an_edit_that_leaves_the_tags_takes_the_stamp_away(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    await one(backend, plain(put("NAME", "ours", stamp="1-a")))
    ours = (await items(backend))[key("NAME")]
    store.put("web/NAME", "theirs", label="prod")

    theirs = (await items(backend))[key("NAME")]

    assert (ours.stamp, theirs.stamp) == ("1-a", "")
    assert (theirs.value, theirs.managed) == ("theirs", True)


async def test_what_others_noted_stays(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    kind = {"content_type": "text/x-url", "tags": {"team": "web"}}
    etag = store.put("web/NAME", "theirs", label="prod", **kind)["etag"]

    await one(backend, plain(put("NAME", "ours", expect=etag, any_owner=True)))

    found = store.kept["web/NAME", "prod"]
    assert (found["content_type"], found["tags"]["team"]) == ("text/x-url", "web")


async def test_what_refers_to_a_secret_is_there_without_a_value_and_stays(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    kind = f"{REFERENCE_TYPE};charset=utf-8"
    etag = store.put("web/NAME", REFERENCE, label="prod", content_type=kind)["etag"]

    listed = (await items(backend))[key("NAME")]
    read = (await backend.get_many([key("NAME")]))[key("NAME")]
    outcomes = [
        await one(backend, plain(put("NAME", "ours", expect=etag, any_owner=True))),
        await one(backend, delete("NAME", expect=etag, any_owner=True)),
    ]

    assert listed.value is None
    assert isinstance(read, InvalidValue)
    assert [type(each.error) for each in outcomes] == [NotOwned, NotOwned]
    assert store.writes() == []


async def test_what_is_locked_is_not_written(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    created = await one(backend, plain(put("NAME", "first")))
    store.kept["web/NAME", "prod"]["locked"] = True

    changed = await one(backend, plain(put("NAME", "second", expect=created.version)))
    deleted = await one(backend, delete("NAME", expect=created.version))

    assert isinstance(changed.error, Forbidden)
    assert "locked" in changed.error.message
    assert [changed.result, deleted.result] == [Result.REJECTED] * 2


async def test_what_has_too_many_tags_for_its_value_is_too_large(
    store: FakeAppConfiguration, backend: AppConfigurationBackend
) -> None:
    etag = store.put("web/NAME", "theirs", label="prod", tags={"long": "x" * 2000})["etag"]

    outcome = await one(backend, plain(put("NAME", "x" * 9000, expect=etag, any_owner=True)))

    assert isinstance(outcome.error, ValueTooLarge)


async def test_keys_of_a_template_are_found_though_they_are_written_otherwise(
    store: FakeAppConfiguration,
) -> None:
    options = Options(
        "acme-config@prod",
        below=True,
        name_template="{environment}:{variable}",
        settings={"ca_file": certificate().ca_file},
        endpoint=store.url,
    )
    backend = AppConfigurationBackend(options, credentials=fake_credential)
    store.put("web:NAME", "value", label="prod")
    await backend.open()
    try:
        assert await values(backend, Scope("web")) == {Key("web", "NAME"): "value"}
    finally:
        await backend.close()


async def test_a_cursor_of_elsewhere_is_refused(backend: AppConfigurationBackend) -> None:
    with pytest.raises(StoreUnsupported):
        await pages(backend, cursor="https://elsewhere.example/kv?x=1")
