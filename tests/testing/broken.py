"""Backends that are each wrong in one way, for trying whether the kit sees it.

Each is around a `FaultyBackend` around a sound one, as the code of a backend is around its store.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

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
    Options,
    Outcome,
    Page,
    PriceSheet,
    Reject,
    Result,
    Scope,
)
from envd.backends.errors import BackendError, Forbidden, InvalidName, Throttled
from tests.testing.memory_harness import MemoryHarness, Profile


class Around:
    """Passes everything on; those below change one thing each."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> Capability:
        return self.inner.capabilities

    @property
    def limits(self) -> Limits:
        return self.inner.limits

    @property
    def prices(self) -> PriceSheet:
        return self.inner.prices

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def probe(self) -> Health:
        return await self.inner.probe()

    def encode(self, key: Key) -> str:
        return self.inner.encode(key)

    def decode(self, native: str) -> Key | None:
        return self.inner.decode(native)

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        return self.inner.check(ops)

    def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        return self.inner.scan(scope, cursor)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        return await self.inner.get_many(keys)

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        return await self.inner.apply(ops, idempotency=idempotency)

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        return self.inner.watch(scope, cursor)

    def cost(self, load: Load) -> Cost:
        return self.inner.cost(load)

    async def apply_changed(
        self, ops: Sequence[Op], idempotency: str, change: Callable[[Op], Op]
    ) -> list[Outcome]:
        """Apply other operations, and answer as if they were these."""
        done = await self.inner.apply([change(op) for op in ops], idempotency=idempotency)
        return [replace(outcome, op=op) for op, outcome in zip(ops, done, strict=True)]

    async def version(self, key: Key) -> str:
        found = (await self.inner.get_many([key]))[key]
        return found.version if isinstance(found, Item) else ""


class StripsSpaces(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        return await self.apply_changed(
            ops, idempotency, lambda op: replace(op, value=op.value.strip(" "))
        )


class CutsValues(Around):
    def check(self, ops: Sequence[Op]) -> list[Reject]:
        return []

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        most = self.limits.max_value_bytes
        return await self.apply_changed(
            ops, idempotency, lambda op: replace(op, value=op.value[:most])
        )


class FoldsCase(Around):
    def encode(self, key: Key) -> str:
        return self.inner.encode(key).lower()


class DecodesWhatIsNotItsOwn(Around):
    def decode(self, native: str) -> Key | None:
        return self.inner.decode(native) or Key("", "NAME_000")


class SaysCompleteAfterOnePage(Around):
    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        async for page in self.inner.scan(scope, cursor):
            yield replace(page, complete=True)
            return


class SaysCompleteOnEachPage(Around):
    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        async for page in self.inner.scan(scope, cursor):
            yield replace(page, complete=True)


class StopsAtEmptyPages(Around):
    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        async for page in self.inner.scan(scope, cursor):
            yield page if page.items else replace(page, complete=True)
            if not page.items:
                return


class MatchesPrefixesOfText(Around):
    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        async for page in self.inner.scan(Scope("", below=True), cursor):
            mine = [each for each in page.items if each.key.environment.startswith("app")]
            yield replace(page, items=mine)


class LosesCas(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        versions = {op.key: await self.version(op.key) for op in ops}
        return await self.apply_changed(
            ops, idempotency, lambda op: replace(op, expect=versions[op.key])
        )


class RetriesConflicts(Around):
    """Takes a conflict for something that passes."""

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        outcomes = []
        for op in ops:
            outcome, *_ = await self.inner.apply([op], idempotency=idempotency)
            while outcome.result is Result.CONFLICT:
                again = replace(op, expect=await self.version(op.key))
                outcome, *_ = await self.inner.apply([again], idempotency=idempotency)
            outcomes.append(replace(outcome, op=op))
        return outcomes


class HidesWhomItOvertook(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        done = await self.inner.apply(ops, idempotency=idempotency)
        return [replace(outcome, overtaken=False, between=None) for outcome in done]


class WritesAgain(Around):
    """Writes whatever the value and the version are."""

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        for op in ops:
            before = await self.version(op.key)
            touched = replace(op, value=f"{op.value}~", expect=before)
            await self.inner.apply([touched], idempotency=f"{idempotency}-{before}")
        versions = {op.key: await self.version(op.key) for op in ops}
        return await self.apply_changed(
            ops, f"{idempotency}-again", lambda op: replace(op, expect=versions[op.key])
        )


class DropsStamps(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        return await self.apply_changed(ops, idempotency, lambda op: replace(op, stamp=""))


class RaisesHalfWay(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for op in ops:
            outcomes += await self.inner.apply([op], idempotency=idempotency)
            error = outcomes[-1].error
            if error is not None:
                raise error
        return outcomes


class SaysThatAllIsDone(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        done = await self.inner.apply(ops, idempotency=idempotency)
        return [Outcome(each.op, Result.APPLIED, each.version) for each in done]


class AnswersInReverse(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        return list(reversed(await self.inner.apply(ops, idempotency=idempotency)))


class DeletesWhatOthersMade(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        return await self.apply_changed(ops, idempotency, lambda op: replace(op, any_owner=True))


class TakesDeniedForEmpty(Around):
    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        try:
            async for page in self.inner.scan(scope, cursor):
                yield page
        except Forbidden:
            yield Page((), complete=True)


class EndsQuietly(Around):
    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        try:
            async for page in self.inner.scan(scope, cursor):
                yield page
        except BackendError:
            return


class ForgetsHowLongToWait(Around):
    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        try:
            return await self.inner.get_many(keys)
        except Throttled as error:
            raise Throttled(error.message) from None


class RaisesInAProbe(Around):
    async def probe(self) -> Health:
        health = await self.inner.probe()
        if not health.ok:
            raise Forbidden(health.detail)
        return health


class TellsNoChanges(Around):
    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        await asyncio.Event().wait()
        yield Hint()


class StopsWatching(Around):
    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        if self.limits.batch < 0:
            yield Hint()


class ShowsValues(Around):
    last = ""

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        self.last = ops[0].value
        return await self.inner.apply(ops, idempotency=idempotency)

    def __repr__(self) -> str:
        return f"ShowsValues({self.last!r})"


class LogsValues(Around):
    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        for op in ops:
            logging.getLogger("broken").debug("put", extra={"value": op.value})
        return await self.inner.apply(ops, idempotency=idempotency)


class QuotesValues(Around):
    def check(self, ops: Sequence[Op]) -> list[Reject]:
        return [
            Reject(each.op, InvalidName(f"no such name for {each.op.value}"))
            for each in self.inner.check(ops)
        ]


class ChainsValues(Around):
    """Its errors are clean, and come from one that is not."""

    last = ""

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        self.last = ops[0].value
        return await self.inner.apply(ops, idempotency=idempotency)

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        try:
            async for page in self.inner.scan(scope, cursor):
                yield page
        except BackendError as error:
            raise type(error)(error.message) from ValueError(self.last)


class LeavesATask(Around):
    left: asyncio.Task[bool] | None = None

    async def open(self) -> None:
        self.left = asyncio.create_task(asyncio.Event().wait())
        await self.inner.open()


class LeavesAThread(Around):
    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.done = threading.Event()

    async def open(self) -> None:
        threading.Thread(target=self.done.wait, args=(5,), daemon=True).start()
        await self.inner.open()


class PredictsHalf(Around):
    def cost(self, load: Load) -> Cost:
        cost = self.inner.cost(load)
        return replace(cost, reads=cost.reads // 2, writes=cost.writes // 2)


class BrokenHarness(MemoryHarness):
    """Memory, with a broken backend around it."""

    hint_patience_s = 0.01

    def __init__(self, profile: Profile, kind: type[Around]) -> None:
        super().__init__(profile)
        self._kind = kind

    async def make(self, options: Options) -> Backend:
        return self._kind(await super().make(options))
