"""The `vault` backend passes the conformance kit over a real OpenBao, with the policy of its page.

And what a fake can't tell: logins, the life of tokens and namespaces, as the server has them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from envd.backends.contract import Key, Options
from envd.backends.errors import AuthExpired, BackendError, Forbidden, StoreUnsupported
from envd.backends.vault import VaultBackend
from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends.driving import delete, key, one, put, values
from tests.testing.openbao import OpenBao, openbao
from tests.testing.pinned import NoProgram
from tests.testing.vault_harness import VaultHarness

pytest.importorskip("hvac", reason="hvac is not installed: pip install 'envd-cluster[vault]'")

pytestmark = pytest.mark.real

_NAME = "vault (openbao)"
_PAGE = Path(__file__).parents[2] / "docs" / "backends-vault.md"


def documented_policy() -> str:
    """The policy that the page of the backend says is enough."""
    found = re.search(r"```hcl\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None, "the page has no policy"
    return found[1]


@pytest.fixture(scope="module")
def server() -> Iterator[OpenBao]:
    try:
        with openbao() as running:
            running.ask("PUT", "sys/policies/acl/envd", {"policy": documented_policy()})
            running.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
            yield running
    except NoProgram as error:
        pytest.skip(f"{_NAME}: no SERVER: {error}")


@pytest.fixture(scope="module")
def token(server: OpenBao) -> str:
    """A token that may do what the page says, and no more."""
    made = server.ask("POST", "auth/token/create", {"policies": ["envd"], "ttl": "1h"})
    return str(made["auth"]["client_token"])


@pytest.fixture(scope="module")
def places() -> Iterator[str]:
    return (f"case{number}" for number in itertools.count())


class RealHarness(VaultHarness):
    """A place of its own for each case, on one server."""

    def __init__(
        self, kind: str, server: OpenBao, place: str, token: str, layout: Layout, *, below: bool
    ) -> None:
        name = f"{_NAME[:-1]}{kind})"
        super().__init__(name, place, layout=layout, below=below, token=token, others=server.token)
        self._server = server

    async def find_upstream(self) -> str:
        return self._server.url


class TestVault(BackendConformance):
    """Each case with a secret for each variable."""

    @pytest.fixture
    def harness(self, server: OpenBao, token: str, places: Iterator[str]) -> Harness:
        return RealHarness("", server, next(places), token, "per-variable", below=True)


class TestVaultDocuments(BackendConformance):
    """... with a secret for each environment."""

    @pytest.fixture
    def harness(self, server: OpenBao, token: str, places: Iterator[str]) -> Harness:
        return RealHarness(", documents", server, next(places), token, "document", below=True)


class TestVaultDocument(BackendConformance):
    """... with one secret."""

    @pytest.fixture
    def harness(self, server: OpenBao, token: str, places: Iterator[str]) -> Harness:
        return RealHarness(", one document", server, next(places), token, "document", below=False)


# What a fake can't tell.


def _backend(server: OpenBao, place: str, token: str, **settings: object) -> VaultBackend:
    options = Options(place, settings=settings, endpoint=server.url)
    return VaultBackend(options, environ={"VAULT_TOKEN": token})


async def test_a_role_logs_in_and_its_token_is_renewed_for_real(
    server: OpenBao, places: Iterator[str]
) -> None:
    server.ask("POST", "sys/auth/roles", {"type": "approle"})
    server.ask("POST", "auth/roles/role/web", {"token_policies": ["envd"], "token_ttl": "1h"})
    role = server.ask("GET", "auth/roles/role/web/role-id")["data"]["role_id"]
    secret = server.ask("POST", "auth/roles/role/web/secret-id")["data"]["secret_id"]
    now_s = [0.0]
    settings = {"auth": "approle", "auth_mount": "roles"}
    options = Options(next(places), settings=settings, endpoint=server.url)
    environ = {"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret}
    backend = VaultBackend(options, environ=environ, clock=lambda: now_s[0])
    await backend.open()
    try:
        await one(backend, put("NAME", "value"))

        now_s[0] = 3000.0
        renewed = await values(backend)
        now_s[0] = 6000.0
        still = await values(backend)

        assert renewed == still == {key("NAME"): "value"}
    finally:
        await backend.close()


async def test_a_token_that_was_revoked_has_expired(server: OpenBao, places: Iterator[str]) -> None:
    made = server.ask("POST", "auth/token/create", {"policies": ["envd"]})
    token = made["auth"]["client_token"]
    backend = _backend(server, next(places), token)
    await backend.open()
    try:
        server.ask("POST", "auth/token/revoke", {"token": token})

        with pytest.raises(AuthExpired):
            await values(backend)
        with pytest.raises(Forbidden):
            await backend.open()
    finally:
        await backend.close()


async def test_what_no_policy_allows_is_forbidden(server: OpenBao, token: str) -> None:
    backend = _backend(server, "/elsewhere", token)
    await backend.open()
    try:
        with pytest.raises(Forbidden):
            await values(backend)
    finally:
        await backend.close()


@pytest.mark.parametrize(
    ("mount", "kind"),
    [("old", StoreUnsupported), ("cubbyhole", StoreUnsupported), ("nowhere", Forbidden)],
)
async def test_a_mount_that_keeps_no_versions_is_not_opened(
    server: OpenBao, mount: str, kind: type[BackendError]
) -> None:
    backend = _backend(server, "place", server.token, mount=mount)

    try:
        with pytest.raises(kind):
            await backend.open()
    finally:
        await backend.close()


async def test_a_namespace_has_secrets_of_its_own(server: OpenBao, places: Iterator[str]) -> None:
    server.ask("POST", "sys/namespaces/team", {})
    server.ask("POST", "team/sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    place = next(places)
    inside = _backend(server, place, server.token, namespace="team")
    outside = _backend(server, place, server.token)
    await inside.open()
    await outside.open()
    try:
        await one(inside, put("NAME", "theirs"))

        assert await values(inside) == {key("NAME"): "theirs"}
        assert await values(outside) == {}
    finally:
        await inside.close()
        await outside.close()


async def test_a_person_gets_a_deleted_value_back(
    server: OpenBao, token: str, places: Iterator[str]
) -> None:
    place = next(places)
    backend = _backend(server, place, token)
    await backend.open()
    try:
        created = await one(backend, put("NAME", "precious"))
        await one(backend, delete("NAME", expect=created.version))
        path = f"envd/{place}/NAME"

        server.ask("POST", f"secret/undelete/{path}", {"versions": [1]})
        old = server.ask("GET", f"secret/data/{path}?version=1")["data"]["data"]
        server.ask("POST", f"secret/data/{path}", {"data": old})

        found = (await backend.get_many([Key("", "NAME")]))[Key("", "NAME")]
        assert not isinstance(found, BackendError)
        assert (found.value, found.stamp, found.managed) == ("precious", "", True)
    finally:
        await backend.close()
