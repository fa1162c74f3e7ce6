"""Names in a Key Vault, which has letters, digits and `-`, 127 of them, and takes `a` for `A`.

A name is the path of an environment and a variable in it, `---` between them:

    web--prod---database-url        DATABASE_URL of web/prod
    database-url                    DATABASE_URL of the vault itself
    web--prod                       the document of web/prod

In a path `--` stands for `/`, in a variable `-` for `_`, and a variable is in lower case. What
can't be written so, or could be read in two ways, is `x--` and base32 of the whole text: a variable
such as `camelCase`, a path with a dot. So a name tells its key alone, no two keys share one, and a
vault that holds several places keeps them apart.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from envd.backends.contract import Key, Options
from envd.backends.errors import InvalidName
from envd.backends.naming import Naming, check_key, shown
from envd.core.names import ENVIRONMENT_PATTERN

MAX_CHARACTERS: Final = 127
BETWEEN: Final = "---"

_ESCAPE: Final = "x--"
_ROOT: Final = _ESCAPE
"""The document of a vault itself: base32 of nothing."""
_NATIVE: Final = re.compile(r"[0-9a-z-]+")
_PLAIN_TEXT: Final = re.compile(r"[A-Z0-9_]+")
_PLAIN_SEGMENT: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PATH: Final = re.compile(ENVIRONMENT_PATTERN)


class SecretNames:
    """Encodes and decodes the names of one place, which is a path in a vault ("" for all of it)."""

    def __init__(self, path: str, options: Options) -> None:
        """Raise InvalidName for a path or a template that can't be."""
        self._path = path
        self._is_document = options.layout == "document"
        self._below = options.below
        self._naming = (
            Naming(options.name_template, layout=options.layout, below=options.below)
            if options.name_template
            else None
        )
        if path and not _PATH.fullmatch(path):
            raise InvalidName(
                "the path in the vault is none",
                hint="write it as an environment, for example web/prod",
            )

    def encode(self, key: Key) -> str:
        """The name of a key; InvalidName where it has none."""
        check_key(key, document=self._is_document, below=self._below)
        if self._naming is not None:
            path, text = self._path, self._naming.encode(key)
        else:
            path = "/".join(each for each in (self._path, key.environment) if each)
            text = key.variable
        native = _written(path, text)
        if len(native) > MAX_CHARACTERS:
            raise InvalidName(
                f"the name of {shown(key)} has {len(native)} characters in a Key Vault, which "
                f"takes {MAX_CHARACTERS}",
                hint="names of upper-case letters, digits and _ stay as short as they are",
            )
        return native

    def decode(self, native: str) -> Key | None:
        """The key of a name, None where it is not of this place's making."""
        native = native.lower()
        alone_is_path = self._is_document and self._naming is None
        found = _read(native, alone_is_path) if _NATIVE.fullmatch(native) else None
        key = None if found is None else self._key(*found)
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def is_escaped(self, native: str) -> bool:
        """Whether people can't tell from a name what it is of."""
        return _ESCAPE in native

    def _key(self, path: str, text: str) -> Key | None:
        if self._naming is not None:
            return self._naming.decode(text) if path == self._path else None
        if path == self._path:
            return Key("", text)
        start = f"{self._path}/" if self._path else ""
        return Key(path[len(start) :], text) if path.startswith(start) else None


def _written(path: str, text: str) -> str:
    """The name of a text in a path; either may be ""."""
    if not text:
        return _path_name(path) if path else _ROOT
    name = _text_name(text)
    if path:
        return f"{_path_name(path)}{BETWEEN}{name}"
    return _escaped(text) if BETWEEN in name else name


def _read(native: str, alone_is_path: bool) -> tuple[str, str] | None:
    """The inverse, for names that may be no such: who asks writes it anew and compares.

    What has no `---` is a path, or a text, which the layout tells.
    """
    path, between, name = native.partition(BETWEEN)
    if between:
        return _both(_path_of(path), _text_of(name))
    return _both(_path_of(native), "") if alone_is_path else _both("", _text_of(native))


def _both(path: str | None, text: str | None) -> tuple[str, str] | None:
    return None if path is None or text is None else (path, text)


def _path_name(path: str) -> str:
    segments = path.split("/")
    if segments[0] != "x" and all(map(_PLAIN_SEGMENT.fullmatch, segments)):
        return "--".join(segments)
    return _escaped(path)


def _path_of(name: str) -> str | None:
    return _unescaped(name) if name.startswith(_ESCAPE) else name.replace("--", "/")


def _text_name(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and not text.startswith("X__"):
        return text.lower().replace("_", "-")
    return _escaped(text)


def _text_of(name: str) -> str | None:
    return _unescaped(name) if name.startswith(_ESCAPE) else name.upper().replace("-", "_")


def _escaped(text: str) -> str:
    return _ESCAPE + base64.b32encode(text.encode()).decode().rstrip("=").lower()


def _unescaped(name: str) -> str | None:
    digits = name.removeprefix(_ESCAPE).upper()
    try:
        return base64.b32decode(digits + "=" * (-len(digits) % 8)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
