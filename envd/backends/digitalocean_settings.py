"""How App Platform is reached: read from the section `digitalocean` and a binding's credentials.

    token-env:NAME       the token is in this environment variable
    token-file:/PATH     ... or in this file, which may be written anew at any time

Only names are kept. What is in them is read anew with each session, and after it was refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from envd.backends.contract import Options
from envd.backends.digitalocean_spec import Scope
from envd.backends.errors import Forbidden, StoreUnsupported

ADDRESS: Final = "https://api.digitalocean.com"
CREDENTIALS_HINT: Final = "token-env:NAME or token-file:/PATH"
TOKEN_ENV: Final = "DIGITALOCEAN_ACCESS_TOKEN"  # noqa: S105 - a name, not a token
MAX_TOKEN_BYTES: Final = 4096

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_TOKEN: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class TokenReference:
    """Where the token is: in a variable, or where `file` is not None, in a file."""

    variable: str = TOKEN_ENV
    file: Path | None = None

    def __str__(self) -> str:
        return f"the environment variable {self.variable}" if self.file is None else str(self.file)

    def read(self, environ: Mapping[str, str]) -> str:
        """The token; Forbidden where there is none. It blocks."""
        problem, found = "", ""
        try:
            if self.file is None:
                found = environ.get(self.variable, "").strip()
            else:
                with self.file.open("rb") as file:
                    found = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
        except OSError as error:
            problem = error.strerror or type(error).__name__
        except UnicodeDecodeError:
            problem = "it is no text"
        if not _TOKEN.fullmatch(found):
            problem = problem or ("it is no token" if found else "it is empty")
            raise Forbidden(
                f"{self}, which is to hold the token of DigitalOcean: {problem}",
                hint="set it for the daemon, or choose another with --credentials",
            )
        return found


@dataclass(frozen=True, slots=True)
class DigitalOceanSettings:
    """`scope` is that of variables which are made anew."""

    address: str
    token: TokenReference
    scope: Scope

    @staticmethod
    def of(options: Options) -> DigitalOceanSettings:
        """Raise StoreUnsupported for what can't be."""
        scope = _text(options.settings, "scope", "RUN_AND_BUILD_TIME")
        known: dict[str, Scope] = {each: each for each in get_args(Scope)}
        if scope not in known:
            raise StoreUnsupported("cloud.providers.digitalocean.scope is none that there is")
        address = options.endpoint or ADDRESS
        return DigitalOceanSettings(address.rstrip("/"), _reference(options), known[scope])


def _reference(options: Options) -> TokenReference:
    kind, _, name = options.credentials.partition(":")
    if not options.credentials:
        file = options.settings.get("token_file")
        variable = _text(options.settings, "token_env", TOKEN_ENV)
        return TokenReference(variable, Path(str(file)) if file else None)
    if kind == "token-env" and _VARIABLE.fullmatch(name):
        return TokenReference(name)
    if kind == "token-file" and name.startswith("/"):
        return TokenReference(file=Path(name))
    raise StoreUnsupported(
        "the credentials of the binding are none for DigitalOcean",
        hint=f"use {CREDENTIALS_HINT}; they name a secret, and never are one",
    )


def _text(settings: Mapping[str, object], name: str, default: str) -> str:
    found = settings.get(name, default)
    if not isinstance(found, str):
        raise StoreUnsupported(f"cloud.providers.digitalocean.{name} is no text")
    return found
