"""Finding many byte strings at once, with nothing but the standard library.

A needle of at least 15 bytes holds, wherever it stands in a text, one whole 8-byte word of
that text at a multiple of 8; one of at least 7 bytes holds such a 4-byte word. So the 8 (or 4)
words that each needle may show are kept in a set, and the text is taken as an array of words
and asked whether it has any of them. That runs in C without a step of Python per byte, and its
time does not grow with the number of needles. Where a block has a word of the set, its
words are looked at one by one, and the needle is compared at its place.

The words of a needle are taken where they are rarest, so that `https://` at its begin is not
what every text has. A text whose words keep being hit for nothing costs more, never less
found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

MIN_BYTES = 8
_LONG = 15
_BLOCK_BYTES = 16_384
_CHOICE_BYTES = 64
"""So much of a needle is looked at to find its rarest words."""
_INSIDE_BITS = 6
_INSIDE_MASK = (1 << _INSIDE_BITS) - 1


class Hit(NamedTuple):
    """Needle number `needle` stands at `start`."""

    start: int
    needle: int


class Needles:
    """A set of needles; each is at least MIN_BYTES long."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._needles = tuple(needles)
        short = _Words(4)
        long = _Words(8)
        for number, needle in enumerate(self._needles):
            if len(needle) < MIN_BYTES:
                raise ValueError("a needle is too short")
            (long if len(needle) >= _LONG else short).add(number, needle)
        self._kinds = tuple(kind for kind in (long, short) if kind.places)

    def find(self, text: bytes) -> list[Hit]:
        """Every place where a needle stands, in order."""
        found: set[Hit] = set()
        for kind in self._kinds:
            for number, start in kind.candidates(text):
                if start >= 0 and text.startswith(self._needles[number], start):
                    found.add(Hit(start, number))
        return sorted(found)

    def length(self, number: int) -> int:
        """How long a needle is, in bytes."""
        return len(self._needles[number])


class _Words:
    """The words of needles of one size: word -> needles, with where it stands in each.

    Both are one number, since there may be millions: needle << _INSIDE_BITS | where.
    """

    def __init__(self, size: Literal[4, 8]) -> None:
        self._size = size
        self.places: dict[int, tuple[int, ...]] = {}

    def add(self, number: int, needle: bytes) -> None:
        """Note `size` words in a row, one of which is at a multiple of `size` in any text."""
        last = min(len(needle), _CHOICE_BYTES) - 2 * self._size + 1
        begin = max(range(last + 1), key=lambda at: _rarity(needle[at : at + 2 * self._size - 1]))
        for at in range(begin, begin + self._size):
            (word,) = self._words(memoryview(needle)[at : at + self._size])
            self.places[word] = (*self.places.get(word, ()), number << _INSIDE_BITS | at)

    def _words(self, view: memoryview) -> memoryview:
        return view.cast("Q") if self._size == 8 else view.cast("I")

    def candidates(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Needles and the places where they may stand."""
        whole = len(text) - len(text) % self._size
        words = self._words(memoryview(text)[:whole])
        absent = self.places.keys().isdisjoint
        per_block = _BLOCK_BYTES // self._size
        for first in range(0, len(words), per_block):
            block = words[first : first + per_block]
            if absent(block):
                continue
            for at, word in enumerate(block, first):
                for place in self.places.get(word, ()):
                    yield place >> _INSIDE_BITS, at * self._size - (place & _INSIDE_MASK)


def _rarity(piece: bytes) -> int:
    """How unlike everyday text a piece of a needle is: distinct bytes, digits and capitals."""
    unusual = sum(48 <= each <= 57 or 65 <= each <= 90 for each in piece)
    return 2 * len(set(piece)) + unusual
