"""Which objects of which cluster are meant, and who we are there: from settings and a target.

A place is `NAMESPACE/secret/NAME` or `NAMESPACE/configmap/NAME`. `credentials` of a binding choose
another cluster or user than the settings:

    in-cluster              the service account of the pod that the node runs in
    kubeconfig              the current context of the kubeconfig
    kubeconfig:CONTEXT      another one

An environment is one object. That of the bound environment itself has the name of the place, and
one below it that name, a dot, and its own: segments joined by dots. A character of an environment
that no object may have in its name is written `-x` with its code in two hexadecimal digits, and so
is a hyphen before an `x`.

    team/app     below web    web.team.app
    team-1/a_b   below web    web.team-1.a-x5fb
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from envd.backends.contract import Key, Options
from envd.backends.errors import InvalidName, StoreUnsupported
from envd.backends.naming import check_key, shown

CREDENTIALS_HINT: Final = "in-cluster, kubeconfig or kubeconfig:CONTEXT"
PLACE_HINT: Final = "NAMESPACE/secret/NAME or NAMESPACE/configmap/NAME"
MAX_NAME: Final = 253
"""Of a name in characters (RFC 1123: a subdomain)."""

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UNLIKE: Final = re.compile(r"[._]|-(?=x)")
_WRITTEN: Final = re.compile(r"-x([0-9a-f]{2})")


class Sort(Enum):
    """What an environment is: the name of the sort in a place, and in the API."""

    SECRET = "secret"  # noqa: S105 - a sort of object
    CONFIG_MAP = "configmap"

    @property
    def plural(self) -> str:
        return f"{self.value}s"

    @property
    def kind(self) -> str:
        return "Secret" if self is Sort.SECRET else "ConfigMap"


class Source(Enum):
    """Where the cluster and the credentials are from."""

    AUTO = "auto"
    IN_CLUSTER = "in-cluster"
    KUBECONFIG = "kubeconfig"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """`address` is "" for the one that goes with the credentials, `context` for the current one.
    `kubeconfig` is None for the usual file."""

    namespace: str
    sort: Sort
    name: str
    source: Source
    context: str = ""
    kubeconfig: Path | None = None
    address: str = ""


def read_settings(options: Options) -> KubernetesSettings:
    """Read what a cluster is opened on; raises StoreUnsupported or InvalidName for what can't
    be."""
    if options.layout != "document":
        raise StoreUnsupported(
            "an object of Kubernetes holds a whole environment, and has one version for all of it",
            hint="bind it with --layout document",
        )
    if options.name_template:
        raise StoreUnsupported(
            "objects of Kubernetes are named after their environment, and after no template"
        )
    namespace, sort, name = _place(options.place)
    source, context = _source(options.settings, options.credentials)
    kubeconfig = options.settings.get("kubeconfig")
    return KubernetesSettings(
        namespace,
        sort,
        name,
        source,
        context,
        Path(str(kubeconfig)) if kubeconfig else None,
        options.endpoint.rstrip("/"),
    )


def _place(place: str) -> tuple[str, Sort, str]:
    namespace, _, rest = place.partition("/")
    sort, _, name = rest.partition("/")
    if not _LABEL.fullmatch(namespace) or sort not in (each.value for each in Sort):
        raise InvalidName("the place is none of Kubernetes", hint=f"use {PLACE_HINT}")
    if not _SUBDOMAIN.fullmatch(name) or len(name) > MAX_NAME:
        raise InvalidName(
            "no object can be called like the name in the place",
            hint="use a-z, 0-9, '-' and '.', beginning and ending with a letter or digit",
        )
    return namespace, Sort(sort), name


def _source(settings: Mapping[str, object], credentials: str) -> tuple[Source, str]:
    if not credentials:
        context = settings.get("context")
        return Source(settings.get("auth", "auto")), str(context) if context else ""
    if credentials == "in-cluster":
        return Source.IN_CLUSTER, ""
    kind, _, context = credentials.partition(":")
    if kind == "kubeconfig" and credentials != "kubeconfig:":
        return Source.KUBECONFIG, context
    raise StoreUnsupported(
        "the credentials of the binding are none that kubernetes knows",
        hint=f"use {CREDENTIALS_HINT}; they name some, and never are any",
    )


class ObjectNames:
    """The names of the objects of one place."""

    __slots__ = ("_below", "_name")

    def __init__(self, name: str, *, below: bool) -> None:
        self._name = name
        self._below = below

    def encode(self, key: Key) -> str:
        """The name of an environment's object; InvalidName where it has none in this place."""
        check_key(key, document=True, below=self._below)
        native = self._written(key.environment)
        if len(native) > MAX_NAME:
            raise InvalidName(f"the name of {shown(key)} is longer than {MAX_NAME} characters")
        return native

    def decode(self, native: str) -> Key | None:
        """The key that has this name, None where there is none."""
        start = f"{self._name}."
        if native != self._name and not (self._below and native.startswith(start)):
            return None
        environment = _read(native.removeprefix(self._name).removeprefix("."))
        key = Key(environment, "")
        try:
            return key if self.encode(key) == native else None
        except InvalidName:
            return None

    def _written(self, environment: str) -> str:
        if not environment:
            return self._name
        escaped = _UNLIKE.sub(lambda found: f"-x{ord(found[0]):02x}", environment)
        return f"{self._name}.{escaped.replace('/', '.')}"


def _read(written: str) -> str:
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), written.replace(".", "/"))
