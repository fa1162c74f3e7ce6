"""Secret Manager, where it is not like other stores."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("google.cloud.secretmanager_v1")

import grpc
from google.cloud import secretmanager_v1 as api

from envd.backends.contract import Item, Key, Load, Op, Options, Outcome, Result, Scope, Verb
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)
from envd.backends.gcp_secret import STAMP
from envd.backends.gcp_secret_manager import SecretManagerBackend
from tests.backends import driving
from tests.backends.fake_grpc import SECRET_TEXT, Answer, Before, Refuse
from tests.backends.fake_secret_manager import PARENT, PROJECT

if TYPE_CHECKING:
    from tests.backends.fake_secret_manager import FakeSecretManager

KEY = Key("", "NAME")
NATIVE = "envd-web--NAME"
CANARY = "hunter2-9d1f27c3-in-a-secret"
Code = grpc.StatusCode


class Store:
    """A backend on the fake, and what is kept there."""

    def __init__(self, fake: FakeSecretManager, place: str = "web", **settings: object) -> None:
        self.fake = fake
        self.server = fake.server
        given = {"project_id": PROJECT, **settings}
        options = Options(place, settings=given, endpoint=fake.server.endpoint)
        self.backend = SecretManagerBackend(options)

    async def put(self, value: str, expect: str = "", **more: object) -> Outcome:
        op = replace(Op(Verb.PUT, KEY, expect, value, stamp="stamp"), **more)  # type: ignore[arg-type]
        return await driving.one(self.backend, op)

    async def delete(self, expect: str, *, any_owner: bool = False) -> Outcome:
        op = Op(Verb.DELETE, KEY, expect, any_owner=any_owner)
        return await driving.one(self.backend, op)

    async def read(self) -> Item | BackendError:
        return (await self.backend.get_many([KEY]))[KEY]

    async def item(self) -> Item:
        found = await self.read()
        assert isinstance(found, Item)
        return found

    async def listed(self) -> Item:
        found = (await driving.items(self.backend))[KEY]
        assert found.value is None
        return found


@pytest.fixture
async def store(secret_manager: FakeSecretManager) -> AsyncIterator[Store]:
    secret_manager.clear()
    store = Store(secret_manager)
    await store.backend.open()
    yield store
    await store.backend.close()


async def _opened(fake: FakeSecretManager, place: str = "web", **settings: object) -> Store:
    store = Store(fake, place, **settings)
    await store.backend.open()
    return store


# What is written.


async def test_a_new_secret_has_a_label_a_value_and_a_stamp(store: Store) -> None:
    outcome = await store.put("first")

    kept = store.fake.of(NATIVE)
    assert outcome.result is Result.APPLIED
    assert dict(kept.secret.labels) == {"managed-by": "envd"}
    assert dict(kept.secret.annotations) == {STAMP: "1:stamp"}
    assert "automatic" in kept.secret.replication
    assert kept.payloads == [b"first"]


async def test_each_payload_is_sent_with_its_checksum(store: Store) -> None:
    await store.put("first")

    (request,) = store.server.requests("AddSecretVersion")
    assert request.payload.data_crc32c != 0


async def test_values_are_kept_where_the_settings_say(secret_manager: FakeSecretManager) -> None:
    secret_manager.clear()
    where = ["europe-west1", "europe-west4"]
    store = await _opened(secret_manager, secret_manager_replicas=where)

    await store.put("first")
    await store.backend.close()

    replicas = store.fake.of(NATIVE).secret.replication.user_managed.replicas
    assert [each.location for each in replicas] == where


async def test_regional_secrets_are_made_in_their_region(
    secret_manager: FakeSecretManager,
) -> None:
    secret_manager.clear()
    store = await _opened(secret_manager, secret_manager_location="europe-west1")

    outcome = await store.put("first")
    found = await store.item()
    await store.backend.close()

    assert outcome.result is Result.APPLIED
    assert found.value == "first"
    assert list(store.fake.kept) == [f"projects/{PROJECT}/locations/europe-west1/secrets/{NATIVE}"]


async def test_another_project_may_be_named_in_the_place(
    secret_manager: FakeSecretManager,
) -> None:
    secret_manager.clear()
    store = await _opened(secret_manager, "other-project/web")

    await store.put("first")
    await store.backend.close()

    assert list(store.fake.kept) == [f"projects/other-project/secrets/{NATIVE}"]


async def test_labels_and_annotations_of_others_stay(store: Store) -> None:
    created = await store.put("first")
    secret = store.fake.of(NATIVE).secret
    store.fake.update_secret(
        api.UpdateSecretRequest(
            secret={
                "name": secret.name,
                "labels": {**secret.labels, "team": "web"},
                "annotations": {**secret.annotations, "owner": "ops"},
            },
            update_mask={"paths": ["labels", "annotations"]},
        )
    )

    await store.put("second", created.version, stamp="later")

    kept = store.fake.of(NATIVE).secret
    assert dict(kept.labels) == {"managed-by": "envd", "team": "web"}
    assert dict(kept.annotations) == {"owner": "ops", STAMP: "2:later"}


async def test_a_secret_without_a_version_is_not_there_and_gets_its_first(store: Store) -> None:
    store.server.on("AddSecretVersion", Refuse(Code.RESOURCE_EXHAUSTED))
    failed = await store.put("first")
    absent = await store.read()
    listed = await driving.items(store.backend)

    again = await store.put("first")

    assert failed.result is Result.FAILED
    assert isinstance(absent, ItemNotFound)
    assert listed == {}
    assert again.result is Result.APPLIED
    assert (await store.item()).managed


async def test_an_empty_secret_of_others_is_not_filled_without_leave(store: Store) -> None:
    store.fake.put(NATIVE, "x")
    store.fake.of(NATIVE).versions.clear()
    store.fake.of(NATIVE).payloads.clear()

    refused = await store.put("first")
    taken = await store.put("first", any_owner=True)

    assert isinstance(refused.error, NotOwned)
    assert taken.result is Result.APPLIED
    assert (await store.item()).managed


async def test_who_may_not_label_a_secret_takes_none_over(store: Store) -> None:
    store.fake.put(NATIVE, "theirs")
    theirs = await store.item()
    store.server.on("UpdateSecret", Refuse(Code.PERMISSION_DENIED))

    outcome = await store.put("ours", theirs.version, any_owner=True)

    assert isinstance(outcome.error, Forbidden)
    assert store.fake.values() == {NATIVE: "theirs"}


async def test_old_versions_stay(store: Store) -> None:
    version = ""
    for value in ("one", "two", "three"):
        version = (await store.put(value, version)).version

    assert store.fake.of(NATIVE).payloads == [b"one", b"two", b"three"]


async def test_as_many_versions_are_kept_as_the_settings_say(
    secret_manager: FakeSecretManager,
) -> None:
    secret_manager.clear()
    store = await _opened(secret_manager, secret_manager_keep_versions=2)
    version = ""
    for value in ("one", "two", "three", "four"):
        version = (await store.put(value, version)).version
    await store.backend.close()

    assert store.fake.of(NATIVE).payloads == [b"", b"", b"three", b"four"]


async def test_no_version_is_destroyed_by_a_write_that_overtook_others(
    secret_manager: FakeSecretManager,
) -> None:
    secret_manager.clear()
    store = await _opened(secret_manager, secret_manager_keep_versions=1)
    created = await store.put("ours")

    def others() -> None:
        store.fake.put(NATIVE, "theirs")

    store.server.on("AddSecretVersion", Before(others))
    store.server.on("GetSecretVersion", Refuse(Code.UNAVAILABLE))
    outcome = await store.put("ours again", created.version)
    await store.backend.close()

    assert (outcome.overtaken, outcome.between) == (True, None)
    assert store.fake.of(NATIVE).payloads == [b"ours", b"theirs", b"ours again"]


# Versions and stamps.


async def test_a_listing_that_is_behind_does_not_undo_what_was_written(store: Store) -> None:
    created = await store.put("old")
    behind = Answer(api.ListSecretVersionsResponse(versions=[store.fake.of(NATIVE).versions[0]]))
    written = await store.put("new", created.version)

    store.server.on("ListSecretVersions", behind, times=2)
    listed, found = await store.listed(), await store.item()

    assert listed.version == found.version == written.version
    assert (found.value, found.stamp) == ("new", "stamp")


async def test_a_secret_that_was_just_made_is_not_taken_for_deleted(store: Store) -> None:
    written = await store.put("value")

    store.server.on("ListSecretVersions", Answer(api.ListSecretVersionsResponse()))
    listed = await store.listed()
    store.server.on("GetSecret", Refuse(Code.NOT_FOUND))

    assert listed.version == written.version
    with pytest.raises(StoreUnavailable):
        await store.read()


async def test_what_others_deleted_or_made_anew_is_seen_as_it_is(store: Store) -> None:
    version = ""
    for value in ("one", "two"):
        version = (await store.put(value, version)).version

    store.fake.delete(NATIVE)
    gone = await store.read()
    await store.put("three")
    await store.put("four", (await store.item()).version)
    store.fake.delete(NATIVE)
    store.fake.put(NATIVE, "theirs")
    theirs = await store.item()

    assert isinstance(gone, ItemNotFound)
    assert (theirs.value, theirs.managed) == ("theirs", False)


async def test_who_was_overtaken_reads_what_the_other_wrote(store: Store) -> None:
    created = await store.put("ours")
    store.server.on("AddSecretVersion", Before(lambda: store.fake.put(NATIVE, "theirs")))

    outcome = await store.put("ours again", created.version)

    assert outcome.result is Result.APPLIED
    assert outcome.overtaken
    assert outcome.between is not None
    assert outcome.between.value == "theirs"
    assert outcome.between.version.startswith("2-")
    assert store.fake.values() == {NATIVE: "ours again"}


async def test_a_first_version_that_is_not_the_first_was_overtaken_too(store: Store) -> None:
    store.server.on("AddSecretVersion", Before(lambda: store.fake.put(NATIVE, "theirs")))

    outcome = await store.put("ours")

    assert outcome.overtaken
    assert outcome.between is not None
    assert outcome.between.value == "theirs"


async def test_what_can_not_be_read_between_is_overtaken_all_the_same(store: Store) -> None:
    created = await store.put("ours")
    store.server.on("AddSecretVersion", Before(lambda: store.fake.put(NATIVE, "theirs")))
    store.server.on("GetSecretVersion", Refuse(Code.PERMISSION_DENIED))

    outcome = await store.put("ours again", created.version)

    assert (outcome.result, outcome.overtaken, outcome.between) == (Result.APPLIED, True, None)


async def test_the_stamp_that_an_edit_by_others_leaves_does_not_count(store: Store) -> None:
    await store.put("ours")
    store.fake.put(NATIVE, "theirs")

    item, listed = await store.item(), await store.listed()

    assert (item.stamp, item.managed) == ("", True)
    assert (listed.stamp, listed.version) == ("", item.version)


async def test_a_value_whose_stamp_could_not_be_written_is_written_without(store: Store) -> None:
    store.server.on("UpdateSecret", Refuse(Code.UNAVAILABLE))

    outcome = await store.put("first")

    assert outcome.result is Result.APPLIED
    found = await store.item()
    assert (found.value, found.version, found.stamp) == ("first", outcome.version, "")


async def test_a_stamp_is_not_written_over_what_others_changed_meanwhile(store: Store) -> None:
    def relabel() -> None:
        name = f"{PARENT}/secrets/{NATIVE}"
        store.fake.update_secret(
            api.UpdateSecretRequest(
                secret={"name": name, "annotations": {"owner": "ops"}},
                update_mask={"paths": ["annotations"]},
            )
        )

    store.server.on("UpdateSecret", Before(relabel))

    outcome = await store.put("first")

    assert outcome.result is Result.APPLIED
    assert dict(store.fake.of(NATIVE).secret.annotations) == {"owner": "ops"}


async def test_a_secret_that_is_deleted_before_the_write_is_a_conflict(store: Store) -> None:
    created = await store.put("first")
    store.server.on("AddSecretVersion", Before(lambda: store.fake.delete(NATIVE)))

    outcome = await store.put("second", created.version)

    assert outcome.result is Result.CONFLICT
    assert store.fake.values() == {}


async def test_who_relabelled_a_secret_keeps_it_from_being_deleted(store: Store) -> None:
    created = await store.put("first")

    def relabel() -> None:
        name = f"{PARENT}/secrets/{NATIVE}"
        store.fake.update_secret(
            api.UpdateSecretRequest(
                secret={"name": name, "labels": {}}, update_mask={"paths": ["labels"]}
            )
        )

    store.server.on("DeleteSecret", Before(relabel))

    outcome = await store.delete(created.version)

    assert outcome.result is Result.CONFLICT
    assert store.fake.values() == {NATIVE: "first"}


# What can't be read.


@pytest.mark.parametrize(
    ("change", "request_of", "state"),
    [
        ("disable", api.DisableSecretVersionRequest, "disabled"),
        ("destroy", api.DestroySecretVersionRequest, "destroyed"),
    ],
)
async def test_a_newest_version_that_is_not_enabled_is_neither_a_value_nor_gone(
    store: Store, change: str, request_of: type, state: str
) -> None:
    created = await store.put("first")
    version = store.fake.of(NATIVE).versions[-1].name
    getattr(store.fake, change)(request_of(name=version))

    read, listed = await store.read(), await store.listed()

    assert isinstance(read, InvalidValue)
    assert listed.version == f"{created.version}-{state}"
    over = await store.put("second", listed.version)
    assert over.result is Result.APPLIED
    assert (await store.item()).value == "second"


async def test_bytes_that_are_no_text_are_left_alone(store: Store) -> None:
    store.fake.put(NATIVE, b"\xff\xfe")

    read, listed = await store.read(), await store.listed()
    outcome = await store.put("text", listed.version)

    assert isinstance(read, InvalidValue)
    assert isinstance(outcome.error, NotOwned)
    assert store.fake.of(NATIVE).payloads == [b"\xff\xfe"]


async def test_a_value_that_did_not_come_as_it_was_sent_is_none(store: Store) -> None:
    await store.put("first")
    wrong = api.AccessSecretVersionResponse(
        name="x", payload={"data": b"fir", "data_crc32c": 0xE3069283}
    )
    store.server.on("AccessSecretVersion", Answer(wrong))

    with pytest.raises(StoreUnavailable):
        await store.read()


async def test_what_is_denied_is_an_error_and_never_an_absence(store: Store) -> None:
    await store.put("first")
    store.server.on("ListSecretVersions", Refuse(Code.PERMISSION_DENIED), times=0)

    read = await store.read()
    with pytest.raises(Forbidden):
        await driving.items(store.backend)
    put = await store.put("second", "1-1")
    delete = await store.delete("1-1")

    assert isinstance(read, Forbidden)
    assert isinstance(put.error, Forbidden)
    assert isinstance(delete.error, Forbidden)
    assert store.fake.values() == {NATIVE: "first"}


async def test_one_of_several_that_is_denied_is_its_own_answer(store: Store) -> None:
    other = Key("", "OTHER")
    await store.put("first")
    await driving.one(store.backend, driving.put("OTHER", "second"))
    store.server.on("AccessSecretVersion", Refuse(Code.PERMISSION_DENIED))

    found = await store.backend.get_many([KEY, other])

    kinds = sorted(type(each).__name__ for each in found.values())
    assert kinds == ["Forbidden", "Item"]


async def test_a_secret_that_goes_during_a_scan_is_left_out(store: Store) -> None:
    await store.put("first")
    await driving.one(store.backend, driving.put("OTHER", "second"))
    store.server.on("ListSecretVersions", Before(lambda: store.fake.delete(NATIVE)))

    pages = [page async for page in store.backend.scan(Scope())]

    assert [item.key.variable for page in pages for item in page.items] == ["OTHER"]
    assert pages[-1].complete


# Calls.


async def test_a_page_of_the_api_is_given_on_in_pages_of_twenty(store: Store) -> None:
    for number in range(45):
        store.fake.put(f"envd-web--N_{number}", "x")

    pages = [page async for page in store.backend.scan(Scope())]

    assert [len(page.items) for page in pages] == [20, 20, 5]
    assert [page.complete for page in pages] == [False, False, True]
    assert store.server.count("ListSecrets") == 1
    assert store.server.count("ListSecretVersions") == 45


async def test_secrets_of_others_cost_no_call_of_their_own(store: Store) -> None:
    for number in range(30):
        store.fake.put(f"other-{number}", "x")
    await store.put("first")

    found = await driving.items(store.backend)

    assert found.keys() == {KEY}
    assert store.server.count("ListSecretVersions") == 1


async def test_a_scan_that_is_throttled_asks_for_little_more(store: Store) -> None:
    for number in range(20):
        store.fake.put(f"envd-web--N_{number}", "x")
    store.server.on("ListSecretVersions", Refuse(Code.RESOURCE_EXHAUSTED), times=0)

    with pytest.raises(Throttled):
        await driving.items(store.backend)

    assert store.server.count("ListSecretVersions") <= store.backend.limits.concurrency


async def test_every_call_is_made_once(store: Store) -> None:
    store.server.on(["ListSecrets", "GetSecret", "CreateSecret"], Refuse(Code.UNAVAILABLE), times=0)

    with pytest.raises(StoreUnavailable):
        await driving.items(store.backend)
    with pytest.raises(StoreUnavailable):
        await store.read()
    await store.put("first")

    assert [name for name, _ in store.server.calls] == ["ListSecrets", "GetSecret", "CreateSecret"]


async def test_to_read_a_value_is_not_tried_again_though_the_sdk_would(store: Store) -> None:
    await store.put("first")
    store.server.on("AccessSecretVersion", Refuse(Code.UNAVAILABLE))

    with pytest.raises(StoreUnavailable):
        await store.read()

    assert store.server.count("AccessSecretVersion") == 1


async def test_values_are_not_logged_though_the_sdk_would(
    secret_manager: FakeSecretManager, caplog: pytest.LogCaptureFixture
) -> None:
    # The SDK keeps its records from the root logger, but not from who asks itself for them.
    google = logging.getLogger("google")
    google.addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG)
    google.setLevel(logging.NOTSET)
    secret_manager.clear()
    try:
        store = await _opened(secret_manager)
        await store.put(CANARY)
        await store.item()
        await store.backend.close()
    finally:
        google.removeHandler(caplog.handler)

    said = [f"{each.getMessage()} {each.__dict__!r}" for each in caplog.records]
    forms = (CANARY, base64.b64encode(CANARY.encode()).decode().rstrip("="))
    assert not any(form in each for each in said for form in forms)


async def test_nothing_of_what_google_says_is_in_an_error(store: Store) -> None:
    store.server.on("CreateSecret", Refuse(Code.INVALID_ARGUMENT, reason="SOME_REASON"))

    outcome = await store.put(CANARY)

    error = outcome.error
    assert error is not None
    assert SECRET_TEXT not in f"{error!r} {error.message} {error.hint}"
    assert "SOME_REASON" in error.message
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_an_api_that_is_not_enabled_says_how_to_enable_it(store: Store) -> None:
    store.server.on("ListSecrets", Refuse(Code.PERMISSION_DENIED, reason="SERVICE_DISABLED"))

    health = await store.backend.probe()

    assert not health.ok
    assert "SERVICE_DISABLED" in health.detail
    assert "enable" in health.hint


async def test_a_call_to_what_is_closed_is_unavailable(store: Store) -> None:
    await store.backend.close()

    with pytest.raises(StoreUnavailable, match="not open"):
        await store.read()


async def test_a_server_that_is_not_there_is_unavailable(
    secret_manager: FakeSecretManager,
) -> None:
    options = Options("web", settings={"project_id": PROJECT}, endpoint="http://127.0.0.1:9")
    backend = SecretManagerBackend(options)
    await backend.open()

    with pytest.raises(StoreUnavailable):
        await backend.get_many([KEY])
    await backend.close()


# What can't be.


@pytest.mark.parametrize(
    "settings",
    [
        {"project_id": ""},
        {"project_id": "Not A Project"},
        {"secret_manager_location": "Europe"},
        {"secret_manager_location": "europe-west1", "secret_manager_replicas": ["europe-west4"]},
        {"secret_manager_replicas": ["a/b"]},
        {"secret_manager_keep_versions": -1},
        {"secret_manager_prefix": 7},
    ],
)
def test_settings_that_can_not_be_are_refused(
    secret_manager: FakeSecretManager, settings: dict[str, object]
) -> None:
    with pytest.raises(StoreUnsupported):
        Store(secret_manager, "web", **settings)


def test_what_a_month_costs_is_what_is_kept_and_read(secret_manager: FakeSecretManager) -> None:
    backend = Store(secret_manager).backend

    idle = backend.cost(Load(items=100, scans=1000))
    busy = backend.cost(Load(items=100, changed=20_000))

    assert idle.dollars == pytest.approx((100 - 6) * 0.06)
    assert busy.dollars == pytest.approx((100 - 6) * 0.06 + 0.03)
