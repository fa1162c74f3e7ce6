"""What `azure-functions` leaves alone in the settings of an app, and what it makes of the rest."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("azure.core", reason="pip install 'envd-cluster[azure]'")

from envd.backends.azure_app_settings import MARK
from envd.backends.azure_functions import BUSY_S, App, FunctionsBackend
from envd.backends.azure_settings import Credential
from envd.backends.contract import Capability, Item, Key, Op, Options, Outcome, Result, Verb
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    NameCollision,
    NotOwned,
    StoreUnsupported,
    Throttled,
)
from tests.backends.driving import one, pages
from tests.backends.fake_azure import FakeCredential, fake_credential
from tests.backends.fake_function_app import (
    AZURES,
    SUBSCRIPTION,
    FakeFunctionApp,
    fake_function_app,
)
from tests.backends.tls import certificate

DOCUMENT = Key("", "")
SETTINGS: dict[str, object] = {"subscription_id": SUBSCRIPTION}


@pytest.fixture
async def app() -> AsyncIterator[FakeFunctionApp]:
    async with fake_function_app(tls=certificate().context) as running:
        yield running


def _options(app: FakeFunctionApp, place: str = "acme-web/acme-orders") -> Options:
    settings = {**SETTINGS, "ca_file": certificate().ca_file}
    return Options(place, "document", settings=settings, endpoint=app.url)


async def _open(app: FakeFunctionApp, place: str = "acme-web/acme-orders") -> FunctionsBackend:
    options = _options(app, place)
    backend = FunctionsBackend(options, credentials=fake_credential)
    await backend.open()
    return backend


@pytest.fixture
async def backend(app: FakeFunctionApp) -> AsyncIterator[FunctionsBackend]:
    made = await _open(app)
    yield made
    await made.close()


def put(variables: dict[str, str], *, expect: str = "", any_owner: bool = False) -> Op:
    return Op(Verb.PUT, DOCUMENT, expect, json.dumps(variables), stamp="1-a", any_owner=any_owner)


async def read(backend: FunctionsBackend) -> Item:
    found = (await backend.get_many([DOCUMENT]))[DOCUMENT]
    assert isinstance(found, Item)
    return found


async def write(backend: FunctionsBackend, variables: dict[str, str]) -> Outcome:
    """Write over what is there."""
    found = (await backend.get_many([DOCUMENT]))[DOCUMENT]
    version = found.version if isinstance(found, Item) else ""
    return await one(backend, put(variables, expect=version, any_owner=True))


def variables_of(item: Item) -> dict[str, str]:
    assert item.value is not None
    found: dict[str, str] = json.loads(item.value)
    return found


@pytest.mark.parametrize(
    ("place", "app"),
    [
        ("acme-web/acme-orders", App("acme-web", "acme-orders")),
        ("acme-orders", App("usual", "acme-orders")),
        ("acme-orders/slots/staging", App("usual", "acme-orders", "staging")),
        ("a.b_c/acme-orders/slots/s1", App("a.b_c", "acme-orders", "s1")),
    ],
)
def test_a_place_is_an_app_in_a_group(place: str, app: App) -> None:
    assert App.of(place, "usual") == app


@pytest.mark.parametrize(
    "place",
    ["", "acme-web/", "acme-orders/slots/", "a/b/c", "a/b/slots/c/d", "../x", "a_b", "a/b?c"],
)
def test_other_places_name_no_app(place: str) -> None:
    with pytest.raises(InvalidName):
        App.of(place, "usual")


@pytest.mark.parametrize(
    "options",
    [
        Options("acme-web/acme-orders", settings=SETTINGS),
        Options("acme-web/acme-orders", "document", below=True, settings=SETTINGS),
        Options(
            "acme-web/acme-orders", "document", name_template="x{environment}", settings=SETTINGS
        ),
        Options("acme-web/acme-orders", "document"),
    ],
)
def test_an_app_holds_one_document_and_is_in_a_subscription(options: Options) -> None:
    with pytest.raises(StoreUnsupported):
        FunctionsBackend(options)


def test_who_binds_an_app_is_asked_before_it_starts_anew() -> None:
    backend = FunctionsBackend(Options("acme-web/acme-orders", "document", settings=SETTINGS))

    assert Capability.RESTARTS_TARGET in backend.capabilities


async def test_what_is_azures_is_kept_and_not_shown(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    written = await write(backend, {"NAME": "value"})

    assert written.result is Result.APPLIED
    assert variables_of(await read(backend)) == {"NAME": "value"}
    assert app.settings[""].items() >= AZURES.items()
    assert app.settings[""].keys() == {*AZURES, MARK, "NAME"}


async def test_an_app_without_variables_is_an_empty_place(backend: FunctionsBackend) -> None:
    (page,) = await pages(backend)

    assert (page.items, page.complete) == ([], True)


async def test_what_others_set_is_shown_and_stays_theirs(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    app.settings[""] |= {"THEIRS": "1", "SHARED": "2"}

    await write(backend, {"THEIRS": "1", "SHARED": "ours", "OURS": "3"})
    item = await read(backend)
    deleted = await one(backend, Op(Verb.DELETE, DOCUMENT, item.version))

    assert item.managed
    assert deleted.result is Result.APPLIED
    assert app.settings[""] == {**AZURES, "THEIRS": "1"}


async def test_a_map_of_others_is_not_taken_without_leave(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    app.settings[""]["THEIRS"] = "1"
    item = await read(backend)

    outcome = await one(backend, put({"OURS": "1"}, expect=item.version))

    assert isinstance(outcome.error, NotOwned)
    assert app.writes() == []


async def test_an_edit_by_others_takes_the_stamp_away(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    await write(backend, {"NAME": "ours"})
    ours = await read(backend)
    app.settings[""]["NAME"] = "theirs"

    theirs = await read(backend)

    assert (ours.stamp, theirs.stamp) == ("1-a", "")
    assert theirs.version != ours.version


async def test_a_write_that_goes_back_has_a_version_of_its_own(backend: FunctionsBackend) -> None:
    outcomes: list[Outcome] = []
    for number, value in enumerate(("a", "b", "a")):
        item = await read(backend) if outcomes else None
        expect = item.version if item else ""
        outcomes.append(await one(backend, put({"NAME": value}, expect=expect), str(number)))

    assert len({each.version for each in outcomes}) == 3


async def test_a_mark_that_somebody_spoiled_owns_nothing(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    await write(backend, {"NAME": "ours"})
    app.settings[""][MARK] = "[" * 10_000
    item = await read(backend)

    deleted = await one(backend, Op(Verb.DELETE, DOCUMENT, item.version))

    assert (item.stamp, deleted.result) == ("", Result.APPLIED)
    assert app.settings[""] == {**AZURES, "NAME": "ours"}


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"WEBSITE_NODE_DEFAULT_VERSION": "20"}, InvalidName),
        ({"azurewebjobsstorage": "x"}, InvalidName),
        ({MARK: "x"}, InvalidName),
        ({"a.b": "x"}, InvalidName),
        ({"NAME": "1", "name": "2"}, NameCollision),
        ({"NAME": " @microsoft.keyvault(SecretUri=x)"}, InvalidValue),
        ({"NAME": "half of a pair \ud800"}, InvalidValue),
        ({"DEPLOYMENT_STORAGE_CONNECTION_STRING": "x"}, InvalidName),
        ({"MICROSOFT_PROVIDER_AUTHENTICATION_SECRET": "x"}, InvalidName),
    ],
)
async def test_what_an_app_can_not_have_is_refused_without_a_call(
    app: FakeFunctionApp,
    backend: FunctionsBackend,
    variables: dict[str, str],
    kind: type[BackendError],
) -> None:
    (reject,) = backend.check([put(variables)])
    outcome = await one(backend, put(variables))

    assert type(reject.error) is kind
    assert type(outcome.error) is kind
    assert app.asked == []


@pytest.mark.parametrize("name", ["SIGNING_KEY", "Signing_Key"])
async def test_a_reference_is_not_written_over_by_a_variable_of_its_name(
    app: FakeFunctionApp, backend: FunctionsBackend, name: str
) -> None:
    outcome = await one(backend, put({"OTHER": "1", name: "plain"}, any_owner=True))

    assert isinstance(outcome.error, NotOwned)
    assert app.settings[""] == AZURES


async def test_what_is_no_text_is_kept_and_not_shown(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    app.settings[""]["THEIRS"] = "half of a pair \ud800"

    written = await write(backend, {"NAME": "value"})

    assert written.result is Result.APPLIED
    assert variables_of(await read(backend)) == {"NAME": "value"}
    assert app.settings[""]["THEIRS"] == "half of a pair \ud800"


@pytest.mark.parametrize("text", ["", "[]", '{"NAME": 1}', "[" * 10_000])
def test_what_is_no_document_is_refused(text: str) -> None:
    backend = FunctionsBackend(Options("acme-web/acme-orders", "document", settings=SETTINGS))

    (reject,) = backend.check([Op(Verb.PUT, DOCUMENT, "", text)])

    assert isinstance(reject.error, InvalidValue)


async def test_a_slot_has_settings_of_its_own(app: FakeFunctionApp) -> None:
    app.settings["staging"] = {}
    backend = await _open(app, "acme-web/acme-orders/slots/staging")
    try:
        await write(backend, {"NAME": "value"})
    finally:
        await backend.close()

    assert app.settings["staging"]["NAME"] == "value"
    assert app.settings[""] == AZURES


@pytest.mark.parametrize(
    "place", ["acme-web/other", "other/acme-orders", "acme-web/acme-orders/slots/none"]
)
async def test_an_app_that_is_not_there_is_no_empty_place(app: FakeFunctionApp, place: str) -> None:
    backend = await _open(app, place)
    try:
        with pytest.raises(Forbidden, match="there is no function app"):
            await pages(backend)
        with pytest.raises(Forbidden):
            await backend.get_many([DOCUMENT])
        assert not (await backend.probe()).ok
    finally:
        await backend.close()


async def test_another_operation_on_the_app_is_waited_for_by_others(
    app: FakeFunctionApp, backend: FunctionsBackend
) -> None:
    app.busy = 1

    outcome = await write(backend, {"NAME": "value"})

    assert isinstance(outcome.error, Throttled)
    assert outcome.error.retry_after_s == BUSY_S
    assert (await write(backend, {"NAME": "value"})).result is Result.APPLIED


async def test_the_token_is_one_for_resource_manager(app: FakeFunctionApp) -> None:
    made = FakeCredential()
    backend = FunctionsBackend(_options(app), credentials=lambda _: Credential(made, "a test"))
    await backend.open()
    try:
        await pages(backend)
    finally:
        await backend.close()

    assert made.scopes == ["https://management.azure.com/.default"]
