"""The Parameter Store, where it is not like other stores."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

pytest.importorskip("moto")

from envd.backends.aws_parameter import mark_of, marked
from envd.backends.aws_session import Sessions
from envd.backends.aws_ssm import SsmBackend
from envd.backends.contract import Item, Key, Op, Options, Outcome, Result, Scope, Verb
from envd.backends.errors import (
    Forbidden,
    InvalidName,
    InvalidValue,
    NotOwned,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)
from envd.testing.proxy import DropReply, Match, Reply, Respond, Rewrite, Rule
from tests.backends import aws_emulator
from tests.backends.aws_harness import SsmHarness, refusal

KEY = Key("", "NAME")
NATIVE = "/conformance/NAME"
STAMP = "0000000001980c2a5e3f00010000000000000007.91b3c4d5e6f70819"


class Store:
    """A backend on an empty store, and what goes over the wire."""

    def __init__(self, harness: SsmHarness, **settings: object) -> None:
        self.harness = harness
        self.proxy = harness.proxy
        options = harness.options(Options(harness.place, settings=settings))
        self.backend = SsmBackend(options, harness.sessions)
        self.bodies: list[dict[str, object]] = []
        self.proxy.add(Rule(Match(body=self._seen), Respond(500)))

    def _seen(self, body: bytes) -> bool:
        self.bodies.append(json.loads(body))
        return False

    def sent(self, operation: str) -> int:
        return self.proxy.count(operation=f"AmazonSSM.{operation}")

    def answer(self, operation: str, action: object, *, times: int = 1) -> None:
        self.proxy.add(Rule(self.harness.match(operation), action, times=times))  # type: ignore[arg-type]

    async def put(self, value: str, expect: str = "", **more: object) -> Outcome:
        op = replace(Op(Verb.PUT, KEY, expect, value, stamp=STAMP), **more)  # type: ignore[arg-type]
        return (await self.backend.apply([op], idempotency="attempt"))[0]

    async def delete(self, expect: str, *, any_owner: bool = False) -> Outcome:
        op = Op(Verb.DELETE, KEY, expect, any_owner=any_owner)
        return (await self.backend.apply([op], idempotency="attempt"))[0]

    async def item(self) -> Item:
        found = (await self.backend.get_many([KEY]))[KEY]
        assert isinstance(found, Item)
        return found


@pytest.fixture
async def harness(aws: str) -> AsyncIterator[SsmHarness]:
    harness = SsmHarness(aws, Sessions(aws_emulator.ENVIRONMENT))
    await harness.begin()
    yield harness
    await harness.end()


@pytest.fixture
async def store(harness: SsmHarness) -> AsyncIterator[Store]:
    store = Store(harness)
    await store.backend.open()
    yield store
    await store.backend.close()


async def _opened(harness: SsmHarness, **settings: object) -> Store:
    store = Store(harness, **settings)
    await store.backend.open()
    return store


# What is written.


async def test_a_new_parameter_is_written_tag_stamp_and_all_in_one_call(store: Store) -> None:
    await store.put("first")

    assert store.sent("PutParameter") == 1
    assert store.sent("AddTagsToResource") == 0
    written = aws_emulator.parameters()
    assert written.list_tags_for_resource("Parameter", NATIVE) == {"managed-by": "envd"}
    assert written._parameters[NATIVE][-1].description == marked(STAMP, 1)


async def test_secrets_are_secure_strings_and_all_else_is_plain(store: Store) -> None:
    created = await store.put("kept", secret=True)
    secret = aws_emulator.parameters()._parameters[NATIVE][-1].parameter_type
    await store.put("told", created.version, secret=False)
    plain = aws_emulator.parameters()._parameters[NATIVE][-1].parameter_type

    assert (secret, plain) == ("SecureString", "String")


async def test_the_tier_is_said_when_a_parameter_is_created_and_not_taken_back(
    harness: SsmHarness,
) -> None:
    store = await _opened(harness)
    created = await store.put("first")
    await store.put("second", created.version)
    await store.backend.close()

    tiers = [body.get("Tier") for body in store.bodies if "Value" in body]
    assert tiers == ["Standard", None]


async def test_an_advanced_parameter_may_be_larger_and_costs(harness: SsmHarness) -> None:
    store = await _opened(harness, ssm_tier="advanced")
    created = await store.put("first")
    await store.put("second", created.version)
    await store.backend.close()

    tiers = [body.get("Tier") for body in store.bodies if "Value" in body]
    assert tiers == ["Advanced", "Advanced"]
    assert store.backend.limits.max_value_bytes == 8192
    assert store.backend.prices.item_month > 0


async def test_the_kms_key_is_for_secrets_only(harness: SsmHarness) -> None:
    store = await _opened(harness, kms_key_id="alias/envd")
    created = await store.put("kept", secret=True)
    await store.put("told", created.version, secret=False)
    await store.backend.close()

    keys = [body.get("KeyId") for body in store.bodies if "Value" in body]
    assert keys == ["alias/envd", None]


async def test_a_list_stays_a_list(store: Store, harness: SsmHarness) -> None:
    created = await store.put("a,b", secret=False)
    aws_emulator.parameters()._parameters[NATIVE][-1].parameter_type = "StringList"

    await store.put("a,b,c", created.version, secret=False)

    assert aws_emulator.parameters()._parameters[NATIVE][-1].parameter_type == "StringList"


@pytest.mark.parametrize("value", ["{{ssm:/x}}", "a {{ b }} c", "{{\n}}"])
async def test_a_reference_is_refused_before_any_call(store: Store, value: str) -> None:
    outcome = await store.put(value)

    assert isinstance(outcome.error, InvalidValue)
    assert value not in outcome.error.message
    assert store.proxy.requests == ()


@pytest.mark.parametrize("value", ["{{", "}}", '{"a": {"b": {}}}', "{ {x} }"])
async def test_braces_that_are_no_reference_are_taken(store: Store, value: str) -> None:
    outcome = await store.put(value)

    assert outcome.result is Result.APPLIED
    assert (await store.item()).value == value


# Versions and stamps.


@pytest.mark.parametrize("stamp", ["", STAMP, "1-a", "with space and % \n", "~" * 64])
def test_a_description_tells_the_stamp_of_its_version(stamp: str) -> None:
    assert mark_of(marked(stamp, 7), 7) == (stamp, True)
    assert mark_of(marked(stamp, 7), 8) == ("", True)


@pytest.mark.parametrize("text", ["", "the database", "managed by envd", "x" + marked("s", 1)])
def test_a_description_of_others_tells_nothing(text: str) -> None:
    assert mark_of(text, 1) == ("", False)


async def test_the_stamp_that_an_edit_by_others_leaves_does_not_count(store: Store) -> None:
    await store.put("ours")
    await store.harness.others_put(NATIVE, "theirs")

    item = await store.item()
    listed = [each async for page in store.backend.scan(Scope()) for each in page.items]

    assert (item.stamp, item.managed) == ("", True)
    assert [(each.stamp, each.version) for each in listed] == [("", item.version)]


async def test_who_was_overtaken_reads_what_the_other_wrote(store: Store) -> None:
    created = await store.put("ours")
    await store.harness.others_put_meanwhile(NATIVE, "theirs")

    outcome = await store.put("ours again", created.version)

    assert outcome.overtaken
    assert outcome.between is not None
    assert (outcome.between.value, outcome.between.stamp) == ("theirs", "")
    assert outcome.version == (await store.item()).version


async def test_the_stamp_of_a_write_that_overtook_another_does_not_count(store: Store) -> None:
    created = await store.put("ours")
    await store.harness.others_put_meanwhile(NATIVE, "theirs")

    await store.put("ours again", created.version)

    assert (await store.item()).stamp == ""


async def test_a_write_is_told_as_done_though_what_it_overtook_can_not_be_read(
    store: Store,
) -> None:
    created = await store.put("ours")
    await store.harness.others_put_meanwhile(NATIVE, "theirs")
    store.answer("GetParameterHistory", refusal("AccessDeniedException"))

    outcome = await store.put("ours again", created.version)

    assert outcome.result is Result.APPLIED
    assert outcome.overtaken
    assert outcome.between is None


async def test_what_others_delete_right_before_a_write_is_envds_again(store: Store) -> None:
    created = await store.put("ours")

    async def delete() -> None:
        await store.harness.others_delete(NATIVE)

    store.harness.meanwhile("PutParameter", delete)
    outcome = await store.put("ours again", created.version)

    assert outcome.result is Result.APPLIED
    assert outcome.overtaken
    assert (await store.delete(outcome.version)).result is Result.APPLIED


async def test_a_version_that_can_not_be_read_back_is_not_told(store: Store) -> None:
    store.answer("GetParameters", refusal("ThrottlingException"))

    outcome = await store.put("written")

    assert (outcome.result, outcome.version) == (Result.APPLIED, "")
    assert (await store.item()).value == "written"


async def test_a_create_whose_reply_is_lost_is_recognised_when_repeated(store: Store) -> None:
    store.answer("PutParameter", DropReply())

    first = await store.put("once")
    again = await store.put("once")

    assert (first.result, again.result) == (Result.FAILED, Result.NOOP)
    assert len(aws_emulator.parameters()._parameters[NATIVE]) == 1


# Whose it is.


async def test_a_takeover_that_may_not_tag_writes_nothing(store: Store) -> None:
    await store.harness.others_put(NATIVE, "theirs")
    version = (await store.item()).version
    store.answer("AddTagsToResource", refusal("AccessDeniedException"))

    outcome = await store.put("ours", version, any_owner=True)

    assert outcome.result is Result.REJECTED
    assert isinstance(outcome.error, Forbidden)
    assert await store.harness.contents() == {NATIVE: "theirs"}


async def test_a_parameter_with_envds_description_but_not_its_tag_is_not_deleted(
    store: Store,
) -> None:
    created = await store.put("copied")
    aws_emulator.parameters().remove_tags_from_resource("Parameter", NATIVE, ["managed-by"])

    outcome = await store.delete(created.version)

    assert isinstance(outcome.error, NotOwned)
    assert NATIVE in await store.harness.contents()


# What is read.


async def test_one_that_can_not_be_decrypted_does_not_hide_the_others(store: Store) -> None:
    keys = [Key("", name) for name in ("ONE", "TWO", "THREE")]
    ops = [Op(Verb.PUT, key, "", key.variable) for key in keys]
    for op in ops:
        await store.backend.apply([op], idempotency="attempt")

    def has_two(body: bytes) -> bool:
        return "/conformance/TWO" in json.loads(body)["Names"]

    match = store.harness.match("GetParameters", has_two)
    store.proxy.add(Rule(match, refusal("AccessDeniedException")))
    found = await store.backend.get_many(keys)

    assert isinstance(found[keys[1]], Forbidden)
    others = [found[keys[0]], found[keys[2]]]
    assert [each.value for each in others if isinstance(each, Item)] == ["ONE", "THREE"]


async def test_a_listing_decrypts_nothing(store: Store) -> None:
    await store.put("kept")
    store.bodies.clear()

    pages = [page async for page in store.backend.scan(Scope())]

    assert [item.value for page in pages for item in page.items] == [None]
    assert store.sent("GetParametersByPath") == 0
    assert not any("WithDecryption" in body for body in store.bodies)


@pytest.mark.parametrize(
    "operation", ["GetParameters", "DescribeParameters", "PutParameter", "ListTagsForResource"]
)
async def test_an_answer_that_lacks_everything_is_no_answer(store: Store, operation: str) -> None:
    created = await store.put("first")
    nothing = Rewrite(lambda reply: Reply(200, reply.headers, b"{}"))
    store.answer(operation, nothing, times=0)

    outcome = await store.put("second", created.version)
    problems = [outcome.error]
    try:
        found = await store.backend.get_many([KEY])
    except StoreUnavailable as error:
        problems.append(error)
    else:
        assert isinstance(found[KEY], Item)

    assert any(isinstance(each, StoreUnavailable) for each in problems)


async def test_too_many_updates_of_one_parameter_are_throttling(store: Store) -> None:
    store.answer("PutParameter", refusal("TooManyUpdates"))

    outcome = await store.put("first")

    assert outcome.result is Result.FAILED
    assert isinstance(outcome.error, Throttled)


async def test_nothing_is_tried_twice(store: Store) -> None:
    store.answer("GetParameters", refusal("InternalServerError", 500), times=0)

    with pytest.raises(StoreUnavailable):
        await store.backend.get_many([KEY])

    assert store.sent("GetParameters") == 1


async def test_a_probe_says_whose_credentials_it_used(store: Store) -> None:
    health = await store.backend.probe()

    assert health.ok
    assert health.identity.endswith(aws_emulator.REGION)


async def test_the_document_of_a_path_is_the_parameter_that_is_called_so(
    harness: SsmHarness,
) -> None:
    options = harness.options(Options("/web/prod", "document"))
    backend = SsmBackend(options, harness.sessions)
    await backend.open()
    await harness.others_put("/web/prod2", "{}")
    op = Op(Verb.PUT, Key("", ""), "", '{"NAME": "value"}')

    outcome = (await backend.apply([op], idempotency="attempt"))[0]
    listed = [each.native async for page in backend.scan(Scope()) for each in page.items]

    assert outcome.result is Result.APPLIED
    assert listed == ["/web/prod"]
    await backend.close()


# What can't be.


@pytest.mark.parametrize(
    "settings", [{"ssm_tier": "free"}, {"ssm_tier": 1}, {"kms_key_id": 7}, {"region": 0}]
)
def test_settings_that_can_not_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(StoreUnsupported):
        SsmBackend(Options("/x", settings=settings))


def test_a_place_without_a_slash_lies_below_the_prefix() -> None:
    backend = SsmBackend(Options("payments", settings={"ssm_parameter_prefix": "/team"}))

    assert backend.encode(KEY) == "/team/payments/NAME"


def test_a_place_of_aws_can_not_be_bound() -> None:
    with pytest.raises(InvalidName):
        SsmBackend(Options("/aws/service"))


async def test_who_is_not_open_is_unavailable() -> None:
    backend = SsmBackend(Options("/x"))

    with pytest.raises(StoreUnavailable, match="not open"):
        await backend.get_many([KEY])
