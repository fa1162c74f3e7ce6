"""The variables of a function of AWS Lambda: what is particular about them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

pytest.importorskip("botocore")

from envd.backends.aws_function import Mark
from envd.backends.aws_lambda import LambdaBackend
from envd.backends.aws_session import Sessions
from envd.backends.contract import Backend, Key, Op, Options, Outcome, Result, Scope, Verb
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StoreUnsupported,
    Throttled,
    ValueTooLarge,
)
from envd.testing.proxy import Before, Match, Respond, Rule
from tests.backends.fake_lambda import ARN, FakeFunction
from tests.backends.lambda_harness import FUNCTION, KEYS, SETTINGS, LambdaHarness

ROOT = Key("", "")
UPDATE = Match(method="PUT", path=".*/configuration")


@pytest.fixture
async def harness() -> AsyncIterator[LambdaHarness]:
    made = LambdaHarness(Sessions(KEYS))
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
async def backend(harness: LambdaHarness) -> AsyncIterator[Backend]:
    made = harness.backend(Options(FUNCTION, "document"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def function(harness: LambdaHarness) -> FakeFunction:
    return harness.fake.functions[FUNCTION]


def put(expect: str = "", /, *, stamp: str = "", **variables: str) -> Op:
    return Op(Verb.PUT, ROOT, expect, json.dumps(variables), stamp=stamp)


async def one(backend: Backend, op: Op) -> Outcome:
    (outcome,) = await backend.apply([op], idempotency="attempt")
    return outcome


async def version(backend: Backend) -> str:
    found = (await backend.get_many([ROOT]))[ROOT]
    return "" if isinstance(found, BackendError) else found.version


# -- what is envd's, and what is not ---------------------------------------------------------


async def test_names_that_aws_reserves_are_not_shown_and_stay_as_they_are(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    theirs = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper", "LAMBDA_EXTENSION": "1"}
    harness.fake.edit(FUNCTION, theirs)

    before = (await backend.get_many([ROOT]))[ROOT]
    created = await one(backend, put(NAME="ours"))
    read = (await backend.get_many([ROOT]))[ROOT]
    assert not isinstance(read, BackendError)
    seen = read.value
    deleted = await one(backend, Op(Verb.DELETE, ROOT, created.version))

    assert isinstance(before, ItemNotFound)
    assert seen == '{"NAME": "ours"}'
    assert deleted.result is Result.APPLIED
    assert function.variables == theirs


@pytest.mark.parametrize("name", ["AWS_REGION", "LAMBDA_X", "_HANDLER", "X", "WITH.DOT", "A-B"])
async def test_names_that_no_function_can_have_are_refused_before_any_call(
    harness: LambdaHarness, backend: Backend, name: str
) -> None:
    op = put(**{name: "value"})

    (reject,) = backend.check([op])
    outcome = await one(backend, op)

    assert isinstance(reject.error, InvalidValue)
    assert name in reject.error.message
    assert outcome.result is Result.REJECTED
    assert harness.fake.asked == []


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"NAME": 1}', '{"NAME": null}'])
async def test_what_is_no_object_of_text_is_refused_without_being_told(
    backend: Backend, text: str
) -> None:
    (reject,) = backend.check([Op(Verb.PUT, ROOT, "", text)])

    assert isinstance(reject.error, InvalidValue)
    assert text not in str(reject.error)


async def test_four_kilobytes_are_those_of_all_variables_together(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    harness.fake.edit(FUNCTION, {"AWS_LAMBDA_EXEC_WRAPPER": "x" * 100})

    outcome = await one(backend, put(NAME="y" * 4000))

    assert isinstance(outcome.error, ValueTooLarge)
    assert function.variables.keys() == {"AWS_LAMBDA_EXEC_WRAPPER"}


# -- revisions -------------------------------------------------------------------------------


async def test_a_deployment_of_code_is_no_change_of_the_variables(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    created = await one(backend, put(NAME="first"))

    harness.fake.deploy(FUNCTION)
    after = await version(backend)
    outcome = await one(backend, put(created.version, NAME="second"))

    assert after == created.version
    assert outcome.result is Result.APPLIED
    assert function.variables == {"NAME": "second"}


async def test_a_deployment_in_the_very_moment_is_no_conflict_and_tried_later(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    async def deploy() -> None:
        harness.fake.deploy(FUNCTION)

    harness.proxy.add(Rule(UPDATE, Before(deploy), times=1))

    outcome = await one(backend, put(NAME="ours"))

    assert outcome.result is Result.FAILED
    assert isinstance(outcome.error, Throttled)
    assert function.variables == {}


@pytest.mark.parametrize(("state", "update"), [("Active", "InProgress"), ("Pending", "")])
async def test_while_an_update_is_under_way_nothing_is_written_and_it_is_tried_later(
    harness: LambdaHarness, backend: Backend, function: FakeFunction, state: str, update: str
) -> None:
    function.state, function.update = state, update

    outcome = await one(backend, put(NAME="ours"))

    assert isinstance(outcome.error, Throttled)
    assert not [each for each in harness.fake.asked if not each.startswith("GET")]


async def test_an_update_that_begins_in_the_very_moment_is_tried_later(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    async def begin() -> None:
        function.update = "InProgress"

    harness.proxy.add(Rule(UPDATE, Before(begin), times=1))

    outcome = await one(backend, put(NAME="ours"))

    assert outcome.result is Result.FAILED
    assert isinstance(outcome.error, Throttled)


# -- what can't be told ----------------------------------------------------------------------


async def test_variables_that_can_not_be_decrypted_are_not_taken_for_none(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    function.error = "AccessDeniedException"

    with pytest.raises(Forbidden) as caught:
        _ = [page async for page in backend.scan(Scope())]
    with pytest.raises(Forbidden):
        await backend.get_many([ROOT])
    outcome = await one(backend, put(NAME="ours"))
    health = await backend.probe()

    assert "kms:Decrypt" in caught.value.hint
    assert "nobody should see" not in str(caught.value)
    assert outcome.result is Result.REJECTED
    assert not [each for each in harness.fake.asked if not each.startswith("GET")]
    assert not health.ok


async def test_a_function_that_is_not_there_is_no_function_without_variables(
    harness: LambdaHarness,
) -> None:
    backend = harness.backend(Options("another", "document"))
    await backend.open()
    try:
        with pytest.raises(StoreUnsupported):
            _ = [page async for page in backend.scan(Scope())]
        with pytest.raises(StoreUnsupported):
            await backend.get_many([ROOT])
        outcome = await one(backend, put(NAME="ours"))
    finally:
        await backend.close()

    assert outcome.result is Result.REJECTED
    assert harness.fake.functions.keys() == {FUNCTION}


async def test_a_function_can_be_named_by_its_arn(harness: LambdaHarness) -> None:
    backend = harness.backend(Options(f"{ARN}{FUNCTION}", "document"))
    await backend.open()
    try:
        outcome = await one(backend, put(NAME="ours"))
    finally:
        await backend.close()

    assert outcome.result is Result.APPLIED


# -- whose they are --------------------------------------------------------------------------


async def test_a_stamp_of_variables_that_did_not_arrive_is_not_that_of_others(
    harness: LambdaHarness, backend: Backend
) -> None:
    before = await one(backend, put(NAME="first", stamp="1-a"))
    harness.proxy.add(Rule(UPDATE, Respond(500), times=1))
    failed = await one(backend, put(before.version, NAME="second", stamp="2-b"))

    found = (await backend.get_many([ROOT]))[ROOT]

    assert failed.result is Result.FAILED
    assert not isinstance(found, BackendError)
    assert (found.value, found.stamp, found.managed) == ('{"NAME": "first"}', "", True)


async def test_what_could_not_be_deleted_is_still_envds(
    harness: LambdaHarness, backend: Backend, function: FakeFunction
) -> None:
    before = await one(backend, put(NAME="first"))
    delete = Op(Verb.DELETE, ROOT, before.version)
    harness.proxy.add(Rule(UPDATE, Respond(500), times=1))

    failed = await one(backend, delete)
    again = await one(backend, delete)

    assert [failed.result, again.result] == [Result.FAILED, Result.APPLIED]
    assert function.variables == {}


async def test_other_tags_stay_and_their_number_is_no_matter(
    backend: Backend, function: FakeFunction
) -> None:
    function.tags = {"team": "payments"}

    await one(backend, put(NAME="first"))

    assert function.tags["team"] == "payments"
    assert function.tags.keys() == {"team", "envd"}


async def test_who_takes_the_tag_away_takes_the_variables_over(
    backend: Backend, function: FakeFunction
) -> None:
    before = await one(backend, put(NAME="first"))
    function.tags.clear()

    outcome = await one(backend, Op(Verb.DELETE, ROOT, before.version))

    assert isinstance(outcome.error, NotOwned)


@pytest.mark.parametrize("stamp", ["", "1-a", 'a b/c=d%e"f', "~" * 64])
def test_any_stamp_fits_a_tag_and_reads_back(stamp: str) -> None:
    mark = Mark("put", "f" * 32, stamp)

    assert Mark.of({"envd": mark.text}) == mark
    assert len(mark.text) <= 256


@pytest.mark.parametrize("text", ["", "put", "took abc", "put a b c"])
def test_a_tag_that_is_not_envds_says_nothing(text: str) -> None:
    assert Mark.of({"envd": text}) == Mark()


# -- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["", "two words", "name:prod", "name:3", "name:$LATEST", f"{ARN}name:prod", "a" * 65]
)
def test_versions_and_aliases_are_no_places(place: str) -> None:
    with pytest.raises(InvalidName, match="not the name of a function"):
        LambdaBackend(Options(place, "document", settings=SETTINGS))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (Options("name"), StoreUnsupported),
        (Options("name", "document", below=True), InvalidName),
        (Options("name", "document", name_template="{environment}"), InvalidName),
    ],
)
def test_a_function_is_one_document(options: Options, kind: type[BackendError]) -> None:
    with pytest.raises(kind):
        LambdaBackend(replace(options, settings=SETTINGS))


async def test_below_a_function_there_is_nothing(backend: Backend) -> None:
    await one(backend, put(NAME="ours"))

    pages = [page async for page in backend.scan(Scope("below"))]

    assert [(list(page.items), page.complete) for page in pages] == [([], True)]
