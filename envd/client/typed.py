"""Texts of variables as values of other types.

Each raises ValueError that says what is expected, and never quotes the text.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from envd.core.errors import InvalidRequest

Encoding = Literal["base64", "hex", "utf-8"]

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_SECONDS: Final[Mapping[str, float]] = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_SIZES: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([a-z]*)")


def to_int(text: str) -> int:
    """A whole decimal number."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,4000}\s*", text):
        raise ValueError("a whole number")
    return int(text)


def to_float(text: str) -> float:
    """A finite number."""
    try:
        if "_" in text:  # Python's own way to write numbers only
            raise ValueError
        number = float(text)
    except ValueError:
        raise ValueError("a number") from None
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def to_bool(text: str) -> bool:
    """1, true, yes, on; 0, false, no, off; in any case."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("true or false (or 1, yes, on; 0, no, off)")
    return word in _TRUE


def to_json(text: str) -> Any:
    """Whatever the JSON document holds."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # Not chained: the error carries the whole text.
        raise ValueError("JSON") from None


def to_list(text: str, separator: str = ",") -> list[str]:
    """The parts between separators, without the space around them and without empty ones."""
    if not separator:
        raise InvalidRequest("an empty text separates nothing", hint="name a separator")
    return [part for part in map(str.strip, text.split(separator)) if part]


def to_bytes(text: str, encoding: Encoding = "base64") -> bytes:
    """The bytes that the text encodes; base64 is taken with the URL's alphabet too."""
    try:
        if encoding == "hex":
            return bytes.fromhex(text)
        if encoding == "utf-8":
            return text.encode()
        compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
        if encoding != "base64":
            raise InvalidRequest(f"{encoding!a} is no encoding", hint="it is base64, hex or utf-8")
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"bytes as {encoding}") from None


def to_duration(text: str) -> timedelta:
    """`500ms`, `10s`, `5m`, `2h`, `1d`, together `1h30m`; a bare number is seconds."""
    compact = "".join(text.split()).lower()
    try:
        if re.fullmatch(r"\d+(\.\d+)?", compact):
            return timedelta(seconds=float(compact))
        parts = _DURATION_PART.findall(compact)
        if not parts or "".join(map("".join, parts)) != compact:
            raise ValueError
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except (ValueError, OverflowError):
        raise ValueError("a duration like 500ms, 10s, 5m, 2h or 1h30m") from None


def to_size(text: str) -> int:
    """A number of bytes: `10MiB` (1024s), `10MB` (1000s), `512`."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _SIZES:
        raise ValueError("a size like 512, 64KiB, 10MB or 1GiB")
    return int(Decimal(match[1]) * _SIZES[match[2]])
