"""The variables in the spec of an app of App Platform, and what of the spec stays as it is.

A spec has variables for the whole app, and for each of its components:

    {"name": "shop",
     "envs": [{"key": "REGION", "value": "fra", "scope": "RUN_AND_BUILD_TIME"}],
     "services": [{"name": "web",
                   "envs": [{"key": "TOKEN", "type": "SECRET", "value": "EV[1:..."}]}]}

The value of a secret is encrypted by the platform when it is sent first, and only that shows then.
Sent back as it came it stays the secret that it is. So a spec is changed where something is to be
changed, and all else in it, known or not, is sent back as it was read.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from envd.backends.errors import InvalidName, InvalidValue, StoreUnavailable, StoreUnsupported

Scope = Literal["RUN_TIME", "BUILD_TIME", "RUN_AND_BUILD_TIME"]
ENCRYPTED: Final = "EV["
SECRET: Final = "SECRET"  # noqa: S105 - a type, not a secret
_COMPONENTS: Final = ("services", "workers", "jobs", "functions", "static_sites")
_PLACE: Final = re.compile(
    r"(?P<app>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/(?P<component>[a-z][a-z0-9-]{0,31}))?"
)
_KEY: Final = re.compile(r"[_A-Za-z][_A-Za-z0-9]*")


@dataclass(frozen=True, slots=True)
class AppPlace:
    """An app by its id, and one of its components, "" for the variables of the whole app."""

    app: str
    component: str = ""

    @staticmethod
    def of(text: str) -> AppPlace:
        """Read `ID` or `ID/COMPONENT`; InvalidName for anything else."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise InvalidName(
                "this is not an app of App Platform",
                hint="write the id that `doctl apps list` shows, or ID/COMPONENT",
            )
        return AppPlace(found["app"], found["component"] or "")

    def __str__(self) -> str:
        return f"{self.app}/{self.component}" if self.component else self.app


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a spec; the `value` of a secret is what the platform made of it."""

    key: str
    is_secret: bool
    value: str = field(repr=False)

    @property
    def is_readable(self) -> bool:
        return not self.is_secret

    @property
    def is_encrypted(self) -> bool:
        return self.value.startswith(ENCRYPTED)

    @property
    def told(self) -> str:
        """What its version is made of."""
        return f"{SECRET if self.is_secret else 'GENERAL'}\0{self.value}"


class Spec:
    """A spec as it was read, of which one place is looked at and changed."""

    def __init__(self, spec: Mapping[str, Any], place: AppPlace) -> None:
        """Raise StoreUnsupported where there is no such component."""
        self._spec = copy.deepcopy(dict(spec))
        self._holder = self._spec if not place.component else _component(self._spec, place)

    @property
    def body(self) -> dict[str, Any]:
        """The whole spec, as it is now."""
        return self._spec

    def variables(self) -> dict[str, Variable]:
        """All variables of the place by name; StoreUnavailable where that makes no sense."""
        return {entry["key"]: _variable(entry) for entry in self._entries()}

    def put(self, key: str, value: str, *, secret: bool, scope: Scope) -> None:
        """Set a variable. One that is there keeps its place and its scope.

        Raises InvalidValue for one that is there twice: nobody knows which of them is meant.
        """
        found = self._entry(key)
        if found is None:
            found = {"key": key, "scope": scope}
            self._holder.setdefault("envs", []).append(found)
        found["value"] = value
        if secret:
            found["type"] = SECRET
        elif found.get("type") == SECRET:
            found["type"] = "GENERAL"

    def remove(self, key: str) -> None:
        """Take a variable out. Raises InvalidValue as `put` does."""
        found = self._entry(key)
        if found is not None:
            self._holder["envs"] = [each for each in self._entries() if each is not found]

    def _entry(self, key: str) -> dict[str, Any] | None:
        found = [each for each in self._entries() if each["key"] == key]
        if len(found) > 1:
            raise InvalidValue(f"{key} is in the app's spec twice", hint="remove one of the two")
        return found[0] if found else None

    def _entries(self) -> list[dict[str, Any]]:
        entries = self._holder.get("envs") or []
        if not isinstance(entries, list) or not all(map(_makes_sense, entries)):
            raise StoreUnavailable("the app's spec has variables that make no sense")
        return entries


def _makes_sense(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("key"), str)
        and isinstance(entry.get("value", ""), str)
    )


def _variable(entry: Mapping[str, Any]) -> Variable:
    return Variable(entry["key"], entry.get("type") == SECRET, entry.get("value", ""))


def _component(spec: dict[str, Any], place: AppPlace) -> dict[str, Any]:
    for each in _components(spec):
        if each.get("name") == place.component:
            return each
    raise StoreUnsupported(
        f"the app {place.app} has no component {place.component}",
        hint="see the names in `doctl apps spec get`",
    )


def _components(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in _COMPONENTS:
        for each in spec.get(kind) or ():
            if isinstance(each, dict):
                yield each


def name_problem(native: str) -> InvalidName | None:
    """Why a spec can't have a variable of this name, None where it can."""
    if _KEY.fullmatch(native):
        return None
    return InvalidName(
        f"App Platform takes no variable {native}",
        hint="names have letters, digits and _, and do not begin with a digit",
    )
