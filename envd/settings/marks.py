"""What a settings field says of itself besides its type and default.

The model carries these in `Annotated[...]`, right at the field, so that a key's range, its
words in an error, its secrecy and whether it does anything yet are stated once and are read
by everyone who needs them: the loader, the help texts, `envd config check`, the tests.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from envd.settings.units import Address, Duration


class Mark(enum.Enum):
    INERT = enum.auto()
    """Accepted and checked, but without effect in this version."""
    SECRET = enum.auto()
    """Shown masked."""
    NOT_A_KEY = enum.auto()
    """Part of the model, but not of the file."""


INERT = Mark.INERT
SECRET = Mark.SECRET
NOT_A_KEY = Mark.NOT_A_KEY


@dataclass(frozen=True, slots=True)
class Expects:
    """Say in words what a string must be; `check` raises ValueError for any other."""

    words: str
    check: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class Within:
    """The shortest and the longest duration allowed."""

    low: Duration
    high: Duration


@dataclass(frozen=True, slots=True)
class Derived:
    """A default that depends on other settings, or (without `of`) on the machine.

    `of(data_dir, listen)` computes it; `words` say it in a help text.
    """

    words: str
    of: Callable[[Path, Address], object] | None = None
