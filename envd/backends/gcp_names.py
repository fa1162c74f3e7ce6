"""Names in the stores of Google Cloud: a place, and what `Naming` makes of a key below it.

A place is `PREFIX`, or `PROJECT/PREFIX`. Names begin with the prefix of the settings and then this
one; a PREFIX that begins with `/` leaves the settings' out. The ids of these stores have letters,
digits, `-` and `_`, so what is below a place is written with `-` as a mark:

    /   --      web/prod   web--prod
    -   -_      my-app     my-_app
    .   -0      a.b        a-0b

A `-` always begins one of the three, so each id is read back in one way only. With `web` for a
place `DATABASE_URL` is `envd-web--DATABASE_URL`, and with a prefix bound that of `prod` below it is
`envd-web--prod--DATABASE_URL`. The document of the place itself is `envd-web`.

With a name template the id is just what that makes. A key whose name would have a character that
an id can't have has no name then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from envd.backends.contract import Key, Options
from envd.backends.errors import InvalidName, StoreUnsupported
from envd.backends.gcp_credentials import text_setting
from envd.backends.naming import ROOT, Naming, shown

_ID = re.compile(r"[A-Za-z0-9_-]+")
_PROJECT = re.compile(r"([a-z0-9.-]{1,63}:)?[a-z][a-z0-9-]{4,61}[a-z0-9]|[0-9]{1,20}")
_MARKS: Final = {"/": "--", "-": "-_", ".": "-0"}
_MARKED: Final = {mark: text for text, mark in _MARKS.items()}
_BELOW: Final = _MARKS["/"]


@dataclass(frozen=True, slots=True)
class Place:
    """A project, and what the names of a place in it begin with."""

    project: str
    base: str


def project_of(named: str, settings: Mapping[str, object]) -> str:
    """The project that a place names, or that of the settings.

    Raises StoreUnsupported where there is none, or where it can't be one.
    """
    project = named or text_setting(settings, "project_id")
    if not project:
        raise StoreUnsupported(
            "nobody has said which project of Google Cloud is meant",
            hint="set cloud.providers.gcp.project_id, or bind PROJECT/PREFIX",
        )
    if not _PROJECT.fullmatch(project):
        raise StoreUnsupported("the project is none that Google Cloud has")
    return project


def place_of(text: str, settings: Mapping[str, object], prefix: str) -> Place:
    """The place of an address; `prefix` is that of the settings. Raises StoreUnsupported."""
    named, slash, rest = text.partition("/")
    if not slash:
        named, rest = "", text
    elif not named:
        rest = text
    base = rest[1:] if rest.startswith("/") else prefix + rest
    return Place(project_of(named, settings), base)


def escaped(text: str) -> str:
    """Text in the letters of an id."""
    return "".join(_MARKS.get(each, each) for each in text)


def unescaped(text: str) -> str | None:
    """The inverse of `escaped`; None for what that never makes."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        width = 2 if text[at] == "-" else 1
        part = text[at : at + width]
        plain = _MARKED.get(part) if width == 2 else part
        if plain is None:
            return None
        parts.append(plain)
        at += width
    return "".join(parts)


class PlaceNames:
    """Encodes and decodes the ids of one place."""

    def __init__(self, base: str, options: Options, *, most: int) -> None:
        """`most` is how many characters an id has at most. Raises InvalidName for a place or a
        template that can't be."""
        self.base = base
        self.is_document = options.layout == "document"
        self._is_usual = not options.name_template
        self._most = most
        self._naming = Naming(options.name_template, layout=options.layout, below=options.below)
        # A base that ends as the settings' prefix does (`envd-`) is no name of its own.
        self._start = base + _BELOW if base and not base.endswith("-") else base
        if base or self.is_document:
            self._check(base, "the place")

    def encode(self, key: Key) -> str:
        """The id of a key; InvalidName where it has none."""
        native = self._naming.encode(key)
        if self.is_document and native == ROOT:
            return self.base
        whole = self._start + (escaped(native) if self._is_usual else native)
        self._check(whole, f"the name of {shown(key)}")
        return whole

    def decode(self, native: str) -> Key | None:
        """The key of an id, None where it is not of this place's making."""
        key = None
        if self.is_document and native == self.base:
            key = self._naming.decode(ROOT)
        elif native.startswith(self._start):
            rest: str | None = native[len(self._start) :]
            rest = unescaped(rest) if self._is_usual and rest else rest
            if rest and not (self.is_document and rest == ROOT):
                key = self._naming.decode(rest)
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def _check(self, native: str, what: str) -> None:
        if not _ID.fullmatch(native):
            raise InvalidName(
                f"{what} is none that this store takes", hint="use letters, digits, - and _"
            )
        if len(native) > self._most:
            raise InvalidName(f"{what} has {len(native)} characters; this store takes {self._most}")
