"""Where an etcd is, which keys of it are meant, and who we are there: from settings and a target.

A place is a path of keys below `path_prefix`; one that begins with `/` begins at the store itself.
`credentials` of a binding choose another user than the settings:

    user:PREFIX       the name and the password are in PREFIX_USER and PREFIX_PASSWORD

Only names of variables are kept; what they hold is read when a login is made, each time anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envd.backends.contract import Options
from envd.backends.errors import Forbidden, StoreUnsupported
from envd.backends.http_calls import Tls
from envd.backends.marked_store import place_of, text_setting

CREDENTIALS_HINT: Final = "user:PREFIX"

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_SECTION: Final = "etcd"


@dataclass(frozen=True, slots=True)
class Login:
    """The variables that hold the name and the password of a user."""

    user_variable: str
    password_variable: str

    def read(self, environ: Mapping[str, str]) -> tuple[str, str]:
        """The name and the password; Forbidden where one of them is not there."""
        for name in (self.user_variable, self.password_variable):
            if not environ.get(name):
                raise Forbidden(
                    f"the environment variable {name}, which is to hold etcd's credentials, is "
                    "not set",
                    hint="set it for the daemon, or choose another in [cloud.providers.etcd]",
                )
        return environ[self.user_variable].strip(), environ[self.password_variable].strip()


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """`place` is the path of all keys. `login` is None for an etcd that asks nobody who they
    are."""

    endpoints: Sequence[str]
    place: str
    login: Login | None
    tls: Tls


def read_settings(options: Options) -> EtcdSettings:
    """Read what an etcd is opened on; raises StoreUnsupported or InvalidName for what can't be."""
    settings = options.settings
    prefix = text_setting(settings, "path_prefix", "/envd", section=_SECTION)
    return EtcdSettings(
        endpoints=_endpoints(options),
        place=place_of(options.place, prefix),
        login=_login(settings, options.credentials),
        tls=Tls(
            _file(settings, "ca_file"), _file(settings, "cert_file"), _file(settings, "key_file")
        ),
    )


def _endpoints(options: Options) -> tuple[str, ...]:
    if options.endpoint:
        return (options.endpoint,)
    found = options.settings.get("endpoints", ())
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise StoreUnsupported("cloud.providers.etcd.endpoints is no list of URLs")
    return tuple(str(each) for each in found)


def _login(settings: Mapping[str, object], credentials: str) -> Login | None:
    if credentials:
        return _chosen(credentials)
    user = text_setting(settings, "user_env", section=_SECTION)
    password = text_setting(settings, "password_env", section=_SECTION)
    if bool(user) != bool(password):
        raise StoreUnsupported(
            "of user_env and password_env one is missing",
            hint="set both below [cloud.providers.etcd], or neither",
        )
    return Login(user, password) if user else None


def _chosen(credentials: str) -> Login:
    """The user that a binding names. What it wrote is not told: it might be a password."""
    kind, _, name = credentials.partition(":")
    if kind == "user" and _VARIABLE.fullmatch(name):
        return Login(f"{name}_USER", f"{name}_PASSWORD")
    raise StoreUnsupported(
        "the credentials of the binding are none that etcd knows",
        hint=f"use {CREDENTIALS_HINT}; it names two variables, and holds no password",
    )


def _file(settings: Mapping[str, object], name: str) -> Path | None:
    found = settings.get(name)
    return Path(str(found)) if found else None
