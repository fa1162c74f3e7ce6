"""Names in the stores of AWS: a place, and what `Naming` makes of a key below it.

A place that begins with `/` is the beginning of names as it stands; any other lies below the prefix
of the settings. The document of the bound environment itself is named as the place is: with layout
"document", the secret of `aws-secrets-manager:/payments/prod` is `payments/prod`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from envd.backends.contract import Key, Options, Scope
from envd.backends.errors import InvalidName
from envd.backends.naming import ROOT, Naming, shown


@dataclass(frozen=True, slots=True)
class Rules:
    """Which names a store takes: they match `pattern` whole, within these numbers."""

    pattern: str
    allowed: str
    max_characters: int
    max_levels: int = 0
    reserved: str = ""


class PlaceNames:
    """Encodes and decodes the names of one place, whose name ends without a `/`."""

    def __init__(self, place: str, options: Options, rules: Rules) -> None:
        """Raise InvalidName for a place or a template that can't be."""
        self.place = place.rstrip("/")
        self.is_document = options.layout == "document"
        self._is_usual = not options.name_template
        self._rules = rules
        self._pattern = re.compile(rules.pattern)
        self._reserved = re.compile(rules.reserved, re.IGNORECASE) if rules.reserved else None
        self._naming = Naming(options.name_template, layout=options.layout, below=options.below)
        if self.place or self.is_document:
            self._check(self.place, "the place")

    def encode(self, key: Key) -> str:
        """The name of a key; InvalidName where it has none."""
        native = self._naming.encode(key)
        is_place = self.is_document and native == ROOT
        whole = self.place if is_place else f"{self.place}/{native}"
        self._check(whole, f"the name of {shown(key)}")
        return whole

    def decode(self, native: str) -> Key | None:
        """The key of a name, None where it is not of this place's making."""
        if self.is_document and native == self.place:
            key = self._naming.decode(ROOT)
        elif native.startswith(f"{self.place}/"):
            rest = native[len(self.place) + 1 :]
            key = None if self.is_document and rest == ROOT else self._naming.decode(rest)
        else:
            key = None
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def path(self, scope: Scope) -> str:
        """The name above all names of a scope, "" for all that there are."""
        if self._is_usual and scope.environment:
            return f"{self.place}/{scope.environment}"
        return self.place

    def is_flat(self, scope: Scope) -> bool:
        """Whether all names of a scope are right below `path`."""
        return self._is_usual and not self.is_document and not scope.below

    def _check(self, native: str, what: str) -> None:
        rules = self._rules
        if not self._pattern.fullmatch(native) or "//" in native:
            raise InvalidName(f"{what} is none that this store takes", hint=f"use {rules.allowed}")
        if len(native) > rules.max_characters:
            raise InvalidName(
                f"{what} has {len(native)} characters; this store takes {rules.max_characters}"
            )
        if rules.max_levels and native.count("/") > rules.max_levels:
            raise InvalidName(f"{what} has more than {rules.max_levels} levels")
        if self._reserved is not None and self._reserved.match(native):
            raise InvalidName(f"{what} is reserved by AWS")


def absolute(place: str, prefix: str) -> str:
    """A place below a prefix, unless it begins with `/`; without that `/`."""
    if place.startswith("/"):
        return place[1:]
    between = "" if not prefix or prefix.endswith("/") else "/"
    return f"{prefix.removeprefix('/')}{between}{place}"
