"""The place that a `memory` backend writes to, and the other hands that write there.

A `MemoryStore` has what a store on the far side of a network has: items with versions, their
history, stamps, softly deleted names. What somebody else does there is done with `edit`, `remove`
and `purge`, or with `meanwhile` in the very moment between the look and the write of a backend.
`fail` has the next call go wrong. `calls` counts what a backend asked, by kind.

Nothing of it is kept: a store ends with its process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from envd.backends.errors import BackendError

MAX_HISTORY: Final = 100
"""Versions kept of one item (Secrets Manager keeps about as many)."""
MAX_CHANGES: Final = 1024
"""Changes that a watch can be resumed over; who comes later is told that anything changed."""
MAX_ATTEMPTS: Final = 1024
"""Attempts remembered, so that a repeat is answered as the first."""

Call = Literal["probe", "page", "get", "put", "delete"]


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an item. `side_stamp` is a stamp that was written beside the value."""

    native: str
    version: str
    value: str | None = field(repr=False)
    secret: bool | None = None
    managed: bool = False
    stamp: str = ""
    side_stamp: str = ""
    changed_ms: int | None = None
    by_envd: bool = False

    @property
    def deleted(self) -> bool:
        return self.value is None


@dataclass(slots=True)
class Calls:
    """How often a backend asked. `stamps` counts stamps written by a call of their own.

    A put or delete that the store refused counts, for it was asked; one that the backend found
    needless does not.
    """

    probes: int = 0
    pages: int = 0
    gets: int = 0
    puts: int = 0
    deletes: int = 0
    stamps: int = 0
    recoveries: int = 0

    @property
    def reads(self) -> int:
        return self.pages + self.gets

    @property
    def writes(self) -> int:
        return self.puts + self.deletes + self.stamps + self.recoveries


@dataclass(frozen=True, slots=True)
class Fault:
    """The next call of a kind ends with this error; `done`: after it did what it was asked."""

    call: Call
    error: BackendError
    done: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """One change, as a watch tells it; `number` grows by one."""

    number: int
    native: str
    gone: bool


class Frozen(NamedTuple):
    """The items of a moment, and the attempts that made them."""

    items: dict[str, Stored]
    attempts: dict[tuple[str, object], str]


class MemoryStore:
    """Items of one place by their native names."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls = Calls()
        self._items: dict[str, Stored] = {}
        self._history: dict[str, deque[Stored]] = {}
        self._versions = 0
        self._changes: deque[Changed] = deque(maxlen=MAX_CHANGES)
        self._changed = asyncio.Event()
        self._faults: list[Fault] = []
        self._meanwhile: dict[str, deque[str | None]] = {}
        self._attempts: dict[tuple[str, object], str] = {}

    # What somebody else does.

    def edit(
        self, native: str, value: str, *, secret: bool | None = None, at_ms: int | None = None
    ) -> str:
        """Write as somebody else would: tags stay as they are. Return the new version."""
        before = self._items.get(native)
        return self.write(
            Stored(
                native,
                "",
                value,
                secret=before.secret if before is not None and secret is None else secret,
                managed=before is not None and before.managed,
                side_stamp=before.side_stamp if before is not None else "",
                changed_ms=at_ms,
            )
        )

    def remove(self, native: str, *, softly: bool = False) -> None:
        """Delete as somebody else would, `softly` so that the name stays taken; KeyError if absent.

        What is deleted softly already is removed for good.
        """
        if native not in self._items:
            raise KeyError(native)
        if softly and not self._items[native].deleted:
            self.bury(native)
        else:
            self.purge(native)

    def meanwhile(self, native: str, value: str | None) -> None:
        """Edit this item (None: remove it) right before the next write of it by a backend."""
        self._meanwhile.setdefault(native, deque()).append(value)

    def fail(self, call: Call, error: BackendError, *, done: bool = False, times: int = 1) -> None:
        """Have the next calls of this kind end with an error.

        With `done` they do what they were asked first, as when only the answer is lost.
        """
        self._faults += [Fault(call, error, done)] * times

    def heal(self) -> None:
        """Have no more calls end with an error, nor edits happen meanwhile."""
        self._faults.clear()
        self._meanwhile.clear()

    # What there is.

    def look(self, native: str) -> Stored | None:
        """The item of this name as it is now, softly deleted ones too; None without."""
        return self._items.get(native)

    def values(self) -> Mapping[str, str]:
        """All values by native name, in order of name."""
        return {
            native: self._items[native].value or ""
            for native in self.names()
            if not self._items[native].deleted
        }

    def names(self) -> list[str]:
        """All names that are taken, in order."""
        return sorted(self._items)

    def history(self, native: str) -> tuple[Stored, ...]:
        """The versions of an item, oldest first, at most MAX_HISTORY."""
        return tuple(self._history.get(native, ()))

    # What a backend asks.

    def write(self, item: Stored) -> str:
        """Put an item under a new version, which is returned."""
        self._versions += 1
        made = replace(item, version=str(self._versions))
        self._items[made.native] = made
        self._history.setdefault(made.native, deque(maxlen=MAX_HISTORY)).append(made)
        self._note(made.native, gone=made.deleted)
        return made.version

    def bury(self, native: str) -> str:
        """Delete softly: the name stays taken. Return the new version."""
        before = self._items[native]
        return self.write(
            Stored(native, "", None, managed=before.managed, changed_ms=before.changed_ms)
        )

    def purge(self, native: str) -> None:
        """Delete for good; the history stays."""
        del self._items[native]
        self._note(native, gone=True)

    def let_others_write(self, native: str) -> None:
        """Do the next edit that `meanwhile` was told of."""
        waiting = self._meanwhile.get(native)
        if not waiting:
            return
        value = waiting.popleft()
        if value is not None:
            self.edit(native, value)
        elif native in self._items:
            self.purge(native)

    def take_fault(self, call: Call) -> Fault | None:
        """The fault that this call meets, once."""
        for at, fault in enumerate(self._faults):
            if fault.call == call:
                return self._faults.pop(at)
        return None

    def remember(self, attempt: str, op: object, version: str) -> None:
        """Note what came of an attempt; the oldest is forgotten at MAX_ATTEMPTS."""
        if len(self._attempts) >= MAX_ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[attempt, op] = version

    def recall(self, attempt: str, op: object) -> str | None:
        """The version that this very attempt made before, None if it did not."""
        return self._attempts.get((attempt, op))

    def freeze(self) -> Frozen:
        """All items as they are, for `thaw`."""
        return Frozen(dict(self._items), dict(self._attempts))

    def thaw(self, frozen: Frozen) -> None:
        """Undo all that was written since `freeze`, with no await in between.

        Versions go on where they were: none is given twice.
        """
        self._items = dict(frozen.items)
        self._attempts = dict(frozen.attempts)

    # Watching.

    @property
    def latest(self) -> int:
        """The number of the latest change."""
        return self._changes[-1].number if self._changes else 0

    def since(self, number: int) -> list[Changed] | None:
        """The changes after this one; None where they are not all kept any more."""
        oldest = self._changes[0].number if self._changes else 1
        if number > self.latest or number + 1 < oldest:
            return None
        return [each for each in self._changes if each.number > number]

    async def wait_beyond(self, number: int) -> None:
        """Wait for a change after this one."""
        while self.latest <= number:
            await self._changed.wait()

    def _note(self, native: str, *, gone: bool) -> None:
        self._changes.append(Changed(self.latest + 1, native, gone))
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryPlaces:
    """Stores by the names of their places: equal names are one store.

    The registration that a registry loads has one of its own, so what two registries open is apart.
    """

    def __init__(self) -> None:
        self._stores: dict[str, MemoryStore] = {}

    def store(self, place: str) -> MemoryStore:
        """The store of this name; it is made when it is first asked for."""
        return self._stores.setdefault(place, MemoryStore(place))
