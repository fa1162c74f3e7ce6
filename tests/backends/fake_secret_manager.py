"""A fake of Secret Manager's API, over real gRPC: secrets with labels, etags and versions.

It is as strict as the API is said to be: ids and payloads have their limits, a checksum has to be
right, an etag that is given has to be that of now, and a version does not change the secret's.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.cloud import secretmanager_v1 as api
from google.protobuf.empty_pb2 import Empty

from envd.backends.gcp_checksum import crc32c
from tests.backends.fake_grpc import FakeGrpc, Method, Refused

SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"
PROJECT = "example-project"
PARENT = f"projects/{PROJECT}"
MAX_BYTES = 65_536
MAX_PAGE = 25_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ANNOTATION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
State = api.SecretVersion.State


@dataclass
class Kept:
    """One secret of the store."""

    secret: Any
    order: int
    versions: list[Any] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)


class FakeSecretManager:
    """The store, and the handlers of its API. Time goes on by a second with each write."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self._ticks = 0
        self.server = FakeGrpc(
            SERVICE,
            {
                "ListSecrets": Method(self.list_secrets, api.ListSecretsRequest),
                "GetSecret": Method(self.get_secret, api.GetSecretRequest),
                "CreateSecret": Method(self.create_secret, api.CreateSecretRequest),
                "UpdateSecret": Method(self.update_secret, api.UpdateSecretRequest),
                "DeleteSecret": Method(self.delete_secret, api.DeleteSecretRequest),
                "AddSecretVersion": Method(self.add_version, api.AddSecretVersionRequest),
                "ListSecretVersions": Method(self.list_versions, api.ListSecretVersionsRequest),
                "GetSecretVersion": Method(self.get_version, api.GetSecretVersionRequest),
                "AccessSecretVersion": Method(self.access, api.AccessSecretVersionRequest),
                "DestroySecretVersion": Method(self.destroy, api.DestroySecretVersionRequest),
                "DisableSecretVersion": Method(self.disable, api.DisableSecretVersionRequest),
            },
        )

    def clear(self) -> None:
        """Forget everything; time goes on."""
        self.kept.clear()
        self.server.forget()

    # What tests and others do behind the API's back.

    def values(self) -> dict[str, str]:
        """The newest values by the id of their secret."""
        found: dict[str, str] = {}
        for name, kept in self.kept.items():
            if kept.versions and kept.versions[-1].state == State.ENABLED:
                found[_last(name)] = kept.payloads[-1].decode()
        return found

    def put(self, native: str, value: str | bytes) -> None:
        """As `gcloud secrets create` and `gcloud secrets versions add` do it."""
        name = f"{PARENT}/secrets/{native}"
        if name not in self.kept:
            replication = api.Replication(automatic=api.Replication.Automatic())
            self.create_secret(
                api.CreateSecretRequest(
                    parent=PARENT, secret_id=native, secret=api.Secret(replication=replication)
                )
            )
        data = value if isinstance(value, bytes) else value.encode()
        self.add_version(api.AddSecretVersionRequest(parent=name, payload={"data": data}))

    def delete(self, native: str) -> None:
        """As `gcloud secrets delete` does it."""
        del self.kept[f"{PARENT}/secrets/{native}"]

    def of(self, native: str) -> Kept:
        return self.kept[f"{PARENT}/secrets/{native}"]

    # The API.

    def list_secrets(self, request: Any) -> Any:
        start = f"{request.parent}/secrets/"
        every = sorted(
            (each for name, each in self.kept.items() if name.startswith(start)),
            key=lambda each: -each.order,
        )
        page, token = _page(every, request)
        return api.ListSecretsResponse(
            secrets=[each.secret for each in page], next_page_token=token, total_size=len(every)
        )

    def get_secret(self, request: Any) -> Any:
        return self._found(request.name).secret

    def create_secret(self, request: Any) -> Any:
        if not _ID.fullmatch(request.secret_id):
            raise Refused(_INVALID)
        is_regional = "/locations/" in request.parent
        if is_regional == ("replication" in request.secret):
            raise Refused(_INVALID)
        name = f"{request.parent}/secrets/{request.secret_id}"
        if name in self.kept:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS)
        secret = api.Secret(request.secret)
        _check(secret)
        secret = api.Secret(secret, name=name, etag=self._etag(), create_time=self._now())
        self.kept[name] = Kept(secret, self._ticks)
        return secret

    def update_secret(self, request: Any) -> Any:
        kept = self._found(request.secret.name)
        _compare(request.secret.etag, kept.secret)
        changed = api.Secret(kept.secret)
        for path in request.update_mask.paths:
            if path not in ("labels", "annotations"):
                raise Refused(_INVALID)
            setattr(changed, path, dict(getattr(request.secret, path)))
        _check(changed)
        changed.etag = self._etag()
        kept.secret = changed
        return changed

    def delete_secret(self, request: Any) -> Any:
        kept = self._found(request.name)
        _compare(request.etag, kept.secret)
        del self.kept[request.name]
        return Empty()

    def add_version(self, request: Any) -> Any:
        kept = self._found(request.parent)
        data = request.payload.data
        if not 0 < len(data) <= MAX_BYTES:
            raise Refused(_INVALID)
        if "data_crc32c" in request.payload and request.payload.data_crc32c != crc32c(data):
            raise Refused(_INVALID)
        version = api.SecretVersion(
            name=f"{request.parent}/versions/{len(kept.versions) + 1}",
            create_time=self._now(),
            state=State.ENABLED,
            etag=self._etag(),
        )
        kept.versions.append(version)
        kept.payloads.append(data)
        return version

    def list_versions(self, request: Any) -> Any:
        every = list(reversed(self._found(request.parent).versions))
        size = request.page_size or 50
        return api.ListSecretVersionsResponse(
            versions=every[:size], next_page_token="more" if len(every) > size else ""
        )

    def get_version(self, request: Any) -> Any:
        kept, at = self._version(request.name)
        return kept.versions[at]

    def access(self, request: Any) -> Any:
        kept, at = self._version(request.name)
        if kept.versions[at].state != State.ENABLED:
            raise Refused(_PRECONDITION)
        data = kept.payloads[at]
        return api.AccessSecretVersionResponse(
            name=kept.versions[at].name, payload={"data": data, "data_crc32c": crc32c(data)}
        )

    def destroy(self, request: Any) -> Any:
        return self._set(request, State.DESTROYED)

    def disable(self, request: Any) -> Any:
        return self._set(request, State.DISABLED)

    def _set(self, request: Any, state: Any) -> Any:
        kept, at = self._version(request.name)
        version = api.SecretVersion(kept.versions[at])
        if version.state == State.DESTROYED:
            raise Refused(_PRECONDITION)
        version.state, version.etag = state, self._etag()
        kept.versions[at] = version
        if state == State.DESTROYED:
            kept.payloads[at] = b""
        return version

    def _found(self, name: str) -> Kept:
        if name not in self.kept:
            raise Refused(grpc.StatusCode.NOT_FOUND)
        return self.kept[name]

    def _version(self, name: str) -> tuple[Kept, int]:
        secret, _, number = name.partition("/versions/")
        kept = self._found(secret)
        at = len(kept.versions) if number == "latest" else int(number)
        if not 0 < at <= len(kept.versions):
            raise Refused(grpc.StatusCode.NOT_FOUND)
        return kept, at - 1

    def _now(self) -> dt.datetime:
        self._ticks += 1
        return _START + dt.timedelta(seconds=self._ticks)

    def _etag(self) -> str:
        self._ticks += 1
        return f'"{self._ticks:x}"'


def _page(every: Iterable[Kept], request: Any) -> tuple[list[Kept], str]:
    """A page, newest first, and the token of the next: what is made meanwhile shifts nothing."""
    if request.page_token:
        if not re.fullmatch(r"after:[0-9]+", request.page_token):
            raise Refused(_INVALID)
        after = int(request.page_token.removeprefix("after:"))
        every = [each for each in every if each.order < after]
    rest = list(every)
    size = min(request.page_size or 25, MAX_PAGE)
    page = rest[:size]
    return page, f"after:{page[-1].order}" if len(rest) > size else ""


def _compare(etag: str, secret: Any) -> None:
    if etag and etag != secret.etag:
        raise Refused(_PRECONDITION)


def _check(secret: Any) -> None:
    labels, annotations = dict(secret.labels), dict(secret.annotations)
    size = sum(len(name) + len(value) for name, value in annotations.items())
    good = all(_LABEL.fullmatch(name) for name in labels) and len(labels) <= 64
    good = good and all(_ANNOTATION.fullmatch(name) for name in annotations) and size < 16 << 10
    if not good:
        raise Refused(_INVALID)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
