"""Quoted strings of HCL, the language of Terraform and Nomad, and what they can't hold.

In ASCII: the scanner of HCL takes what is combined for one character. Its strings are kept in
Unicode's form NFC, so others can't be held.
"""

from __future__ import annotations

import re
import unicodedata
from types import MappingProxyType
from typing import Final

HCL_NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]*"
# A sign that stands before anything else might begin a template, or hide an escape.
_ESCAPED = re.compile(r'[$%](?![A-Za-z0-9 ])|["\\]|[^ -~]')
_ESCAPES: Final = MappingProxyType({'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def hcl_string(value: str) -> str:
    """A value between double quotes; only for one that `is_hcl_text`."""
    return f'"{_ESCAPED.sub(_escape, value)}"'


def is_hcl_text(value: str) -> bool:
    """Tell whether HCL gives back exactly this text."""
    return unicodedata.is_normalized("NFC", value)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
