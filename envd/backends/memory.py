"""The `memory` backend: a store in this process, for tests and demonstrations.

It can behave as stores of every kind do: `capabilities`, `limits` and `manners` are arguments.

CAS             the look and the write are one step; else another writer may come in between
POSTCHECK       ... and is told afterwards
STAMP_ATOMIC    the stamp is that of the value; an edit by others leaves none
STAMP_SIDE      the stamp is written by a call of its own; an edit by others leaves the old one
SOFT_DELETE     a deleted name stays taken, and is brought back by the next put
ATOMIC_BATCH    a batch in which one operation can't be done changes nothing; needs CAS
others          as the contract says

What is not a matter of capability is one of `Manners`.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from envd.backends.contract import (
    Capability,
    Cost,
    Health,
    Hint,
    Item,
    Key,
    Limits,
    Load,
    Op,
    Options,
    Outcome,
    Page,
    PriceSheet,
    Registration,
    Reject,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidName,
    ItemNotFound,
    NameCollision,
    NotOwned,
    QuotaExceeded,
    SoftDeleted,
    StoreUnsupported,
)
from envd.backends.memory_store import Call, Fault, MemoryPlaces, MemoryStore, Stored
from envd.backends.naming import Naming, shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    rejected,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)

PLACES: Final = "places"
"""The setting that holds the MemoryPlaces to open a store of, instead of the registration's."""

CAPABILITIES: Final = (
    Capability.CAS | Capability.STAMP_ATOMIC | Capability.LIST_VALUES | Capability.WATCH
)
LIMITS: Final = Limits(
    max_value_bytes=1 << 20, max_name_bytes=1024, page_items=100, batch=100, get_batch=100
)
PRICES: Final = PriceSheet("memory", "memory", "2025-01-01")


@dataclass(frozen=True, slots=True)
class Manners:
    """How a store behaves besides what its capabilities say.

    `name_pattern` is what a name must match whole, "" for anything. With `folds_case` two names
    that differ in case only are one. `knows_owner`: it keeps a tag on what envd created.
    `knows_secret`, `knows_time`: it tells which items are secret, and when they changed.
    `looks_first`, for a store without CAS: the version is compared before a write, which finds all
    but what happens in between; else it overwrites unseen. `empty_pages`: before each page of a
    scan comes one without items.
    """

    name_pattern: str = ""
    folds_case: bool = False
    knows_owner: bool = True
    knows_secret: bool = True
    knows_time: bool = True
    looks_first: bool = True
    empty_pages: bool = False


class MemoryBackend:
    """One store of this process, seen through the contract."""

    def __init__(
        self,
        options: Options,
        *,
        store: MemoryStore | None = None,
        capabilities: Capability = CAPABILITIES,
        limits: Limits = LIMITS,
        prices: PriceSheet = PRICES,
        manners: Manners | None = None,
    ) -> None:
        """Raise StoreUnsupported or InvalidName for options that can't be; see `Registration`."""
        document = options.layout == "document"
        if Capability.WHOLE_DOCUMENT in capabilities and not document:
            raise StoreUnsupported(
                "an item of this store is a whole environment", hint="use --layout document"
            )
        if Capability.ATOMIC_BATCH in capabilities and Capability.CAS not in capabilities:
            raise StoreUnsupported("a batch is atomic only where single operations are: CAS")
        self.store = store if store is not None else MemoryStore(options.place)
        self._options = options
        self._capabilities = capabilities
        self._limits = limits
        self._prices = prices
        self._manners = manners or Manners()
        self._naming = Naming(options.name_template, layout=options.layout, below=options.below)
        self._name_pattern = re.compile(self._manners.name_pattern or ".*", re.DOTALL)

    @property
    def capabilities(self) -> Capability:
        return self._capabilities

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def prices(self) -> PriceSheet:
        return self._prices

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """There is nothing to close: the store stays for who else has it open."""

    async def probe(self) -> Health:
        self.store.calls.probes += 1
        fault = self.store.take_fault("probe")
        if fault is not None:
            return Health(False, detail=fault.error.message, hint=fault.error.hint)
        return Health(True, identity="this process")

    def encode(self, key: Key) -> str:
        native = self._naming.encode(key)
        if not self._name_pattern.fullmatch(native):
            raise InvalidName(f"{shown(key)} has a name that this store does not take")
        size = len(native.encode())
        if self._limits.max_name_bytes and size > self._limits.max_name_bytes:
            raise InvalidName(
                f"the name of {shown(key)} has {size} bytes; this store takes at most "
                f"{self._limits.max_name_bytes}"
            )
        return native

    def decode(self, native: str) -> Key | None:
        key = self._naming.decode(native)
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        rejects: list[Reject] = []
        names: dict[str, Key] = {}
        for op in ops:
            problem = self._problem(op, names)
            if problem is not None:
                rejects.append(Reject(op, problem))
        return rejects

    def _problem(self, op: Op, names: dict[str, Key]) -> BackendError | None:
        """Why an operation can't be; `names` has those of the operations before it."""
        try:
            native = self.encode(op.key)
        except InvalidName as error:
            return error
        other = names.setdefault(self._folded(native), op.key)
        if other != op.key:
            return NameCollision(f"{shown(op.key)} and {shown(other)} have one name in this store")
        return value_problem(op, self._limits)

    def _folded(self, native: str) -> str:
        return native.casefold() if self._manners.folds_case else native

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """A scan after a cursor did not see everything: its last page is not complete."""
        after = cursor or ""
        while True:
            if self._manners.empty_pages:
                self._called("page")
                yield Page((), cursor=after)
            self._called("page")
            await asyncio.sleep(0)
            names = [name for name in self.store.names() if name > after]
            size = self._limits.page_items or len(names)
            items = [self._item(name) for name in names[:size]]
            shown_items = [each for each in items if each is not None and scope.holds(each.key)]
            if len(names) <= size:
                yield Page(shown_items, complete=not cursor)
                return
            after = names[size - 1]
            yield Page(shown_items, cursor=after)

    def _called(self, call: Call) -> None:
        """Count a read; raise the error that it meets."""
        if call == "page":
            self.store.calls.pages += 1
        else:
            self.store.calls.gets += 1
        fault = self.store.take_fault(call)
        if fault is not None:
            raise fault.error

    def _item(self, native: str) -> Item | None:
        """The item as a scan tells it; None for names that are not of this place's making."""
        key, stored = self.decode(native), self.store.look(native)
        if key is None or stored is None:
            return None
        item = self._seen(key, stored)
        return item if Capability.LIST_VALUES in self._capabilities else replace(item, value=None)

    def _seen(self, key: Key, stored: Stored) -> Item:
        """A version as this kind of store shows it."""
        stamp = ""
        if Capability.STAMP_ATOMIC in self._capabilities:
            stamp = stored.stamp
        elif Capability.STAMP_SIDE in self._capabilities:
            stamp = stored.side_stamp
        hides = Capability.WRITE_ONLY in self._capabilities
        return Item(
            key,
            stored.native,
            stored.version,
            value=None if hides else stored.value,
            secret=stored.secret if self._manners.knows_secret else None,
            managed=stored.managed if self._manners.knows_owner else None,
            stamp=stamp,
            changed_ms=stored.changed_ms if self._manners.knows_time else None,
            deleted=stored.deleted,
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), self._limits.get_batch, what="keys")
        self._called("get")
        await asyncio.sleep(0)
        return {key: self._one(key) for key in keys}

    def _one(self, key: Key) -> Item | BackendError:
        try:
            stored = self.store.look(self.encode(key))
        except InvalidName as error:
            return error
        if stored is None:
            return ItemNotFound(f"there is no {shown(key)} here")
        if stored.deleted:
            return SoftDeleted(f"{shown(key)} is deleted, and its name is still taken")
        return self._seen(key, stored)

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        try:
            check_batch(len(ops), self._limits.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        refused = rejected(list(ops), self.check(ops))
        if Capability.ATOMIC_BATCH in self._capabilities:
            await asyncio.sleep(0)
            return self._all_or_none(ops, refused, idempotency)
        outcomes: list[Outcome] = []
        for at, op in enumerate(ops):
            outcomes.append(refused[at] if at in refused else await self._do(op, idempotency))
        return outcomes

    def _all_or_none(
        self, ops: Sequence[Op], refused: dict[int, Outcome], attempt: str
    ) -> list[Outcome]:
        fault = self._fault_of_batch(ops)
        if fault is not None and not fault.done:
            return [unsuccessful(op, fault.error) for op in ops]
        for at, op in enumerate(ops):
            if at not in refused:  # What others write is not undone with the batch.
                self.store.let_others_write(self.encode(op.key))
        before = self.store.freeze()
        outcomes = [
            refused[at] if at in refused else self._look_and_write(op, attempt)
            for at, op in enumerate(ops)
        ]
        bad = [each for each in outcomes if each.result not in (Result.APPLIED, Result.NOOP)]
        if fault is not None and not bad:
            return [unsuccessful(op, fault.error) for op in ops]
        if not bad:
            return outcomes
        self.store.thaw(before)
        error = BackendError(
            f"nothing of the batch was done, because of {shown(bad[0].op.key)}",
            reason="BATCH_NOT_DONE",
        )
        return [
            each if each in bad else Outcome(each.op, Result.FAILED, error=error)
            for each in outcomes
        ]

    def _fault_of_batch(self, ops: Sequence[Op]) -> Fault | None:
        """A fault of any of the operations is one of them all."""
        for op in ops:
            fault = self.store.take_fault("put" if op.verb is Verb.PUT else "delete")
            if fault is not None:
                return fault
        return None

    async def _do(self, op: Op, attempt: str) -> Outcome:
        """One operation; without CAS others have their turn between the look and the write."""
        if Capability.CAS in self._capabilities:
            await asyncio.sleep(0)
            return self._look_and_write(op, attempt)
        native = self.encode(op.key)
        seen = self.store.look(native)
        done = self._repeated(op, attempt) or self._without_writing(op, seen)
        if done is not None:
            return done
        await asyncio.sleep(0)
        self.store.let_others_write(native)
        return self._write(op, native, attempt)

    def _look_and_write(self, op: Op, attempt: str) -> Outcome:
        native = self.encode(op.key)
        self.store.let_others_write(native)
        done = self._repeated(op, attempt) or self._without_writing(op, self.store.look(native))
        return done if done is not None else self._write(op, native, attempt)

    def _repeated(self, op: Op, attempt: str) -> Outcome | None:
        version = self.store.recall(attempt, op)
        return None if version is None else Outcome(op, Result.APPLIED, version)

    def _without_writing(self, op: Op, seen: Stored | None) -> Outcome | None:
        """What is known of an operation before the store is asked to write."""
        free = seen is None or seen.deleted
        version = seen.version if seen is not None else ""
        if self._is_so(op, seen):
            return Outcome(op, Result.NOOP, version)
        if not self._expected(op, seen) and (
            Capability.CAS in self._capabilities or self._manners.looks_first
        ):
            self._count(op)
            return stale(op, version)
        owned = free or op.any_owner or not self._manners.knows_owner
        if not owned and seen is not None and not seen.managed:
            return unsuccessful(
                op, NotOwned(f"{shown(op.key)} was not created by envd"), version=version
            )
        return self._no_room(op) if free else None

    def _is_so(self, op: Op, seen: Stored | None) -> bool:
        if seen is None or seen.deleted:
            return op.verb is Verb.DELETE
        if op.verb is Verb.DELETE or Capability.WRITE_ONLY in self._capabilities:
            return False
        as_secret = seen.secret in (None, op.secret) or not self._manners.knows_secret
        return seen.value == op.value and as_secret

    def _expected(self, op: Op, seen: Stored | None) -> bool:
        """Whether an item is at the expected version; the name of a softly deleted one is free."""
        if seen is None:
            return op.expect == ""
        return op.expect == seen.version or (seen.deleted and op.expect == "")

    def _no_room(self, op: Op) -> Outcome | None:
        native = self.encode(op.key)
        names = self.store.names()
        if any(each != native and self._folded(each) == self._folded(native) for each in names):
            return unsuccessful(
                op, NameCollision(f"{shown(op.key)} has the name of another item in this store")
            )
        if self._limits.max_items and native not in names and len(names) >= self._limits.max_items:
            return unsuccessful(
                op, QuotaExceeded(f"the store is full: it takes {self._limits.max_items} items")
            )
        return None

    def _write(self, op: Op, native: str, attempt: str) -> Outcome:
        self._count(op)
        fault = self.store.take_fault("put" if op.verb is Verb.PUT else "delete")
        if fault is not None and not fault.done:
            return unsuccessful(op, fault.error)
        before = self.store.look(native)
        version = self._put(op, native) if op.verb is Verb.PUT else self._delete(native)
        self.store.remember(attempt, op, version)
        if fault is not None:
            return unsuccessful(op, fault.error)
        outcome = Outcome(op, Result.APPLIED, version)
        if Capability.POSTCHECK not in self._capabilities or self._expected(op, before):
            return outcome
        between = self._seen(op.key, before) if before is not None else None
        return replace(outcome, overtaken=True, between=between)

    def _count(self, op: Op) -> None:
        if op.verb is Verb.PUT:
            self.store.calls.puts += 1
        else:
            self.store.calls.deletes += 1

    def _put(self, op: Op, native: str) -> str:
        before = self.store.look(native)
        if before is not None and before.deleted:
            self.store.calls.recoveries += 1
        aside = Capability.STAMP_SIDE in self._capabilities
        if aside:
            self.store.calls.stamps += 1
        return self.store.write(
            Stored(
                native,
                "",
                op.value,
                secret=op.secret,
                managed=True,
                stamp=op.stamp,
                side_stamp=op.stamp if aside else "",
                changed_ms=self._options.wall_ms(),
                by_envd=True,
            )
        )

    def _delete(self, native: str) -> str:
        if self.store.look(native) is None:
            return ""
        if Capability.SOFT_DELETE in self._capabilities:
            return self.store.bury(native)
        self.store.purge(native)
        return ""

    # Watching, and what it costs.

    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        """Hints of changes after `cursor`, or from now on; of any where those are not kept."""
        if Capability.WATCH not in self._capabilities:
            raise StoreUnsupported("this store tells of no changes")
        at = int(cursor) if cursor and cursor.isdecimal() else self.store.latest
        while True:
            changes = self.store.since(at)
            if changes is None:
                at = self.store.latest
                yield Hint(cursor=str(at))
                continue
            for change in changes:
                at = change.number
                key = self.decode(change.native)
                told = not change.gone or Capability.WATCH_NO_DELETES not in self._capabilities
                if told and key is not None and scope.holds(key):
                    yield Hint(key, cursor=str(at))
            await self.store.wait_beyond(at)

    def cost(self, load: Load) -> Cost:
        reads = scan_calls(load, self._limits.page_items) + self._gets(load.read)
        each = 2 if Capability.STAMP_SIDE in self._capabilities else 1
        return priced(self._prices, items=load.items, reads=reads, writes=load.changed * each)

    def _gets(self, items: int) -> int:
        """Calls that read so many items by name."""
        return math.ceil(items / (self._limits.get_batch or max(1, items)))


def registration() -> Registration:
    """A registration with stores of its own, shared by all that is opened by it."""
    places = MemoryPlaces()

    def make(options: Options) -> MemoryBackend:
        given = options.settings.get(PLACES, places)
        if not isinstance(given, MemoryPlaces):
            raise StoreUnsupported(f"the setting {PLACES!r} of memory is for programs only")
        return MemoryBackend(options, store=given.store(options.place))

    return Registration(
        "memory",
        "a store in this process, for tests and demonstrations: it ends with the process",
        make,
        "NAME",
        capabilities=CAPABILITIES,
    )
