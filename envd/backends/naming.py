"""Names in a store, made of a template: `{environment}/{variable}`, `APP_{variable}`.

A template is injective as far as it is used: a key whose name would be read back as another key
has no name at all (InvalidName). So two variables never share a name, whatever the template is.

A key of the bound environment itself has the environment "". What separates `{environment}` from
what follows, one of `/`, `_`, `-`, `.` and `:`, is left out with it. With layout "document" the
document of the bound environment itself is named ROOT, which no environment can be called.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from envd.backends.contract import Key
from envd.backends.errors import InvalidName
from envd.core.errors import InvalidRequest
from envd.core.names import ENVIRONMENT_PATTERN, VARIABLE_PATTERN, check_environment, check_variable

ROOT: Final = "_"
MAX_NATIVE_CHARACTERS: Final = 2048
"""Longer than any store takes (SSM: 1,011), and short enough to match a pattern against."""

PER_VARIABLE: Final = "{environment}/{variable}"
DOCUMENT: Final = "{environment}"

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SEPARATORS = "/_-.:"


class _Part(NamedTuple):
    """`field` is "" for text that stands as it is."""

    field: str
    text: str


class Naming:
    """Encodes and decodes the names of one place."""

    __slots__ = ("_below", "_document", "_parts", "_pattern")

    def __init__(
        self,
        template: str = "",
        *,
        layout: Literal["per-variable", "document"] = "per-variable",
        below: bool = False,
    ) -> None:
        """Raise InvalidName for a template that lacks what tells keys apart, or has too much."""
        self._document = layout == "document"
        self._below = below
        self._parts = _parts(template or (DOCUMENT if self._document else PER_VARIABLE))
        _check(self._parts, template, document=self._document, below=below)
        self._pattern = re.compile(_pattern(self._parts))

    def encode(self, key: Key) -> str:
        """The name of a key; InvalidName where it has none in this place."""
        self._check_key(key)
        native = self._written(key)
        if len(native) > MAX_NATIVE_CHARACTERS:
            raise InvalidName(f"the name of {shown(key)} is longer than a store takes")
        if self._read(native) != key:
            raise InvalidName(
                f"with this name template, {shown(key)} would be read back as another variable",
                hint="use a template whose parts are told apart, such as {environment}/{variable}",
            )
        return native

    def decode(self, native: str) -> Key | None:
        """The key that has this name, None where there is none."""
        key = self._read(native)
        return key if key is not None and self._is_ours(key) else None

    def _is_ours(self, key: Key) -> bool:
        try:
            self._check_key(key)
        except InvalidName:
            return False
        return True

    def _written(self, key: Key) -> str:
        fields = {"environment": key.environment, "variable": key.variable}
        written: list[str] = []
        for at, part in enumerate(self._parts):
            text = fields[part.field] if part.field else part.text
            after_environment = at > 0 and self._parts[at - 1].field == "environment"
            if after_environment and not key.environment and not part.field:
                text = text[1:] if text[:1] in _SEPARATORS else text
            written.append(text)
        return "".join(written) or ROOT

    def _read(self, native: str) -> Key | None:
        if self._document and native == ROOT:
            native = ""
        if len(native) > MAX_NATIVE_CHARACTERS:
            return None
        match = self._pattern.fullmatch(native)
        if match is None:
            return None
        found = match.groupdict()
        key = Key(found.get("environment") or "", found.get("variable") or "")
        return key if self._written(key) == (native or ROOT) else None

    def _check_key(self, key: Key) -> None:
        check_key(key, document=self._document, below=self._below)


def check_key(key: Key, *, document: bool, below: bool) -> None:
    """Raise InvalidName unless the key is a legal one of a place of this layout."""
    if key.environment and not below:
        raise InvalidName("this place holds one environment, and none below it")
    if document != (key.variable == ""):
        raise InvalidName(
            "this place holds whole documents" if document else "this place holds variables"
        )
    problem = ""
    try:
        if key.environment:
            check_environment(key.environment, system=True)
        if key.variable:
            check_variable(key.variable)
    except InvalidRequest as error:
        problem = error.message
    if problem:
        raise InvalidName(problem)


def shown(key: Key) -> str:
    """How a message calls a key: `web/prod DATABASE_URL`."""
    return " ".join(each for each in key if each) or "the environment"


def _parts(template: str) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    end = 0
    for match in _PLACEHOLDER.finditer(template):
        if match.start() > end:
            parts.append(_Part("", template[end : match.start()]))
        parts.append(_Part(match.group(1), ""))
        end = match.end()
    if end < len(template):
        parts.append(_Part("", template[end:]))
    return tuple(parts)


def _check(parts: tuple[_Part, ...], template: str, *, document: bool, below: bool) -> None:
    fields = [part.field for part in parts if part.field]
    names = _PLACEHOLDER.findall(template)
    unknown = next((each for each in fields if each not in ("environment", "variable")), None)
    text = "".join(part.text for part in parts)
    problem = ""
    if unknown is not None or "" in names or "{" in text or "}" in text:
        problem = "has something in braces that is neither {environment} nor {variable}"
    elif len(set(fields)) != len(fields):
        problem = "names a part twice"
    elif document == ("variable" in fields):
        problem = "has {variable}, but its layout is one document an environment"
        if not document:
            problem = "has no {variable}, so all variables would have one name"
    elif below and "environment" not in fields:
        problem = "has no {environment}, so all environments would share their names"
    if problem:
        raise InvalidName(f"the name template {problem}", hint="for example " + PER_VARIABLE)


def _pattern(parts: tuple[_Part, ...]) -> str:
    """A pattern for names; a missing environment takes the separator behind it along."""
    pattern: list[str] = []
    for at, part in enumerate(parts):
        match part.field:
            case "variable":
                pattern.append(f"(?P<variable>{VARIABLE_PATTERN})")
            case "environment":
                after = parts[at + 1] if at + 1 < len(parts) else _Part("", "")
                separator = after.text[:1] if after.text[:1] in _SEPARATORS else ""
                pattern.append(f"(?:(?P<environment>{ENVIRONMENT_PATTERN}){re.escape(separator)})?")
            case _:
                before = parts[at - 1].field if at else ""
                dropped = before == "environment" and part.text[:1] in _SEPARATORS
                pattern.append(re.escape(part.text[1:] if dropped else part.text))
    return "".join(pattern)
