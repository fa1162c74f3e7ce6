"""Parameter Manager, where it is not like other stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("google.cloud.parametermanager_v1")

import grpc
from google.cloud import parametermanager_v1 as api

from envd.backends.contract import Item, Key, Op, Options, Outcome, Result, Verb
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.gcp_parameter_manager import ParameterManagerBackend
from tests.backends import driving
from tests.backends.fake_grpc import Answer, Before, Refuse
from tests.backends.fake_secret_manager import PROJECT

if TYPE_CHECKING:
    from tests.backends.fake_parameter_manager import FakeParameterManager

KEY = Key("", "NAME")
NATIVE = "envd-web--NAME"
Code = grpc.StatusCode


class Store:
    """A backend on the fake, and what is kept there."""

    def __init__(self, fake: FakeParameterManager, **settings: object) -> None:
        self.fake = fake
        self.server = fake.server
        given = {"project_id": PROJECT, **settings}
        options = Options("web", settings=given, endpoint=fake.server.endpoint)
        self.backend = ParameterManagerBackend(options)

    async def put(self, value: str, expect: str = "", *, any_owner: bool = False) -> Outcome:
        op = Op(Verb.PUT, KEY, expect, value, any_owner=any_owner)
        return await driving.one(self.backend, op)

    async def delete(self, expect: str) -> Outcome:
        return await driving.one(self.backend, Op(Verb.DELETE, KEY, expect))

    async def read(self) -> Item | BackendError:
        return (await self.backend.get_many([KEY]))[KEY]

    @property
    def versions(self) -> list[str]:
        return list(self.fake.of(NATIVE).versions)


@pytest.fixture
async def store(parameter_manager: FakeParameterManager) -> AsyncIterator[Store]:
    parameter_manager.clear()
    store = Store(parameter_manager)
    await store.backend.open()
    yield store
    await store.backend.close()


async def test_versions_are_numbered(store: Store) -> None:
    version = ""
    for value in ("one", "two", "three"):
        version = (await store.put(value, version)).version

    assert store.versions == ["envd-1", "envd-2", "envd-3"]
    assert dict(store.fake.of(NATIVE).parameter.labels) == {"managed-by": "envd"}


async def test_the_newest_is_the_one_made_last_whatever_its_name(store: Store) -> None:
    for number in range(12):
        found = await store.read()
        version = found.version if isinstance(found, Item) else ""
        assert (await store.put(f"value {number}", version)).result is Result.APPLIED

    found = await store.read()

    assert isinstance(found, Item)
    assert found.value == "value 11"
    assert found.version.startswith("envd-12-")


async def test_numbers_go_on_after_a_version_by_hand(store: Store) -> None:
    await store.put("ours")
    store.fake.put(NATIVE, "theirs")
    theirs = await store.read()
    assert isinstance(theirs, Item)

    outcome = await store.put("ours again", theirs.version)

    assert outcome.result is Result.APPLIED
    assert not outcome.overtaken
    assert outcome.version.startswith("envd-2-")


async def test_of_two_nodes_that_saw_the_same_one_is_refused(store: Store) -> None:
    created = await store.put("first")

    def other_node() -> None:
        store.fake.create_version(
            api.CreateParameterVersionRequest(
                parent=store.fake.of(NATIVE).parameter.name,
                parameter_version_id="envd-2",
                parameter_version={"payload": {"data": b"of the other node"}},
            )
        )

    store.server.on("CreateParameterVersion", Before(other_node))

    outcome = await store.put("of this node", created.version)

    assert outcome.result is Result.CONFLICT
    assert store.fake.values() == {NATIVE: "of the other node"}


async def test_who_was_overtaken_reads_what_the_other_wrote(store: Store) -> None:
    created = await store.put("ours")
    store.server.on("CreateParameterVersion", Before(lambda: store.fake.put(NATIVE, "theirs")))

    outcome = await store.put("ours again", created.version)

    assert outcome.result is Result.APPLIED
    assert outcome.overtaken
    assert outcome.between is not None
    assert outcome.between.value == "theirs"


async def test_a_write_that_can_not_be_checked_is_not_said_to_be_done(store: Store) -> None:
    created = await store.put("first")
    store.server.on("ListParameterVersions", Refuse(Code.UNAVAILABLE), after=1)

    outcome = await store.put("second", created.version)
    again = await store.put("second", created.version)

    assert outcome.result is Result.FAILED
    assert again.result is Result.NOOP


async def test_a_disabled_version_is_neither_a_value_nor_gone(store: Store) -> None:
    created = await store.put("first")
    store.fake.of(NATIVE).versions["envd-1"].disabled = True

    read = await store.read()
    listed = (await driving.items(store.backend))[KEY]

    assert isinstance(read, InvalidValue)
    assert listed.version == f"{created.version}-disabled"
    assert (await store.put("second", listed.version)).result is Result.APPLIED


async def test_all_versions_are_looked_through(store: Store) -> None:
    await store.put("first")
    for number in range(1005):
        store.fake.put(NATIVE, f"theirs {number}")

    found = await store.read()

    assert isinstance(found, Item)
    assert found.value == "theirs 1004"
    assert store.server.count("ListParameterVersions") == 3


async def test_a_parameter_goes_with_all_of_its_versions_the_newest_last(store: Store) -> None:
    version = ""
    for value in ("one", "two", "three"):
        version = (await store.put(value, version)).version

    outcome = await store.delete(version)

    gone = [
        each.name.rpartition("/")[2] for each in store.server.requests("DeleteParameterVersion")
    ]
    assert outcome.result is Result.APPLIED
    assert gone == ["envd-1", "envd-2", "envd-3"]
    assert store.fake.kept == {}


async def test_a_deletion_that_is_broken_off_leaves_what_was_so(store: Store) -> None:
    version = ""
    for value in ("one", "two", "three"):
        version = (await store.put(value, version)).version
    store.server.on("DeleteParameterVersion", Refuse(Code.UNAVAILABLE), after=2)

    outcome = await store.delete(version)

    assert outcome.result is Result.FAILED
    assert store.fake.values() == {NATIVE: "three"}
    assert (await store.delete(version)).result is Result.APPLIED


async def test_a_version_that_others_add_keeps_a_parameter_from_being_deleted(
    store: Store,
) -> None:
    created = await store.put("ours")
    store.server.on("DeleteParameter", Before(lambda: store.fake.put(NATIVE, "theirs")))

    outcome = await store.delete(created.version)

    assert outcome.result is Result.CONFLICT
    assert store.fake.values() == {NATIVE: "theirs"}


async def test_a_listing_without_a_location_is_not_a_whole_one(store: Store) -> None:
    partial = api.ListParametersResponse(unreachable=["projects/x/locations/europe-west1"])
    store.server.on("ListParameters", Answer(partial))

    with pytest.raises(StoreUnavailable):
        await driving.items(store.backend)


async def test_documents_have_the_format_json(parameter_manager: FakeParameterManager) -> None:
    parameter_manager.clear()
    backend = ParameterManagerBackend(
        Options(
            "web",
            layout="document",
            settings={"project_id": PROJECT},
            endpoint=parameter_manager.server.endpoint,
        )
    )
    await backend.open()

    outcome = await driving.one(backend, Op(Verb.PUT, Key("", ""), "", '{"NAME": "x"}'))
    await backend.close()

    assert outcome.result is Result.APPLIED
    assert parameter_manager.of("envd-web").parameter.format_ is api.ParameterFormat.JSON


async def test_a_location_may_be_named(parameter_manager: FakeParameterManager) -> None:
    parameter_manager.clear()
    store = Store(parameter_manager, parameter_manager_location="europe-west1")
    await store.backend.open()

    await store.put("first")
    await store.backend.close()

    assert list(store.fake.kept) == [
        f"projects/{PROJECT}/locations/europe-west1/parameters/{NATIVE}"
    ]


def test_what_can_not_be_is_refused(parameter_manager: FakeParameterManager) -> None:
    with pytest.raises(StoreUnsupported):
        Store(parameter_manager, parameter_manager_location="Europe")
    with pytest.raises(InvalidName):
        Store(parameter_manager).backend.encode(Key("", "N" * 60))
