"""Where a Consul is, which keys of it are meant, and with which token: from settings and a target.

A place is a path of keys below `path_prefix`; one that begins with `/` begins at the store itself.
Keys of Consul begin with no slash. `credentials` of a binding choose another token:

    token-env:NAME       the token is in this environment variable
    token-file:/PATH     ... or in this file, which somebody may write anew at any time

Only names of variables and files are kept; what is in them is read when the backend is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envd.backends.contract import Options
from envd.backends.errors import Forbidden, StoreUnsupported
from envd.backends.http_calls import Tls
from envd.backends.marked_store import place_of, text_setting

CREDENTIALS_HINT: Final = "token-env:NAME or token-file:/PATH"
USUAL_ADDRESS: Final = "http://127.0.0.1:8500"
"""Of an agent on the same machine."""
MAX_FILE_BYTES: Final = 64 << 10

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_SECTION: Final = "consul"
_USUAL_VARIABLE: Final = "CONSUL_HTTP_TOKEN"


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A variable, or where `file` is not None a file. Without `is_needed` there may be none."""

    variable: str = _USUAL_VARIABLE
    file: Path | None = None
    is_needed: bool = False

    def read(self, environ: Mapping[str, str]) -> str:
        """The token, "" for none; Forbidden where there should be one. It blocks on a file."""
        if self.file is not None:
            return _from_file(self.file)
        found = environ.get(self.variable, "").strip()
        if not found and self.is_needed:
            raise Forbidden(
                f"the environment variable {self.variable}, which is to hold Consul's token, is "
                "not set",
                hint="set it for the daemon, or choose another in [cloud.providers.consul]",
            )
        return found

    @property
    def name(self) -> str:
        return str(self.file) if self.file is not None else self.variable


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """`place` is the path of all keys. `address` is "" where only the environment says it;
    `datacenter`, `namespace` and `partition` are "" for the agent's own."""

    address: str
    place: str
    token: TokenSource
    tls: Tls
    datacenter: str = ""
    namespace: str = ""
    partition: str = ""


def read_settings(options: Options) -> ConsulSettings:
    """Read what a Consul is opened on; raises StoreUnsupported or InvalidName for what can't be."""
    settings = options.settings

    def text(name: str, default: str = "") -> str:
        return text_setting(settings, name, default, section=_SECTION)

    return ConsulSettings(
        address=options.endpoint or text("address"),
        place=place_of(options.place, text("path_prefix", "envd")).removeprefix("/"),
        token=_token(settings, options.credentials),
        tls=Tls(
            _file(settings, "ca_file"), _file(settings, "cert_file"), _file(settings, "key_file")
        ),
        datacenter=text("datacenter"),
        namespace=text("namespace"),
        partition=text("partition"),
    )


def _token(settings: Mapping[str, object], credentials: str) -> TokenSource:
    if credentials:
        return _chosen(credentials)
    variable = text_setting(settings, "token_env", section=_SECTION)
    file = _file(settings, "token_file")
    return TokenSource(variable or _USUAL_VARIABLE, file, is_needed=bool(variable))


def _chosen(credentials: str) -> TokenSource:
    """The token that a binding names. What it wrote is not told: it might be a token."""
    kind, _, name = credentials.partition(":")
    if kind == "token-env" and _VARIABLE.fullmatch(name):
        return TokenSource(name, is_needed=True)
    if kind == "token-file" and name.startswith("/"):
        return TokenSource(file=Path(name), is_needed=True)
    raise StoreUnsupported(
        "the credentials of the binding are none that consul knows",
        hint=f"use {CREDENTIALS_HINT}; they name a token, and never are one",
    )


def _file(settings: Mapping[str, object], name: str) -> Path | None:
    found = settings.get(name)
    return Path(str(found)) if found else None


def _from_file(path: Path) -> str:
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
        raise Forbidden(f"{path}, which is to hold Consul's token: {problem or 'it is empty'}")
    return found
