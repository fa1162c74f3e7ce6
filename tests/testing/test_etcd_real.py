"""The `etcd` backend passes the conformance kit over a real etcd, as a user with the role of its
page.

And what a fake can't tell: tokens that have ended, compaction, and what is forbidden.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import pytest

from envd.backends.contract import Hint, Options
from envd.backends.errors import AuthExpired, Forbidden
from envd.backends.etcd import EtcdBackend
from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends.driving import EVERYTHING, key, one, put, values
from tests.testing.etcd_harness import EtcdHarness
from tests.testing.etcd_server import Etcd, etcd, text
from tests.testing.pinned import NoProgram

pytestmark = pytest.mark.real

_NAME = "etcd (real)"


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    try:
        with etcd("--auth-token-ttl", "3600") as running:
            for name, password in (("root", "root-word"), ("envd", "envd-word")):
                running.ask("auth/user/add", {"name": name, "password": password})
            span = {"permType": "READWRITE", "key": text("/envd/"), "range_end": text("/envd0")}
            running.ask("auth/role/add", {"name": "envd"})
            running.ask("auth/role/grant", {"name": "envd", "perm": span})
            running.ask("auth/user/grant", {"user": "root", "role": "root"})
            running.ask("auth/user/grant", {"user": "envd", "role": "envd"})
            running.ask("auth/enable", {})
            yield running
    except NoProgram as error:
        pytest.skip(f"{_NAME}: no SERVER: {error}")


@pytest.fixture(scope="module")
def root(server: Etcd) -> str:
    """The token of root."""
    login = {"name": "root", "password": "root-word"}
    return str(server.ask("auth/authenticate", login)["token"])


@pytest.fixture(scope="module")
def places() -> Iterator[str]:
    return (f"case{number}" for number in itertools.count())


class RealHarness(EtcdHarness):
    """A place of its own for each case, on one server."""

    def __init__(
        self, kind: str, server: Etcd, place: str, root: str, layout: Layout, *, below: bool
    ) -> None:
        user = ("envd", "envd-word")
        super().__init__(f"{_NAME[:-1]}{kind})", place, layout=layout, below=below, user=user)
        self._server = server
        self._root = root

    async def find_upstream(self) -> str:
        return self._server.url

    async def token(self) -> str:
        return self._root


class TestEtcd(BackendConformance):
    """Each case with a key for each variable."""

    @pytest.fixture
    def harness(self, server: Etcd, root: str, places: Iterator[str]) -> Harness:
        return RealHarness("", server, next(places), root, "per-variable", below=True)


class TestEtcdDocuments(BackendConformance):
    """... with a key for each environment."""

    @pytest.fixture
    def harness(self, server: Etcd, root: str, places: Iterator[str]) -> Harness:
        return RealHarness(", documents", server, next(places), root, "document", below=True)


class TestEtcdDocument(BackendConformance):
    """... with one key."""

    @pytest.fixture
    def harness(self, server: Etcd, root: str, places: Iterator[str]) -> Harness:
        return RealHarness(", one document", server, next(places), root, "document", below=False)


# What a fake can't tell.


def _backend(server: Etcd, place: str) -> EtcdBackend:
    options = Options(place, endpoint=server.url, credentials="user:X")
    return EtcdBackend(options, environ={"X_USER": "envd", "X_PASSWORD": "envd-word"})


@pytest.fixture
async def backend(server: Etcd, places: Iterator[str]) -> AsyncIterator[EtcdBackend]:
    opened = _backend(server, next(places))
    await opened.open()
    yield opened
    await opened.close()


async def test_a_token_that_has_ended_is_got_anew_for_real(
    server: Etcd, backend: EtcdBackend
) -> None:
    await one(backend, put("NAME", "value"))
    login = {"name": "root", "password": "root-word"}
    server.ask("auth/disable", {}, str(server.ask("auth/authenticate", login)["token"]))
    server.ask("auth/enable", {})

    with pytest.raises(AuthExpired):
        await values(backend)

    assert await values(backend) == {key("NAME"): "value"}


async def test_a_watch_goes_on_after_a_compaction(server: Etcd, backend: EtcdBackend) -> None:
    first = await one(backend, put("NAME", "first"))
    second = await one(backend, put("NAME", "second", expect=first.version))
    root = server.ask("auth/authenticate", {"name": "root", "password": "root-word"})
    server.ask("kv/compaction", {"revision": second.version}, str(root["token"]))

    watch = backend.watch(EVERYTHING, str(int(first.version) - 1))
    missed = await anext(watch)
    third = await one(backend, put("NAME", "third", expect=second.version))
    hint = await anext(watch)
    assert isinstance(watch, AsyncGenerator)
    await watch.aclose()

    assert missed.key is None
    assert hint == Hint(key("NAME"), third.version)


async def test_what_the_role_does_not_have_is_forbidden(server: Etcd) -> None:
    backend = _backend(server, "/elsewhere")
    await backend.open()
    try:
        with pytest.raises(Forbidden):
            await values(backend)
        with pytest.raises(Forbidden):
            await anext(backend.watch(EVERYTHING, None))
    finally:
        await backend.close()
