"""Version ids for Secrets Manager that carry the stamp of their value.

A version of a secret is named by whoever writes it, with 32 to 64 characters, and the name is there
exactly when the value is: so it keeps the stamp, atomically, and makes a repeat the same version.
Of 64 letters and digits

    1    how the stamp is written: E, or F
    14   what tells attempts apart: a hash of the attempt
    4    a check, so that nobody else's id is taken for one of these
    45   the stamp, as a number in base 62

E is for stamps of the characters of `_NARROW`, as all of envd's are, up to 64 of them: a 1 and then
one digit in base 18 for each, 2 * 18^64 < 62^45 at most. F is for any other ASCII, up to 37
characters of 7 bits. What is longer has no id.
"""

from __future__ import annotations

import hashlib
from typing import Final

from envd.backends.contract import MAX_STAMP_CHARACTERS

CHARACTERS: Final = 64
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NARROW: Final = "0123456789abcdef.-"
_ASCII: Final = "".join(map(chr, range(128)))
_ALPHABETS: Final = {"E": _NARROW, "F": _ASCII}
_MOST: Final = {"E": MAX_STAMP_CHARACTERS, "F": 37}
_ATTEMPT_DIGITS: Final = 14
_CHECK_DIGITS: Final = 4
_STAMP_DIGITS: Final = 45
_STAMP_AT: Final = 1 + _ATTEMPT_DIGITS + _CHECK_DIGITS


def fits(stamp: str) -> bool:
    """Whether a stamp can be carried."""
    return bool(_form(stamp))


def version_id(stamp: str, *attempt: str) -> str:
    """The id of the version that an attempt writes. ValueError for a stamp that does not fit.

    Equal for equal arguments, and for nothing else but by a chance of 2^-83.
    """
    form = _form(stamp)
    if not form:
        raise ValueError("the stamp is too long for a version id")
    alphabet = _ALPHABETS[form]
    number = 1
    for character in stamp:
        number = number * len(alphabet) + alphabet.index(character)
    written = _in_base_62(number, _STAMP_DIGITS)
    named = "\0".join((stamp, *attempt))
    begun = form + _hashed(named, _ATTEMPT_DIGITS)
    return begun + _hashed(begun + written, _CHECK_DIGITS) + written


def stamp_of(identifier: str) -> str | None:
    """The stamp that an id carries, None for an id that somebody else has made."""
    if len(identifier) != CHARACTERS or not set(identifier) <= set(_DIGITS):
        return None
    alphabet = _ALPHABETS.get(identifier[0])
    written = identifier[_STAMP_AT:]
    begun = identifier[: 1 + _ATTEMPT_DIGITS]
    check = identifier[len(begun) : _STAMP_AT]
    if alphabet is None or check != _hashed(begun + written, _CHECK_DIGITS):
        return None
    number = 0
    for digit in written:
        number = number * 62 + _DIGITS.index(digit)
    characters: list[str] = []
    while number > 1:
        number, at = divmod(number, len(alphabet))
        characters.append(alphabet[at])
    return "".join(reversed(characters)) if number == 1 else None


def _form(stamp: str) -> str:
    """The form that carries a stamp, "" for none."""
    for form, alphabet in _ALPHABETS.items():
        if len(stamp) <= _MOST[form] and set(stamp) <= set(alphabet):
            return form
    return ""


def _hashed(text: str, digits: int) -> str:
    found = int.from_bytes(hashlib.sha256(text.encode()).digest())
    return _in_base_62(found % 62**digits, digits)


def _in_base_62(number: int, digits: int) -> str:
    written: list[str] = []
    for _ in range(digits):
        number, digit = divmod(number, 62)
        written.append(_DIGITS[digit])
    return "".join(reversed(written))
