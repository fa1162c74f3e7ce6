"""Variables of an app of App Platform: what is particular about them."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from envd.backends.contract import Backend, Item, Key, Op, Options, Outcome, Result, Scope, Verb
from envd.backends.digitalocean_app import AppBackend
from envd.backends.digitalocean_spec import AppPlace
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.testing.proxy import Match, Reply, Rewrite, Rule
from tests.backends.digitalocean_harness import DigitalOceanHarness
from tests.backends.fake_digitalocean import APP, TOKEN, FakeDigitalOcean
from tests.sync.sides_of_stores import StoreWorld
from tests.sync.world import StillClock, bound, done


@pytest.fixture
async def harness() -> AsyncIterator[DigitalOceanHarness]:
    made = DigitalOceanHarness()
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
def fake(harness: DigitalOceanHarness) -> FakeDigitalOcean:
    return harness.fake


@pytest.fixture
async def backend(harness: DigitalOceanHarness) -> AsyncIterator[Backend]:
    made = harness.backend(Options(APP))
    await made.open()
    yield made
    await made.close()


def put(name: str, value: str, expect: str = "", *, secret: bool = True) -> Op:
    return Op(Verb.PUT, Key("", name), expect, value, secret)


def delete(name: str, expect: str) -> Op:
    return Op(Verb.DELETE, Key("", name), expect)


async def do(backend: Backend, *ops: Op) -> list[Outcome]:
    return await backend.apply(ops, idempotency="attempt")


async def one(backend: Backend, op: Op) -> Outcome:
    (outcome,) = await do(backend, op)
    return outcome


async def listed(backend: Backend) -> dict[str, Item]:
    pages = [page async for page in backend.scan(Scope())]
    assert [page.complete for page in pages] == [True]
    return {item.native: item for item in pages[0].items}


# -- the spec --------------------------------------------------------------------------------


async def test_all_else_in_a_spec_is_sent_back_as_it_came(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    fake.edit("THEIRS", "theirs", type="SECRET", scope="BUILD_TIME", note="unknown to envd")
    fake.edit("THEIRS", "also theirs", component="web", type="SECRET")
    before = copy.deepcopy(fake.specs[APP])

    created = await one(backend, put("OURS", "ours"))
    await one(backend, delete("OURS", created.version))

    assert fake.specs[APP] == before
    assert fake.values() == {"THEIRS": "theirs"}


async def test_a_component_has_variables_of_its_own(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean
) -> None:
    fake.edit("NAME", "of the app")
    backend = harness.backend(Options(f"{APP}/web"))
    await backend.open()
    try:
        before = await listed(backend)
        await one(backend, put("NAME", "of the component"))
    finally:
        await backend.close()

    assert before == {}
    assert fake.values() == {"NAME": "of the app"}
    assert fake.values("web") == {"NAME": "of the component"}


async def test_all_changes_of_one_apply_make_one_deployment(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    fake.edit("OLD", "old")
    old = (await listed(backend))["OLD"]

    outcomes = await do(
        backend,
        put("ONE", "1"),
        put("OLD", "too late", "another version"),
        delete("OLD", old.version),
        put("TWO", "2", secret=False),
        put("no name", "3"),
    )

    told = [each.result.value for each in outcomes]
    assert told == ["applied", "conflict", "applied", "applied", "rejected"]
    assert fake.values() == {"ONE": "1", "TWO": "2"}
    assert fake.deployments == 1


async def test_what_is_so_already_makes_no_deployment(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    created = await one(backend, put("NAME", "value", secret=False))

    again = await one(backend, put("NAME", "value", created.version, secret=False))
    gone = await one(backend, delete("ABSENT", ""))

    assert [again.result, gone.result] == [Result.NOOP, Result.NOOP]
    assert fake.deployments == 1


@pytest.mark.parametrize("secret", [True, False])
async def test_a_variable_that_is_there_keeps_its_scope_and_becomes_secret_or_not(
    backend: Backend, fake: FakeDigitalOcean, secret: bool
) -> None:
    fake.edit("NAME", "before", type="GENERAL" if secret else "SECRET", scope="BUILD_TIME")
    before = (await listed(backend))["NAME"]

    await one(backend, put("NAME", "after", before.version, secret=secret))

    entry = fake.entry("NAME")
    assert entry is not None
    assert (entry["scope"], entry["type"]) == ("BUILD_TIME", "SECRET" if secret else "GENERAL")
    assert fake.values() == {"NAME": "after"}


async def test_a_new_variable_has_the_scope_of_the_settings(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean
) -> None:
    backend = harness.backend(Options(APP, settings={"scope": "RUN_TIME"}))
    await backend.open()
    try:
        await one(backend, put("NAME", "value"))
    finally:
        await backend.close()

    entry = fake.entry("NAME")
    assert entry is not None
    assert entry["scope"] == "RUN_TIME"


async def test_a_variable_that_is_there_twice_is_left_alone(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    fake.holder()["envs"] = [{"key": "NAME", "value": "1"}, {"key": "NAME", "value": "2"}]
    version = (await listed(backend))["NAME"].version

    outcomes = await do(backend, put("NAME", "3", version), put("OTHER", "4"))

    assert isinstance(outcomes[0].error, InvalidValue)
    assert outcomes[1].result is Result.APPLIED
    assert [each["value"] for each in fake.holder()["envs"][:2]] == ["1", "2"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"app": {"id": "another", "spec": {"name": "shop"}}}',
        b'{"app": {"id": "%s"}}' % APP.encode(),
        b'{"app": {"id": "%s", "spec": {"name": "shop", "envs": [{"value": "x"}]}}}' % APP.encode(),
        b'{"app": {"id": "%s", "spec": {"name": "shop", "envs": {}}}}' % APP.encode()[:-2],
    ],
)
async def test_an_answer_that_makes_no_sense_is_no_app_without_variables(
    harness: DigitalOceanHarness, backend: Backend, body: bytes
) -> None:
    rewrite = Rewrite(lambda reply: Reply(200, reply.headers, body))
    harness.proxy.add(Rule(Match(method="GET"), rewrite))

    with pytest.raises(StoreUnavailable):
        await listed(backend)


# -- secrets ---------------------------------------------------------------------------------


async def test_secrets_are_not_shown_and_have_a_version_and_others_are(backend: Backend) -> None:
    outcomes = await do(backend, put("SECRET", "hidden"), put("PLAIN", "shown", secret=False))

    found = await listed(backend)

    assert (found["SECRET"].value, found["SECRET"].secret) == (None, True)
    assert (found["PLAIN"].value, found["PLAIN"].secret) == ("shown", False)
    assert [found["SECRET"].version, found["PLAIN"].version] == [each.version for each in outcomes]
    assert await listed(backend) == found


async def test_a_secret_that_others_set_anew_has_another_version(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    created = await one(backend, put("SECRET", "ours"))

    fake.edit("SECRET", "theirs")
    outcome = await one(backend, put("SECRET", "ours again", created.version))

    assert (await listed(backend))["SECRET"].version != created.version
    assert outcome.result is Result.CONFLICT
    assert fake.values() == {"SECRET": "theirs"}


async def test_a_secret_that_is_answered_as_it_was_sent_is_looked_at_again(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    fake.shows_at_once = False

    created = await one(backend, put("SECRET", "ours"))

    assert created.version == (await listed(backend))["SECRET"].version


async def test_a_value_that_looks_encrypted_is_refused_before_any_call(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    op = put("NAME", "EV[1:abc:def]")

    (reject,) = backend.check([op])
    outcome = await one(backend, op)

    assert isinstance(reject.error, InvalidValue)
    assert "abc" not in str(reject.error)
    assert outcome.result is Result.REJECTED
    assert fake.asked == []


# -- who else writes -------------------------------------------------------------------------


async def test_bindings_of_one_app_on_one_node_do_not_overwrite_each_other(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean
) -> None:
    places = (APP, f"{APP}/web")
    backends = [harness.backend(Options(place)) for place in places]
    for each in backends:
        await each.open()
    try:
        writes = [one(each, put(f"NAME_{n}", "x")) for n in range(5) for each in backends]
        outcomes = await asyncio.gather(*writes)
    finally:
        for each in backends:
            await each.close()

    assert {each.result for each in outcomes} == {Result.APPLIED}
    assert fake.values().keys() == fake.values("web").keys() == {f"NAME_{n}" for n in range(5)}


@pytest.mark.parametrize("place", ["00000000-0000-0000-0000-000000000000", f"{APP}/worker"])
async def test_what_is_not_there_is_no_app_without_variables(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean, place: str
) -> None:
    backend = harness.backend(Options(place))
    await backend.open()
    try:
        with pytest.raises(StoreUnsupported):
            await listed(backend)
        with pytest.raises(StoreUnsupported):
            await backend.get_many([Key("", "NAME")])
        outcome = await one(backend, put("NAME", "value"))
        health = await backend.probe()
    finally:
        await backend.close()

    assert outcome.result is Result.REJECTED
    assert not health.ok
    assert fake.deployments == 0


# -- a binding that pushes -------------------------------------------------------------------


async def test_what_is_in_step_makes_no_deployment_and_what_is_not_makes_one(
    backend: Backend, fake: FakeDigitalOcean
) -> None:
    world = StoreWorld(StillClock())
    world.backend = backend
    binding = bound(direction="push")
    world.environments.set("web", PLAIN="1", OTHER="1")
    world.environments.set("web", SECRET="1")
    world.environments.mark_secret("web", "SECRET")

    await world.run(binding)
    first = fake.deployments
    for _ in range(3):
        assert not (await world.run(binding)).operations
    fake.edit("SECRET", "drifted")
    world.environments.unset("web", "OTHER")
    view = await world.run(binding)
    after = await world.run(binding)

    assert first == 1
    assert done(view) == [("delete", "OTHER", "applied"), ("update", "SECRET", "applied")]
    assert fake.values() == {"PLAIN": "1", "SECRET": "1"}
    assert fake.deployments == 2
    assert not after.operations


# -- the token -------------------------------------------------------------------------------


async def test_a_token_that_was_refused_is_read_anew(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("an old one\n".replace(" ", "_"))
    options = Options(APP, credentials=f"token-file:{file}", endpoint=harness.proxy.url)
    backend = AppBackend(options, environ={})
    await backend.open()
    try:
        with pytest.raises(AuthExpired):
            await listed(backend)
        file.write_text(f"{TOKEN}\n")
        found = await listed(backend)
    finally:
        await backend.close()

    assert found == {}


@pytest.mark.parametrize("text", ["", "two words", "snowman ☃"])
async def test_what_is_no_token_is_told_without_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, "utf-8")

    with pytest.raises(Forbidden, match="token of DigitalOcean") as caught:
        await AppBackend(Options(APP, credentials=f"token-file:{file}")).open()

    assert not text or text not in str(caught.value)


async def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    for credentials in ("token-env:NOT_SET", f"token-file:{tmp_path / 'absent'}"):
        with pytest.raises(Forbidden, match=r"NOT_SET|absent"):
            await AppBackend(Options(APP, credentials=credentials), environ={}).open()


async def test_the_token_is_in_no_log_nor_error(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.token = "another"
    backend = harness.backend(Options(APP))
    await backend.open()
    try:
        with pytest.raises(AuthExpired) as caught:
            await listed(backend)
    finally:
        await backend.close()

    assert TOKEN not in caplog.text
    assert TOKEN not in repr(caught.value)
    assert TOKEN not in repr(vars(backend).get("_settings"))


@pytest.mark.parametrize("credentials", [TOKEN, "token-env:lower", "token-file:relative", "env:X"])
def test_credentials_are_named_and_never_carried(credentials: str) -> None:
    with pytest.raises(StoreUnsupported) as caught:
        AppBackend(Options(APP, credentials=credentials))

    assert credentials not in str(caught.value)


# -- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "shop", APP.upper(), f"{APP}/", f"{APP}/Web", f"{APP}/a/b"])
def test_what_is_no_app_is_no_place(place: str) -> None:
    with pytest.raises(InvalidName):
        AppPlace.of(place)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (Options(APP, "document"), StoreUnsupported),
        (Options(APP, below=True), InvalidName),
        (Options(APP, settings={"scope": "EVER"}), StoreUnsupported),
        (Options(APP, settings={"token_env": 7}), StoreUnsupported),
    ],
)
def test_what_an_app_is_not(options: Options, kind: type[BackendError]) -> None:
    with pytest.raises(kind):
        AppBackend(options)


async def test_names_may_be_made_by_a_template(
    harness: DigitalOceanHarness, fake: FakeDigitalOcean
) -> None:
    fake.edit("THEIRS", "theirs")
    backend = harness.backend(Options(APP, name_template="APP_{variable}"))
    await backend.open()
    try:
        await one(backend, put("NAME", "ours"))
        found = await listed(backend)
    finally:
        await backend.close()

    assert found.keys() == {"APP_NAME"}
    assert fake.values() == {"THEIRS": "theirs", "APP_NAME": "ours"}
