"""What lies under the keys of a plain key-value store: values, and beside each what envd notes.

Such a store keeps bytes under keys and nothing with them, so the note is a key of its own: that of
the value with MARK behind it. Both are written in one transaction. The store numbers its
transactions, and tells of each key when it was made and when it was changed last, so three things
can be told without any doubt:

* a note that was changed with its value, or after it, is of this value: its stamp is the value's.
  It is later where a store took the write of an equal value for none;
* where the value was changed later, somebody else edited what envd created;
* where the value was made later, somebody deleted it and made another, which is theirs.

MARK begins with a character that no variable has, and that stands before all those that may go on
with a name: so a value and its note are neighbours in the order of keys.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from envd.backends.contract import Op
from envd.backends.documents import document, document_problem
from envd.backends.errors import BackendError

MARK: Final = "!envd"


def mark_of(path: str) -> str:
    """The key of the note of a value. Example: "envd/web/NAME!envd"."""
    return path + MARK


@dataclass(frozen=True, slots=True)
class Raw:
    """A key as the store has it. `made` and `changed` are the store's numbers of transactions.
    `flags` is what others keep with it, where a store has such."""

    path: str
    made: int
    changed: int
    value: bytes = field(default=b"", repr=False)
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A value and its note, as they were at one time; None for what is not there."""

    path: str
    value: Raw | None = None
    mark: Raw | None = None

    @property
    def version(self) -> str:
        """The number of the transaction that wrote the value, "" where there is none."""
        return str(self.value.changed) if self.value is not None else ""

    @property
    def changed(self) -> int:
        return self.value.changed if self.value is not None else 0

    @property
    def is_ours(self) -> bool:
        """Whether envd created the value."""
        return self._noted(lasting=True) is not None

    @property
    def stamp(self) -> str:
        """The stamp of this very value, "" without one."""
        stamp = (self._noted() or {}).get("stamp")
        return stamp if isinstance(stamp, str) else ""

    @property
    def secret(self) -> bool | None:
        """Whether the value is secret, None where that is not noted. It outlasts an edit."""
        found = (self._noted(lasting=True) or {}).get("secret")
        return found if isinstance(found, bool) else None

    def _noted(self, *, lasting: bool = False) -> dict[str, Any] | None:
        """What is noted of this value, or with `lasting` of an earlier one under this key."""
        value, mark = self.value, self.mark
        if value is None or mark is None:
            return None
        if value.made > mark.changed or (value.changed > mark.changed and not lasting):
            return None
        try:
            found = json.loads(mark.value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def note(op: Op, over: Kept, *, document: bool) -> bytes:
    """What to write beside the value of a put.

    It names what it is written over, so that no two notes of a key are equal: a store may take a
    write of what is there already for none.
    """
    noted: dict[str, object] = {"stamp": op.stamp, "over": over.changed}
    if not document:
        noted["secret"] = op.secret
    return json.dumps(noted, separators=(",", ":")).encode()


class Pairing:
    """Joins values with their notes, which come in the order of their keys, page by page."""

    def __init__(self) -> None:
        self._waiting: dict[str, Raw] = {}

    def take(self, raws: Sequence[Raw]) -> list[Kept]:
        """The values whose notes have come, or can't come any more."""
        whole: list[Kept] = []
        for raw in raws:
            whole += self._overdue(raw.path)
            value = self._waiting.pop(raw.path.removesuffix(MARK), None)
            if value is not None and raw.path.endswith(MARK):
                whole.append(Kept(value.path, value, raw))
            elif not raw.path.endswith(MARK):
                self._waiting[raw.path] = raw
        return whole

    def _overdue(self, path: str) -> list[Kept]:
        late = [each for each in self._waiting if mark_of(each) < path]
        return [Kept(each, self._waiting.pop(each)) for each in late]

    def rest(self) -> list[Kept]:
        """Those that still waited at the end."""
        left = [Kept(path, raw) for path, raw in self._waiting.items()]
        self._waiting.clear()
        return left


class Shape(Protocol):
    """How the value of an item lies under its key."""

    def text(self, kept: Kept) -> str | None:
        """The value; None where what is there can't be one."""
        ...

    def problem(self, op: Op) -> BackendError | None:
        """Why a put can't be, as far as it can be told without a call."""
        ...

    def is_same(self, op: Op, text: str) -> bool:
        """Whether a put says what is there."""
        ...


class VariableShape:
    """One variable: its text, in UTF-8."""

    def text(self, kept: Kept) -> str | None:
        if kept.value is None:
            return None
        try:
            return kept.value.value.decode()
        except UnicodeDecodeError:
            return None

    def problem(self, op: Op) -> BackendError | None:
        del op
        return None

    def is_same(self, op: Op, text: str) -> bool:
        return op.value == text


class DocumentShape:
    """All variables of an environment: a JSON object of text, and nothing else."""

    def text(self, kept: Kept) -> str | None:
        text = VariableShape().text(kept)
        return text if text is not None and document(text) is not None else None

    def problem(self, op: Op) -> BackendError | None:
        return document_problem(op)

    def is_same(self, op: Op, text: str) -> bool:
        return document(op.value) == document(text)
