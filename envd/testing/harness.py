"""What the author of a backend tells the conformance kit, and does for it.

A `Harness` stands for one empty place of one store for the length of one case. The kit begins it
and ends it inside the event loop of that case, so it may have servers and sessions of its own.

What a store or a harness can't do it does not say in code but in two sets: `abilities` and
`faults`. For each one that is missing, and for each capability that the backend lacks, `why` tells
the reason in a few words; it is what the report shows of the cases that were skipped. A case that
is skipped without a reason fails.

`ScriptedHarness` is a beginning for most: faults come from `FaultyBackend`, and `why` has words for
what is missing by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto
from types import MappingProxyType
from typing import Final, Literal, Protocol

from envd.backends.contract import Backend, Capability, Options
from envd.testing.faulty import Fault, FaultyBackend, Kind

Layout = Literal["per-variable", "document"]


class Ability(Flag):
    """What can be done with this place, besides what the backend's capabilities say."""

    OTHERS = auto()
    """Write and delete in it as somebody else would."""
    MEANWHILE = auto()
    """... in the very moment before the store does the next write of the backend."""
    FOREIGN_NAMES = auto()
    """There are names in the store that a backend never makes: `foreign` has some."""
    BELOW = auto()
    """It holds several environments, below the one that is bound."""
    TEMPLATES = auto()
    """`Options.name_template` makes names."""
    OWNERSHIP = auto()
    """The store knows what envd created."""
    RESTART = auto()
    """A second backend, that shares no memory with the first, can be opened on it."""
    COUNTS = auto()
    """The calls to the store are counted, each one, by `calls`."""
    CURSORS = auto()
    """A scan can go on after a cursor."""


ALL_ABILITIES: Final = ~Ability(0)
NO_ABILITIES: Final = Ability(0)


class Need(Enum):
    """What a case may need besides single capabilities, abilities and faults; the value is what is
    so where it is not met."""

    READABLE = "it is WRITE_ONLY, so its values can't be read back"
    VERSIONED = "it has neither CAS nor POSTCHECK"
    STAMPS = "it has neither STAMP_ATOMIC nor STAMP_SIDE"
    MANY = "its place is one document"
    PAGES = "limits.page_items is 0: a scan is one page"
    BATCHES = "limits.batch is 1: each apply is one operation"
    DELETE_HINTS = "it is WATCH_NO_DELETES, or tells of no changes at all"
    VALUE_LIMIT = "limits.max_value_bytes is 0: the store states no limit"
    LEAST_VALUE = "limits.min_value_bytes is 0: the store takes empty values"
    NAME_LIMIT = "limits.max_name_bytes is 0: the store states no limit"


Needed = Capability | Ability | Kind | Need
"""Anything that a case may need."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that the store has had: those that only read, and those that may write."""

    reads: int
    writes: int


class Harness(Protocol):
    """One empty place for one case.

    `name` is what the report calls this backend; a store that is tested in several ways has several
    names. `place` goes into `Options.place`. `wire_faults` are those of `faults` that happen on the
    wire, below the backend's own translation; the others happen at the contract.
    """

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str: ...

    @property
    def layout(self) -> Layout: ...

    @property
    def abilities(self) -> Ability: ...

    @property
    def faults(self) -> frozenset[Kind]: ...

    @property
    def wire_faults(self) -> frozenset[Kind]: ...

    @property
    def why(self) -> Mapping[str, str]:
        """Why something is missing, by the name of the capability, ability or kind of fault."""
        ...

    @property
    def foreign(self) -> Sequence[str]:
        """Native names that the backend never makes (FOREIGN_NAMES)."""
        ...

    @property
    def hint_patience_s(self) -> float:
        """How long a hint is waited for at most, in seconds, before the change is made anew."""
        ...

    async def begin(self) -> None:
        """Make the place, empty."""
        ...

    async def end(self) -> None:
        """Take everything away; every backend has been closed."""
        ...

    async def make(self, options: Options) -> Backend:
        """A backend on the place, not opened yet.

        `options` has the place, the layout and the clock; what the store needs besides (settings,
        an endpoint, credentials) is added here. Raises what the backend's own `make` raises.
        """
        ...

    async def contents(self) -> Mapping[str, str | None]:
        """What the store has, behind the backend's back: values by native name, softly deleted
        items left out. None where a value can't be read."""
        ...

    async def others_put(self, native: str, value: str) -> None:
        """Create or edit an item as somebody else would (OTHERS): without envd's marks on a new
        one, and with those that were there left as the store leaves them."""
        ...

    async def others_delete(self, native: str) -> None:
        """Delete an item as somebody else would (OTHERS)."""
        ...

    async def others_put_meanwhile(self, native: str, value: str) -> None:
        """Do `others_put` right before the store does the backend's next write (MEANWHILE)."""
        ...

    async def inject(self, *faults: Fault) -> None:
        """Have these happen to the calls of all backends made here, counted from now on."""
        ...

    async def hung(self) -> None:
        """Wait until a call has met a fault of kind HANG."""
        ...

    async def release(self) -> None:
        """Let what hangs go on."""
        ...

    def calls(self) -> Calls:
        """The calls that the store has had (COUNTS)."""
        ...


USUAL_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CAS": "the store does not compare versions",
        "POSTCHECK": "nothing is overwritten unseen",
        "ATOMIC_BATCH": "each operation is done by itself",
        "STAMP_ATOMIC": "the store keeps no stamp with the value",
        "STAMP_SIDE": "the store keeps no stamp beside the value",
        "SOFT_DELETE": "what is deleted is gone at once",
        "WATCH": "the store tells of no changes",
        "WATCH_NO_DELETES": "deletions are told as other changes are",
        "LIST_VALUES": "a listing has names only",
        "WHOLE_DOCUMENT": "each variable is an item",
        "WRITE_ONLY": "values can be read back",
        "RESTARTS_TARGET": "a write restarts nothing",
    }
)
"""Why a capability is missing, where a harness says nothing better."""


class ScriptedHarness:
    """A beginning: faults come from `FaultyBackend`, everything else is what a subclass adds.

    A subclass has `name`, `backend` and `contents`, and what its abilities promise. It lists what
    is missing, and why, in `missing`.
    """

    name: str = ""
    place: str = "conformance"
    layout: Layout = "per-variable"
    abilities: Ability = NO_ABILITIES
    faults: frozenset[Kind] = frozenset(Kind)
    wire_faults: frozenset[Kind] = frozenset()
    foreign: Sequence[str] = ()
    hint_patience_s: float = 5.0
    missing: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        self._made: list[FaultyBackend] = []

    @property
    def why(self) -> Mapping[str, str]:
        return {**USUAL_REASONS, **self.missing}

    async def begin(self) -> None:
        """Make the place, empty."""

    async def end(self) -> None:
        """Take everything away."""

    def backend(self, options: Options) -> Backend:
        """The backend itself, not opened yet."""
        raise NotImplementedError(f"{type(self).__name__} has no backend")

    async def make(self, options: Options) -> Backend:
        faulty = FaultyBackend(self.backend(options))
        self._made.append(faulty)
        return faulty

    async def contents(self) -> Mapping[str, str | None]:
        raise NotImplementedError(f"{type(self).__name__} has no contents")

    async def others_put(self, native: str, value: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no others_put")

    async def others_delete(self, native: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no others_delete")

    async def others_put_meanwhile(self, native: str, value: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no others_put_meanwhile")

    async def inject(self, *faults: Fault) -> None:
        for each in self._made:
            each.add(*faults)

    async def hung(self) -> None:
        await self._made[0].hung()

    async def release(self) -> None:
        for each in self._made:
            each.release()

    def calls(self) -> Calls:
        """Those at the contract; a harness with COUNTS counts those to the store instead."""
        tallies = [each.tally for each in self._made]
        return Calls(sum(each.reads for each in tallies), sum(each.writes for each in tallies))
