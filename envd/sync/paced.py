"""A backend as the reconciler uses it: paced, tried again, counted, left alone while it is away.

Backends give every call its one chance. Here each call waits for its turn in the quotas of the
store, is tried again where that can help, tells the circuit what became of it, and is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
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
from envd.backends.errors import AuthExpired, BackendError, StoreUnavailable, Throttled
from envd.core.breaker import Circuit
from envd.sync.circuit import StoreCircuit
from envd.sync.pacing import Pace, Retries, Step
from envd.sync.ports import Clock
from envd.sync.routing import Wellness

AnswerT = TypeVar("AnswerT")
_OK = "ok"
CIRCUIT_OPEN: Final = "CIRCUIT_OPEN"


@dataclass(slots=True)
class Counts:
    """Calls to one place since `since_s` (steady seconds); `scan_reads` are those of listings."""

    since_s: float
    scan_reads: int = 0
    other_reads: int = 0
    writes: int = 0
    errors: int = 0
    throttled: int = 0
    last_error: str = ""

    @property
    def reads(self) -> int:
        return self.scan_reads + self.other_reads


@dataclass(slots=True)
class _Attempt:
    """How often one call failed so far, and whether the backend was opened anew for it."""

    failures: int = 0
    reopened: bool = False


class Paced:
    """One backend, with its pace, circuit and counts. It is a `Backend` itself."""

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        retries: Retries | None = None,
        *,
        called: Callable[[bool, int, str], None] = lambda _write, _calls, _code: None,
    ) -> None:
        """`called` is told of calls as they end: whether they wrote, how many, "ok" or a reason."""
        self._backend = backend
        self._clock = clock
        self._retries = retries or Retries()
        self._pace = Pace(backend.limits)
        self._called = called
        self._turns = asyncio.Semaphore(self._pace.concurrency)
        self._circuit = StoreCircuit()
        self.wellness = Wellness()
        self.counts = Counts(clock.monotonic_s())

    @property
    def capabilities(self) -> Capability:
        return self._backend.capabilities

    @property
    def limits(self) -> Limits:
        return self._backend.limits

    @property
    def prices(self) -> PriceSheet:
        return self._backend.prices

    @property
    def circuit(self) -> Circuit:
        """Whether calls go through now."""
        return self._circuit.state(self._clock.monotonic_s())

    def closed_for_s(self) -> float:
        """How long no call goes through from now on."""
        return self._circuit.wait_s(self._clock.monotonic_s())

    async def open(self) -> None:
        await self._backend.open()

    async def close(self) -> None:
        await self._backend.close()

    async def probe(self) -> Health:
        """One cheap call, whatever the circuit says; it teaches it."""
        began_s = self._clock.monotonic_s()
        health = await self._backend.probe()
        now_s = self._clock.monotonic_s()
        self.counts.other_reads += 1
        if health.ok:
            self._called(False, 1, _OK)
            self._heard(now_s, (now_s - began_s) * 1000)
        else:
            self._failed(now_s, StoreUnavailable(health.detail or "the probe failed"), write=False)
        return health

    def encode(self, key: Key) -> str:
        return self._backend.encode(key)

    def decode(self, native: str) -> Key | None:
        return self._backend.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        return self._backend.check(ops)

    def cost(self, load: Load) -> Cost:
        return self._backend.cost(load)

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """A scan; one that breaks off is made again from its beginning, and told only then."""

        async def whole() -> list[Page]:
            pages: list[Page] = []
            async for page in self._backend.scan(scope, cursor):
                pages.append(page)
                if not page.complete:
                    await self._turn(write=False, scans=True)
            return pages

        for page in await self._call(whole, scans=True):
            yield page

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        return await self._call(lambda: self._backend.get_many(keys))

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """As the backend does; what was not even begun, as it came too fast, is tried again.

        What may have been done is not: the next comparison tells.
        """
        outcomes: dict[int, Outcome] = {}
        waiting = list(range(len(ops)))
        attempt = _Attempt()
        while waiting:
            batch = [ops[at] for at in waiting]
            try:
                await self._allowed(write=True, items=[self._native(op) for op in batch])
            except BackendError as error:
                shut = error
                outcomes.update({at: Outcome(ops[at], Result.FAILED, error=shut) for at in waiting})
                break
            done = await self._written(batch, idempotency)
            outcomes.update(zip(waiting, done, strict=True))
            waiting = [at for at in waiting if _was_not_begun(outcomes[at])]
            problem = outcomes[waiting[0]].error if waiting else None
            try:
                if problem is None or not await self._is_worth_another(problem, attempt):
                    break
            except BackendError as error:  # It could not be opened anew.
                shut = error
                outcomes.update({at: Outcome(ops[at], Result.FAILED, error=shut) for at in waiting})
                break
        return [outcomes[at] for at in range(len(ops))]

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        return self._backend.watch(scope, cursor)

    # -- one call --------------------------------------------------------------------------

    async def _call(
        self, call: Callable[[], Awaitable[AnswerT]], *, scans: bool = False
    ) -> AnswerT:
        """Make a call that may be repeated, until it is answered or there is no use."""
        attempt = _Attempt()
        while True:
            await self._allowed(write=False, scans=scans)
            began_s = self._clock.monotonic_s()
            try:
                async with self._turns:
                    answer = await call()
            except BackendError as error:
                self._failed(self._clock.monotonic_s(), error, write=False)
                if not await self._is_worth_another(error, attempt):
                    raise
            else:
                now_s = self._clock.monotonic_s()
                self._called(False, 1, _OK)
                self._heard(now_s, (now_s - began_s) * 1000)
                self._pace.answered(now_s, write=False)
                return answer

    async def _is_worth_another(self, error: BackendError, attempt: _Attempt) -> bool:
        """Whether to try again after a failure; waits as long as it takes until then."""
        attempt.failures += 1
        retry = self._retries.after(
            error,
            failures=attempt.failures,
            draw=self._clock.random,
            reopened=attempt.reopened,
        )
        if retry.step is Step.GIVE_UP:
            return False
        if retry.step is Step.REOPEN:
            attempt.reopened = True
            await self._backend.close()
            await self._backend.open()
        await self._clock.sleep(retry.wait_s)
        return True

    async def _written(self, ops: Sequence[Op], idempotency: str) -> list[Outcome]:
        began_s = self._clock.monotonic_s()
        async with self._turns:
            outcomes = await self._backend.apply(ops, idempotency=idempotency)
        now_s = self._clock.monotonic_s()
        problems = [each.error for each in outcomes if each.error and not each.error.is_refusal]
        if problems:
            self._failed(now_s, problems[0], write=True)
        else:
            self._called(True, self._calls(len(ops)), _OK)
            self._heard(now_s, (now_s - began_s) * 1000)
            self._pace.answered(now_s, write=True)
        return outcomes

    async def _allowed(
        self, *, write: bool, scans: bool = False, items: Sequence[str] = ()
    ) -> None:
        """Wait for a turn; raises StoreUnavailable where the circuit lets nothing through."""
        if not self._circuit.begin(self._clock.monotonic_s()):
            raise StoreUnavailable(
                f"the store did not answer, and is left alone for {self.closed_for_s():.0f} s more",
                hint="see: envctl sync status",
                reason=CIRCUIT_OPEN,
            )
        await self._turn(write=write, scans=scans, items=items)

    async def _turn(self, *, write: bool, scans: bool = False, items: Sequence[str] = ()) -> None:
        while True:
            now_s = self._clock.monotonic_s()
            wait_s = self._pace.write(now_s, items) if write else self._pace.read(now_s)
            if not wait_s:
                break
            await self._clock.sleep(wait_s)
        if write:
            self.counts.writes += self._calls(len(items))
        elif scans:
            self.counts.scan_reads += 1
        else:
            self.counts.other_reads += 1

    def _calls(self, operations: int) -> int:
        """How many calls so many operations take."""
        return max(1, operations) if self.limits.batch <= 1 else 1

    def _native(self, op: Op) -> str:
        try:
            return self._backend.encode(op.key)
        except BackendError:
            return ""

    def _heard(self, now_s: float, took_ms: float) -> None:
        self._circuit.answered(now_s)
        self.wellness.answered(now_s, took_ms)

    def _failed(self, now_s: float, error: BackendError, *, write: bool) -> None:
        self._circuit.answered(now_s, error)
        self._pace.answered(now_s, error, write=write)
        self._called(write, 1, error.reason.lower())
        self.counts.errors += 1
        self.counts.throttled += isinstance(error, Throttled)
        self.counts.last_error = error.message
        if not error.is_refusal:
            self.wellness.failed(now_s)


def _was_not_begun(outcome: Outcome) -> bool:
    return outcome.result is Result.FAILED and isinstance(outcome.error, Throttled | AuthExpired)
