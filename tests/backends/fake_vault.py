"""A fake of Vault: what its HTTP API is documented to do with tokens and key-value secrets.

It is no Vault: it keeps secrets in this process, checks policies by prefix alone, and has a clock
that stands still until it is moved. What the real one does `make test-real` tries, with OpenBao.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

BEGINNING = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT_TOKEN = "root-token"
Answer = web.Response


@dataclass
class Version:
    """One version of a secret."""

    data: dict[str, Any] | None
    made: str
    deleted: str = ""
    destroyed: bool = False

    @property
    def is_there(self) -> bool:
        return not self.deleted and not self.destroyed


@dataclass
class FakeToken:
    """A token: how long it lives, and until when (s); None for ever."""

    name: str
    ttl_s: int | None = None
    ends_s: float | None = None
    renewable: bool = True


@dataclass
class FakeVault:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    now_s: float = 0.0
    mount: str = "secret"
    kv_version: str = "2"
    namespace: str = ""
    secrets: dict[str, list[Version]] = field(default_factory=dict)
    tokens: dict[str, FakeToken] = field(default_factory=lambda: {ROOT_TOKEN: FakeToken("root")})
    roles: dict[tuple[str, str], FakeToken] = field(default_factory=dict)
    """By the two texts of a login: the ids of an AppRole, or a role and the token of a pod."""
    forbidden: set[str] = field(default_factory=set)
    """Beginnings of paths, after `/v1/`, that no policy allows."""
    asked: list[str] = field(default_factory=list)
    given: int = 0

    # What tests do.

    def put(self, path: str, data: dict[str, Any]) -> None:
        """Write a version as somebody else."""
        self.secrets.setdefault(path, []).append(Version(data, self._moment()))

    def delete(self, path: str) -> None:
        """Delete the latest version softly, as `vault kv delete` does."""
        self.secrets[path][-1].deleted = self._moment()

    def latest(self, path: str) -> dict[str, Any] | None:
        version = self.secrets[path][-1]
        return version.data if version.is_there else None

    def writes(self) -> list[str]:
        return [each for each in self.asked if not each.startswith(("GET", "LIST"))]

    def _moment(self) -> str:
        """A time that no other version has."""
        self.given += 1
        made = BEGINNING + timedelta(seconds=self.now_s, microseconds=self.given)
        return f"{made:%Y-%m-%dT%H:%M:%S.%f}789Z"

    # The API.

    async def serve(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/v1/")
        method = "LIST" if request.query.get("list") == "true" else request.method
        self.asked.append(f"{method} {path}")
        body = await request.json() if request.can_read_body else {}
        if request.headers.get("X-Vault-Namespace", "") != self.namespace:
            return _errors(404, f'no handler for route "{path}". route entry not found.')
        if path.startswith("auth/") and path.endswith("/login"):
            return self._log_in(path, body)
        token = self._token(request.headers.get("X-Vault-Token", ""))
        if token is None or any(path.startswith(each) for each in self.forbidden):
            return _errors(403, "permission denied")
        if path.startswith("auth/token/"):
            return self._about(token, request.headers["X-Vault-Token"], path)
        if path.startswith("sys/internal/ui/mounts/"):
            return self._mounted(path.removeprefix("sys/internal/ui/mounts/"))
        mount, _, rest = path.partition(f"{self.mount}/")
        if mount:
            return _errors(404, f'no handler for route "{path}". route entry not found.')
        kind, _, name = rest.partition("/")
        return self._secret(method, kind, name, body)

    def _secret(self, method: str, kind: str, name: str, body: dict[str, Any]) -> web.Response:
        match method, kind:
            case "LIST", "metadata":
                return self._listed(name)
            case "DELETE", "metadata":
                self.secrets.pop(name, None)
                return Answer(status=204)
            case "GET", "data":
                return self._read(name)
            case "POST" | "PUT", "data":
                return self._write(name, body)
            case "POST" | "PUT", "delete":
                for number in body["versions"]:
                    self.secrets[name][number - 1].deleted = self._moment()
                return Answer(status=204)
            case _:
                return _errors(405, "unsupported operation")

    def _listed(self, folder: str) -> web.Response:
        start = f"{folder}/" if folder else ""
        below = [each.removeprefix(start) for each in self.secrets if each.startswith(start)]
        keys = {each.partition("/")[0] + ("/" if "/" in each else "") for each in below}
        return _data({"keys": sorted(keys)}) if keys else _errors(404)

    def _read(self, name: str) -> web.Response:
        versions = self.secrets.get(name)
        if not versions:
            return _errors(404)
        latest = versions[-1]
        about = _metadata(latest, len(versions))
        data = latest.data if latest.is_there else None
        return _data({"data": data, "metadata": about}, status=200 if latest.is_there else 404)

    def _write(self, name: str, body: dict[str, Any]) -> web.Response:
        versions = self.secrets.get(name, [])
        cas = body.get("options", {}).get("cas")
        if cas is not None and cas != len(versions):
            return _errors(400, "check-and-set parameter did not match the current version")
        self.put(name, body["data"])
        versions = self.secrets[name]
        return _data(_metadata(versions[-1], len(versions)))

    def _mounted(self, mount: str) -> web.Response:
        if mount.strip("/") != self.mount:
            return _errors(403, "preflight capability check returned 403")
        return _data({"type": "kv", "options": {"version": self.kv_version}})

    def _token(self, text: str) -> FakeToken | None:
        token = self.tokens.get(text)
        if token is None or (token.ends_s is not None and self.now_s >= token.ends_s):
            return None
        return token

    def _about(self, token: FakeToken, text: str, path: str) -> web.Response:
        if path == "auth/token/renew-self":
            if not token.renewable or token.ttl_s is None:
                return _errors(400, "lease is not renewable")
            token.ends_s = self.now_s + token.ttl_s
            return _auth(text, token)
        ends = None if token.ends_s is None else "2026-01-02T04:04:05Z"
        left = 0 if token.ends_s is None else int(token.ends_s - self.now_s)
        return _data(
            {
                "display_name": token.name,
                "expire_time": ends,
                "ttl": left,
                "renewable": token.renewable,
            }
        )

    def _log_in(self, path: str, body: dict[str, Any]) -> web.Response:
        if path.startswith("auth/approle/"):
            ids = (body["role_id"], body.get("secret_id") or "")
        else:
            ids = (body["role"], body["jwt"])
        token = self.roles.get(ids)
        if token is None:
            return _errors(400, "invalid role or secret ID")
        text = f"token-{len(self.tokens)}"
        ends_s = None if token.ttl_s is None else self.now_s + token.ttl_s
        self.tokens[text] = FakeToken(token.name, token.ttl_s, ends_s, token.renewable)
        return _auth(text, self.tokens[text])


def _metadata(version: Version, number: int) -> dict[str, Any]:
    return {
        "created_time": version.made,
        "custom_metadata": None,
        "deletion_time": version.deleted,
        "destroyed": version.destroyed,
        "version": number,
    }


def _data(data: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.json_response({"data": data, "auth": None, "warnings": None}, status=status)


def _auth(text: str, token: FakeToken) -> web.Response:
    auth = {
        "client_token": text,
        "lease_duration": token.ttl_s or 0,
        "renewable": token.renewable and token.ttl_s is not None,
    }
    return web.json_response({"data": None, "auth": auth})


def _errors(status: int, *errors: str) -> web.Response:
    return web.json_response({"errors": list(errors)}, status=status)


@asynccontextmanager
async def fake_vault() -> AsyncIterator[FakeVault]:
    """A fake on a free port of the loopback, for as long as the block."""
    vault = FakeVault()
    async with serving(vault.serve) as url:
        vault.url = url
        yield vault


@asynccontextmanager
async def serving(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """A server that answers every request with this; its URL."""
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
