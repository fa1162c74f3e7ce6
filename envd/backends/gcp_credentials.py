"""Whose credentials are used with Google Cloud. They are named, never carried.

A reference is one of

    ""                     `credentials_file` of the settings, or what the SDK finds by itself
    file:/PATH             a file: a service account's key, or workload identity federation
    impersonate:ACCOUNT    a service account, taken on with what "" stands for

Nothing of a file is in an error: a key that can't be read is told by the file's path alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from envd.backends.contract import Options
from envd.backends.errors import Forbidden, StoreUnsupported

CREDENTIALS_HINT: Final = "file:/PATH or impersonate:ACCOUNT"
SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
"""What an account may do is said by its roles; this scope takes nothing from them."""

_ACCOUNT = re.compile(r"[a-z0-9-]{1,63}@[a-z0-9.-]{1,190}")
_MAX_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Reference:
    """Whose credentials are used: `name` is a path, or an account."""

    kind: Literal["default", "file", "impersonate"]
    name: str = ""


def parse_reference(text: str) -> Reference:
    """Read a reference; StoreUnsupported for anything else."""
    kind, _, rest = text.partition(":")
    if not text:
        return Reference("default")
    if kind == "file" and PurePosixPath(rest).is_absolute():
        return Reference("file", rest)
    if kind == "impersonate" and _ACCOUNT.fullmatch(rest):
        return Reference("impersonate", rest)
    raise StoreUnsupported(
        "there are no such credentials for Google Cloud", hint=f"use {CREDENTIALS_HINT}"
    )


@dataclass(frozen=True, slots=True)
class Account:
    """Whose credentials a backend has: a reference, and the file of the settings."""

    reference: Reference
    file: str = ""

    @staticmethod
    def of(options: Options) -> Account:
        """That of a backend; StoreUnsupported where it can't be."""
        return Account(
            parse_reference(options.credentials), text_setting(options.settings, "credentials_file")
        )

    @property
    def identity(self) -> str:
        """How people are told whose credentials these are."""
        match self.reference:
            case Reference("file", name):
                return f"the account of {name}"
            case Reference("impersonate", name):
                return name
        return f"the account of {self.file}" if self.file else "the account that the SDK finds"

    def load(self) -> Any:
        """Credentials of the SDK. It blocks, and raises what the SDK raises, and BackendError."""
        if self.reference.kind == "file":
            return _of_file(self.reference.name)
        source = _of_file(self.file) if self.file else _found()
        if self.reference.kind == "default":
            return source
        from google.auth import impersonated_credentials

        return impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source, self.reference.name, SCOPES
        )


def text_setting(settings: Mapping[str, object], name: str, default: str = "") -> str:
    """A setting that is text, or a path; StoreUnsupported for another kind."""
    found = settings.get(name)
    if found is None:
        return default
    if isinstance(found, str | PurePosixPath):
        return str(found)
    raise StoreUnsupported(f"the setting {name} of the provider gcp is a text")


def _found() -> Any:
    import google.auth

    credentials, _ = google.auth.default(scopes=SCOPES)
    return credentials


def _of_file(path: str) -> Any:
    info = _table(path)
    try:
        made = _made(info)
    except ValueError:
        made = None
    if made is None:
        raise StoreUnsupported(
            f"{path} holds no credentials of a kind that envd uses",
            hint="use the key of a service account, or a file of workload identity federation",
        )
    return made


def _table(path: str) -> Mapping[str, Any]:
    problem = ""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read(_MAX_FILE_BYTES))
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except ValueError:
        found = None
    if problem:
        raise Forbidden(f"{path} can't be read: {problem}")
    if not isinstance(found, dict):
        raise StoreUnsupported(f"{path} holds no credentials")
    return found


def _made(info: Mapping[str, Any]) -> Any:
    """Credentials of a file's content, None for a kind that is not used.

    One that runs a program to get a token is not: what runs on a node is not a binding's to say.
    """
    match info.get("type"):
        case "service_account":
            from google.oauth2 import service_account

            return service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                info, scopes=SCOPES
            )
        case "authorized_user":
            from google.oauth2 import credentials

            return credentials.Credentials.from_authorized_user_info(  # type: ignore[no-untyped-call]
                info, scopes=SCOPES
            )
        case "external_account":
            return _federated(info)
    return None


def _federated(info: Mapping[str, Any]) -> Any:
    source = info.get("credential_source")
    if not isinstance(source, dict) or "executable" in source:
        return None
    if info.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
        from google.auth import aws

        return aws.Credentials.from_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
    from google.auth import identity_pool

    return identity_pool.Credentials.from_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
