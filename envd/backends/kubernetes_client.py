"""Calls of the API server of a cluster, and what it answers instead.

Which cluster, as whom, and by which plugin that is found out `kubernetes_asyncio` knows: it reads
kubeconfigs and service accounts. The calls are made by `http_calls`: those of the library write
each answer, with its secrets, into the log at level debug, and repeat a write whose answer was
lost.

Credentials are read when the client is opened, each time anew. Tokens of pods are replaced within
the hour; the call that meets one that has ended is an AuthExpired, whose remedy is to open anew.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    InvalidValue,
    MissingLibrary,
    QuotaExceeded,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
    ValueTooLarge,
)
from envd.backends.http_calls import Answer, HttpCalls, Tls, error_of, parsed
from envd.backends.kubernetes_settings import KubernetesSettings, Source

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts the token of a pod's service account, and who signs its server."""
MAX_ANSWER_BYTES: Final = 128 << 20
"""Of a page: fifty of the largest objects, in base64."""

ACCESS_S: Final = 60.0
"""How long plugins and logins of a kubeconfig may take."""
SILENCE_S: Final = 330.0
"""Of a watch, which the server is asked to end before."""

_STORE: Final = "Kubernetes"
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
_FULL: Final = "exceeded quota"
_TOO_LONG: Final = "Too long"


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, and what is shown to it. `token` is the whole header."""

    address: str
    identity: str
    tls: Tls = field(default_factory=Tls)
    token: str = field(default="", repr=False)


class KubernetesClient:
    """One cluster, as one user."""

    def __init__(
        self,
        settings: KubernetesSettings,
        environ: Mapping[str, str],
        service_account: Path = SERVICE_ACCOUNT,
        access_s: float = ACCESS_S,
    ) -> None:
        self._service_account = service_account
        self._access_s = access_s
        self._settings = settings
        self._environ = environ
        self._calls: HttpCalls | None = None
        self._identity = ""

    @property
    def identity(self) -> str:
        """Whose credentials are shown."""
        return self._identity

    async def open(self) -> None:
        """Find the cluster and the credentials; nothing is asked yet."""
        await self.close()
        try:
            access = await _access(
                self._settings, self._environ, self._service_account, self._access_s
            )
            headers = {"Authorization": access.token} if access.token else {}
            calls = HttpCalls(
                self._settings.address or access.address,
                tls=access.tls,
                headers={"Accept": "application/json", **headers},
            )
            await calls.open()
        finally:
            _forget_files()
        self._calls, self._identity = calls, access.identity

    async def close(self) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.close()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> dict[str, Any] | None:
        """Make one call; None where there is no such object. All other failures are raised."""
        if self._calls is None:
            raise StoreUnavailable("the backend is not open")
        answer = await self._calls.call(
            method,
            path,
            query=query,
            body=b"" if body is None else json.dumps(body, ensure_ascii=False).encode(),
            headers={} if body is None else {"Content-Type": "application/json"},
            most_bytes=MAX_ANSWER_BYTES,
        )
        if answer.is_good:
            return answer.table()
        if answer.status == HTTPStatus.NOT_FOUND and _status(answer).get("reason") == "NotFound":
            return None
        raise error_of_kubernetes(answer)

    @asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str]
    ) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
        """The events of a watch, until the server ends it."""
        if self._calls is None:
            raise StoreUnavailable("the backend is not open")
        async with self._calls.stream("GET", path, query=query, silence_s=SILENCE_S) as (
            answer,
            lines,
        ):
            if answer.status == HTTPStatus.GONE:
                yield _events(_gone())
            elif not answer.is_good:
                raise error_of_kubernetes(answer)
            else:
                yield _events(lines)


async def _gone() -> AsyncIterator[bytes]:
    """What a watch that has begun says of a version that is too old."""
    yield json.dumps({"type": "ERROR", "object": {"code": HTTPStatus.GONE.value}}).encode()


async def _events(lines: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    async for line in lines:
        event = parsed(line)
        if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
            raise StoreUnavailable("Kubernetes ended a watch with something that is no event")
        yield event


# Who we are.


async def _access(
    settings: KubernetesSettings,
    environ: Mapping[str, str],
    service_account: Path,
    access_s: float,
) -> Access:
    in_cluster = settings.source is Source.IN_CLUSTER or (
        settings.source is Source.AUTO and _IN_CLUSTER in environ
    )
    try:
        from kubernetes_asyncio import config as loading
        from kubernetes_asyncio.client import Configuration
    except ImportError:
        raise MissingLibrary(
            "kubernetes needs the library kubernetes_asyncio, which is not installed",
            hint="pip install 'envd-cluster[k8s]'",
        ) from None
    made = Configuration()
    problem = ""
    try:
        if in_cluster:
            load: Callable[..., None] = loading.load_incluster_config
            load(
                made,
                try_refresh_token=False,
                environ=dict(environ),
                token_filename=str(service_account / "token"),
                cert_filename=str(service_account / "ca.crt"),
            )
        else:
            async with asyncio.timeout(access_s):
                await loading.load_kube_config(
                    config_file=_kubeconfig(settings, environ),
                    context=settings.context or None,
                    client_configuration=made,
                    persist_config=False,
                )
    except Exception as error:  # noqa: BLE001 - files, YAML, plugins and logins: of any kind
        problem = type(error).__name__
    if problem == TimeoutError.__name__:
        raise StoreUnavailable(
            f"a plugin or a login of the kubeconfig gave no credentials in {access_s:.0f} s",
            hint="one that asks somebody, or opens a browser, can't be used by a daemon",
        )
    if problem:
        # What was raised may quote a kubeconfig, in which there are credentials.
        source = "the pod's service account" if in_cluster else "the kubeconfig"
        raise Forbidden(
            f"{source} gives no access to a cluster: {problem}",
            hint="see: kubectl config get-contexts" if not in_cluster else "",
        )
    _check(made)
    identity = "the pod's service account" if in_cluster else f"context {settings.context}"
    token = made.api_key.get("BearerToken")
    return Access(
        str(made.host).rstrip("/"),
        identity if in_cluster or settings.context else "the current context",
        Tls(_path(made.ssl_ca_cert), _path(made.cert_file), _path(made.key_file)),
        str(token) if token else "",
    )


def _forget_files() -> None:
    """Remove what the library wrote into temporary files, as keys of a kubeconfig: it would leave
    them there for as long as the process lives. They have been read by now, and nobody else can be
    about to: between writing and reading them nothing is waited for."""
    loading = sys.modules.get("kubernetes_asyncio.config.kube_config")
    forget = getattr(loading, "_cleanup_temp_files", None)
    if forget is not None:
        forget()


def _kubeconfig(settings: KubernetesSettings, environ: Mapping[str, str]) -> str:
    """The file, or files that are merged."""
    if settings.kubeconfig is not None:
        return str(settings.kubeconfig)
    return environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "~")) / ".kube" / "config")


def _check(made: Any) -> None:
    """Refuse what the calls here can't do."""
    asked = {
        "insecure-skip-tls-verify": made.verify_ssl is False,
        "tls-server-name": bool(made.tls_server_name),
        "proxy-url": bool(made.proxy),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise StoreUnsupported(
                f"the context asks for {name}, which is not supported",
                hint="use a context whose certificate can be verified, and HTTPS_PROXY for a proxy",
            )


def _path(found: object) -> Path | None:
    return Path(str(found)) if found else None


# What it answers.


def _status(answer: Answer) -> dict[str, Any]:
    """What the server says of a failure, {} where that is none of its own words."""
    try:
        found = parsed(answer.body)
    except StoreUnavailable:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def error_of_kubernetes(answer: Answer) -> BackendError:
    """What an answer that is not good means. The server's own words are not passed on."""
    status = _status(answer)
    words = str(status.get("message", ""))
    match answer.status:
        case HTTPStatus.UNAUTHORIZED:
            return AuthExpired("Kubernetes does not take the credentials, or not any more")
        case HTTPStatus.FORBIDDEN if _FULL in words:
            return QuotaExceeded("a quota of the namespace does not allow it")
        case HTTPStatus.FORBIDDEN:
            return Forbidden(
                "Kubernetes does not allow it",
                hint="see docs/backends-kubernetes.md for the role that envd needs",
            )
        case HTTPStatus.NOT_FOUND:
            # No object of that name is no error; this is another 404, of somebody in between.
            return StoreUnavailable("what answered is no API server of Kubernetes")
        case HTTPStatus.CONFLICT:
            return StaleVersion("the object was changed by somebody else")
        case HTTPStatus.GONE:
            return StoreUnavailable("Kubernetes has forgotten the version that was being read")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return ValueTooLarge("the object is larger than this cluster takes")
        case HTTPStatus.UNPROCESSABLE_ENTITY if _TOO_LONG in words:
            return ValueTooLarge("the object is larger than Kubernetes takes")
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return InvalidValue("Kubernetes does not take the object as it is to be")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Throttled("Kubernetes has too many calls", retry_after_s=answer.retry_after_s)
    return error_of(answer, _STORE)
