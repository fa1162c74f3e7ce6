"""What `vault` makes of secrets, its own and others', and of whatever a server answers."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from envd.backends.contract import Item, Key, Op, Options, Result, Verb
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    NotOwned,
    SoftDeleted,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
    ValueTooLarge,
)
from envd.backends.vault import LIMITS, VaultBackend
from tests.backends.driving import delete, do, items, key, one, put, results, values
from tests.backends.fake_vault import ROOT_TOKEN, FakeVault, fake_vault, serving

pytest.importorskip("hvac", reason="hvac is not installed: pip install 'envd-cluster[vault]'")

PLACE = "envd/web"
SECRET = "hunter2-in-a-secret"


@pytest.fixture
async def vault() -> AsyncIterator[FakeVault]:
    async with fake_vault() as running:
        yield running


@asynccontextmanager
async def opened(url: str, place: str = "web", **changes: Any) -> AsyncIterator[VaultBackend]:
    """A backend as root; `changes` are those of its options."""
    options = replace(Options(place, endpoint=url), **changes)
    backend = VaultBackend(options, environ={"VAULT_TOKEN": ROOT_TOKEN})
    try:
        await backend.open()
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def backend(vault: FakeVault) -> AsyncIterator[VaultBackend]:
    async with opened(vault.url) as made:
        yield made


@pytest.fixture
async def document(vault: FakeVault) -> AsyncIterator[VaultBackend]:
    async with opened(vault.url, layout="document") as made:
        yield made


def write(variables: Mapping[str, str], *, expect: str = "", any_owner: bool = False) -> Op:
    """A put of the document."""
    text = json.dumps(variables)
    return Op(Verb.PUT, Key("", ""), expect, text, stamp="1-a", any_owner=any_owner)


async def found(backend: VaultBackend, name: str = "NAME") -> Item:
    """The item of a variable, or with "" the document."""
    answer = (await backend.get_many([key(name)]))[key(name)]
    assert isinstance(answer, Item), f"it is {type(answer).__name__}"
    return answer


# A secret for each variable.


async def test_a_variable_is_a_secret_with_its_mark_beside_the_value(
    vault: FakeVault, backend: VaultBackend
) -> None:
    await one(backend, put("NAME", "value", stamp="1-a"))

    assert vault.latest(f"{PLACE}/NAME") == {
        "value": "value",
        "_envd": {"stamp": "1-a", "version": 1, "secret": True},
    }


async def test_fields_that_others_added_to_a_secret_stay(
    vault: FakeVault, backend: VaultBackend
) -> None:
    await one(backend, put("NAME", "value"))
    ours = vault.latest(f"{PLACE}/NAME") or {}
    vault.put(f"{PLACE}/NAME", {**ours, "owner": "team"})
    seen = await found(backend)

    outcome = await one(backend, put("NAME", "new", expect=seen.version))

    assert outcome.result is Result.APPLIED
    assert (vault.latest(f"{PLACE}/NAME") or {})["owner"] == "team"


async def test_a_stamp_that_others_carried_into_a_later_version_is_not_its_own(
    vault: FakeVault, backend: VaultBackend
) -> None:
    await one(backend, put("NAME", "value", stamp="1-a"))
    ours = vault.latest(f"{PLACE}/NAME") or {}

    vault.put(f"{PLACE}/NAME", {**ours, "value": "theirs"})

    seen = await found(backend)
    assert (seen.value, seen.stamp, seen.managed) == ("theirs", "", True)


async def test_a_secret_without_a_value_is_listed_and_not_read_as_a_variable(
    vault: FakeVault, backend: VaultBackend
) -> None:
    vault.put(f"{PLACE}/LOGIN", {"username": "u", "password": SECRET})

    listed = (await items(backend))[key("LOGIN")]
    read = (await backend.get_many([key("LOGIN")]))[key("LOGIN")]

    assert (listed.value, listed.managed, listed.deleted) == (None, False, False)
    assert isinstance(read, InvalidValue)


async def test_a_secret_without_a_value_is_never_overwritten_or_deleted(
    vault: FakeVault, backend: VaultBackend
) -> None:
    vault.put(f"{PLACE}/LOGIN", {"username": "u", "password": SECRET})
    version = (await items(backend))[key("LOGIN")].version

    outcomes = await do(
        backend,
        put("LOGIN", "ours", expect=version, any_owner=True),
        put("LOGIN", "ours", any_owner=True),
        delete("LOGIN", expect=version, any_owner=True),
    )

    assert results(outcomes) == ["rejected"] * 3
    assert all(isinstance(each.error, NotOwned) for each in outcomes)
    assert vault.latest(f"{PLACE}/LOGIN") == {"username": "u", "password": SECRET}


async def test_a_value_that_is_equal_but_secret_otherwise_is_written(
    vault: FakeVault, backend: VaultBackend
) -> None:
    await one(backend, put("NAME", "value"))
    seen = await found(backend)

    outcome = await one(backend, replace(put("NAME", "value", expect=seen.version), secret=False))

    assert outcome.result is Result.APPLIED
    assert (await found(backend)).secret is False


async def test_a_secret_that_was_removed_whole_and_made_again_has_another_version(
    vault: FakeVault, backend: VaultBackend
) -> None:
    vault.put(f"{PLACE}/NAME", {"value": "first"})
    first = await found(backend)

    del vault.secrets[f"{PLACE}/NAME"]
    vault.put(f"{PLACE}/NAME", {"value": "second"})

    second = await found(backend)
    assert first.version.startswith("1@")
    assert second.version.startswith("1@")
    assert first.version != second.version


async def test_the_time_of_a_version_is_vaults(vault: FakeVault, backend: VaultBackend) -> None:
    vault.put(f"{PLACE}/NAME", {"value": "value"})

    assert (await found(backend)).changed_ms == 1_767_323_045_000


async def test_only_what_has_the_name_of_a_variable_is_read(
    vault: FakeVault, backend: VaultBackend
) -> None:
    for name in ("NAME", "not a variable", "below/NAME", "2ND"):
        vault.put(f"{PLACE}/{name}", {"value": "value"})
    vault.put("envd/webs/NAME", {"value": "another place's"})
    vault.asked.clear()

    seen = await values(backend)

    assert seen == {key("NAME"): "value"}
    assert vault.asked == [f"LIST secret/metadata/{PLACE}", f"GET secret/data/{PLACE}/NAME"]


async def test_a_template_with_folders_is_listed_folder_by_folder(vault: FakeVault) -> None:
    async with opened(vault.url, name_template="app/{variable}") as backend:
        await one(backend, put("NAME", "value"))

        assert list(vault.secrets) == [f"{PLACE}/app/NAME"]
        assert await values(backend) == {key("NAME"): "value"}


# Deletes.


async def test_a_delete_leaves_the_value_for_a_person_to_undelete(
    vault: FakeVault, backend: VaultBackend
) -> None:
    created = await one(backend, put("NAME", "precious"))

    await one(backend, delete("NAME", expect=created.version))

    before, grave = vault.secrets[f"{PLACE}/NAME"]
    assert (before.data or {})["value"] == "precious"
    assert (before.is_there, grave.is_there) == (False, False)
    assert grave.data == {"_envd": {"deleted": True, "version": 2}}


async def test_a_delete_that_broke_off_half_way_is_a_delete(
    vault: FakeVault, backend: VaultBackend
) -> None:
    created = await one(backend, put("NAME", "value"))
    vault.forbidden.add("secret/delete/")

    outcome = await one(backend, delete("NAME", expect=created.version))

    assert outcome.result is Result.FAILED
    assert isinstance(outcome.error, Forbidden)
    assert isinstance((await backend.get_many([key("NAME")]))[key("NAME")], SoftDeleted)
    assert (await items(backend))[key("NAME")].deleted
    again = await one(backend, put("NAME", "again"))
    assert again.result is Result.APPLIED


async def test_who_expects_what_others_deleted_is_refused(
    vault: FakeVault, backend: VaultBackend
) -> None:
    created = await one(backend, put("NAME", "value"))
    vault.delete(f"{PLACE}/NAME")

    stale = await one(backend, put("NAME", "new", expect=created.version))
    fresh = await one(backend, put("NAME", "new"))

    assert (stale.result, fresh.result) == (Result.CONFLICT, Result.APPLIED)
    assert len(vault.secrets[f"{PLACE}/NAME"]) == 2


async def test_what_was_destroyed_is_deleted_and_its_name_is_free(
    vault: FakeVault, backend: VaultBackend
) -> None:
    vault.put(f"{PLACE}/NAME", {"value": "value"})
    vault.secrets[f"{PLACE}/NAME"][0].destroyed = True

    listed = (await items(backend))[key("NAME")]
    outcome = await one(backend, put("NAME", "new"))

    assert listed.deleted
    assert outcome.result is Result.APPLIED


async def test_what_others_write_while_it_is_deleted_stays(
    vault: FakeVault, backend: VaultBackend
) -> None:
    created = await one(backend, put("NAME", "value"))

    async def serve(request: web.Request) -> web.Response:
        if request.path.startswith("/v1/secret/delete/"):
            vault.put(f"{PLACE}/NAME", {"value": "theirs"})
        return await vault.serve(request)

    async with serving(serve) as url, opened(url) as deleting:
        outcome = await one(deleting, delete("NAME", expect=created.version))

    assert outcome.result is Result.APPLIED
    assert (await found(backend)).value == "theirs"


# Documents.


async def test_the_document_of_one_environment_is_the_place_itself(
    vault: FakeVault, document: VaultBackend
) -> None:
    await one(document, write({"A": "1", "B": "2"}))

    assert vault.latest(PLACE) == {"A": "1", "B": "2", "_envd": {"stamp": "1-a", "version": 1}}
    assert (await found(document, "")).stamp == "1-a"


async def test_below_a_prefix_its_own_document_lies_beside_the_others(vault: FakeVault) -> None:
    async with opened(vault.url, layout="document", below=True) as backend:
        await do(
            backend,
            *(Op(Verb.PUT, Key(each, ""), "", '{"A": "1"}') for each in ("", "prod", "prod/eu")),
        )

        assert list(vault.secrets) == [f"{PLACE}/_", f"{PLACE}/prod", f"{PLACE}/prod/eu"]
        assert set(await items(backend)) == {Key("", ""), Key("prod", ""), Key("prod/eu", "")}


async def test_what_is_no_variable_in_a_document_is_not_told_and_stays(
    vault: FakeVault, document: VaultBackend
) -> None:
    others = {"port": 5432, "tags": ["a"], "no name": "text"}
    vault.put(PLACE, {"A": "1", **others})
    seen = await found(document, "")

    outcome = await one(document, write({"B": "2"}, expect=seen.version, any_owner=True))

    assert seen.value == '{"A": "1"}'
    assert outcome.result is Result.APPLIED
    written = vault.latest(PLACE) or {}
    assert {name: each for name, each in written.items() if name != "_envd"} == {"B": "2", **others}


async def test_what_is_no_text_in_a_document_is_not_replaced(
    vault: FakeVault, document: VaultBackend
) -> None:
    vault.put(PLACE, {"PORT": 5432})
    seen = await found(document, "")

    outcome = await one(document, write({"PORT": "1"}, expect=seen.version, any_owner=True))

    assert isinstance(outcome.error, NotOwned)
    assert vault.latest(PLACE) == {"PORT": 5432}


async def test_what_others_have_in_a_document_survives_its_deletion(
    vault: FakeVault, document: VaultBackend
) -> None:
    await one(document, write({"A": "1"}))
    vault.put(PLACE, {**(vault.latest(PLACE) or {}), "port": 5432})
    seen = await found(document, "")

    outcome = await one(document, delete("", expect=seen.version))

    assert outcome.result is Result.APPLIED
    assert vault.latest(PLACE) == {"port": 5432}


async def test_a_document_that_is_written_otherwise_but_says_the_same_is_not_written(
    vault: FakeVault, document: VaultBackend
) -> None:
    await one(document, write({"A": "1", "B": "2"}))
    seen = await found(document, "")

    again = Op(Verb.PUT, Key("", ""), seen.version, '{"B":"2","A":"1"}')

    assert (await one(document, again)).result is Result.NOOP
    assert len(vault.secrets[PLACE]) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("no json", InvalidValue),
        ('["A"]', InvalidValue),
        ('{"A": 1}', InvalidValue),
        ("[" * 100_000, InvalidValue),
        ('{"_envd": "x"}', InvalidName),
        ('{"no name": "x"}', InvalidName),
        ('{"A": "' + "<" * (300 << 10) + '"}', ValueTooLarge),
    ],
)
async def test_a_document_that_can_not_be_is_refused_without_a_call(
    vault: FakeVault, document: VaultBackend, text: str, kind: type[BackendError]
) -> None:
    op = Op(Verb.PUT, Key("", ""), "", text)
    vault.asked.clear()

    (reject,) = document.check([op])
    outcome = await one(document, op)

    assert type(reject.error) is kind
    assert outcome.result is Result.REJECTED
    assert vault.asked == []


# Names and places.


@pytest.mark.parametrize(
    ("place", "prefix", "path"),
    [
        ("web", "envd", "envd/web/NAME"),
        ("web/prod/", "/team/envd/", "team/envd/web/prod/NAME"),
        ("/web", "envd", "web/NAME"),
        ("/", "envd", "NAME"),
    ],
)
async def test_a_place_is_below_the_prefix_unless_it_begins_with_a_slash(
    vault: FakeVault, place: str, prefix: str, path: str
) -> None:
    async with opened(vault.url, place, settings={"path_prefix": prefix}) as backend:
        await one(backend, put("NAME", "value"))

        assert list(vault.secrets) == [path]
        assert await values(backend) == {key("NAME"): "value"}


@pytest.mark.parametrize("place", ["a//b", "a/../b", "./a", "..", "a/."])
def test_a_place_that_would_lead_elsewhere_is_refused(place: str) -> None:
    with pytest.raises(InvalidName):
        VaultBackend(Options(place))


def test_one_document_needs_a_place_of_its_own() -> None:
    with pytest.raises(InvalidName):
        VaultBackend(Options("/", layout="document"))


@pytest.mark.parametrize(
    "template", ["../{variable}", "a//{variable}", "{variable}/", "/{variable}"]
)
def test_a_template_that_would_lead_elsewhere_names_nothing(template: str) -> None:
    backend = VaultBackend(Options("web", name_template=template))

    with pytest.raises(InvalidName):
        backend.encode(key("NAME"))


async def test_a_mount_may_have_several_parts_and_a_server_a_namespace(vault: FakeVault) -> None:
    vault.mount, vault.namespace = "team/kv", "acme/eu"
    settings = {"mount": "team/kv", "namespace": "acme/eu/"}
    async with opened(vault.url, settings=settings) as backend:
        await one(backend, put("NAME", "value"))

        assert await values(backend) == {key("NAME"): "value"}


# What goes wrong.


async def test_a_store_of_version_1_is_not_opened(vault: FakeVault) -> None:
    vault.kv_version = "1"

    with pytest.raises(StoreUnsupported, match="version 2"):
        async with opened(vault.url):
            pass


async def test_a_mount_that_is_taken_away_is_no_empty_place(
    vault: FakeVault, backend: VaultBackend
) -> None:
    await one(backend, put("NAME", "value"))
    vault.mount = "elsewhere"

    with pytest.raises(StoreUnsupported, match="nothing mounted"):
        await values(backend)


async def test_one_secret_that_is_forbidden_breaks_the_scan_and_not_the_others_reads(
    vault: FakeVault, backend: VaultBackend
) -> None:
    await do(backend, put("OURS", "1"), put("THEIRS", "2"))
    vault.forbidden.add(f"secret/data/{PLACE}/THEIRS")

    read = await backend.get_many([key("OURS"), key("THEIRS")])

    assert isinstance(read[key("OURS")], Item)
    assert isinstance(read[key("THEIRS")], Forbidden)
    with pytest.raises(Forbidden):
        await values(backend)


ANSWERS: list[tuple[int, str, type[BackendError]]] = [
    (301, "", StoreUnavailable),
    (307, "", StoreUnavailable),
    (400, "Upgrading from non-versioned to versioned data.", StoreUnavailable),
    (400, f"could not read {SECRET}", StoreUnsupported),
    (401, SECRET, Forbidden),
    (405, "unsupported operation", StoreUnsupported),
    (412, "required index state not present", StoreUnavailable),
    (413, "request body too large", ValueTooLarge),
    (429, "rate limit quota exceeded", Throttled),
    (472, "", StoreUnavailable),
    (473, "", StoreUnavailable),
    (500, f"put failed due to value being too large; {SECRET}", ValueTooLarge),
    (500, SECRET, StoreUnavailable),
    (501, "not initialized", StoreUnavailable),
    (502, "", StoreUnavailable),
    (503, "Vault is sealed", StoreUnavailable),
]


@pytest.mark.parametrize(("status", "said", "kind"), ANSWERS)
async def test_each_answer_that_is_not_good_has_its_error_and_is_not_quoted(
    vault: FakeVault, status: int, said: str, kind: type[BackendError]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "/data/" not in request.path:
            return await vault.serve(request)
        headers = {"Location": f"{vault.url}/elsewhere", "Retry-After": "7"}
        return web.json_response({"errors": [said]}, status=status, headers=headers)

    async with serving(answer) as url, opened(url) as backend:
        outcome = await one(backend, put("NAME", SECRET))

        assert type(outcome.error) is kind
        assert outcome.result is (Result.REJECTED if kind.is_refusal else Result.FAILED)
        assert SECRET not in "".join(traceback.format_exception(outcome.error))
        assert not any("elsewhere" in each for each in vault.asked)


async def test_a_redirect_never_takes_the_token_along(vault: FakeVault) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{vault.url}{request.path}"})

    async with serving(answer) as url:
        with pytest.raises(StoreUnavailable, match="redirect"):
            async with opened(url):
                pass

    assert vault.asked == []


async def test_a_page_of_some_other_server_is_no_answer(vault: FakeVault) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "/metadata/" not in request.path:
            return await vault.serve(request)
        return web.Response(text="<html>not found</html>", status=404, content_type="text/html")

    async with serving(answer) as url, opened(url) as backend:
        with pytest.raises(BackendError):
            await values(backend)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": {"data": {"value": "v"}}},
        {"data": {"data": "v", "metadata": {"version": 1, "created_time": "2026"}}},
        {"data": {"data": {}, "metadata": {"version": "1", "created_time": "2026"}}},
        {"data": {"data": {}, "metadata": {"version": 0, "created_time": "2026"}}},
    ],
)
async def test_a_secret_without_a_version_makes_no_sense(
    vault: FakeVault, body: dict[str, Any]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "/data/" not in request.path:
            return await vault.serve(request)
        return web.json_response(body)

    async with serving(answer) as url, opened(url) as backend:
        with pytest.raises(StoreUnavailable, match="no sense"):
            await backend.get_many([key("NAME")])


async def test_a_server_that_is_not_there_is_unavailable_and_named() -> None:
    async with serving(never_asked) as url:
        pass

    with pytest.raises(StoreUnavailable, match=url):
        async with opened(url):
            pass


async def never_asked(request: web.Request) -> web.Response:
    raise AssertionError(f"{request.path} is never asked")


async def test_after_a_failure_the_rest_of_a_batch_is_not_tried(
    vault: FakeVault, backend: VaultBackend
) -> None:
    vault.tokens.clear()
    vault.asked.clear()

    outcomes = await do(backend, *(put(f"NAME_{number}", "value") for number in range(9)))

    assert results(outcomes) == ["failed"] * 9
    assert all(isinstance(each.error, AuthExpired) for each in outcomes)
    assert vault.asked == [f"GET secret/data/{PLACE}/NAME_0", "GET auth/token/lookup-self"]


async def test_what_is_not_open_says_so(vault: FakeVault) -> None:
    backend = VaultBackend(Options("web", endpoint=vault.url))

    outcome = await one(backend, put("NAME", "value"))
    health = await backend.probe()

    assert isinstance(outcome.error, StoreUnavailable)
    assert health.detail == "the backend is not open"


async def test_a_probe_tells_who_vault_takes_us_for(
    vault: FakeVault, backend: VaultBackend
) -> None:
    health = await backend.probe()

    assert (health.ok, health.identity) == (True, "root")


def test_the_limits_of_a_value_leave_room_for_what_envd_adds() -> None:
    backend = VaultBackend(Options("web"))

    plain = backend.check([put("NAME", "x" * LIMITS.max_value_bytes)])
    escaped = backend.check([put("NAME", "<" * LIMITS.max_value_bytes)])

    assert plain == []
    assert [type(each.error) for each in escaped] == [ValueTooLarge]
