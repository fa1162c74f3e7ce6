"""Variables as a mapping, and as values of other types.

A reading holds the values in a plain dict that is never changed, only replaced by the next
one: so a lookup is that of a dict, any thread may read, and whoever iterates sees one state.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, overload

from envd.client import typed
from envd.core.answers import EnvironmentView
from envd.core.errors import Denied, EnvdError, InvalidRequest, NotFound

T = TypeVar("T")
D = TypeVar("D")
Text: TypeAlias = str
Int: TypeAlias = int
Float: TypeAlias = float
Bool: TypeAlias = bool
Bytes: TypeAlias = bytes


class _Missing:
    """No default was given."""


_NONE_GIVEN: Final = _Missing()


class VariableMissing(NotFound, KeyError):
    """The environment has no variable of this name; also a KeyError."""

    __str__ = Exception.__str__


class VariableMasked(Denied, KeyError):
    """The variable is secret, and this client may not reveal it; also a KeyError."""

    __str__ = Exception.__str__


class VariableInvalid(InvalidRequest, ValueError):
    """The text of a variable is not what was asked for; also a ValueError."""


class Reading(Mapping[str, str]):
    """The variables of one environment: `env["A"]`, `env.get("A")`, `env.int("A", default=5)`.

    Lookups of an absent variable raise VariableMissing, of one that is masked VariableMasked;
    both are KeyErrors. For `in` and `get` a masked variable is absent.
    """

    __slots__ = ("_values", "_view", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: dict[str, str] = {}
        self._view: EnvironmentView | None = None

    def _show(self, view: EnvironmentView | None) -> None:
        """Go on with this state; None: the environment does not exist."""
        variables = {} if view is None else view.variables
        values = {
            name: variable.value
            for name, variable in variables.items()
            if variable.value is not None
        }
        # In this order: who sees a revision in another thread then sees its values.
        self._values = values
        self._view = view

    # -- as a mapping ------------------------------------------------------------------

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[name]
        except KeyError:
            raise self._absent(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> Int:
        return len(self._values)

    def __contains__(self, name: object) -> Bool:
        return name in self._values

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | D) -> str | D: ...
    def get(self, name: str, /, default: object = None) -> object:
        """The value, or `default` where there is none to see."""
        return self._values.get(name, cast(Any, default))

    def keys(self) -> KeysView[str]:
        """The names of one moment."""
        return self._values.keys()

    def values(self) -> ValuesView[str]:
        """The values of one moment."""
        return self._values.values()

    def items(self) -> ItemsView[str, str]:
        """Names and values of one moment."""
        return self._values.items()

    def copy(self) -> dict[str, str]:
        """The values of one moment."""
        return self._values.copy()

    def __repr__(self) -> str:
        """The name, never a value."""
        return f"<{type(self).__name__} {self.name}: {len(self._values)} variables>"

    # -- the state ---------------------------------------------------------------------

    @property
    def exists(self) -> Bool:
        """Whether the environment exists; without it there is no variable."""
        return self._view is not None

    @property
    def revision(self) -> str:
        """The revision of the environment itself, "" where it does not exist."""
        view = self._view
        return view.revision if view else ""

    @property
    def bases(self) -> Mapping[str, str]:
        """What it extends with the revision of each, the lowest first."""
        return MappingProxyType(view.bases if (view := self._view) else {})

    @property
    def settings(self) -> Mapping[str, str]:
        """Its settings (metadata): description, owner, extends, ..."""
        return MappingProxyType(view.metadata if (view := self._view) else {})

    @property
    def masked(self) -> frozenset[str]:
        """The variables that are there and can't be seen."""
        view = self._view
        if view is None:
            return frozenset()
        variables = view.variables.items()
        return frozenset(name for name, variable in variables if variable.value is None)

    def source(self, name: str) -> str:
        """The environment that a variable comes from; raises VariableMissing."""
        view = self._view
        if view is None or name not in view.variables:
            raise self._absent(name)
        return view.variables[name].source or self.name

    def is_secret(self, name: str) -> Bool:
        """Whether a variable is marked secret; raises VariableMissing."""
        view = self._view
        if view is None or name not in view.variables:
            raise self._absent(name)
        return view.variables[name].secret

    def require(self, *names: str) -> None:
        """Raise VariableMissing naming all of these that are absent, or VariableMasked.

        A program that calls it at its start fails then, not hours later.
        """
        absent = [name for name in names if name not in self._values]
        if not absent:
            return
        masked = self.masked
        if all(name in masked for name in absent):
            raise self._absent(absent[0])
        listed = ", ".join(name for name in absent if name not in masked)
        raise VariableMissing(
            f"{self.name} has no variable {listed}",
            hint=f"set it with: envctl set {self.name} NAME=VALUE",
            reason="VARIABLE_MISSING",
        )

    def _absent(self, name: object) -> EnvdError:
        view = self._view
        shown = str(name)[:255]
        if view is None:
            return VariableMissing(
                f"{self.name} does not exist, so it has no variable {shown}",
                reason="ENVIRONMENT_MISSING",
            )
        variable = view.variables.get(shown)
        if variable is not None and variable.value is None:
            return VariableMasked(
                f"{shown} of {self.name} is secret, and its value is masked",
                hint="this client's identity needs the right to reveal",
                reason="VARIABLE_MASKED",
            )
        return VariableMissing(
            f"{self.name} has no variable {shown}",
            hint=f"set it with: envctl set {self.name} {shown}=VALUE",
            reason="VARIABLE_MISSING",
        )

    # -- typed access ------------------------------------------------------------------

    def _as(self, name: str, read: Callable[[str], T], default: D | _Missing) -> T | D:
        """The value as `read` reads it; raises VariableInvalid, which does not quote it."""
        text = self._values.get(name)
        if text is None:
            error = self._absent(name)
            if isinstance(default, _Missing) or isinstance(error, VariableMasked):
                raise error
            return default
        try:
            return read(text)
        except ValueError as error:
            expected = str(error)
        del text  # Tools that report errors show the locals of each frame.
        raise VariableInvalid(f"{name} of {self.name} is not {expected}", reason="VARIABLE_INVALID")

    @overload
    def int(self, name: Text) -> Int: ...
    @overload
    def int(self, name: Text, *, default: D) -> Int | D: ...
    def int(self, name: Text, *, default: object = _NONE_GIVEN) -> object:
        """A whole number."""
        return self._as(name, typed.to_int, default)

    @overload
    def float(self, name: Text) -> Float: ...
    @overload
    def float(self, name: Text, *, default: D) -> Float | D: ...
    def float(self, name: Text, *, default: object = _NONE_GIVEN) -> object:
        """A finite number."""
        return self._as(name, typed.to_float, default)

    @overload
    def bool(self, name: Text) -> Bool: ...
    @overload
    def bool(self, name: Text, *, default: D) -> Bool | D: ...
    def bool(self, name: Text, *, default: object = _NONE_GIVEN) -> object:
        """1, true, yes, on; 0, false, no, off; in any case."""
        return self._as(name, typed.to_bool, default)

    def json(self, name: Text, *, default: Any = _NONE_GIVEN) -> Any:
        """What the JSON document holds."""
        return self._as(name, typed.to_json, default)

    @overload
    def list(self, name: Text, *, separator: Text = ",") -> list[Text]: ...
    @overload
    def list(self, name: Text, *, default: D, separator: Text = ",") -> list[Text] | D: ...
    def list(self, name: Text, *, default: object = _NONE_GIVEN, separator: Text = ",") -> object:
        """The parts between separators, trimmed, without empty ones."""
        return self._as(name, lambda text: typed.to_list(text, separator), default)

    @overload
    def bytes(self, name: Text, *, encoding: typed.Encoding = "base64") -> Bytes: ...
    @overload
    def bytes(
        self, name: Text, *, default: D, encoding: typed.Encoding = "base64"
    ) -> Bytes | D: ...
    def bytes(
        self,
        name: Text,
        *,
        default: object = _NONE_GIVEN,
        encoding: Literal["base64", "hex", "utf-8"] = "base64",
    ) -> object:
        """The bytes that the text encodes: a key, for example."""
        return self._as(name, lambda text: typed.to_bytes(text, encoding), default)

    @overload
    def duration(self, name: Text) -> timedelta: ...
    @overload
    def duration(self, name: Text, *, default: D) -> timedelta | D: ...
    def duration(self, name: Text, *, default: object = _NONE_GIVEN) -> object:
        """`500ms`, `10s`, `5m`, `2h`, `1d`, `1h30m`; a bare number is seconds."""
        return self._as(name, typed.to_duration, default)

    @overload
    def size(self, name: Text) -> Int: ...
    @overload
    def size(self, name: Text, *, default: D) -> Int | D: ...
    def size(self, name: Text, *, default: object = _NONE_GIVEN) -> object:
        """A number of bytes: `10MiB`, `10MB`, `512`."""
        return self._as(name, typed.to_size, default)
