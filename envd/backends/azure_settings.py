"""Which Azure is meant, and with whose credentials: read from settings and a target.

Credentials are named, never carried. A reference is one of

    ""                              the service principal of the settings where its variables are
                                    set, else the workload's identity, else the machine's
    service-principal[:PREFIX]      that of the settings, or of PREFIX_CLIENT_ID and
                                    PREFIX_CLIENT_SECRET
    workload-identity[:CLIENT-ID]   the identity of the workload, by its token (of a pod in AKS)
    managed-identity[:CLIENT-ID]    that of the machine or app, or one of several that it has
    cli                             whoever is logged in with `az login`, on a laptop

What is in the variables is read when a backend is opened, each time anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from envd.backends.contract import Options
from envd.backends.errors import Forbidden, StoreUnsupported
from envd.backends.http_calls import Tls

CREDENTIALS_HINT: Final = (
    "managed-identity[:CLIENT-ID], workload-identity[:CLIENT-ID], service-principal[:PREFIX] or cli"
)
PUBLIC_AUTHORITY: Final = "https://login.microsoftonline.com"
KEY_VAULT_SUFFIX: Final = "vault.azure.net"
APP_CONFIGURATION_SUFFIX: Final = "azconfig.io"
RESOURCE_MANAGER: Final = "https://management.azure.com"

Kind = Literal["default", "service-principal", "workload-identity", "managed-identity", "cli"]

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_CLIENT_ID: Final = re.compile(r"[0-9a-fA-F-]{36}")
_FEDERATED_TOKEN_FILE: Final = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - a name
_TENANT: Final = "AZURE_TENANT_ID"
_CLIENT: Final = "AZURE_CLIENT_ID"


@dataclass(frozen=True, slots=True)
class Reference:
    """Whose credentials are used. `client_id` is that of an identity, `prefix` begins the names of
    the variables of a service principal; "" for those of the settings, or of the environment."""

    kind: Kind = "default"
    client_id: str = ""
    prefix: str = ""


def parse_reference(text: str) -> Reference:
    """Read a reference; StoreUnsupported for anything else, which is not told: it may be a secret.

    >>> parse_reference("service-principal:WEB").prefix
    'WEB'
    """
    kind, colon, name = text.partition(":")
    match kind:
        case "" if not text:
            return Reference()
        case "cli" if not colon:
            return Reference("cli")
        case "service-principal" if not colon or _VARIABLE.fullmatch(name):
            return Reference("service-principal", prefix=name)
        case "workload-identity" if not colon or _CLIENT_ID.fullmatch(name):
            return Reference("workload-identity", client_id=name)
        case "managed-identity" if not colon or _CLIENT_ID.fullmatch(name):
            return Reference("managed-identity", client_id=name)
    raise StoreUnsupported(
        "the credentials of the binding are none that Azure knows",
        hint=f"use {CREDENTIALS_HINT}; they name credentials, and never are some",
    )


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """What the backends for Azure share. Names of variables are "" where none is given."""

    reference: Reference
    tenant_id: str
    client_id_env: str
    client_secret_env: str
    authority: str
    ca_file: Path | None

    @property
    def tls(self) -> Tls:
        return Tls(ca_file=self.ca_file)

    @staticmethod
    def of(options: Options) -> AzureSettings:
        """Those of a backend; StoreUnsupported where they can't be."""
        settings = options.settings
        ca_file = settings.get("ca_file")
        return AzureSettings(
            parse_reference(options.credentials),
            text_setting(settings, "tenant_id"),
            text_setting(settings, "client_id_env"),
            text_setting(settings, "client_secret_env"),
            text_setting(settings, "authority", PUBLIC_AUTHORITY).rstrip("/"),
            Path(str(ca_file)) if ca_file else None,
        )


def text_setting(settings: Mapping[str, object], name: str, default: str = "") -> str:
    """A setting that is text; StoreUnsupported for another kind."""
    found = settings.get(name)
    if found is None:
        return default
    if not isinstance(found, str):
        raise StoreUnsupported(f"the setting {name} of the provider azure is a text")
    return found


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of the SDK, and how people are told whose it is."""

    sdk: Any
    identity: str


def find_credential(
    settings: AzureSettings, environ: Mapping[str, str], transport: Any
) -> Credential:
    """Make the credential that a reference names; it asks for no token yet.

    Raises Forbidden where a variable holds nothing, and what the SDK raises.
    """
    reference = settings.reference
    kind = reference.kind if reference.kind != "default" else _found(settings, environ)
    match kind:
        case "service-principal":
            return _service_principal(settings, environ, transport)
        case "workload-identity":
            return _workload_identity(settings, environ, transport)
        case "cli":
            from azure.identity.aio import AzureCliCredential

            return Credential(
                AzureCliCredential(tenant_id=settings.tenant_id), "whoever is logged in to az"
            )
        case _:
            from azure.identity.aio import ManagedIdentityCredential

            name = reference.client_id
            # Not by our transport: where its endpoint is, and over what, is the machine's matter.
            made = ManagedIdentityCredential(client_id=name or None, retry_total=0)
            return Credential(made, f"managed identity {name}".rstrip())


def _found(settings: AzureSettings, environ: Mapping[str, str]) -> Kind:
    """What there is where a binding names nothing."""
    names = (settings.client_id_env, settings.client_secret_env)
    if any(names):
        if not all(names):
            raise StoreUnsupported(
                "client_id_env and client_secret_env of the provider azure go together"
            )
        return "service-principal"
    return "workload-identity" if environ.get(_FEDERATED_TOKEN_FILE) else "managed-identity"


def _service_principal(
    settings: AzureSettings, environ: Mapping[str, str], transport: Any
) -> Credential:
    from azure.identity.aio import ClientSecretCredential

    prefix = settings.reference.prefix
    id_variable = f"{prefix}_CLIENT_ID" if prefix else settings.client_id_env or _CLIENT
    secret_variable = (
        f"{prefix}_CLIENT_SECRET" if prefix else settings.client_secret_env or "AZURE_CLIENT_SECRET"
    )
    client_id = _held(environ, id_variable)
    tenant_id = settings.tenant_id or environ.get(_TENANT, "")
    if not tenant_id:
        raise StoreUnsupported(
            "a service principal needs a tenant", hint="set cloud.providers.azure.tenant_id"
        )
    made = ClientSecretCredential(
        tenant_id,
        client_id,
        _held(environ, secret_variable),
        authority=settings.authority,
        # Envd knows its authority: nobody else needs to be asked whether it is one.
        disable_instance_discovery=True,
        transport=transport,
        retry_total=0,
    )
    return Credential(made, f"service principal {client_id}")


def _workload_identity(
    settings: AzureSettings, environ: Mapping[str, str], transport: Any
) -> Credential:
    from azure.identity.aio import WorkloadIdentityCredential

    client_id = settings.reference.client_id or _held(environ, _CLIENT)
    made = WorkloadIdentityCredential(
        tenant_id=settings.tenant_id or _held(environ, _TENANT),
        client_id=client_id,
        token_file_path=_held(environ, _FEDERATED_TOKEN_FILE),
        authority=settings.authority,
        disable_instance_discovery=True,
        transport=transport,
        retry_total=0,
    )
    return Credential(made, f"workload identity {client_id}")


def _held(environ: Mapping[str, str], name: str) -> str:
    """What a variable holds; Forbidden where it holds nothing."""
    found = environ.get(name, "").strip()
    if not found:
        raise Forbidden(
            f"the environment variable {name}, which credentials for Azure need, is not set",
            hint="set it for the daemon, or name other credentials for the binding",
        )
    return found
