"""The `kubernetes` backend: names of objects, what others have in them, watches, and credentials.

What every backend must do the conformance kit tries (`tests/testing/test_kubernetes`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from envd.backends import errors
from envd.backends.contract import Hint, Item, Key, Options, Scope
from envd.backends.errors import BackendError
from envd.backends.http_calls import Answer
from envd.backends.kubernetes import LIMITS, KubernetesBackend
from envd.backends.kubernetes_client import SILENCE_S, KubernetesClient, error_of_kubernetes
from envd.backends.kubernetes_object import NOTE
from envd.backends.kubernetes_settings import ObjectNames, read_settings
from envd.core.names import ENVIRONMENT_PATTERN
from envd.testing.proxy import Proxy
from tests.backends.certificates import made_certificate
from tests.backends.driving import EVERYTHING, delete, items, one, pages, put, results
from tests.backends.fake_kubernetes import FakeKubernetes, fake_kubernetes, kubeconfig
from tests.backends.fake_vault import serving

pytest.importorskip(
    "kubernetes_asyncio", reason="it is not installed: pip install 'envd-cluster[k8s]'"
)

CANARY = "canary-4711"
WHOLE = Key("", "")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeKubernetes]:
    async with fake_kubernetes() as running:
        (tmp_path / "config").write_text(kubeconfig(running.url))
        yield running


def made(
    home: Path, *, environ: Mapping[str, str] | None = None, **options: Any
) -> KubernetesBackend:
    settings = {"kubeconfig": str(home / "config"), **options.pop("settings", {})}
    options = {"place": "team/secret/web", "layout": "document", **options}
    return KubernetesBackend(Options(settings=settings, **options), environ=environ or {})


@pytest.fixture
async def backend(cluster: FakeKubernetes, tmp_path: Path) -> AsyncIterator[KubernetesBackend]:
    """One Secret."""
    opened = made(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def below(cluster: FakeKubernetes, tmp_path: Path) -> AsyncIterator[KubernetesBackend]:
    """All Secrets below a name."""
    opened = made(tmp_path, below=True)
    await opened.open()
    yield opened
    await opened.close()


async def found(backend: KubernetesBackend) -> Item:
    answer = (await backend.get_many([WHOLE]))[WHOLE]
    assert isinstance(answer, Item)
    return answer


def the_secret(cluster: FakeKubernetes) -> dict[str, Any]:
    return cluster.objects["team", "secrets", "web"]


# Names.


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ("", "web"),
        ("app", "web.app"),
        ("team/my-app", "web.team.my-app"),
        ("a_b", "web.a-x5fb"),
        ("a.b", "web.a-x2eb"),
        ("a-x", "web.a-x2dx"),
        ("a-_b", "web.a--x5fb"),
    ],
)
def test_an_environment_has_the_name_of_an_object(environment: str, name: str) -> None:
    names = ObjectNames("web", below=True)

    assert names.encode(Key(environment, "")) == name
    assert names.decode(name) == Key(environment, "")


@given(st.from_regex(ENVIRONMENT_PATTERN, fullmatch=True).filter(lambda name: len(name) < 60))
def test_every_name_is_one_of_kubernetes_and_is_read_back(environment: str) -> None:
    names = ObjectNames("web", below=True)
    key = Key(environment, "")
    try:
        name = names.encode(key)
    except errors.InvalidName:
        return  # Of too many segments.

    assert SUBDOMAIN.fullmatch(name)
    assert names.decode(name) == key


@given(st.from_regex(r"web\.[a-z0-9x.-]{0,20}", fullmatch=True))
def test_a_name_is_read_only_if_it_would_be_written_so(name: str) -> None:
    names = ObjectNames("web", below=True)

    key = names.decode(name)

    assert key is None or names.encode(key) == name


def test_of_one_object_nothing_below_is_ours() -> None:
    names = ObjectNames("web", below=False)

    assert names.decode("web.app") is None


@pytest.mark.parametrize(
    "place",
    ["", "web", "team/web", "team/secret/", "team/secret/Web", "Team/secret/web", "team/pod/web"],
)
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(errors.InvalidName):
        made(tmp_path, place=place)


@pytest.mark.parametrize("options", [{"layout": "per-variable"}, {"name_template": "x"}])
def test_what_objects_can_not_be_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(errors.StoreUnsupported):
        made(tmp_path, **options)


# Objects.


async def test_a_secret_is_opaque_and_says_whose_it_is(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    await one(backend, put("", '{"URL": "välue"}', stamp="1-a"))

    made = the_secret(cluster)
    assert (made["type"], cluster.data("secrets", "web")) == ("Opaque", {"URL": "välue"})
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "envd"}
    assert json.loads(made["metadata"]["annotations"][NOTE])["stamp"] == "1-a"
    assert "välue" not in json.dumps(made, ensure_ascii=False)


async def test_a_config_map_has_plain_text(cluster: FakeKubernetes, tmp_path: Path) -> None:
    backend = made(tmp_path, place="team/configmap/web")
    await backend.open()
    try:
        await one(backend, put("", '{"URL": "välue"}'))

        assert cluster.objects["team", "configmaps", "web"]["data"] == {"URL": "välue"}
        assert (await found(backend)).value == '{"URL": "välue"}'
    finally:
        await backend.close()


async def test_what_others_have_in_an_object_stays(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    about = {"name": "web", "labels": {"team": "a"}, "annotations": {"note": "b"}}
    before = {"1st": "theirs", "OLD": "1"}
    theirs = await cluster.put("secrets", "web", before, metadata=about)
    version = f"{theirs['metadata']['resourceVersion']}@{theirs['metadata']['uid']}"

    outcome = await one(backend, put("", '{"NEW": "2"}', expect=version, any_owner=True))

    assert results([outcome]) == ["applied"]
    assert cluster.data("secrets", "web") == {"1st": "theirs", "NEW": "2"}
    after = the_secret(cluster)["metadata"]
    assert after["labels"] == {"team": "a"}
    assert after["annotations"].keys() == {"note", NOTE}


async def test_a_delete_leaves_what_others_have_in_an_object(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    await one(backend, put("", '{"OURS": "1"}'))
    await cluster.put("secrets", "web", {"1st": "theirs", "OURS": "1"})
    version = (await found(backend)).version

    outcome = await one(backend, delete("", expect=version))

    assert results([outcome]) == ["applied"]
    assert cluster.data("secrets", "web") == {"1st": "theirs"}
    assert NOTE not in the_secret(cluster)["metadata"]["annotations"]
    assert the_secret(cluster)["metadata"]["labels"] == {}


async def test_an_edit_by_others_has_no_stamp_and_stays_ours(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    await one(backend, put("", '{"A": "1"}', stamp="1-a"))
    await cluster.put("secrets", "web", {"A": "2"})

    item = await found(backend)

    assert (item.value, item.managed, item.stamp) == ('{"A": "2"}', True, "")


async def test_a_label_by_others_changes_no_stamp(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    await one(backend, put("", '{"A": "1"}', stamp="1-a"))
    about = the_secret(cluster)["metadata"]
    labels = {**about["labels"], "team": "a"}
    await cluster.put("secrets", "web", {"A": "1"}, metadata={**about, "labels": labels})

    assert (await found(backend)).stamp == "1-a"


@pytest.mark.parametrize("note", ["", "[]", "{", '{"stamp": 1}'])
async def test_a_note_that_others_broke_has_no_stamp(
    cluster: FakeKubernetes, backend: KubernetesBackend, note: str
) -> None:
    about = {"name": "web", "annotations": {NOTE: note}}
    await cluster.put("secrets", "web", {"A": "1"}, metadata=about)

    assert (await found(backend)).stamp == ""


async def test_secrets_of_other_types_are_not_ours(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    theirs = await cluster.put("secrets", "web", {"A": "1"}, type="kubernetes.io/tls")
    version = f"{theirs['metadata']['resourceVersion']}@{theirs['metadata']['uid']}"

    read = (await below.get_many([WHOLE]))[WHOLE]
    ops = [
        put("", '{"A": "2"}', expect=version, any_owner=True),
        delete("", expect=version, any_owner=True),
    ]
    outcomes = [await one(below, op) for op in ops]

    assert isinstance(read, errors.InvalidValue)
    assert [type(each.error) for each in outcomes] == [errors.NotOwned] * 2
    assert await items(below) == {}
    assert cluster.queries[-1]["fieldSelector"] == "type=Opaque"


async def test_an_immutable_object_is_read_and_not_written(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    await one(backend, put("", '{"A": "1"}'))
    await cluster.put("secrets", "web", {"A": "1"}, immutable=True)
    version = (await found(backend)).version

    edited = await one(backend, put("", '{"A": "2"}', expect=version))
    deleted = await one(backend, delete("", expect=version))

    assert isinstance(edited.error, errors.NotOwned)
    assert results([deleted]) == ["applied"]


async def test_a_value_that_is_no_text_is_others(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    await one(backend, put("", '{"A": "1"}'))
    the_secret(cluster)["data"]["RAW"] = "/w=="
    item = await found(backend)

    outcome = await one(backend, put("", '{"RAW": "ours"}', expect=item.version))

    assert item.value == '{"A": "1"}'
    assert isinstance(outcome.error, errors.NotOwned)


async def test_a_name_that_no_object_can_have_in_it_is_refused(backend: KubernetesBackend) -> None:
    op = put("", json.dumps({"N" * 254: "1"}))

    assert [type(each.error) for each in backend.check([op])] == [errors.InvalidName]


async def test_an_object_that_waits_for_its_finalizers_is_gone(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    created = await one(below, put("", '{"A": "1"}'))
    the_secret(cluster)["metadata"]["finalizers"] = ["example.com/hold"]

    gone = await one(below, delete("", expect=created.version))
    listed = await items(below)
    read = (await below.get_many([WHOLE]))[WHOLE]
    again = await one(below, delete("", expect=created.version))
    anew = await one(below, put("", '{"A": "2"}'))

    assert results([gone, again, anew]) == ["applied", "noop", "conflict"]
    assert listed == {}
    assert isinstance(read, errors.ItemNotFound)
    assert cluster.data("secrets", "web") == {"A": "1"}


async def test_half_a_character_is_no_text_and_is_refused(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    outcome = await one(backend, put("", r'{"A": "\ud800"}'))

    assert results([outcome]) == ["rejected"]
    assert isinstance(outcome.error, errors.InvalidValue)
    assert cluster.asked == []


async def test_what_is_deleted_before_it_is_replaced_is_a_conflict(
    cluster: FakeKubernetes, tmp_path: Path
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            await cluster.delete("secrets", "web")
        return await cluster.serve(request)

    await cluster.put("secrets", "web", {"A": "1"})
    async with serving(answer) as url:
        backend = made(tmp_path, endpoint=url)
        await backend.open()
        try:
            version = (await found(backend)).version
            outcome = await one(backend, put("", "{}", expect=version, any_owner=True))
        finally:
            await backend.close()

    assert results([outcome]) == ["conflict"]


async def test_a_namespace_that_is_not_there_is_told(
    cluster: FakeKubernetes, tmp_path: Path
) -> None:
    backend = made(tmp_path, place="nowhere/secret/web")
    await backend.open()
    try:
        outcome = await one(backend, put("", '{"A": "1"}'))
    finally:
        await backend.close()

    assert isinstance(outcome.error, errors.StoreUnsupported)


async def test_a_quota_that_is_full_is_told(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    cluster.quota_is_full = True

    outcome = await one(backend, put("", '{"A": "1"}'))

    assert isinstance(outcome.error, errors.QuotaExceeded)


# Scans.


async def test_all_pages_of_a_scan_are_of_one_version(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    count = LIMITS.page_items + 1
    for number in range(count):
        await cluster.put("secrets", f"web.app{number}", {"A": "old"})
    values: list[str | None] = []

    async for page in below.scan(EVERYTHING):
        values += [each.value for each in page.items]
        for number in range(count):
            await cluster.put("secrets", f"web.app{number}", {"A": "new"})

    assert values == ['{"A": "old"}'] * count


async def test_a_list_that_is_forgotten_half_way_raises(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    for number in range(LIMITS.page_items + 1):
        await cluster.put("secrets", f"web.app{number}", {"A": "1"})
    scan = below.scan(EVERYTHING)
    first = await anext(scan)

    await cluster.forget()

    with pytest.raises(errors.StoreUnavailable):
        await anext(scan)
    assert not first.complete


async def test_pages_of_others_alone_are_empty_and_not_the_end(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    for number in range(LIMITS.page_items):
        await cluster.put("secrets", f"other{number}", {"A": "1"})
    await cluster.put("secrets", "web", {"A": "1"})

    found = await pages(below)

    assert [(len(each.items), each.complete) for each in found] == [(0, False), (1, True)]


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize(
    "body",
    [
        b"not found",
        b"[]",
        b"{}",
        b'{"kind": "SecretList"}',
        b'{"kind": "SecretList", "items": [1]}',
        b'{"kind": "SecretList", "items": [{"metadata": {"name": "web"}}]}',
        b'{"kind": "ConfigMapList", "items": []}',
    ],
)
async def test_an_answer_without_sense_is_no_empty_place(
    tmp_path: Path, status: int, body: bytes
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with serving(answer) as url:
        (tmp_path / "config").write_text(kubeconfig(url))
        backend = made(tmp_path, below=True)
        await backend.open()
        try:
            with pytest.raises(errors.StoreUnavailable):
                await items(backend)
        finally:
            await backend.close()


# Watches.


async def closed(watch: AsyncIterator[Hint]) -> None:
    assert isinstance(watch, AsyncGenerator)
    await watch.aclose()


async def test_a_watch_tells_what_happened_after_its_cursor(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    cursor = str(cluster.number)
    await cluster.put("secrets", "web.app", {"A": "1"})
    await cluster.put("secrets", "other", {"A": "1"})
    await cluster.delete("secrets", "web.app")

    watch = below.watch(EVERYTHING, cursor)
    hints = [await anext(watch), await anext(watch)]
    await closed(watch)

    assert hints == [Hint(Key("app", ""), "101"), Hint(Key("app", ""), "103")]


async def test_a_watch_keeps_to_its_scope(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    cursor = str(cluster.number)
    await cluster.put("secrets", "web.app2", {"A": "1"})
    await cluster.put("secrets", "web.app", {"A": "1"})

    watch = below.watch(Scope("app"), cursor)
    hint = await anext(watch)
    await closed(watch)

    assert hint.key == Key("app", "")


async def test_a_watch_of_one_object_asks_for_no_other(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    cursor = str(cluster.number)
    await cluster.put("secrets", "other", {"A": "1"})
    await cluster.put("secrets", "web", {"A": "1"})

    watch = backend.watch(Scope(), cursor)
    hint = await anext(watch)
    await closed(watch)

    assert hint == Hint(WHOLE, "102")
    assert cluster.queries[-1]["fieldSelector"] == "metadata.name=web"


async def test_a_watch_ends_after_a_while_since_a_dead_one_never_would(
    cluster: FakeKubernetes, backend: KubernetesBackend
) -> None:
    watch = backend.watch(Scope(), str(cluster.number))
    await cluster.put("secrets", "web", {"A": "1"})
    await anext(watch)
    await closed(watch)

    assert int(cluster.queries[-1]["timeoutSeconds"]) < SILENCE_S


async def test_a_watch_that_the_server_ends_goes_on_from_its_last_bookmark(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    watch = below.watch(EVERYTHING, None)
    waiting = asyncio.ensure_future(anext(watch))
    await cluster.watched(1)
    await cluster.put("configmaps", "other", {"A": "1"})
    await cluster.send_bookmarks()

    await cluster.end_watches()
    await cluster.watched(2)
    again = cluster.queries[-1]
    await cluster.put("secrets", "web", {"A": "1"})
    hint = await waiting
    await closed(watch)

    assert (again["resourceVersion"], again["allowWatchBookmarks"]) == ("101", "true")
    assert hint == Hint(WHOLE, "102")


@pytest.mark.parametrize("while_watching", [False, True])
async def test_a_watch_from_a_version_that_is_forgotten_hints_at_anything(
    cluster: FakeKubernetes, below: KubernetesBackend, while_watching: bool
) -> None:
    await cluster.put("secrets", "web", {"A": "1"})
    watch = below.watch(EVERYTHING, "100")
    if while_watching:
        assert await anext(watch) == Hint(WHOLE, "101")
    for number in range(3):
        await cluster.put("secrets", "web", {"A": f"2 {number}"})
    await cluster.forget()

    hints = [await anext(watch)]
    while hints[-1].key is not None:
        hints.append(await anext(watch))
    await cluster.put("secrets", "web", {"A": "3"})
    after = await anext(watch)
    await closed(watch)

    assert hints[-1] == Hint(None, "104")
    assert after == Hint(WHOLE, "105")


async def test_a_watch_that_ends_at_once_raises(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    cluster.is_over = True

    with pytest.raises(errors.StoreUnavailable):
        await anext(below.watch(EVERYTHING, "100"))


async def test_a_watch_that_is_forbidden_says_so(
    cluster: FakeKubernetes, below: KubernetesBackend
) -> None:
    cluster.forbidden = "/api"

    with pytest.raises(errors.Forbidden):
        await anext(below.watch(EVERYTHING, "100"))


# Credentials.


async def test_a_context_is_chosen_by_its_name(cluster: FakeKubernetes, tmp_path: Path) -> None:
    config = yaml.safe_load(kubeconfig("http://127.0.0.1:1", CANARY))
    right = yaml.safe_load(kubeconfig(cluster.url))
    config["clusters"].append({**right["clusters"][0], "name": "c2"})
    config["users"].append({**right["users"][0], "name": "u2"})
    there = {"name": "there", "context": {"cluster": "c2", "user": "u2"}}
    config["contexts"].append(there)
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    backend = made(tmp_path, credentials="kubeconfig:there")
    await backend.open()
    try:
        health = await backend.probe()
    finally:
        await backend.close()

    assert (health.ok, health.identity) == (True, "context there")


async def test_credentials_that_were_replaced_are_read_anew(
    cluster: FakeKubernetes, backend: KubernetesBackend, tmp_path: Path
) -> None:
    cluster.tokens = {"renewed"}
    with pytest.raises(errors.AuthExpired):
        await items(backend)
    (tmp_path / "config").write_text(kubeconfig(cluster.url, "renewed"))

    await backend.open()

    assert await items(backend) == {}


async def test_keys_in_a_kubeconfig_are_left_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    certificate, key = (base64.b64encode(each.read_bytes()).decode() for each in _pair(tmp_path))
    config = json.loads(kubeconfig("https://127.0.0.1:1"))
    config["clusters"][0]["cluster"]["certificate-authority-data"] = certificate
    config["users"][0]["user"] = {"client-certificate-data": certificate, "client-key-data": key}
    (tmp_path / "config").write_text(json.dumps(config))
    backend = made(tmp_path)
    try:
        for _ in range(2):
            await backend.open()

            assert list(elsewhere.iterdir()) == []
    finally:
        await backend.close()


def _pair(home: Path) -> tuple[Path, Path]:
    made = made_certificate(home)
    return made.certificate, made.key


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of the library's own making.
async def test_a_login_that_never_answers_is_given_up(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with serving(answer) as url:
        config = json.loads(kubeconfig("http://127.0.0.1:1"))
        about = {"client-id": "a", "client-secret": CANARY, "refresh-token": CANARY}
        login = {"name": "oidc", "config": {**about, "idp-issuer-url": url}}
        config["users"][0]["user"] = {"auth-provider": login}
        (tmp_path / "config").write_text(json.dumps(config))
        settings = read_settings(
            Options("team/secret/web", "document", settings={"kubeconfig": tmp_path / "config"})
        )
        client = KubernetesClient(settings, {}, access_s=0.1)

        with pytest.raises(errors.StoreUnavailable) as caught:
            await client.open()
        over.set()

    assert CANARY not in f"{caught.value!r} {caught.value.hint}"
    assert caught.value.__context__ is None


async def test_outside_of_a_pod_there_is_no_service_account(tmp_path: Path) -> None:
    with pytest.raises(errors.Forbidden):
        await made(tmp_path, credentials="in-cluster").open()


async def test_in_a_pod_its_service_account_is_taken_first(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}

    with pytest.raises(errors.Forbidden, match="service account"):
        await made(tmp_path, environ=environ).open()


async def test_a_pod_shows_the_token_of_its_service_account(
    cluster: FakeKubernetes, tmp_path: Path
) -> None:
    certificate = made_certificate(tmp_path)
    (tmp_path / "token").write_text("token")
    certificate.certificate.rename(tmp_path / "ca.crt")
    certificate = certificate._replace(certificate=tmp_path / "ca.crt")
    async with Proxy(cluster.url, tls=certificate.served()) as server:
        host, port = server.url.removeprefix("https://").split(":")
        environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        backend = KubernetesBackend(
            Options("team/secret/web", "document"), environ=environ, service_account=tmp_path
        )
        await backend.open()
        try:
            outcome = await one(backend, put("", '{"A": "1"}'))
            health = await backend.probe()
        finally:
            await backend.close()

    assert results([outcome]) == ["applied"]
    assert (health.ok, health.identity) == (True, "the pod's service account")


@pytest.mark.parametrize("text", ["", "[", CANARY, f"users: [{CANARY}]"])
async def test_a_kubeconfig_that_is_none_is_told_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)

    with pytest.raises(errors.Forbidden) as caught:
        await made(tmp_path).open()

    assert CANARY not in f"{caught.value!r} {caught.value.hint}"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    "asked",
    [
        {"insecure-skip-tls-verify": True},
        {"tls-server-name": "x"},
        {"proxy-url": "http://127.0.0.1:1"},
    ],
)
async def test_a_context_that_asks_for_what_is_not_done_is_refused(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    config = json.loads(kubeconfig("http://127.0.0.1:1"))
    config["clusters"][0]["cluster"] |= asked
    (tmp_path / "config").write_text(json.dumps(config))

    with pytest.raises(errors.StoreUnsupported):
        await made(tmp_path).open()


@pytest.mark.parametrize("credentials", [CANARY, f"token:{CANARY}", "kubeconfig:", "in-cluster:x"])
def test_credentials_that_name_nothing_are_refused_and_not_told(
    tmp_path: Path, credentials: str
) -> None:
    with pytest.raises(errors.StoreUnsupported) as caught:
        made(tmp_path, credentials=credentials)

    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (401, "Unauthorized", errors.AuthExpired),
        (403, "secrets is forbidden", errors.Forbidden),
        (403, "exceeded quota: objects", errors.QuotaExceeded),
        (409, "the object has been modified", errors.StaleVersion),
        (410, "too old", errors.StoreUnavailable),
        (413, "limit is 3145728", errors.ValueTooLarge),
        (422, "Too long: may not be more than 1048576 bytes", errors.ValueTooLarge),
        (422, CANARY, errors.InvalidValue),
        (429, "too many requests", errors.Throttled),
        (500, CANARY, errors.StoreUnavailable),
        (404, CANARY, errors.StoreUnavailable),
    ],
)
def test_an_answer_that_is_not_good_is_told_by_its_status(
    status: int, words: str, kind: type[BackendError]
) -> None:
    body = json.dumps({"kind": "Status", "message": words}).encode()

    error = error_of_kubernetes(Answer(status, {}, body))

    assert type(error) is kind
    assert CANARY not in f"{error!r} {error.hint}"
