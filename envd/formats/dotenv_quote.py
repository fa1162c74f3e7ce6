"""How a value is written in a dotenv file so that it is read back exactly.

Always by python-dotenv (`interpolate=False`), and wherever one text can mean the same to both,
by the npm package `dotenv` too. The forms are tried in this order:

    bare      plain letters, digits and signs   both read them as they stand
    'single'  both read backslashes as they stand, but python-dotenv makes one of two, and
              one at the end would escape the quote
    "double"  both read \\n and \\r; only python-dotenv reads other escapes
    bare      anything in one line without '#', quotes at its beginning, blanks around it
    "double"  with every escape: exact in python-dotenv; node keeps the backslashes

What is left to the last form are values with a line end, a '#', or blanks or a quote at an
edge, that also hold quotes of both kinds or backslashes that the quotes would take for
escapes. Node reads such a value with its backslashes doubled, but ends it at the same place.
After a backslash at the end that takes a guard: node, and python-dotenv before it read `\\\\` as
one character, take the closing quote for an escaped one and look for another. A comment holds
one, with text behind it, so that no value can end there: node goes back to the true end,
python-dotenv refuses the line aloud, and neither runs on into the lines that follow.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from envd.formats.dotenv_node import QUOTES, meaning
from envd.formats.dotenv_python import MAX_BLANKS

_PLAIN = re.compile(r"[A-Za-z0-9_@%+,./:=-]*")
_NOT_IN_SINGLE = re.compile(r"['\r]|\\\\|\\\Z")
# A backslash before these would be an escape in double quotes, in one package or both.
_NOT_IN_DOUBLE = re.compile(r"\"|\\[\\'abfnrtv\r]|\\\Z")
_NOT_BARE = re.compile(rf"[#\r\n]|[^\S\n]{{{MAX_BLANKS + 1}}}")
# After a backslash a line feed stands as it is; its escape would join the backslash.
_LINE_FEED = re.compile(r"(?<!\\)\n")
_ESCAPED = re.compile(r'[\\"\n\r]')
_ESCAPES: Final = MappingProxyType({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})
_GUARD = ' # the " before this comment closes the value'


def quoted(value: str) -> str:
    """Return what stands for `value` after `NAME=`."""
    if _PLAIN.fullmatch(value):
        return value
    if not _NOT_IN_SINGLE.search(value):
        return f"'{value}'"
    if not _NOT_IN_DOUBLE.search(value):
        return '"' + _LINE_FEED.sub(r"\\n", value).replace("\r", r"\r") + '"'
    if _is_bare(value):
        return value
    guard = _GUARD if value.endswith("\\") else ""
    return '"' + _ESCAPED.sub(lambda each: _ESCAPES[each.group()], value) + '"' + guard


def _is_bare(value: str) -> bool:
    """Tell whether both packages read `value` from the rest of a line.

    A value that begins with a quote is not left bare even where it could be: a quote in
    another line might close it.
    """
    return (
        value[0] not in QUOTES
        and value == value.strip() == meaning(value)
        and not _NOT_BARE.search(value)
    )
