"""A backend around another one that goes wrong as it is told: faults at the level of the contract.

A script says what goes wrong, and at which call: "the third page", "the first apply". Nothing is
drawn and nothing waits for a time, so what happens once happens again. All else passes through, and
every call is counted.

What a fault looks like is what the contract says of it: a read raises, an `apply` answers with
outcomes. So a reconciler can't tell this from a store that really did it, and a backend's own
translation of, say, a status 429 is not tried by it; `envd.testing.proxy` does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeVar

from envd.backends.contract import (
    Backend,
    Capability,
    Cost,
    Health,
    Hint,
    Item,
    Key,
    Limits,
    Load,
    Op,
    Outcome,
    Page,
    PriceSheet,
    Reject,
    Result,
    Scope,
)
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    StoreUnavailable,
    Throttled,
)

_T = TypeVar("_T")


class Call(Enum):
    """The calls of the contract that a fault can meet. Of a scan each page is one, of a watch
    each hint."""

    OPEN = "open"
    PROBE = "probe"
    SCAN = "scan"
    GET = "get"
    APPLY = "apply"
    WATCH = "watch"


class Kind(Enum):
    """What goes wrong."""

    THROTTLED = "throttled"
    AUTH_EXPIRED = "credentials expired"
    FORBIDDEN = "forbidden"
    UNAVAILABLE = "the store is ill"
    """An answer such as 503, and nothing was done."""
    RESET = "the connection was reset"
    """... before the store had the request."""
    LOST_REPLY = "the reply was lost"
    """... after the store did what was asked."""
    MALFORMED = "the answer makes no sense"
    """A write was done all the same."""
    STALE_READ = "a read of the past"
    """Reads answer as things were before the last `apply`."""
    EMPTY_PAGE = "an empty page, and more after it"
    ENDS_EARLY = "a scan that ends without being complete"
    """No backend may do that; a reconciler must survive one that does."""
    ITEM_FAILS = "one operation of several fails"
    HANG = "no answer until it is released"
    HINT_LOST = "a hint is lost"
    HINT_DOUBLED = "a hint comes twice"
    HINTS_SWAPPED = "two hints in the wrong order"


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a script.

    It meets calls of the sort `call` (None: every sort that the kind can happen to); `after` of
    them pass first, the next `times` are met (0: all). `position` counts operations from 1: with
    ITEM_FAILS the one that fails, by `error`; with HANG how many are done before it. With THROTTLED
    `retry_after_s` is what the store says, 0 for nothing.
    """

    kind: Kind
    call: Call | None = None
    after: int = 0
    times: int = 1
    position: int = 0
    retry_after_s: float = 0.0
    error: type[BackendError] = StoreUnavailable

    def __post_init__(self) -> None:
        if min(self.after, self.times, self.position) < 0 or self.retry_after_s < 0:
            raise ValueError("a fault counts from 0 up")
        if self.call is not None and self.call not in _CALLS[self.kind]:
            raise ValueError(f"{self.kind.name} can't happen to {self.call.name}")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many calls came: pages, get_many, apply and the operations in them, probes, hints."""

    pages: int = 0
    gets: int = 0
    applies: int = 0
    operations: int = 0
    probes: int = 0
    hints: int = 0
    opens: int = 0

    @property
    def reads(self) -> int:
        """Calls that read."""
        return self.pages + self.gets

    @property
    def writes(self) -> int:
        """Calls that write."""
        return self.applies


_READS: Final = frozenset({Call.SCAN, Call.GET})
_ANY: Final = frozenset(Call)
_CALLS: Final = {
    Kind.THROTTLED: _ANY,
    Kind.AUTH_EXPIRED: _ANY,
    Kind.FORBIDDEN: _ANY,
    Kind.UNAVAILABLE: _ANY,
    Kind.RESET: _ANY,
    Kind.LOST_REPLY: frozenset({Call.APPLY}),
    Kind.MALFORMED: _ANY,
    Kind.STALE_READ: _READS,
    Kind.EMPTY_PAGE: frozenset({Call.SCAN}),
    Kind.ENDS_EARLY: frozenset({Call.SCAN}),
    Kind.ITEM_FAILS: frozenset({Call.APPLY}),
    Kind.HANG: _ANY,
    Kind.HINT_LOST: frozenset({Call.WATCH}),
    Kind.HINT_DOUBLED: frozenset({Call.WATCH}),
    Kind.HINTS_SWAPPED: frozenset({Call.WATCH}),
}
_COUNTED: Final = {
    Call.OPEN: "opens",
    Call.PROBE: "probes",
    Call.SCAN: "pages",
    Call.GET: "gets",
    Call.APPLY: "applies",
    Call.WATCH: "hints",
}


@dataclass(slots=True)
class _Armed:
    """A fault, and how far its counting is."""

    fault: Fault
    calls: frozenset[Call]
    seen: int = 0
    met: int = 0

    @property
    def is_spent(self) -> bool:
        return 0 < self.fault.times <= self.met

    def meets(self, call: Call) -> bool:
        """Count this call; whether the fault happens to it."""
        if call not in self.calls or self.is_spent:
            return False
        self.seen += 1
        return self.seen > self.fault.after


@dataclass(slots=True)
class _Past:
    """What keys had before the last `apply`, for reads of the past."""

    items: dict[Key, Item | BackendError] = field(default_factory=dict)

    def of(self, key: Key, now: Item | BackendError) -> Item | BackendError:
        return self.items.get(key, now)

    def of_page(self, page: Page) -> Page:
        """A page without what was not there yet; what was deleted since does not come back."""
        old = (self.of(each.key, each) for each in page.items)
        return replace(page, items=[each for each in old if isinstance(each, Item)])


class FaultyBackend:
    """A Backend that passes everything on to `inner`, but for what its script says.

    Where two faults meet one call the one that was given first happens, and the other counts on.
    """

    def __init__(self, inner: Backend, script: Iterable[Fault] = ()) -> None:
        self._inner = inner
        self._armed: list[_Armed] = []
        self._past = _Past()
        self._hung = asyncio.Event()
        self._released = asyncio.Event()
        self._tally = Tally()
        self.add(*script)

    @property
    def capabilities(self) -> Capability:
        return self._inner.capabilities

    @property
    def limits(self) -> Limits:
        return self._inner.limits

    @property
    def prices(self) -> PriceSheet:
        return self._inner.prices

    @property
    def tally(self) -> Tally:
        """The calls until now, with those that a fault met."""
        return self._tally

    @property
    def unspent(self) -> tuple[Fault, ...]:
        """The faults that have not happened as often as they should; a test may want none."""
        return tuple(each.fault for each in self._armed if each.met < max(1, each.fault.times))

    def add(self, *faults: Fault) -> None:
        """Go on with these; they count calls from now on."""
        for fault in faults:
            calls = _CALLS[fault.kind] if fault.call is None else frozenset({fault.call})
            self._armed.append(_Armed(fault, calls))

    async def hung(self) -> None:
        """Wait until a call hangs."""
        await self._hung.wait()
        self._hung.clear()

    def release(self) -> None:
        """Let what hangs, and will, go on."""
        self._released.set()

    async def open(self) -> None:
        self._raise_if_due(await self._meet(Call.OPEN))
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def probe(self) -> Health:
        fault = await self._meet(Call.PROBE)
        if fault is not None and (error := _error(fault)) is not None:
            return Health(ok=False, detail=error.message)
        return await self._inner.probe()

    def encode(self, key: Key) -> str:
        return self._inner.encode(key)

    def decode(self, native: str) -> Key | None:
        return self._inner.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        return self._inner.check(ops)

    def cost(self, load: Load) -> Cost:
        return self._inner.cost(load)

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        at = cursor or ""
        async with _closing(self._inner.scan(scope, cursor)) as pages:
            while True:
                fault = await self._meet(Call.SCAN)
                self._raise_if_due(fault)
                kind = None if fault is None else fault.kind
                if kind is Kind.ENDS_EARLY:
                    return
                if kind is Kind.EMPTY_PAGE:
                    yield Page(items=(), cursor=at)
                    continue
                page = await anext(pages, None)
                if page is None:
                    return
                at = page.cursor
                yield self._past.of_page(page) if kind is Kind.STALE_READ else page
                if page.complete:
                    return

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        fault = await self._meet(Call.GET)
        self._raise_if_due(fault)
        found = await self._inner.get_many(keys)
        if fault is not None and fault.kind is Kind.STALE_READ:
            return {key: self._past.of(key, item) for key, item in found.items()}
        return found

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        self._tally = replace(self._tally, operations=self._tally.operations + len(ops))
        fault = self._due(Call.APPLY)
        if any(each.fault.kind is Kind.STALE_READ and not each.is_spent for each in self._armed):
            await self._remember([op.key for op in ops])
        if fault is None:
            return await self._inner.apply(ops, idempotency=idempotency)
        match fault.kind:
            case Kind.LOST_REPLY | Kind.MALFORMED:
                await self._inner.apply(ops, idempotency=idempotency)
                return [_unanswered(op, fault) for op in ops]
            case Kind.ITEM_FAILS:
                return await self._apply_but_one(ops, idempotency, fault)
            case Kind.HANG:
                return await self._apply_with_pause(ops, idempotency, fault.position)
            case _:
                return [_unanswered(op, fault) for op in ops]

    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        kept: Hint | None = None
        async with _closing(self._inner.watch(scope, cursor)) as hints:
            async for hint in hints:
                fault = await self._meet(Call.WATCH)
                self._raise_if_due(fault)
                kind = None if fault is None else fault.kind
                if kind is Kind.HINTS_SWAPPED and kept is None:
                    kept = hint
                elif kind is not Kind.HINT_LOST:
                    yield hint
                    if kind is Kind.HINT_DOUBLED:
                        yield hint
                    if kept is not None:
                        earlier, kept = kept, None
                        yield earlier

    async def _apply_but_one(
        self, ops: Sequence[Op], idempotency: str, fault: Fault
    ) -> list[Outcome]:
        """All but the operation that fails; where it is all or nothing, nothing."""
        failing = fault.position - 1
        if not 0 <= failing < len(ops):
            return await self._inner.apply(ops, idempotency=idempotency)
        if Capability.ATOMIC_BATCH in self.capabilities:
            return [_unanswered(op, fault) for op in ops]
        others = [op for place, op in enumerate(ops) if place != failing]
        outcomes = await self._inner.apply(others, idempotency=idempotency)
        return [*outcomes[:failing], _unanswered(ops[failing], fault), *outcomes[failing:]]

    async def _apply_with_pause(
        self, ops: Sequence[Op], idempotency: str, done_first: int
    ) -> list[Outcome]:
        """Some operations, a long silence, and the others; all of a batch that is atomic after."""
        first = 0 if Capability.ATOMIC_BATCH in self.capabilities else done_first
        outcomes = []
        if ops[:first]:
            outcomes += await self._inner.apply(ops[:first], idempotency=f"{idempotency}-first")
        await self._hang()
        if ops[first:]:
            outcomes += await self._inner.apply(ops[first:], idempotency=idempotency)
        return outcomes

    async def _remember(self, keys: Sequence[Key]) -> None:
        """Note what these keys have now, without counting it; what can't be read has no past."""
        size = self.limits.get_batch or max(1, len(keys))
        for start in range(0, len(keys), size):
            try:
                self._past.items.update(await self._inner.get_many(keys[start : start + size]))
            except BackendError:
                continue

    async def _meet(self, call: Call) -> Fault | None:
        """The fault of this call; one that hangs has been released, or never comes back."""
        fault = self._due(call)
        if fault is not None and fault.kind is Kind.HANG:
            await self._hang()
        return fault

    def _due(self, call: Call) -> Fault | None:
        """Count this call, and find what goes wrong with it."""
        counted = _COUNTED[call]
        self._tally = replace(self._tally, **{counted: getattr(self._tally, counted) + 1})
        meeting = [each for each in self._armed if each.meets(call)]
        if not meeting:
            return None
        meeting[0].met += 1
        return meeting[0].fault

    async def _hang(self) -> None:
        self._hung.set()
        await self._released.wait()

    @staticmethod
    def _raise_if_due(fault: Fault | None) -> None:
        error = None if fault is None else _error(fault)
        if error is not None:
            raise error


def _error(fault: Fault) -> BackendError | None:
    """What a fault makes of a call, None for one that is no error."""
    match fault.kind:
        case Kind.THROTTLED:
            return Throttled("there were too many calls", retry_after_s=fault.retry_after_s)
        case Kind.AUTH_EXPIRED:
            return AuthExpired("the credentials have expired")
        case Kind.FORBIDDEN:
            return Forbidden("the credentials do not allow it")
        case Kind.UNAVAILABLE | Kind.RESET | Kind.LOST_REPLY | Kind.MALFORMED:
            return StoreUnavailable(fault.kind.value)
        case Kind.ITEM_FAILS:
            return fault.error("this operation fails on purpose")
        case _:
            return None


def _unanswered(op: Op, fault: Fault) -> Outcome:
    """The outcome of an operation that a fault met."""
    error = _error(fault)
    refused = error is not None and error.is_refusal
    return Outcome(op, Result.REJECTED if refused else Result.FAILED, error=error)


@asynccontextmanager
async def _closing(each: AsyncIterator[_T]) -> AsyncIterator[AsyncIterator[_T]]:
    """Have a generator of the inner backend end together with the one around it."""
    try:
        yield each
    finally:
        if isinstance(each, AsyncGenerator):
            await each.aclose()
