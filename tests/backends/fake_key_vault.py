"""A fake of Azure Key Vault: what its HTTP API is documented to do with secrets.

It is no Key Vault: it keeps secrets in this process, knows no roles, and forgets everything with
it. Its times have no fractions of seconds, and its clock stands still unless it is moved, so what
can't be told by time is never told by luck. Versions are listed by their random names, as there.

A deletion or a recovery goes on for `lag` more requests about the name: meanwhile it can't be read,
and a write is a conflict.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.backends.fake_azure import NOW_S, is_let_in, refusal, serving

CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555",'
    ' resource="https://vault.azure.net"'
)
MAX_VALUE_BYTES = 25_600
MAX_PAGE = 25


@dataclass
class Version:
    """One version of a secret."""

    number: str
    value: str
    made_s: int
    tags: dict[str, str]
    content_type: str = ""
    changed_s: int = 0
    is_enabled: bool = True


@dataclass
class Kept:
    """A secret: its versions, oldest first."""

    versions: list[Version] = field(default_factory=list)
    is_of_certificate: bool = False

    @property
    def latest(self) -> Version:
        return self.versions[-1]


@dataclass
class FakeKeyVault:
    """Everything that a test may set, and all that was asked."""

    url: str = ""
    now_s: int = NOW_S
    lag: int = 0
    secrets: dict[str, Kept] = field(default_factory=dict)
    deleted: dict[str, Kept] = field(default_factory=dict)
    busy: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Why a name can't be used, and for how many requests about it."""
    is_strict: bool = False
    """It takes no tokens any more."""
    throttled: int = 0
    """So many requests for versions are too many."""
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What somebody else does right before the next request of a method."""
    asked: list[str] = field(default_factory=list)
    made: int = 0

    # What tests do.

    def put(self, name: str, value: str, tags: dict[str, str] | None = None) -> Version:
        """Set a value as somebody else: without tags, those of the version before are gone."""
        self.made += 1
        number = hashlib.md5(str(self.made).encode(), usedforsecurity=False).hexdigest()
        version = Version(number, value, self.now_s, dict(tags or {}), changed_s=self.now_s)
        self.deleted.pop(name, None)
        self.secrets.setdefault(name, Kept()).versions.append(version)
        return version

    def purge(self, name: str) -> None:
        """Delete for good."""
        self.secrets.pop(name, None)
        self.deleted.pop(name, None)

    def value(self, name: str) -> str:
        return self.secrets[name].latest.value

    def writes(self) -> list[str]:
        return [each for each in self.asked if not each.startswith("GET")]

    # The API.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if not is_let_in(request) or self.is_strict:
            return refusal(401, "Unauthorized", WWW_Authenticate=CHALLENGE)
        self.asked.append(f"{request.method} {request.path}")
        self.before.pop(request.method, lambda: None)()
        if "api-version" not in request.query:
            return refusal(400, "BadParameter")
        base = f"https://{request.host}"
        kind, _, rest = request.path.strip("/").partition("/")
        name, _, about = rest.lower().partition("/")
        if kind == "secrets" and not name:
            return self._list(request, base)
        stopped = self._stopped(request.method, name)
        if stopped is not None:
            return stopped
        match (request.method, kind, about):
            case ("GET", "secrets", "versions") if self.throttled:
                self.throttled -= 1
                return refusal(429, "Throttled", retry_after_ms="1500")
            case ("GET", "secrets", "versions"):
                return self._versions(request, base, name)
            case ("GET", "secrets", number):
                return self._get(base, name, number)
            case ("PUT", "secrets", ""):
                return self._set(base, name, await request.json())
            case ("DELETE", "secrets", ""):
                return self._delete(base, name)
            case ("POST", "deletedsecrets", "recover"):
                return self._recover(base, name)
        return refusal(405, "MethodNotAllowed")

    def _stopped(self, method: str, name: str) -> web.Response | None:
        """What is answered while a secret is being deleted or recovered."""
        why, left = self.busy.get(name, ("", 0))
        if not left:
            self.busy.pop(name, None)
            return None
        self.busy[name] = (why, left - 1)
        if method == "GET":
            return refusal(404, "SecretNotFound")
        return refusal(409, "Conflict", inner=why)

    def _list(self, request: web.Request, base: str) -> web.Response:
        entries = {
            name: _bundle(base, name, "", kept.latest, kept, valued=False)
            for name, kept in self.secrets.items()
            if self.busy.get(name, ("", 0))[1] == 0
        }
        return _paged(request, base, entries)

    def _versions(self, request: web.Request, base: str, name: str) -> web.Response:
        kept = self.secrets.get(name, Kept())
        entries = {
            each.number: _bundle(base, name, each.number, each, kept, valued=False)
            for each in kept.versions
        }
        return _paged(request, base, entries)

    def _get(self, base: str, name: str, number: str) -> web.Response:
        kept = self.secrets.get(name)
        if kept is None:
            return refusal(404, "SecretNotFound")
        version = next((each for each in kept.versions if each.number == number), None)
        version = kept.latest if not number else version
        if version is None:
            return refusal(404, "SecretNotFound")
        if not version.is_enabled:
            return refusal(403, "Forbidden", inner="SecretDisabled")
        return web.json_response(_bundle(base, name, version.number, version, kept))

    def _set(self, base: str, name: str, body: dict[str, Any]) -> web.Response:
        if name in self.deleted:
            return refusal(409, "Conflict", inner="ObjectIsDeletedButRecoverable")
        tags = body.get("tags") or {}
        if len(body["value"].encode()) > MAX_VALUE_BYTES or len(tags) > 15:
            return refusal(400, "BadParameter")
        if any(len(each) > 256 for each in tags.values()):
            return refusal(400, "BadParameter")
        version = self.put(name, body["value"], tags)
        version.content_type = body.get("contentType", "")
        kept = self.secrets[name]
        return web.json_response(_bundle(base, name, version.number, version, kept))

    def _delete(self, base: str, name: str) -> web.Response:
        kept = self.secrets.pop(name, None)
        if kept is None:
            return refusal(404, "SecretNotFound")
        self.deleted[name] = kept
        self.busy[name] = ("ObjectIsBeingDeleted", self.lag)
        bundle = _bundle(base, name, kept.latest.number, kept.latest, kept, valued=False)
        bundle |= {"recoveryId": f"{base}/deletedsecrets/{name}", "deletedDate": self.now_s}
        return web.json_response(bundle)

    def _recover(self, base: str, name: str) -> web.Response:
        kept = self.deleted.pop(name, None)
        if kept is None:
            return refusal(404, "SecretNotFound")
        self.secrets[name] = kept
        self.busy[name] = ("ObjectIsBeingRecovered", self.lag)
        latest = kept.latest
        return web.json_response(_bundle(base, name, latest.number, latest, kept, valued=False))


def _bundle(
    base: str, name: str, number: str, version: Version, kept: Kept, *, valued: bool = True
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": f"{base}/secrets/{name}/{number}".rstrip("/"),
        "attributes": {
            "enabled": version.is_enabled,
            "created": version.made_s,
            "updated": version.changed_s,
            "recoveryLevel": "Recoverable+Purgeable",
        },
        "tags": version.tags,
    }
    if version.content_type:
        found["contentType"] = version.content_type
    if kept.is_of_certificate:
        found["managed"] = True
    return {**found, "value": version.value} if valued else found


def _paged(request: web.Request, base: str, entries: dict[str, dict[str, Any]]) -> web.Response:
    """Those after the one that the token names, so that a deletion in between shifts nothing."""
    most = int(request.query.get("maxresults", MAX_PAGE))
    if not 1 <= most <= MAX_PAGE:
        return refusal(400, "BadParameter")
    after = request.query.get("$skiptoken", "")
    names = [name for name in sorted(entries) if name > after]
    page = names[:most]
    link = None
    if len(names) > most:
        version = request.query["api-version"]
        link = f"{base}{request.path}?api-version={version}&$skiptoken={page[-1]}&maxresults={most}"
    return web.json_response({"value": [entries[name] for name in page], "nextLink": link})


@asynccontextmanager
async def fake_key_vault(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeKeyVault]:
    """A fake on a free port of the loopback, for as long as the block."""
    vault = FakeKeyVault()
    async with serving(vault.serve, tls=tls) as url:
        vault.url = url
        yield vault
