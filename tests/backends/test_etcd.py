"""The `etcd` backend: users, addresses, what others do to keys, and watches that missed something.

What every backend must do the conformance kit tries (`tests/testing/test_etcd`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from envd.backends import errors
from envd.backends.contract import Hint, Item, Key, Options, Scope
from envd.backends.errors import BackendError
from envd.backends.etcd import LIMITS, EtcdBackend
from envd.backends.etcd_client import decoded, error_of_etcd
from envd.backends.http_calls import Answer
from envd.testing.proxy import DropReply, Match, Proxy, Respond, Rule
from tests.backends.driving import EVERYTHING, delete, key, one, pages, put, results, values
from tests.backends.fake_etcd import FakeEtcd, fake_etcd
from tests.backends.fake_vault import serving

CANARY = "canary-4711"
PLACE = "/envd/place"


@pytest.fixture
async def etcd() -> AsyncIterator[FakeEtcd]:
    async with fake_etcd() as running:
        yield running


def made(
    etcd: FakeEtcd | str, *, environ: Mapping[str, str] | None = None, **options: Any
) -> EtcdBackend:
    settings = options.pop("settings", {})
    endpoint = etcd if isinstance(etcd, str) else etcd.url
    options = {"endpoint": endpoint, **options}
    return EtcdBackend(Options("place", settings=settings, **options), environ=environ or {})


@pytest.fixture
async def backend(etcd: FakeEtcd) -> AsyncIterator[EtcdBackend]:
    opened = made(etcd)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def as_user(etcd: FakeEtcd) -> AsyncIterator[EtcdBackend]:
    """A backend that has logged in."""
    etcd.users["envd"] = "word"
    opened = made(etcd, environ={"X_USER": "envd", "X_PASSWORD": "word"}, credentials="user:X")
    await opened.open()
    yield opened
    await opened.close()


async def item(backend: EtcdBackend, variable: str) -> Item:
    found = (await backend.get_many([key(variable)]))[key(variable)]
    assert isinstance(found, Item)
    return found


# Keys.


async def test_a_variable_is_a_key_with_its_plain_text(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    await one(backend, put("NAME", "välue", stamp="1-a"))

    noted = {"stamp": "1-a", "over": 0, "secret": True}
    found = etcd.values()
    assert found.keys() == {f"{PLACE}/NAME", f"{PLACE}/NAME!envd"}
    assert found[f"{PLACE}/NAME"] == "välue"
    assert json.loads(found[f"{PLACE}/NAME!envd"]) == noted


async def test_a_delete_takes_the_note_along(etcd: FakeEtcd, backend: EtcdBackend) -> None:
    created = await one(backend, put("NAME", "value"))

    await one(backend, delete("NAME", expect=created.version))

    assert etcd.values() == {}


async def test_what_others_made_in_the_place_of_ours_is_theirs(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    await one(backend, put("NAME", "ours", stamp="1-a"))
    await etcd.delete(f"{PLACE}/NAME")
    await etcd.put(f"{PLACE}/NAME", "theirs")

    found = await item(backend, "NAME")

    assert (found.managed, found.stamp, found.secret) == (False, "", None)


async def test_an_edit_by_others_has_no_stamp_and_stays_ours(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    await one(backend, put("NAME", "ours", stamp="1-a"))
    await etcd.put(f"{PLACE}/NAME", "edited")

    found = await item(backend, "NAME")

    assert (found.value, found.managed, found.stamp) == ("edited", True, "")


async def test_a_change_of_secrecy_alone_is_a_write(backend: EtcdBackend) -> None:
    created = await one(backend, put("NAME", "value"))

    op = put("NAME", "value", expect=created.version)
    changed = await one(backend, type(op)(op.verb, op.key, op.expect, op.value, secret=False))

    assert results([changed]) == ["applied"]
    assert (await item(backend, "NAME")).secret is False


async def test_bytes_that_are_no_text_are_told_and_not_overwritten(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    await etcd.put_bytes({f"{PLACE}/NAME".encode(): b"\xff", f"{PLACE}/".encode() + b"\xff": b"x"})
    version = str(etcd.revision)

    found = (await backend.get_many([key("NAME")]))[key("NAME")]
    outcome = await one(backend, put("NAME", "ours", expect=version, any_owner=True))

    assert isinstance(found, errors.InvalidValue)
    assert isinstance(outcome.error, errors.NotOwned)
    assert await values(backend) == {key("NAME"): None}


async def test_a_document_that_others_broke_is_told_and_not_overwritten(etcd: FakeEtcd) -> None:
    backend = made(etcd, layout="document")
    await backend.open()
    try:
        created = await one(backend, put("", '{"A": "1"}'))
        await etcd.put(PLACE, '{"A": 1}')
        expect = str(etcd.revision)

        found = (await backend.get_many([key("")]))[key("")]
        outcome = await one(backend, put("", '{"A": "2"}', expect=expect))

        assert created.version
        assert isinstance(found, errors.InvalidValue)
        assert isinstance(outcome.error, errors.NotOwned)
    finally:
        await backend.close()


# Scans.


async def test_all_pages_of_a_scan_are_of_one_revision(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    count = LIMITS.page_items * 2
    await etcd.put_many({f"{PLACE}/NAME_{number:03}": "old" for number in range(count)})
    found: dict[Key, str | None] = {}

    async for page in backend.scan(EVERYTHING):
        found |= {each.key: each.value for each in page.items}
        await etcd.put_many({f"{PLACE}/NAME_{number:03}": "new" for number in range(count)})
        await etcd.put(f"{PLACE}/NAME_999", "new")

    assert list(found.values()) == ["old"] * count


async def test_pages_are_no_longer_than_they_may_be_where_nothing_has_a_note(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    count = LIMITS.page_items * 2 + 1
    await etcd.put_many({f"{PLACE}/NAME_{number:03}": "theirs" for number in range(count)})

    found = await pages(backend)

    assert [len(each.items) for each in found] == [50, 49, 2]
    assert [each.complete for each in found] == [False, False, True]


async def test_a_scan_that_is_overtaken_by_compaction_raises(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    count = LIMITS.page_items * 2 + 1
    await etcd.put_many({f"{PLACE}/NAME_{number:03}": "theirs" for number in range(count)})
    scan = backend.scan(EVERYTHING)
    first = await anext(scan)

    await etcd.put("/other", "x")
    etcd.compact()
    rest = [await anext(scan)]  # The second half of what was read at first.
    with pytest.raises(errors.StoreUnavailable):
        await anext(scan)

    assert not any(each.complete for each in (first, *rest))


# Watches.


async def told(watch: AsyncIterator[Hint]) -> Hint:
    return await anext(watch)


async def closed(watch: AsyncIterator[Hint]) -> None:
    assert isinstance(watch, AsyncGenerator)
    await watch.aclose()


async def test_a_watch_tells_what_happened_after_its_cursor(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    cursor = str(etcd.revision)
    await one(backend, put("A", "1"))
    await etcd.delete(f"{PLACE}/A")
    await etcd.put("/envd/place2/B", "elsewhere")

    watch = backend.watch(EVERYTHING, cursor)
    hints = [await told(watch), await told(watch)]
    await closed(watch)

    assert hints == [Hint(key("A"), "2"), Hint(key("A"), "3")]


async def test_what_was_written_at_once_is_told_anew_unless_all_of_it_was_told(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    cursor = str(etcd.revision)
    await etcd.put_many({f"{PLACE}/A": "1", f"{PLACE}/B": "2"})

    watch = backend.watch(EVERYTHING, cursor)
    hints = [await told(watch), await told(watch)]
    await closed(watch)

    assert hints == [Hint(key("A"), "1"), Hint(key("B"), "2")]


async def test_a_watch_that_missed_what_was_compacted_hints_at_anything(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    for number in range(5):
        await etcd.put(f"{PLACE}/A", str(number))
    etcd.compact()
    watch = backend.watch(EVERYTHING, "2")

    first = await told(watch)
    await etcd.put(f"{PLACE}/B", "after")
    second = await told(watch)
    await closed(watch)

    assert first == Hint(None, "6")
    assert second == Hint(key("B"), "7")


async def test_a_revision_that_is_told_in_pieces_is_not_told_of_before_the_last(
    etcd: FakeEtcd, backend: EtcdBackend
) -> None:
    await etcd.put(f"{PLACE}/OLD", "1")
    cursor = str(etcd.revision)
    etcd.fragments = True
    await etcd.put_many({f"{PLACE}/A": "1", f"{PLACE}/B": "1"})

    watch = backend.watch(EVERYTHING, cursor)
    hints = [await anext(watch), await anext(watch)]
    await closed(watch)

    assert hints == [Hint(key("A"), cursor), Hint(key("B"), str(etcd.revision))]


async def test_a_watch_keeps_to_its_scope(etcd: FakeEtcd) -> None:
    backend = made(etcd, below=True)
    await backend.open()
    try:
        cursor = str(etcd.revision)
        await etcd.put(f"{PLACE}/app2/A", "1")
        await etcd.put(f"{PLACE}/app/A", "1")

        watch = backend.watch(Scope("app"), cursor)
        hint = await told(watch)
        await closed(watch)

        assert hint.key == Key("app", "A")
    finally:
        await backend.close()


async def test_a_watch_that_etcd_ends_raises(etcd: FakeEtcd, backend: EtcdBackend) -> None:
    cursor = str(etcd.revision)
    await etcd.put(f"{PLACE}/A", "1")
    watch = backend.watch(EVERYTHING, cursor)
    await told(watch)

    await etcd.end_watches()

    with pytest.raises(errors.StoreUnavailable):
        await told(watch)


# Users.


async def test_a_user_logs_in_once(etcd: FakeEtcd, as_user: EtcdBackend) -> None:
    await one(as_user, put("NAME", "value"))
    health = await as_user.probe()

    assert etcd.asked.count("/v3/auth/authenticate") == 1
    assert (health.ok, health.identity) == (True, "envd")


async def test_a_token_that_has_ended_is_got_anew_by_the_next_call(
    etcd: FakeEtcd, as_user: EtcdBackend
) -> None:
    etcd.tokens.clear()

    with pytest.raises(errors.AuthExpired):
        await values(as_user)

    assert await values(as_user) == {}


async def test_so_is_one_on_which_etcd_hangs_up(etcd: FakeEtcd, as_user: EtcdBackend) -> None:
    etcd.hangs_up = True
    etcd.tokens.clear()

    with pytest.raises(errors.StoreUnavailable):
        await values(as_user)

    assert await values(as_user) == {}


async def test_a_watch_has_a_token_of_its_own(etcd: FakeEtcd, as_user: EtcdBackend) -> None:
    etcd.tokens.clear()
    await etcd.put(f"{PLACE}/A", "1")

    watch = as_user.watch(EVERYTHING, "1")
    hint = await told(watch)
    await closed(watch)

    assert hint.key == key("A")


async def test_a_wrong_password_is_refused_when_it_is_opened(etcd: FakeEtcd) -> None:
    etcd.users["envd"] = "word"
    environ = {"X_USER": "envd", "X_PASSWORD": CANARY}
    backend = made(etcd, environ=environ, credentials="user:X")

    try:
        with pytest.raises(errors.Forbidden) as caught:
            await backend.open()
    finally:
        await backend.close()

    assert CANARY not in f"{caught.value!r} {caught.value.hint}"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_an_etcd_that_asks_nobody_takes_a_user_too(etcd: FakeEtcd) -> None:
    environ = {"X_USER": "envd", "X_PASSWORD": "word"}
    backend = made(etcd, environ=environ, credentials="user:X")
    await backend.open()
    try:
        assert results([await one(backend, put("NAME", "value"))]) == ["applied"]
    finally:
        await backend.close()


async def test_an_etcd_that_asks_is_not_talked_to_by_nobody(etcd: FakeEtcd) -> None:
    etcd.users["envd"] = "word"
    backend = made(etcd)
    await backend.open()
    try:
        with pytest.raises(errors.Forbidden):
            await values(backend)
    finally:
        await backend.close()


async def test_what_a_role_does_not_have_is_forbidden(etcd: FakeEtcd, as_user: EtcdBackend) -> None:
    etcd.allowed = b"/other/"

    outcome = await one(as_user, put("NAME", "value"))
    health = await as_user.probe()

    assert isinstance(outcome.error, errors.Forbidden)
    assert not health.ok
    with pytest.raises(errors.Forbidden):
        await values(as_user)


# Addresses.


async def _moved(*endpoints: str) -> EtcdBackend:
    backend = made("", settings={"endpoints": endpoints})
    await backend.open()
    return backend


async def test_the_next_call_goes_to_the_next_address_where_none_answered(etcd: FakeEtcd) -> None:
    backend = await _moved("http://127.0.0.1:1", etcd.url)
    try:
        with pytest.raises(errors.StoreUnavailable):
            await values(backend)

        assert await values(backend) == {}
    finally:
        await backend.close()


async def test_a_member_that_is_cut_off_from_the_others_is_left(etcd: FakeEtcd) -> None:
    async with Proxy(etcd.url) as cut_off:
        words = {"error": "etcdserver: no leader", "code": 14, "message": "etcdserver: no leader"}
        cut_off.add(Rule(Match(), Respond(503, {}, json.dumps(words).encode())))
        backend = await _moved(cut_off.url, etcd.url)
        try:
            with pytest.raises(errors.StoreUnavailable):
                await values(backend)

            assert await values(backend) == {}
        finally:
            await backend.close()


async def test_a_probe_asks_all_addresses(etcd: FakeEtcd) -> None:
    backend = await _moved("http://127.0.0.1:1", "http://127.0.0.1:2", etcd.url)
    try:
        assert (await backend.probe()).ok
    finally:
        await backend.close()


async def test_a_write_whose_answer_was_lost_is_not_made_elsewhere(etcd: FakeEtcd) -> None:
    async with Proxy(etcd.url) as proxy:
        proxy.add(
            Rule(Match(path="/v3/kv/txn", body=lambda body: b"request_put" in body), DropReply())
        )
        backend = await _moved(proxy.url, etcd.url)
        try:
            outcome = await one(backend, put("NAME", "value"))

            assert results([outcome]) == ["failed"]
            assert isinstance(outcome.error, errors.StoreUnavailable)
            assert etcd.revision == 2, "it was written more than once"
            assert await values(backend) == {key("NAME"): "value"}
        finally:
            await backend.close()


# What etcd says.


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "etcdserver: revision of auth store is old", errors.AuthExpired),
        (401, "etcdserver: invalid auth token", errors.AuthExpired),
        (400, "etcdserver: user name is empty", errors.Forbidden),
        (403, "etcdserver: permission denied", errors.Forbidden),
        (400, "etcdserver: request is too large", errors.ValueTooLarge),
        (429, "grpc: received message larger than max (2 vs. 1)", errors.ValueTooLarge),
        (429, "etcdserver: mvcc: database space exceeded", errors.QuotaExceeded),
        (429, "etcdserver: too many requests", errors.Throttled),
        (503, "etcdserver: no leader", errors.StoreUnavailable),
        (504, "etcdserver: request timed out", errors.StoreUnavailable),
        (400, "etcdserver: mvcc: required revision has been compacted", errors.StoreUnavailable),
        (404, "", errors.ItemNotFound),
        (400, CANARY, errors.StoreUnsupported),
    ],
)
def test_an_answer_that_is_not_good_is_told_by_its_words(
    status: int, words: str, kind: type[BackendError]
) -> None:
    body = json.dumps({"error": words, "message": words}).encode()

    error = error_of_etcd(Answer(status, {}, body))

    assert type(error) is kind
    assert CANARY not in f"{error!r} {error.hint}"


def test_what_is_no_base64_makes_no_sense() -> None:
    with pytest.raises(errors.StoreUnavailable):
        decoded("no base64!")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"header": {"revision": "5"}, "kvs": {}}',
        b'{"header": {"revision": "5"}, "kvs": [{"key": "YQ=="}]}',
        b'{"header": {"revision": "5"}, "more": true}',
        b"[]",
    ],
)
async def test_an_answer_without_sense_is_no_empty_place(body: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with serving(answer) as url:
        backend = made(url)
        await backend.open()
        try:
            with pytest.raises(errors.StoreUnavailable):
                await values(backend)
        finally:
            await backend.close()


async def test_who_is_no_etcd_is_not_well() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({})

    async with serving(answer) as url:
        backend = made(url)
        await backend.open()
        try:
            assert not (await backend.probe()).ok
        finally:
            await backend.close()


async def test_of_one_document_nothing_beside_it_is_told(etcd: FakeEtcd) -> None:
    backend = made(etcd, layout="document")
    await backend.open()
    try:
        cursor = str(etcd.revision)
        await etcd.put(f"{PLACE}_", "beside")
        await etcd.put(f"{PLACE}/NAME", "below")
        await etcd.put(PLACE, "{}")

        watch = backend.watch(Scope(), cursor)
        hint = await told(watch)
        await closed(watch)

        assert hint == Hint(Key("", ""), str(etcd.revision))
    finally:
        await backend.close()


# Settings.


@pytest.mark.parametrize("credentials", [f"user:{CANARY}", "root:word", "user:", "user:a"])
def test_credentials_that_name_no_variables_are_refused_and_not_told(credentials: str) -> None:
    with pytest.raises(errors.StoreUnsupported) as caught:
        made("http://127.0.0.1:1", credentials=credentials)

    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "settings",
    [{"user_env": "X"}, {"password_env": "X"}, {"path_prefix": 1}, {"endpoints": "http://x"}],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(errors.StoreUnsupported):
        made("", settings=settings)


async def test_files_for_https_that_are_not_there_are_told(etcd: FakeEtcd, tmp_path: Path) -> None:
    backend = made(etcd, settings={"ca_file": str(tmp_path / "none.pem")})

    try:
        with pytest.raises(errors.StoreUnsupported):
            await backend.open()
    finally:
        await backend.close()


async def test_somebody_has_to_say_where_etcd_is() -> None:
    with pytest.raises(errors.StoreUnsupported):
        await made("").open()


async def test_what_is_not_open_is_unavailable() -> None:
    for backend in (made(""), made("http://127.0.0.1:1")):
        with pytest.raises(errors.StoreUnavailable):
            await values(backend)
        with pytest.raises(errors.StoreUnavailable):
            await anext(backend.watch(EVERYTHING, None))
        assert not (await backend.probe()).ok


async def test_a_variable_that_is_not_set_is_named(etcd: FakeEtcd) -> None:
    backend = made(etcd, environ={"X_USER": "envd"}, credentials="user:X")

    try:
        with pytest.raises(errors.Forbidden, match="X_PASSWORD"):
            await backend.open()
    finally:
        await backend.close()
