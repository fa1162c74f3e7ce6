"""Where a Vault is, which path of it is meant, and how to log in: read from settings and a target.

A place is a path in the key-value store below `path_prefix`; one that begins with `/` begins at the
mount itself. `credentials` of a binding choose another login than the settings:

    token-env:NAME       the token is in this environment variable
    token-file:/PATH     ... or in this file, which an agent may write anew at any time
    approle:PREFIX       the ids are in PREFIX_ROLE_ID and PREFIX_SECRET_ID
    kubernetes:ROLE      the token of the pod's service account, for this role

Only names of variables and files are kept. What is in them is read when a login is made, each time
anew, so a token that was replaced is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envd.backends.contract import Options
from envd.backends.errors import Forbidden, InvalidName, StoreUnsupported

CREDENTIALS_HINT: Final = "token-env:NAME, token-file:/PATH, approle:PREFIX or kubernetes:ROLE"
SERVICE_ACCOUNT_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where Kubernetes puts the token of a pod's service account."""
MAX_FILE_BYTES: Final = 64 << 10
"""A token has some 100 bytes, that of a service account one or two thousand."""

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """A token that somebody else got: in a variable, or where `file` is not None, in a file."""

    variable: str = "VAULT_TOKEN"
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class AppRoleLogin:
    """The variables that hold a role's id and a secret id; the latter may be "" for roles that
    need none."""

    role_id_variable: str
    secret_id_variable: str


@dataclass(frozen=True, slots=True)
class KubernetesLogin:
    """A role, and the file with the token of a service account."""

    role: str
    file: Path = SERVICE_ACCOUNT_FILE


Login = TokenLogin | AppRoleLogin | KubernetesLogin


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """`place` is the whole path in the mount, "" for the mount itself. `address` is "" where only
    the environment says it. `auth_mount` is where the login method is mounted."""

    address: str
    namespace: str
    mount: str
    place: str
    login: Login
    auth_mount: str
    ca_file: Path | None


def read_settings(options: Options) -> VaultSettings:
    """Read what a Vault is opened on; raises StoreUnsupported or InvalidName for what can't be."""
    settings = options.settings
    login = _login(settings, options.credentials)
    ca_file = settings.get("ca_file")
    return VaultSettings(
        address=(options.endpoint or _text(settings, "address")).rstrip("/"),
        namespace=_text(settings, "namespace").strip("/"),
        mount=path_of(_text(settings, "mount", "secret"), "the mount"),
        place=_place(options.place, _text(settings, "path_prefix", "envd")),
        login=login,
        auth_mount=path_of(_auth_mount(settings, login), "the login's mount"),
        ca_file=Path(str(ca_file)) if ca_file else None,
    )


def path_of(text: str, what: str) -> str:
    """A path without slashes at its ends; InvalidName where a part of it is empty or dots.

    Clients fold `.` and `..` away before they ask, so such a path would lead to another place.
    """
    path = text.strip("/")
    parts = path.split("/")
    if not path.isprintable() or any(each in ("", ".", "..") for each in parts):
        raise InvalidName(f"{what} has a part that is empty, or only dots")
    return path


def _place(place: str, prefix: str) -> str:
    path = place if place.startswith("/") else f"{prefix.strip('/')}/{place}"
    return path_of(path, "the place") if path.strip("/") else ""


def _auth_mount(settings: Mapping[str, object], login: Login) -> str:
    """Where a method is mounted: what the settings say of theirs, else under its own name."""
    method = _method(login)
    is_theirs = method == _text(settings, "auth", "token")
    return _text(settings, "auth_mount", method) if is_theirs else method


def _method(login: Login) -> str:
    match login:
        case TokenLogin():
            return "token"
        case AppRoleLogin():
            return "approle"
        case KubernetesLogin():
            return "kubernetes"


def _login(settings: Mapping[str, object], credentials: str) -> Login:
    if credentials:
        return _chosen(settings, credentials)
    method = _text(settings, "auth", "token")
    if method == "token":
        file = settings.get("token_file")
        variable = _text(settings, "token_env", "VAULT_TOKEN")
        return TokenLogin(variable, Path(str(file)) if file else None)
    if method == "approle":
        role_id = _text(settings, "role_id_env", "VAULT_ROLE_ID")
        return AppRoleLogin(role_id, _text(settings, "secret_id_env", "VAULT_SECRET_ID"))
    if method == "kubernetes":
        role = _text(settings, "kubernetes_role")
        if not role:
            raise StoreUnsupported(
                "to log in with a service account a role is needed",
                hint="set cloud.providers.vault.kubernetes_role",
            )
        return _of_pod(settings, role)
    raise StoreUnsupported(
        "the way to log in is none that envd knows", hint="use token, approle or kubernetes"
    )


def _of_pod(settings: Mapping[str, object], role: str) -> KubernetesLogin:
    file = settings.get("kubernetes_token_file", SERVICE_ACCOUNT_FILE)
    return KubernetesLogin(role, Path(str(file)))


def _chosen(settings: Mapping[str, object], credentials: str) -> Login:
    """The login that a binding names. What it wrote is not told: it might be a token."""
    kind, _, name = credentials.partition(":")
    if kind == "token-env" and _VARIABLE.fullmatch(name):
        return TokenLogin(name)
    if kind == "token-file" and name.startswith("/"):
        return TokenLogin(file=Path(name))
    if kind == "approle" and _VARIABLE.fullmatch(name):
        return AppRoleLogin(f"{name}_ROLE_ID", f"{name}_SECRET_ID")
    if kind == "kubernetes" and name:
        return _of_pod(settings, name)
    raise StoreUnsupported(
        "the credentials of the binding are none that vault knows",
        hint=f"use {CREDENTIALS_HINT}; they name a secret, and never are one",
    )


def _text(settings: Mapping[str, object], name: str, default: str = "") -> str:
    found = settings.get(name, default)
    if not isinstance(found, str):
        raise StoreUnsupported(f"cloud.providers.vault.{name} is no text")
    return found


def from_variable(environ: Mapping[str, str], name: str) -> str:
    """What a variable holds; Forbidden where it holds nothing."""
    found = environ.get(name, "").strip()
    if not found:
        raise Forbidden(
            f"the environment variable {name}, which is to hold Vault's credentials, is not set",
            hint="set it for the daemon, or choose another login in [cloud.providers.vault]",
        )
    return found


def from_file(path: Path) -> str:
    """What a file of one secret holds; Forbidden where that can't be read. It blocks."""
    problem = ""
    found = ""
    try:
        with path.open("rb") as file:
            found = file.read(MAX_FILE_BYTES).decode("ascii").strip()
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        problem = "it is no text"
    if not found:
        raise Forbidden(f"{path}, which is to hold Vault's credentials: {problem or 'it is empty'}")
    return found
