"""All chance of a run, from one seed: one stream of numbers for each use, told apart by name.

A stream of its own for each use keeps a change in one part of the simulator from changing
what happens in all the others.
"""

from __future__ import annotations

from random import Random


class Chance:
    """Streams of numbers below one seed."""

    def __init__(self, seed: int | str) -> None:
        self._seed = str(seed)

    def stream(self, name: str) -> Random:
        """The stream of this name, from its beginning."""
        return Random(f"{self._seed}/{name}")  # a text is hashed by SHA-512, the same everywhere

    def below(self, name: str) -> Chance:
        """Streams under a prefix."""
        return Chance(f"{self._seed}/{name}")


class SimRng:
    """The Rng port: bytes of one stream."""

    def __init__(self, stream: Random) -> None:
        self._stream = stream

    def token_bytes(self, size: int) -> bytes:
        return self._stream.randbytes(size)
