"""The `consul` backend: tokens, listings that are not whole, blocking queries and transactions.

What every backend must do the conformance kit tries (`tests/testing/test_consul`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from envd.backends import errors
from envd.backends.consul import ConsulBackend, error_of_consul
from envd.backends.contract import Hint, Item, Options, Scope
from envd.backends.errors import BackendError
from envd.backends.http_calls import Answer
from tests.backends.driving import EVERYTHING, delete, items, key, one, put, results, values
from tests.backends.fake_consul import FakeConsul, fake_consul
from tests.backends.fake_vault import serving

CANARY = "canary-4711"
PLACE = "envd/place"


@pytest.fixture
async def consul() -> AsyncIterator[FakeConsul]:
    async with fake_consul() as running:
        yield running


def made(
    consul: FakeConsul | str, *, environ: Mapping[str, str] | None = None, **options: Any
) -> ConsulBackend:
    endpoint = consul if isinstance(consul, str) else consul.url
    options = {"place": "place", "endpoint": endpoint, **options}
    return ConsulBackend(Options(**options), environ=environ or {})


@pytest.fixture
async def backend(consul: FakeConsul) -> AsyncIterator[ConsulBackend]:
    opened = made(consul)
    await opened.open()
    yield opened
    await opened.close()


async def opened(consul: FakeConsul | str, **options: Any) -> ConsulBackend:
    backend = made(consul, **options)
    await backend.open()
    return backend


# Keys.


async def test_a_variable_is_a_key_with_its_plain_text(
    consul: FakeConsul, backend: ConsulBackend
) -> None:
    await one(backend, put("NAME", "välue", stamp="1-a"))

    found = consul.values()
    assert found.keys() == {f"{PLACE}/NAME", f"{PLACE}/NAME!envd"}
    assert found[f"{PLACE}/NAME"] == "välue"
    noted = {"stamp": "1-a", "over": 0, "secret": True}
    assert json.loads(found[f"{PLACE}/NAME!envd"]) == noted


async def test_keys_begin_with_no_slash(consul: FakeConsul) -> None:
    backend = await opened(consul, place="/config/web")
    try:
        await one(backend, put("NAME", "value"))

        assert "config/web/NAME" in consul.values()
    finally:
        await backend.close()


async def test_a_delete_takes_the_note_along(consul: FakeConsul, backend: ConsulBackend) -> None:
    created = await one(backend, put("NAME", "value"))

    await one(backend, delete("NAME", expect=created.version))

    assert consul.values() == {}


async def test_a_stamp_that_is_used_twice_is_that_of_each_value(backend: ConsulBackend) -> None:
    first = await one(backend, put("NAME", "first", stamp="1-a"))
    await one(backend, put("NAME", "second", stamp="1-a", expect=first.version))

    found = (await items(backend))[key("NAME")]

    assert (found.value, found.stamp) == ("second", "1-a")


async def test_a_name_that_begins_another_one_is_read_alone(backend: ConsulBackend) -> None:
    await one(backend, put("NAME_2", "2", stamp="1-b"))
    await one(backend, put("NAME", "1", stamp="1-a"))

    found = (await backend.get_many([key("NAME")]))[key("NAME")]

    assert isinstance(found, Item)
    assert (found.value, found.stamp, found.managed) == ("1", "1-a", True)


async def test_a_datacenter_a_namespace_and_a_partition_are_asked_for(consul: FakeConsul) -> None:
    settings = {"datacenter": "dc2", "namespace": "team", "partition": "part"}
    backend = await opened(consul, settings=settings)
    try:
        await one(backend, put("NAME", "value"))

        _, read, write = consul.queries
        where = {"dc": "dc2", "ns": "team", "partition": "part"}
        assert {name: read.get(name) for name in where} == where
        assert write == {"dc": "dc2"}
        spaces = {(op["Namespace"], op["Partition"]) for op in consul.operations}
        assert spaces == {("team", "part")}
    finally:
        await backend.close()


async def test_the_flags_of_a_key_are_left_as_they_are(
    consul: FakeConsul, backend: ConsulBackend
) -> None:
    await consul.put(f"{PLACE}/NAME", "first", flags=42)
    found = (await items(backend))[key("NAME")]

    outcome = await one(backend, put("NAME", "second", expect=found.version, any_owner=True))

    assert results([outcome]) == ["applied"]
    assert consul.entries[f"{PLACE}/NAME"].flags == 42


async def test_a_value_that_becomes_no_secret_keeps_its_stamp(backend: ConsulBackend) -> None:
    first = await one(backend, put("NAME", "value", stamp="1-a"))
    plain = replace(put("NAME", "value", stamp="1-b", expect=first.version), secret=False)

    outcome = await one(backend, plain)
    found = (await items(backend))[key("NAME")]

    assert results([outcome]) == ["applied"]
    assert (found.version, found.stamp, found.secret) == (outcome.version, "1-b", False)


async def test_a_document_that_a_template_names_is_listed(consul: FakeConsul) -> None:
    backend = await opened(consul, layout="document", name_template="{environment}.json")
    try:
        outcome = await one(backend, put("", '{"A": "1"}'))

        assert results([outcome]) == ["applied"]
        assert await values(backend) == {key(""): '{"A": "1"}'}
    finally:
        await backend.close()


# Tokens, and listings that are not whole.


async def test_a_listing_that_leaves_keys_out_is_refused(consul: FakeConsul) -> None:
    await consul.put(f"{PLACE}/A", "mine")
    await consul.put(f"{PLACE}/B", "not mine")
    consul.tokens["token"] = f"{PLACE}/A"
    backend = await opened(consul, environ={"X": "token"}, credentials="token-env:X")
    try:
        with pytest.raises(errors.Forbidden):
            await values(backend)
        health = await backend.probe()

        assert not health.ok
    finally:
        await backend.close()


async def test_a_listing_that_leaves_everything_out_is_refused(consul: FakeConsul) -> None:
    await consul.put(f"{PLACE}/A", "not mine")
    consul.tokens["token"] = "other/"
    backend = await opened(consul, environ={"X": "token"}, credentials="token-env:X")
    try:
        with pytest.raises(errors.Forbidden):
            await values(backend)
        with pytest.raises(errors.Forbidden):
            await backend.get_many([key("A")])
    finally:
        await backend.close()


@pytest.mark.parametrize("allowed", ["other/", f"{PLACE}/A", ""])
async def test_who_has_no_token_is_not_told_what_is_left_out_and_lists_nothing(
    consul: FakeConsul, allowed: str
) -> None:
    await consul.put(f"{PLACE}/A", "mine")
    await consul.put(f"{PLACE}/B", "perhaps not mine")
    consul.tokens[""] = allowed
    backend = await opened(consul)
    try:
        with pytest.raises(errors.Forbidden, match="token"):
            await values(backend)
        with pytest.raises(errors.Forbidden, match="token"):
            await backend.get_many([key("B")])
        health = await backend.probe()

        assert not health.ok
        assert "token" in health.detail
    finally:
        await backend.close()


async def test_the_agents_own_token_is_as_good_as_one_of_ours(consul: FakeConsul) -> None:
    await consul.put(f"{PLACE}/A", "mine")
    consul.tokens["agents"] = ""
    consul.default_token = "agents"
    backend = await opened(consul)
    try:
        assert await values(backend) == {key("A"): "mine"}
    finally:
        await backend.close()


async def test_a_write_that_the_policy_does_not_have_is_forbidden(consul: FakeConsul) -> None:
    consul.tokens["token"] = "other/"
    backend = await opened(consul, environ={"X": "token"}, credentials="token-env:X")
    try:
        outcome = await one(backend, put("A", "value"))

        assert results([outcome]) == ["rejected"]
        assert isinstance(outcome.error, errors.Forbidden)
    finally:
        await backend.close()


async def test_a_token_that_was_deleted_has_expired_and_is_read_anew(
    consul: FakeConsul, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    consul.tokens["new"] = ""
    backend = await opened(consul, credentials=f"token-file:{file}")
    try:
        with pytest.raises(errors.AuthExpired):
            await values(backend)
        file.write_text("new\n")
        await backend.open()

        assert await values(backend) == {}
        assert (await backend.probe()).identity == f"the token of {file}"
    finally:
        await backend.close()


@pytest.mark.parametrize("content", [None, b"", b"\xff"])
async def test_a_file_without_a_token_is_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(errors.Forbidden):
        await made("http://127.0.0.1:1", credentials=f"token-file:{file}").open()


async def test_a_variable_that_is_not_set_is_named(consul: FakeConsul) -> None:
    with pytest.raises(errors.Forbidden, match="TOKEN_OF_WEB"):
        await made(consul, credentials="token-env:TOKEN_OF_WEB").open()


async def test_without_any_token_one_is_anonymous(consul: FakeConsul) -> None:
    backend = await opened(consul)
    try:
        assert (await backend.probe()).identity == "anonymous"
    finally:
        await backend.close()


@pytest.mark.parametrize("credentials", [f"token:{CANARY}", CANARY, "token-env:a", "token-file:a"])
def test_credentials_that_name_no_token_are_refused_and_not_told(credentials: str) -> None:
    with pytest.raises(errors.StoreUnsupported) as caught:
        made("http://127.0.0.1:1", credentials=credentials)

    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("variable", ["127.0.0.1:{port}", "http://127.0.0.1:{port}"])
async def test_where_consul_is_the_environment_may_say(consul: FakeConsul, variable: str) -> None:
    address = variable.format(port=consul.url.rpartition(":")[2])
    backend = await opened("", environ={"CONSUL_HTTP_ADDR": address})
    try:
        assert await values(backend) == {}
    finally:
        await backend.close()


# What answers.


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, {}, b"not found"),
        (200, {}, b"[]"),
        (200, {"X-Consul-Index": "5"}, b"{}"),
        (200, {"X-Consul-Index": "5"}, b'[{"Key": "a"}]'),
        (200, {"X-Consul-Index": "x"}, b"[]"),
        (
            200,
            {"X-Consul-Index": "5"},
            b'[{"Key": "a", "Value": "?", "CreateIndex": 1, "ModifyIndex": 1}]',
        ),
    ],
)
async def test_an_answer_without_sense_is_no_empty_place(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, body=body)

    async with serving(answer) as url:
        for environ in ({}, {"CONSUL_HTTP_TOKEN": "token"}):
            backend = await opened(url, environ=environ)
            try:
                with pytest.raises(errors.StoreUnavailable):
                    await values(backend)
            finally:
                await backend.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b"token does not exist: ACL not found", errors.Forbidden),
        (404, b"Supplied token does not exist", errors.Forbidden),
        (429, CANARY.encode(), errors.Throttled),
        (500, CANARY.encode(), errors.StoreUnavailable),
        (401, CANARY.encode(), errors.AuthExpired),
        (200, b"{}", errors.StoreUnavailable),
    ],
)
async def test_without_a_token_nothing_is_listed_unless_consul_has_no_policies(
    status: int, body: bytes, kind: type[BackendError]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v1/acl/token/self":
            return web.Response(status=status, body=body)
        return web.Response(status=404, headers={"X-Consul-Index": "1"})

    async with serving(answer) as url:
        backend = await opened(url)
        try:
            with pytest.raises(kind) as caught:
                await values(backend)
            assert CANARY not in f"{caught.value!r} {caught.value.hint}"
        finally:
            await backend.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b"Permission denied", errors.Forbidden),
        (403, b"token does not exist: ACL not found", errors.AuthExpired),
        (413, b"Request body too large", errors.ValueTooLarge),
        (429, b"rate limit exceeded", errors.Throttled),
        (500, b"No cluster leader", errors.StoreUnavailable),
        (500, CANARY.encode(), errors.StoreUnavailable),
        (400, CANARY.encode(), errors.StoreUnsupported),
    ],
)
def test_an_answer_that_is_not_good_is_told_by_its_status(
    status: int, body: bytes, kind: type[BackendError]
) -> None:
    error = error_of_consul(Answer(status, {}, body))

    assert type(error) is kind
    assert CANARY not in f"{error!r} {error.hint}"


async def test_a_transaction_that_is_rolled_back_for_another_reason_is_no_conflict() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.method == "PUT":
            errors = [{"OpIndex": 0, "What": CANARY}]
            return web.json_response({"Results": None, "Errors": errors}, status=409)
        if request.path == "/v1/acl/token/self":
            return web.Response(status=401, text="ACL support disabled")
        return web.Response(status=404, headers={"X-Consul-Index": "1"})

    async with serving(answer) as url:
        backend = await opened(url)
        try:
            outcome = await one(backend, put("NAME", "value"))
        finally:
            await backend.close()

    assert isinstance(outcome.error, errors.StoreUnavailable)
    assert CANARY not in repr(outcome)


# Blocking queries.


async def closed(watch: AsyncIterator[Hint]) -> None:
    assert isinstance(watch, AsyncGenerator)
    await watch.aclose()


async def test_a_watch_tells_that_something_changed_after_its_cursor(
    consul: FakeConsul, backend: ConsulBackend
) -> None:
    await consul.put(f"{PLACE}/A", "1")
    watch = backend.watch(EVERYTHING, str(consul.index))
    await consul.put("elsewhere", "1")
    await consul.put(f"{PLACE}/A", "2")

    hint = await anext(watch)
    await closed(watch)

    assert hint == Hint(None, str(consul.index))


async def test_an_answer_without_a_change_is_no_hint(
    consul: FakeConsul, backend: ConsulBackend
) -> None:
    await consul.put(f"{PLACE}/A", "1")
    watch = backend.watch(EVERYTHING, str(consul.index))
    waiting = asyncio.ensure_future(anext(watch))
    await consul.asked_for(0)

    await consul.wake()
    again = await consul.asked_for(1)
    assert not waiting.done()
    await consul.delete(f"{PLACE}/A")
    hint = await waiting
    await closed(watch)

    assert again["index"] == "11"
    assert hint == Hint(None, "12")


async def test_an_index_that_goes_backwards_is_begun_anew(
    consul: FakeConsul, backend: ConsulBackend
) -> None:
    await consul.put(f"{PLACE}/A", "1")
    old = deepcopy(consul.entries)
    for number in range(5):
        await consul.put(f"{PLACE}/A", f"new {number}")
    watch = backend.watch(EVERYTHING, str(consul.index))
    waiting = asyncio.ensure_future(anext(watch))
    await consul.asked_for(0)

    await consul.restore(old, 11)
    hint = await waiting
    waiting = asyncio.ensure_future(anext(watch))
    anew = await consul.asked_for(1)
    after = await consul.asked_for(2)
    await consul.put(f"{PLACE}/B", "1")
    again = await waiting
    await closed(watch)

    assert hint == Hint(None, "11")
    assert "index" not in anew
    assert after["index"] == "11"
    assert again == Hint(None, "12")


async def test_a_watch_asks_for_no_values(consul: FakeConsul, backend: ConsulBackend) -> None:
    watch = backend.watch(Scope(), "5")
    await consul.put(f"{PLACE}/A", CANARY)

    await anext(watch)
    await closed(watch)

    assert all(query["keys"] == "true" and "recurse" not in query for query in consul.queries)
