"""A backend for plain key-value stores: everything that is the same for all of them.

An item is a key for each variable, PLACE/NAME, or one for each environment with all variables in
it. A binding of one environment with layout "document" has the key PLACE itself, unless a template
names it; with a prefix bound, that of the prefix itself is PLACE/_. What envd notes lies beside
(`marked_keys`).

A write is a read and a transaction that is done only where the value is still the one that was
read. The store is met through `Keys`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

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
    Reject,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnsupported,
)
from envd.backends.marked_keys import (
    MARK,
    DocumentShape,
    Kept,
    Pairing,
    Raw,
    Shape,
    VariableShape,
    note,
)
from envd.backends.naming import ROOT, Naming, shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    rejected,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)

CAPABILITIES: Final = (
    Capability.CAS | Capability.STAMP_ATOMIC | Capability.LIST_VALUES | Capability.WATCH
)
READS_PER_CHANGE: Final = 1
WRITES_PER_CHANGE: Final = 1


class Keys(Protocol):
    """A store of keys, each with the numbers of the transactions that made and changed it."""

    @property
    def identity(self) -> str:
        """Who the store takes us for, "" where it asks nobody."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def reach(self, prefix: str) -> None:
        """Make one cheap call that shows whether keys that begin so can be listed."""
        ...

    async def read(self, paths: Sequence[str]) -> dict[str, Kept]:
        """These, each with its note; one answer for each."""
        ...

    def pages(self, prefix: str) -> AsyncIterator[tuple[Sequence[Raw], bool]]:
        """All keys that begin so, in their order, as they were at one time; and whether that was
        the last of them. It ends only after the last, or raises."""
        ...

    async def swap(self, over: Kept, value: bytes | None, mark: bytes) -> Swapped:
        """Write a value and its note, or with None delete both, where the value still is `over`."""
        ...

    def changes(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        """Follow what happens to keys that begin so, after `cursor` or with "" from now on."""
        ...


class Swapped(NamedTuple):
    """Whether a write was done, and the number of the value now; 0 where that is not known, or
    there is none."""

    is_done: bool
    number: int = 0


class Change(NamedTuple):
    """A key that changed, None where nobody knows which; `cursor` resumes."""

    path: str | None
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a kind of store takes, and costs. `read_at_once` values are one call, 0: any number."""

    limits: Limits
    prices: PriceSheet
    read_at_once: int


class MarkedBackend:
    """One place in one key-value store."""

    def __init__(
        self,
        options: Options,
        keys: Keys,
        *,
        place: str,
        sheet: Sheet,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`place` is the path of the place in the store, `clock` a steady one (s).

        Raises InvalidName for a template that can't be.
        """
        self._keys = keys
        self._place = place
        self._sheet = sheet
        self._clock = clock
        self._naming = Naming(options.name_template, layout=options.layout, below=options.below)
        self._is_document = options.layout == "document"
        # With a template that names the one document it lies below the place, as all others do.
        self._is_one = (
            self._is_document and not options.below and self._naming.encode(Key("", "")) == ROOT
        )
        self._shape: Shape = DocumentShape() if self._is_document else VariableShape()

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return self._sheet.limits

    @property
    def prices(self) -> PriceSheet:
        return self._sheet.prices

    async def open(self) -> None:
        await self._keys.open()

    async def close(self) -> None:
        await self._keys.close()

    async def probe(self) -> Health:
        """See whether the keys of the place can be listed."""
        began_s = self._clock()
        try:
            await self._keys.reach(self._prefix)
        except BackendError as error:
            identity = self._keys.identity
            return Health(False, identity=identity, detail=error.message, hint=error.hint)
        return Health(True, (self._clock() - began_s) * 1000, self._keys.identity)

    # Names.

    @property
    def _prefix(self) -> str:
        """What the keys of the place begin with."""
        return self._place if self._is_one else f"{self._place}/"

    def encode(self, key: Key) -> str:
        """The key below the place; in a document without a prefix, ROOT for the place itself."""
        native = self._naming.encode(key)
        is_path = native.isprintable() and all(native.split("/"))
        size, most = len(native.encode()), self.limits.max_name_bytes
        if not is_path or native.endswith(MARK) or size > most:
            raise InvalidName(
                f"the name of {shown(key)} has an empty part, ends with {MARK}, which is envd's "
                f"own, or is longer than {most} bytes"
            )
        return native

    def decode(self, native: str) -> Key | None:
        key = self._naming.decode(native)
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def _path(self, native: str) -> str:
        return self._place if self._is_one and native == ROOT else f"{self._place}/{native}"

    def _native(self, path: str) -> str:
        if self._is_one:
            return ROOT if path == self._place else path
        return path.removeprefix(self._prefix)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        if op.verb is Verb.DELETE:
            return None
        return value_problem(op, self.limits) or self._shape.problem(op)

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """The keys of the place in their order, as they were at one time. There are no cursors."""
        if self._is_one:
            kept = (await self._keys.read([self._place]))[self._place]
            yield Page(self._items([kept], scope), complete=not cursor)
            return
        pairing = Pairing()
        async for raws, is_last in self._keys.pages(self._prefix):
            found = pairing.take(raws) + (pairing.rest() if is_last else [])
            items = self._items(found, scope)
            size = self.limits.page_items or max(1, len(items))
            for start in range(0, max(1, len(items)), size):
                at_end = is_last and start + size >= len(items)
                yield Page(items[start : start + size], complete=at_end and not cursor)

    def _items(self, found: Sequence[Kept], scope: Scope) -> list[Item]:
        items: list[Item] = []
        for kept in found:
            key = self.decode(self._native(kept.path))
            if key is not None and scope.holds(key) and kept.value is not None:
                items.append(self._item(key, kept))
        return items

    def _item(self, key: Key, kept: Kept) -> Item:
        return Item(
            key,
            self.encode(key),
            kept.version,
            value=self._shape.text(kept),
            secret=kept.secret,
            managed=kept.is_ours,
            stamp=kept.stamp,
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), self.limits.get_batch, what="keys")
        paths = {key: self._path(self.encode(key)) for key in keys}
        found = await self._keys.read(list(paths.values())) if paths else {}
        return {key: self._answer(key, found[path]) for key, path in paths.items()}

    def _answer(self, key: Key, kept: Kept) -> Item | BackendError:
        if kept.value is None:
            return ItemNotFound(f"there is no {shown(key)} here")
        if self._shape.text(kept) is None:
            return InvalidValue(f"what is under the key of {shown(key)} is {self._no_value}")
        return self._item(key, kept)

    @property
    def _no_value(self) -> str:
        return "no JSON object of text" if self._is_document else "not valid UTF-8"

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """Read all, then write one after the other. A repeat finds everything as it is to be.

        After an operation that met a store that does not answer, the others are not tried.
        """
        refused = rejected(list(ops), self.check(ops))
        good = {
            at: self._path(self.encode(op.key)) for at, op in enumerate(ops) if at not in refused
        }
        try:
            check_batch(len(ops), self.limits.batch, what="operations")
            found = await self._keys.read(list(dict.fromkeys(good.values()))) if good else {}
        except BackendError as error:
            return [refused.get(at) or unsuccessful(op, error) for at, op in enumerate(ops)]
        outcomes: list[Outcome] = []
        failed: BackendError | None = None
        for at, op in enumerate(ops):
            outcome = refused.get(at)
            if outcome is None and failed is not None:
                outcome = unsuccessful(op, failed)
            elif outcome is None:
                outcome = await self._do(op, found[good[at]])
                failed = outcome.error if outcome.result is Result.FAILED else None
            outcomes.append(outcome)
        return outcomes

    async def _do(self, op: Op, kept: Kept) -> Outcome:
        done = self._without_writing(op, kept)
        if done is not None:
            return done
        value = op.value.encode() if op.verb is Verb.PUT else None
        mark = note(op, kept, document=self._is_document)
        try:
            swapped = await self._keys.swap(kept, value, mark)
        except BackendError as error:
            return unsuccessful(op, error)
        version = str(swapped.number) if swapped.number else ""
        if swapped.is_done:
            return Outcome(op, Result.APPLIED, version)
        overtaken = StaleVersion(f"{shown(op.key)} was changed by somebody else")
        return unsuccessful(op, overtaken, version=version)

    def _without_writing(self, op: Op, kept: Kept) -> Outcome | None:
        """What is known of an operation once the key is read."""
        text = self._shape.text(kept)
        if op.verb is Verb.DELETE and kept.value is None:
            return Outcome(op, Result.NOOP)
        if op.verb is Verb.PUT and text is not None and self._is_so(op, kept, text):
            return Outcome(op, Result.NOOP, kept.version)
        if op.expect != kept.version:
            return stale(op, kept.version)
        if kept.value is None:
            return None
        if text is None:
            error = NotOwned(f"what is under the key of {shown(op.key)} is {self._no_value}")
            return unsuccessful(op, error, version=kept.version)
        if not kept.is_ours and not op.any_owner:
            error = NotOwned(f"{shown(op.key)} was not created by envd")
            return unsuccessful(op, error, version=kept.version)
        return None

    def _is_so(self, op: Op, kept: Kept, text: str) -> bool:
        return self._shape.is_same(op, text) and (
            self._is_document or kept.secret in (None, op.secret)
        )

    # Watching, and what it costs.

    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        """Hints of values that were written or deleted, after `cursor` or from now on."""
        async for change in self._keys.changes(self._prefix, cursor or ""):
            key = None if change.path is None else self.decode(self._native(change.path))
            if change.path is None or (key is not None and scope.holds(key)):
                yield Hint(key, change.cursor)

    def cost(self, load: Load) -> Cost:
        """A scan is a call for each page, a read by name one for as many as are read at once, and a
        change one to read and one to write."""
        size = self._sheet.read_at_once or max(1, load.read)
        scans = load.scans if self._is_one else scan_calls(load, self.limits.page_items)
        reads = scans + -(-load.read // size) + load.changed * READS_PER_CHANGE
        writes = load.changed * WRITES_PER_CHANGE
        return priced(self.prices, items=load.items, reads=reads, writes=writes)


def place_of(place: str, prefix: str) -> str:
    """The path of a place: below `prefix`, unless it begins with `/`. Without a slash at its end.

    Raises InvalidName where a part of it is empty or only dots, which proxies fold away.
    Example: "web" below "/envd/" is "/envd/web", and "/web" is "/web".
    """
    path = place if place.startswith("/") else f"{prefix.rstrip('/')}/{place}" if prefix else place
    path = path.rstrip("/")
    parts = path.removeprefix("/").split("/")
    if not path.isprintable() or any(each in ("", ".", "..") for each in parts):
        raise InvalidName("the place has a part that is empty, or only dots")
    if path.endswith(MARK):
        raise InvalidName(f"the place ends with {MARK}, which is envd's own")
    return path


def text_setting(
    settings: Mapping[str, object], name: str, default: str = "", *, section: str
) -> str:
    """A setting that is text; StoreUnsupported where it is something else."""
    found = settings.get(name, default)
    if not isinstance(found, str):
        raise StoreUnsupported(f"cloud.providers.{section}.{name} is no text")
    return found
