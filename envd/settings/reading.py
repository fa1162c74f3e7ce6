"""One value, from TOML or from text (a flag, an environment variable), into its type.

A value that does not fit raises `Misfit`, whose text completes "`node.listen` ...": what is
expected, what kind of thing was found, never the value itself.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from envd.core.errors import EnvdError
from envd.settings.schema import Leaf
from envd.settings.units import Address, Duration

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})
_TOML_TYPES: Final = (
    (bool, "a boolean"),
    (int, "a number"),
    (float, "a number with a fraction"),
    (str, "a string"),
    (list, "a list"),
    (dict, "a table"),
    ((datetime, date, time), "a date or time"),
)


class Misfit(ValueError):
    """A value is not what its key takes."""


def read_value(leaf: Leaf, value: object, home: Path | None) -> object:
    """Turn a TOML value into what the key holds; `~/` in paths becomes `home`."""
    if leaf.item is not None:
        return _read_list(leaf, leaf.item, value, home)
    if leaf.kind in (Address, Duration, Path):
        if not isinstance(value, str):
            raise _wrong_type(leaf, value)
        _check_characters(value)
        return _read_string(leaf, value, home)
    try:
        checked: object = msgspec.convert(value, cast(Any, leaf.hint))
    except msgspec.ValidationError:
        raise _wrong_type(leaf, value) from None
    if isinstance(checked, str):
        _check_characters(checked)
        if leaf.expects is not None and leaf.expects.check is not None:
            try:
                leaf.expects.check(checked)
            except EnvdError as error:  # its message may quote the name; its hint does not
                raise Misfit(f"must be {leaf.words}: {error.hint or error}") from None
            except ValueError as error:
                raise Misfit(f"must be {leaf.words}: {error}") from None
    return checked


def from_text(leaf: Leaf, text: str) -> object:
    """Turn the text of a flag or variable into what TOML would have said.

    A list is written with commas. Raises Misfit where a number or boolean is due and the text
    is none.
    """
    if leaf.item is not None:
        return [item.strip() for item in text.split(",") if item.strip()]
    if leaf.kind is int and _INTEGER.fullmatch(text):
        return int(text)
    if leaf.kind is bool and text.lower() in _YES | _NO:
        return text.lower() in _YES
    if leaf.kind in (int, bool):
        raise Misfit(f"must be {leaf.words}")
    return text


def type_in_words(value: object) -> str:
    """Name the TOML type of a value: "a string"."""
    return next((words for kind, words in _TOML_TYPES if isinstance(value, kind)), "something else")


def _read_list(leaf: Leaf, item: Leaf, value: object, home: Path | None) -> object:
    least, most = leaf.lengths
    if not isinstance(value, list | tuple):
        raise _wrong_type(leaf, value)
    if len(value) < least or (most is not None and len(value) > most):
        raise Misfit(f"must be {leaf.words}; it has {len(value)}")
    return tuple(read_value(item, one, home) for one in value)


def _read_string(leaf: Leaf, text: str, home: Path | None) -> object:
    if leaf.kind is Path:
        return _read_path(text, home)
    try:
        if leaf.kind is Address:
            return Address.parse(text)
        duration = Duration.parse(text)
    except ValueError as error:
        raise Misfit(f"must be {leaf.words}: {error}") from None
    if leaf.within is not None and not leaf.within.low <= duration <= leaf.within.high:
        raise Misfit(f"must be {leaf.words}")
    return duration


def _read_path(text: str, home: Path | None) -> Path:
    if not text:
        raise Misfit("must be a path; it is empty")
    if text == "~" or text.startswith("~/"):
        if home is None:
            raise Misfit("begins with ~, but this user has no home directory")
        return home / text[2:]
    if text.startswith("~"):
        raise Misfit("begins with ~ and a user's name; write the path out")
    return Path(text)


def _check_characters(text: str) -> None:
    """Refuse what no name, path or address of ours holds and what would garble a log line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Misfit("is not valid UTF-8") from None
    if any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in text):
        raise Misfit("must not hold control characters")


def _wrong_type(leaf: Leaf, value: object) -> Misfit:
    expected = str if leaf.kind in (Address, Duration, Path) else leaf.kind
    fits = isinstance(value, expected) if isinstance(expected, type) else isinstance(value, str)
    if leaf.item is not None:
        fits = False
    if expected is float and isinstance(value, int):
        fits = True
    if isinstance(value, bool) and expected in (int, float):
        fits = False
    return Misfit(f"must be {leaf.words}" + ("" if fits else f", not {type_in_words(value)}"))
