"""Secrets Manager, where it is not like other stores."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

pytest.importorskip("moto")

from envd.backends.aws_secret import STAGE
from envd.backends.aws_secrets_manager import SecretsManagerBackend
from envd.backends.aws_session import Sessions
from envd.backends.aws_version_id import stamp_of
from envd.backends.contract import Item, Key, Load, Op, Options, Outcome, Result, Scope, Verb
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    SoftDeleted,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.testing.proxy import DropReply, Match, Reply, Respond, Rewrite, Rule
from tests.backends import aws_emulator
from tests.backends.aws_harness import SecretsHarness, refusal

KEY = Key("", "NAME")
NATIVE = "conformance/app/NAME"
STAMP = "0000000001980c2a5e3f00010000000000000007.91b3c4d5e6f70819"
TAG = {"Key": "managed-by", "Value": "envd"}


class Store:
    """A backend on an empty store, and what goes over the wire."""

    def __init__(self, harness: SecretsHarness, **settings: object) -> None:
        self.harness = harness
        self.proxy = harness.proxy
        options = harness.options(Options(harness.place, settings=settings))
        self.backend = SecretsManagerBackend(options, harness.sessions)
        self.bodies: list[dict[str, object]] = []
        self.proxy.add(Rule(Match(body=self._seen), Respond(500)))

    def _seen(self, body: bytes) -> bool:
        self.bodies.append(json.loads(body))
        return False

    def sent(self, operation: str) -> int:
        return self.proxy.count(operation=f"secretsmanager.{operation}")

    def answer(self, operation: str, action: object, *, times: int = 1) -> None:
        self.proxy.add(Rule(self.harness.match(operation), action, times=times))  # type: ignore[arg-type]

    async def put(
        self, value: str, expect: str = "", *, attempt: str = "attempt", **more: object
    ) -> Outcome:
        op = replace(Op(Verb.PUT, KEY, expect, value, stamp=STAMP), **more)  # type: ignore[arg-type]
        return (await self.backend.apply([op], idempotency=attempt))[0]

    async def delete(self, expect: str) -> Outcome:
        op = Op(Verb.DELETE, KEY, expect)
        return (await self.backend.apply([op], idempotency="attempt"))[0]

    async def read(self) -> Item | BackendError:
        return (await self.backend.get_many([KEY]))[KEY]

    def stages(self) -> dict[str, list[str]]:
        versions = aws_emulator.secrets().secrets[NATIVE].versions
        return {name: sorted(each["version_stages"]) for name, each in versions.items()}


@pytest.fixture
async def harness(aws: str) -> AsyncIterator[SecretsHarness]:
    harness = SecretsHarness(aws, Sessions(aws_emulator.ENVIRONMENT), "per-variable")
    await harness.begin()
    yield harness
    await harness.end()


@pytest.fixture
async def store(harness: SecretsHarness) -> AsyncIterator[Store]:
    store = Store(harness)
    await store.backend.open()
    yield store
    await store.backend.close()


# What is written.


async def test_a_new_secret_is_written_tag_stamp_and_all_in_one_call(store: Store) -> None:
    outcome = await store.put("first")

    assert [each.operation.partition(".")[2] for each in store.proxy.requests] == ["CreateSecret"]
    assert aws_emulator.secrets().secrets[NATIVE].tags == [TAG]
    assert stamp_of(outcome.version) == STAMP


async def test_a_new_version_becomes_the_current_one_only_by_being_moved_to(store: Store) -> None:
    created = await store.put("first")
    store.answer("UpdateSecretVersionStage", refusal("InternalServerError", 500))

    failed = await store.put("second", created.version)
    between = store.stages()
    again = await store.put("second", created.version)

    assert (failed.result, again.result) == (Result.FAILED, Result.APPLIED)
    assert between == {created.version: ["AWSCURRENT"], again.version: [STAGE]}
    assert store.stages()[again.version] == ["AWSCURRENT", STAGE]


async def test_a_put_whose_reply_is_lost_goes_on_as_the_same_version(store: Store) -> None:
    created = await store.put("first")
    store.answer("PutSecretValue", DropReply())

    failed = await store.put("second", created.version)
    again = await store.put("second", created.version)

    assert (failed.result, again.result) == (Result.FAILED, Result.APPLIED)
    assert set(store.stages()) == {created.version, again.version}


async def test_a_move_whose_reply_is_lost_is_told_as_done_when_repeated(store: Store) -> None:
    created = await store.put("first")
    store.answer("UpdateSecretVersionStage", DropReply())

    failed = await store.put("second", created.version)
    again = await store.put("second", created.version)

    assert (failed.result, again.result) == (Result.FAILED, Result.APPLIED)
    assert store.sent("PutSecretValue") == 1


async def test_values_that_come_back_have_versions_of_their_own(store: Store) -> None:
    one = await store.put("one", attempt="1")
    two = await store.put("two", one.version, attempt="2")
    again = await store.put("one", two.version, attempt="3")

    assert again.result is Result.APPLIED
    assert len({one.version, two.version, again.version}) == 3


async def test_a_stale_write_makes_no_version(store: Store) -> None:
    created = await store.put("first")
    await store.harness.others_put(NATIVE, "theirs")

    outcome = await store.put("ours", created.version)

    assert outcome.result is Result.CONFLICT
    assert store.sent("PutSecretValue") == 0


async def test_a_conflict_tells_the_version_that_is_there(store: Store) -> None:
    created = await store.put("first")
    await store.harness.others_put_meanwhile(NATIVE, "theirs")

    outcome = await store.put("ours", created.version)

    found = await store.read()
    assert isinstance(found, Item)
    assert (outcome.result, outcome.version) == (Result.CONFLICT, found.version)
    assert found.value == "theirs"


async def test_a_store_that_refuses_the_move_for_another_reason_is_no_conflict(
    store: Store,
) -> None:
    created = await store.put("first")
    store.answer("UpdateSecretVersionStage", refusal("InvalidParameterException"))

    outcome = await store.put("second", created.version)

    assert outcome.result is Result.REJECTED
    assert isinstance(outcome.error, StoreUnsupported)


async def test_a_secret_without_a_value_is_a_free_name_for_its_owner(store: Store) -> None:
    aws_emulator.secrets().create_secret(
        name=NATIVE,
        secret_string=None,
        secret_binary=None,
        description=None,
        tags=[TAG],
        kms_key_id=None,
        client_request_token=None,
        replica_regions=[],
        force_overwrite=False,
    )
    listed = [each async for page in store.backend.scan(Scope()) for each in page.items]

    outcome = await store.put("first")

    found = await store.read()
    assert listed == []
    assert outcome.result is Result.APPLIED
    assert isinstance(found, Item)
    assert (found.value, found.version) == ("first", outcome.version)


async def test_the_kms_key_is_that_of_the_settings(harness: SecretsHarness) -> None:
    store = Store(harness, kms_key_id="alias/envd")
    await store.backend.open()
    await store.put("first")
    await store.backend.close()

    assert store.bodies[0]["KmsKeyId"] == "alias/envd"


async def test_a_stamp_that_is_none_of_envds_is_refused_before_any_call(store: Store) -> None:
    outcome = await store.put("first", stamp="z" * 64)

    assert isinstance(outcome.error, InvalidValue)
    assert store.proxy.requests == ()


# Deleting, and what comes back.


async def test_a_deletion_leaves_the_days_of_the_settings(harness: SecretsHarness) -> None:
    store = Store(harness, secrets_manager_recovery_days=7)
    await store.backend.open()
    created = await store.put("first")
    await store.delete(created.version)
    found = await store.read()
    await store.backend.close()

    assert [b["RecoveryWindowInDays"] for b in store.bodies if "RecoveryWindowInDays" in b] == [7]
    assert isinstance(found, SoftDeleted)


async def test_a_deletion_that_comes_right_after_anothers_write_is_taken_back(
    store: Store,
) -> None:
    created = await store.put("ours")

    async def edit() -> None:
        await store.harness.others_put(NATIVE, "theirs")

    store.harness.meanwhile("DeleteSecret", edit)
    outcome = await store.delete(created.version)

    assert outcome.result is Result.CONFLICT
    assert await store.harness.contents() == {NATIVE: "theirs"}


async def test_a_write_of_what_is_deleted_meanwhile_is_a_conflict(store: Store) -> None:
    created = await store.put("ours")

    async def delete() -> None:
        aws_emulator.secrets().delete_secret(NATIVE, 7, False)

    store.harness.meanwhile("PutSecretValue", delete)
    outcome = await store.put("ours again", created.version)

    assert (outcome.result, outcome.version) == (Result.CONFLICT, "")


async def test_what_others_deleted_is_envds_when_it_is_written_again(store: Store) -> None:
    await store.harness.others_put(NATIVE, "theirs")
    aws_emulator.secrets().delete_secret(NATIVE, 7, False)

    outcome = await store.put("ours")

    found = await store.read()
    assert outcome.result is Result.APPLIED
    assert isinstance(found, Item)
    assert (found.value, found.managed) == ("ours", True)
    assert aws_emulator.secrets().secrets[NATIVE].tags == [TAG]


# What is read.


async def test_a_secret_of_bytes_is_listed_and_told_as_what_it_is(store: Store) -> None:
    aws_emulator.secrets().create_secret(
        name=NATIVE,
        secret_string=None,
        secret_binary="aHVudGVyMg==",
        description=None,
        tags=[],
        kms_key_id=None,
        client_request_token=None,
        replica_regions=[],
        force_overwrite=False,
    )

    listed = [each.key async for page in store.backend.scan(Scope()) for each in page.items]
    found = await store.read()

    assert listed == [KEY]
    assert isinstance(found, InvalidValue)
    assert "hunter2" not in found.message


async def test_only_of_versions_by_others_the_owner_is_asked(store: Store) -> None:
    await store.put("ours")
    await store.read()
    asked_of_ours = store.sent("DescribeSecret")
    await store.harness.others_put(NATIVE, "theirs")

    found = await store.read()

    assert isinstance(found, Item)
    assert (found.managed, found.stamp) == (True, "")
    assert (asked_of_ours, store.sent("DescribeSecret")) == (0, 1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ResourceNotFoundException", ItemNotFound),
        ("AccessDeniedException", Forbidden),
        ("InvalidRequestException", SoftDeleted),
        ("InternalServiceError", StoreUnavailable),
    ],
)
async def test_why_one_of_several_can_not_be_read_is_told(
    store: Store, code: str, kind: type[BackendError]
) -> None:
    answer = {
        "SecretValues": [],
        "Errors": [{"SecretId": NATIVE, "ErrorCode": code, "Message": "hunter2"}],
    }
    headers = {"Content-Type": "application/x-amz-json-1.1"}
    store.answer("BatchGetSecretValue", Respond(200, headers, json.dumps(answer).encode()))

    found = await store.read()

    assert type(found) is kind
    assert "hunter2" not in found.message


@pytest.mark.parametrize(
    "operation",
    ["DescribeSecret", "PutSecretValue", "UpdateSecretVersionStage", "GetSecretValue"],
)
async def test_an_answer_that_lacks_everything_is_no_answer(store: Store, operation: str) -> None:
    created = await store.put("first")
    store.answer(operation, Rewrite(lambda reply: Reply(200, reply.headers, b"{}")))

    outcome = await store.put("second", created.version)

    assert outcome.result is Result.FAILED
    assert isinstance(outcome.error, StoreUnavailable)


# What can't be.


@pytest.mark.parametrize("days", [6, 31, "7", True])
def test_a_recovery_window_that_can_not_be_is_refused(days: object) -> None:
    with pytest.raises(StoreUnsupported):
        SecretsManagerBackend(Options("/x", settings={"secrets_manager_recovery_days": days}))


def test_a_place_has_a_name() -> None:
    with pytest.raises(InvalidName):
        SecretsManagerBackend(Options("/"))


def test_a_place_without_a_slash_lies_below_the_prefix() -> None:
    backend = SecretsManagerBackend(Options("payments"))

    assert backend.encode(KEY) == "envd/payments/NAME"


def test_a_document_costs_a_hundredth_of_a_hundred_secrets() -> None:
    backend = SecretsManagerBackend(Options("/x"))

    assert backend.cost(Load(items=100)).dollars == pytest.approx(40.0)
    assert backend.cost(Load(items=1)).dollars == pytest.approx(0.40)
