"""What the formats for infrastructure are made from, and the refusals that they share.

Such a file goes into version control. So its renderers are not given the values of secrets at all:
what they write refers to them, by a name that the file declares or by the place where they are
kept. The few formats whose target takes no reference are given them, and say so (`HELD` in
`envd.formats.write`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from envd.core.errors import InvalidRequest

# Of an environment's own name only these are left in the names of objects.
_NOT_IN_OBJECT = re.compile(r"[^a-z0-9-]")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One environment to be deployed: its `names` in order, and which of them are secret.

    `values` lacks those of secrets, unless the format holds them. `secrets_from` is where the
    secrets are kept, as the caller named it, else "".
    """

    environment: str
    names: tuple[str, ...]
    secret: frozenset[str]
    values: Mapping[str, str] = field(repr=False)
    secrets_from: str = ""

    @property
    def object_name(self) -> str:
        """What objects are called that are named after the environment."""
        return object_name(self.environment)

    def split(self) -> tuple[dict[str, str], list[str]]:
        """The variables that are not secret, and the names of those that are, in order."""
        plain = {name: self.values[name] for name in self.names if name not in self.secret}
        return plain, [name for name in self.names if name in self.secret]

    def place(self, default: str, pattern: str, hint: str) -> str:
        """Where the secrets are kept; raises InvalidRequest unless it has the form `pattern`."""
        place = self.secrets_from or default
        if not place:
            raise InvalidRequest(
                "this format refers to secrets, and nothing says where they are kept",
                hint=f"use --secrets-from with {hint}",
            )
        if not re.fullmatch(pattern, place):
            raise InvalidRequest("--secrets-from has another form here", hint=f"it is {hint}")
        return place


def object_name(environment: str) -> str:
    """An environment's name with - for `/`, `_` and `.`: web/prod is "web-prod"."""
    return _NOT_IN_OBJECT.sub("-", environment)


def refused(name: str, why: str, hint: str = "") -> InvalidRequest:
    """The error for a variable that a target does not take; never with its value."""
    return InvalidRequest(
        f"{name} {why}",
        hint=hint or f"leave it out: --except {name}",
        reason="INEXPRESSIBLE",
    )


def check_names(names: Iterable[str], pattern: str, why: str) -> None:
    """Raise InvalidRequest for the first name that is not as `pattern` wants it."""
    matches = re.compile(pattern).fullmatch
    for name in names:
        if not matches(name):
            raise refused(name, why)


def check_free(names: Iterable[str], taken: frozenset[str], who: str) -> None:
    """Raise InvalidRequest for the first name that is among those `taken`."""
    for name in names:
        if name in taken:
            raise refused(name, f"has a name that {who} keeps for itself")


def distinct(names: Iterable[str], spelled: Callable[[str], str]) -> dict[str, str]:
    """What each name becomes; raises InvalidRequest where two become one."""
    found: dict[str, str] = {}
    by_spelling: dict[str, str] = {}
    for name in names:
        spelling = spelled(name)
        other = by_spelling.setdefault(spelling, name)
        if other != name:
            raise refused(name, f"and {other} would both be called {spelling} there")
        found[name] = spelling
    return found
