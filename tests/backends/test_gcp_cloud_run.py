"""Services of Cloud Run, where they are not like stores."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("google.cloud.run_v2")

import grpc
from google.longrunning.operations_pb2 import Operation  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from envd.backends.contract import (
    Capability,
    Item,
    Key,
    Op,
    Options,
    Outcome,
    Result,
    Scope,
    Verb,
    plain_fingerprint,
)
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StoreUnavailable,
    StoreUnsupported,
    ValueTooLarge,
)
from envd.backends.gcp_cloud_run import CloudRunBackend
from envd.backends.gcp_service import ServicePlace
from envd.sync.layouts import Documents
from tests.backends import driving
from tests.backends.fake_cloud_run import PLACE
from tests.backends.fake_grpc import SECRET_TEXT, Answer, Before, Refuse
from tests.backends.fake_secret_manager import PROJECT

if TYPE_CHECKING:
    from tests.backends.fake_cloud_run import FakeCloudRun

KEY = Key("", "")
SETTINGS = {"project_id": PROJECT}
REFERENCE = {"secret_key_ref": {"secret": "db", "version": "latest"}}


class Target:
    """A backend on the fake's service."""

    def __init__(self, fake: FakeCloudRun, place: str = PLACE) -> None:
        self.fake = fake
        self.server = fake.server
        options = Options(
            place, layout="document", settings=SETTINGS, endpoint=fake.server.endpoint
        )
        self.backend = CloudRunBackend(options)

    async def put(
        self, variables: Mapping[str, str], expect: str = "", *, any_owner: bool = False
    ) -> Outcome:
        op = Op(Verb.PUT, KEY, expect, json.dumps(variables), any_owner=any_owner)
        return await driving.one(self.backend, op)

    async def delete(self, expect: str) -> Outcome:
        return await driving.one(self.backend, Op(Verb.DELETE, KEY, expect))

    async def read(self) -> Item | BackendError:
        return (await self.backend.get_many([KEY]))[KEY]

    async def item(self) -> Item:
        found = await self.read()
        assert isinstance(found, Item)
        return found


@pytest.fixture
async def target(cloud_run: FakeCloudRun) -> AsyncIterator[Target]:
    cloud_run.clear()
    target = Target(cloud_run)
    await target.backend.open()
    yield target
    await target.backend.close()


def _container(env: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"image": "example/web", "ports": [{"container_port": 8080}], "env": env, **more}


def _fingerprint(value: str) -> str:
    return plain_fingerprint(value)


# What is there.


async def test_what_refers_to_a_secret_is_not_in_the_document_and_stays(target: Target) -> None:
    env: list[dict[str, Any]] = [
        {"name": "DB", "value_source": REFERENCE},
        {"name": "LEVEL", "value": "info"},
    ]
    target.fake.make({"containers": [_container(env)]})
    found = await target.item()

    outcome = await target.put({"LEVEL": "debug", "NEW": "1"}, found.version, any_owner=True)

    assert json.loads(found.value or "") == {"LEVEL": "info"}
    assert outcome.result is Result.APPLIED
    kept = target.fake.env()
    assert [each.name for each in kept] == ["DB", "LEVEL", "NEW"]
    assert kept[0].value_source.secret_key_ref.secret == "db"
    assert target.fake.values() == {"LEVEL": "debug", "NEW": "1"}


async def test_a_reference_is_not_replaced_by_a_text_even_with_leave(target: Target) -> None:
    target.fake.make({"containers": [_container([{"name": "DB", "value_source": REFERENCE}])]})

    outcome = await target.put({"DB": "postgres://"}, any_owner=True)

    assert outcome.result is Result.REJECTED
    assert isinstance(outcome.error, NotOwned)
    assert target.server.count("UpdateService") == 0


async def test_names_that_are_no_variables_or_are_reserved_are_left_alone(target: Target) -> None:
    env = [
        {"name": "1st", "value": "a"},
        {"name": "FUNCTION_TARGET", "value": "main"},
        {"name": "LEVEL", "value": "info"},
    ]
    target.fake.make({"containers": [_container(env)]})
    found = await target.item()

    await target.put({"LEVEL": "debug"}, found.version, any_owner=True)

    assert json.loads(found.value or "") == {"LEVEL": "info"}
    assert target.fake.values() == {"1st": "a", "FUNCTION_TARGET": "main", "LEVEL": "debug"}


async def test_a_service_without_variables_has_no_document(target: Target) -> None:
    assert isinstance(await target.read(), ItemNotFound)
    assert await driving.items(target.backend) == {}


async def test_a_service_that_is_not_there_is_an_error_and_no_empty_place(target: Target) -> None:
    target.fake.services.clear()

    with pytest.raises(StoreUnsupported):
        await driving.items(target.backend)
    with pytest.raises(StoreUnsupported):
        await target.read()
    outcome = await target.put({"LEVEL": "info"})
    health = await target.backend.probe()

    assert outcome.result is Result.REJECTED
    assert not health.ok


# Which container.


async def test_the_container_with_a_port_is_meant_where_none_is_named(target: Target) -> None:
    sidecar = {"name": "proxy", "image": "example/proxy", "env": [{"name": "A", "value": "1"}]}
    target.fake.make({"containers": [sidecar, _container([], name="web")]})

    await target.put({"LEVEL": "info"})

    assert target.fake.values(0) == {"A": "1"}
    assert target.fake.values(1) == {"LEVEL": "info"}


async def test_a_container_that_is_named_has_a_document_of_its_own(
    cloud_run: FakeCloudRun,
) -> None:
    cloud_run.clear()
    sidecar = {"name": "proxy", "image": "example/proxy"}
    cloud_run.make({"containers": [_container([], name="web"), sidecar]})
    target, other = Target(cloud_run, f"{PLACE}#proxy"), Target(cloud_run)
    await target.backend.open()
    await other.backend.open()

    await target.put({"LEVEL": "info"})
    found = await target.item()
    of_other = await other.read()
    await target.backend.close()
    await other.backend.close()

    assert found.native == "web#proxy"
    assert cloud_run.values(1) == {"LEVEL": "info"}
    assert isinstance(of_other, ItemNotFound)
    assert dict(cloud_run.service.annotations) == {"envd/proxy": "managed"}


async def test_a_container_that_is_not_there_is_an_error(cloud_run: FakeCloudRun) -> None:
    cloud_run.clear()
    target = Target(cloud_run, f"{PLACE}#proxy")
    await target.backend.open()

    with pytest.raises(StoreUnsupported, match="no such container"):
        await driving.items(target.backend)
    await target.backend.close()


# Changes.


async def test_a_change_goes_under_the_etag_and_leaves_all_else(target: Target) -> None:
    target.fake.service.annotations = {"owner": "ops"}
    target.fake.service.template.service_account = "web@example-project.iam"
    etag = target.fake.service.etag

    await target.put({"LEVEL": "info"})

    (request,) = target.server.requests("UpdateService")
    assert request.service.etag == etag
    assert dict(target.fake.service.annotations) == {"owner": "ops", "envd": "managed"}
    assert target.fake.service.template.service_account == "web@example-project.iam"
    assert target.fake.service.template.containers[0].image == "example/web"


async def test_the_name_of_the_last_revision_is_not_asked_for_again(target: Target) -> None:
    target.fake.service.template.revision = "web-00001"

    outcome = await target.put({"LEVEL": "info"})

    assert outcome.result is Result.APPLIED
    assert target.fake.service.template.revision == ""


async def test_a_deploy_between_look_and_write_is_a_conflict(target: Target) -> None:
    created = await target.put({"LEVEL": "info"})
    target.server.on("UpdateService", Before(lambda: target.fake.deploy("example/web:2")))

    outcome = await target.put({"LEVEL": "debug"}, created.version)

    assert outcome.result is Result.CONFLICT
    assert target.fake.values() == {"LEVEL": "info"}
    assert target.fake.service.template.containers[0].image == "example/web:2"


@pytest.mark.parametrize("status", ["ABORTED", "FAILED_PRECONDITION"])
async def test_who_was_faster_is_a_conflict_whatever_it_is_called(
    target: Target, status: str
) -> None:
    created = await target.put({"LEVEL": "info"})
    code = grpc.StatusCode[status]
    target.server.on("GetService", Before(target.fake.settle), after=1)
    target.server.on("UpdateService", Refuse(code))

    outcome = await target.put({"LEVEL": "debug"}, created.version)

    assert outcome.result is Result.CONFLICT


async def test_what_a_policy_forbids_is_a_refusal_and_no_conflict(target: Target) -> None:
    created = await target.put({"LEVEL": "info"})
    target.server.on("UpdateService", Refuse(grpc.StatusCode.FAILED_PRECONDITION))

    outcome = await target.put({"LEVEL": "debug"}, created.version)

    assert (outcome.result, outcome.version) == (Result.REJECTED, created.version)
    assert isinstance(outcome.error, StoreUnsupported)


async def test_a_version_stands_still_while_a_change_is_rolled_out(target: Target) -> None:
    created = await target.put({"LEVEL": "info"})
    target.fake.settle()

    found = await target.item()

    assert found.version == created.version
    assert (await target.put({"LEVEL": "debug"}, found.version)).result is Result.APPLIED


async def test_a_service_that_is_made_anew_has_another_version(target: Target) -> None:
    created = await target.put({"LEVEL": "info"})
    target.fake.make({"containers": [_container([{"name": "LEVEL", "value": "info"}])]})
    target.fake.deploy("example/web:2")

    assert (await target.item()).version != created.version


async def test_variables_of_others_stay_when_envd_changes_its_own(target: Target) -> None:
    theirs: dict[str, Any] = {"name": "THEIRS", "value": "1"}
    env = [theirs, {"name": "DB", "value_source": REFERENCE}]
    target.fake.make({"containers": [_container(env)]})
    place = Documents(target.backend, Scope(), _fingerprint)

    (created,) = await place.apply([driving.put("OURS", "1")], "attempt-1")
    changed = driving.put("OURS", "2", expect=created.version)
    (edited,) = await place.apply([changed], "attempt-2")
    deleted = driving.delete("OURS", expect=edited.version)
    (gone,) = await place.apply([deleted], "attempt-3")

    assert driving.results([created, edited, gone]) == ["applied"] * 3
    assert [each.name for each in target.fake.env()] == ["THEIRS", "DB"]


async def test_equal_variables_start_no_revision(target: Target) -> None:
    created = await target.put({"A": "1", "B": "2"})

    outcome = await target.put({"B": "2", "A": "1"}, created.version)

    assert outcome.result is Result.NOOP
    assert target.server.count("UpdateService") == 1


async def test_a_delete_takes_the_variables_and_the_mark_and_leaves_the_service(
    target: Target,
) -> None:
    env = [{"name": "DB", "value_source": REFERENCE}]
    target.fake.make({"containers": [_container(env)]})
    created = await target.put({"LEVEL": "info"})

    outcome = await target.delete(created.version)

    assert outcome.result is Result.APPLIED
    assert [each.name for each in target.fake.env()] == ["DB"]
    assert dict(target.fake.service.annotations) == {}


async def test_an_answer_that_tells_no_version_is_believed_all_the_same(target: Target) -> None:
    target.server.on("UpdateService", Answer(Operation(name="operations/1")))

    outcome = await target.put({"LEVEL": "info"})

    assert (outcome.result, outcome.version) == (Result.APPLIED, "")


async def test_a_change_that_failed_at_once_is_not_said_to_be_done_nor_quoted(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failed = Operation(name="operations/1", done=True, error=Status(code=3, message=SECRET_TEXT))
    target.server.on("UpdateService", Answer(failed))

    outcome = await target.put({"LEVEL": "info"})
    result, kind, told = outcome.result, type(outcome.error), repr(outcome.error)
    del outcome  # Its frames hold the operation, which would say what nobody asked it.
    gc.collect()

    assert (result, kind) == (Result.FAILED, StoreUnavailable)
    assert SECRET_TEXT not in f"{told} {caplog.text}"


async def test_who_may_not_change_a_service_is_told_so(target: Target) -> None:
    target.server.on("UpdateService", Refuse(grpc.StatusCode.PERMISSION_DENIED))

    outcome = await target.put({"LEVEL": "info"})

    assert isinstance(outcome.error, Forbidden)
    assert target.fake.values() == {}


# What can't be.


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ('{"PORT": "1"}', InvalidName),
        ('{"K_SERVICE": "x"}', InvalidName),
        ('{"X_GOOGLE_A": "x"}', InvalidName),
        ('{"no name": "x"}', InvalidName),
        ('{"A": "\\u0000"}', InvalidValue),
        ('{"A": "\\ud800"}', InvalidValue),
        ('{"A": 1}', InvalidValue),
        ('["A"]', InvalidValue),
        ("A=1", InvalidValue),
        ("[" * 100_000, InvalidValue),
        (json.dumps({"A": "é" * 16_385}), ValueTooLarge),
        (json.dumps({f"A{number}": "" for number in range(1001)}), ValueTooLarge),
    ],
)
async def test_what_a_container_can_not_have_is_refused_before_any_call(
    target: Target, document: str, kind: type[BackendError]
) -> None:
    op = Op(Verb.PUT, KEY, "", document)

    (reject,) = target.backend.check([op])
    outcome = await driving.one(target.backend, op)

    assert type(reject.error) is kind
    assert outcome.result is Result.REJECTED
    assert target.server.calls == []


async def test_the_longest_value_is_taken_and_so_is_an_empty_one(target: Target) -> None:
    outcome = await target.put({"A": "x" * 32_768, "B": ""})

    assert outcome.result is Result.APPLIED
    assert target.fake.values() == {"A": "x" * 32_768, "B": ""}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("europe-west1/web", ServicePlace(PROJECT, "europe-west1", "web")),
        ("other-project/us-east1/web", ServicePlace("other-project", "us-east1", "web")),
        ("us-east1/web#proxy", ServicePlace(PROJECT, "us-east1", "web", "proxy")),
    ],
)
def test_a_place_is_a_service_of_a_location(text: str, place: ServicePlace) -> None:
    assert ServicePlace.of(text, SETTINGS) == place


@pytest.mark.parametrize("text", ["", "web", "europe-west1/", "a/b/c/d", "us-east1/Web", "us/x#"])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(StoreUnsupported):
        ServicePlace.of(text, SETTINGS)


@pytest.mark.parametrize(
    "options",
    [
        Options(PLACE, settings=SETTINGS),
        Options(PLACE, layout="document", below=True, settings=SETTINGS),
        Options(PLACE, layout="document", name_template="{environment}", settings=SETTINGS),
        Options(PLACE, layout="document"),
    ],
)
def test_a_service_is_one_whole_environment(options: Options) -> None:
    with pytest.raises((StoreUnsupported, InvalidName)):
        CloudRunBackend(options)


def test_people_are_asked_before_a_service_is_restarted(cloud_run: FakeCloudRun) -> None:
    backend = Target(cloud_run).backend

    assert Capability.RESTARTS_TARGET in backend.capabilities
    assert backend.limits.writes_per_item_per_s < 0.1
