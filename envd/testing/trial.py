"""One case of the conformance kit: what it needs, and the place that it is tried on.

`@case(...)` makes a test of a coroutine: it begins the harness in an event loop of its own, opens a
backend, skips what the backend can't have, and cleans up. The coroutine gets a `Trial`, through
which it reads and writes in a few words.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from envd.backends.contract import (
    Backend,
    Capability,
    Item,
    Key,
    Op,
    Options,
    Outcome,
    Page,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import BackendError, ItemNotFound, SoftDeleted
from envd.testing.faulty import Fault, Kind
from envd.testing.harness import Ability, Calls, Harness, Need, Needed

PATIENCE_S: Final = 120.0
"""After this long a case has failed; none of them waits for a time to pass."""
FIRST_MS: Final = 1_750_000_000_000
CASE_MARK: Final = "conformance_case"
_TASKS_OF_SERVERS: Final = "RequestHandler."
"""Those of aiohttp."""
NAME: Final = "NAME"
"""The variable in a document that a case writes."""


@dataclass(frozen=True, slots=True)
class Case:
    """What the report knows of a case: its group, its sentence, and what it needs."""

    group: str
    sentence: str
    needs: tuple[Needed, ...]

    def faults_at(self, wire_faults: frozenset[Kind]) -> str:
        """Where its faults are injected: "wire" or "contract"; "" where there are none."""
        kinds = [need for need in self.needs if isinstance(need, Kind)]
        if not kinds:
            return ""
        return "wire" if wire_faults.issuperset(kinds) else "contract"


@dataclass(slots=True)
class Clock:
    """The wall clock of a trial (unix ms); it stands still until it is moved."""

    now_ms: int = FIRST_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan found. `items` has each key's last; `doubles` those that came twice."""

    pages: Sequence[Page]
    items: Mapping[Key, Item]
    doubles: frozenset[Key] = field(default=frozenset())

    @property
    def complete(self) -> bool:
        return bool(self.pages) and self.pages[-1].complete

    @property
    def live(self) -> Mapping[Key, Item]:
        """Without what is softly deleted."""
        return {key: item for key, item in self.items.items() if not item.deleted}


class Trial:
    """A place, a backend on it, and short words for what cases do."""

    def __init__(self, harness: Harness, backend: Backend, options: Options, clock: Clock) -> None:
        self.harness = harness
        self.backend = backend
        self.options = options
        self.clock = clock
        self._others: list[Backend] = []
        self._attempts = 0

    # What there is to write.

    @property
    def is_document(self) -> bool:
        return self.options.layout == "document"

    @property
    def scope(self) -> Scope:
        """All of the place."""
        return Scope("", below=self.options.below)

    def has(self, capability: Capability) -> bool:
        return capability in self.backend.capabilities

    def key(self, number: int = 0) -> Key:
        """One of the keys of a place. A place that is one document has only number 0."""
        if not self.is_document:
            return Key("", f"NAME_{number:03}")
        return Key(f"app{number:03}" if self.options.below else "", "")

    def keys(self, count: int) -> list[Key]:
        return [self.key(number) for number in range(count)]

    def value(self, text: str) -> str:
        """A value that holds this text: itself, or a document with one variable."""
        return json.dumps({NAME: text}, ensure_ascii=False) if self.is_document else text

    def text(self, item: Item | None) -> str | None:
        """The text in the value of an item."""
        if item is None or item.value is None:
            return None
        return str(json.loads(item.value)[NAME]) if self.is_document else item.value

    def value_of_size(self, size: int) -> str:
        """A value of just so many bytes."""
        return self.value("x" * (size - len(self.value("").encode())))

    def attempt(self) -> str:
        """A new name for an attempt: 32 hexadecimal digits."""
        self._attempts += 1
        return f"{self._attempts:032x}"

    def put_op(self, key: Key, text: str, *, expect: str = "", stamp: str = "") -> Op:
        return Op(Verb.PUT, key, expect, self.value(text), stamp=stamp)

    def delete_op(self, key: Key, expect: str, *, any_owner: bool = False) -> Op:
        return Op(Verb.DELETE, key, expect, any_owner=any_owner)

    # Doing it.

    async def one(self, op: Op, *, backend: Backend | None = None, attempt: str = "") -> Outcome:
        """Apply one operation."""
        doing = backend or self.backend
        outcomes = await doing.apply([op], idempotency=attempt or self.attempt())
        assert len(outcomes) == 1, "apply answers one outcome for each operation"
        return outcomes[0]

    async def put(self, key: Key, text: str, *, stamp: str = "") -> Item:
        """Write over what is there now; return the item as it is read afterwards."""
        before = await self.item(key)
        outcome = await self.one(
            self.put_op(key, text, expect=before.version if before else "", stamp=stamp)
        )
        assert outcome.result in (Result.APPLIED, Result.NOOP), (
            f"a put of {key} was {_told(outcome)}"
        )
        found = await self.item(key)
        assert found is not None, f"{key} can't be read after it was written"
        return found

    async def fill(self, texts: Mapping[Key, str]) -> None:
        """Create all these, as many at once as fit."""
        ops = [self.put_op(key, text) for key, text in texts.items()]
        for outcome in await self.in_batches(ops):
            assert outcome.result is Result.APPLIED, f"{outcome.op.key} was {_told(outcome)}"

    async def in_batches(self, ops: Sequence[Op]) -> list[Outcome]:
        """Apply these, as many at once as `limits.batch` says."""
        size = self.backend.limits.batch or max(1, len(ops))
        outcomes: list[Outcome] = []
        for start in range(0, len(ops), size):
            batch = ops[start : start + size]
            outcomes += await self.backend.apply(batch, idempotency=self.attempt())
        return outcomes

    async def item(self, key: Key, *, backend: Backend | None = None) -> Item | None:
        """The item, None where there is none, or where it is softly deleted."""
        found = (await (backend or self.backend).get_many([key]))[key]
        if isinstance(found, ItemNotFound | SoftDeleted):
            return None
        if isinstance(found, BackendError):
            raise found
        return None if found.deleted else found

    async def read(self, key: Key) -> str | None:
        """The text under a key, None where there is none."""
        return self.text(await self.item(key))

    async def scan(
        self,
        scope: Scope | None = None,
        cursor: str | None = None,
        *,
        backend: Backend | None = None,
    ) -> Scanned:
        """A whole scan."""
        pages = (backend or self.backend).scan(scope or self.scope, cursor)
        return scanned([page async for page in pages])

    async def another(self, **changes: Any) -> Backend:
        """A second backend on the same place, opened; it is closed with the trial."""
        backend = await self.harness.make(replace(self.options, **changes))
        self._others.append(backend)
        await backend.open()
        return backend

    async def close(self) -> None:
        """Close all that is open."""
        for backend in (*self._others, self.backend):
            await backend.close()

    # What others do, and what goes wrong.

    async def others_put(self, key: Key, text: str) -> None:
        await self.harness.others_put(self.backend.encode(key), self.value(text))

    async def others_delete(self, key: Key) -> None:
        await self.harness.others_delete(self.backend.encode(key))

    async def inject(self, *faults: Fault) -> None:
        await self.harness.inject(*faults)

    async def expect_error(
        self, kind: type[BackendError], doing: Awaitable[object]
    ) -> BackendError:
        """Have a call raise just this kind."""
        with pytest.raises(BackendError) as caught:
            await doing
        assert type(caught.value) is kind, f"it raised {type(caught.value).__name__}"
        return caught.value

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """What the store has is afterwards what it was before."""
        before = await self.harness.contents()
        yield
        after = await self.harness.contents()
        assert after.keys() == before.keys(), "there are other names in the store now"
        assert all(after[name] == before[name] for name in after), "a value in the store changed"

    @asynccontextmanager
    async def unwritten(self) -> AsyncIterator[None]:
        """... and no call that writes was made, as far as calls are counted."""
        before = self.harness.calls()
        async with self.unchanged():
            yield
        if Ability.COUNTS in self.harness.abilities:
            written = self.harness.calls().writes - before.writes
            assert written == 0, f"{written} calls that write were made"

    @contextmanager
    def uncalled(self) -> Iterator[None]:
        """No call is made to the store meanwhile, as far as calls are counted."""
        before = self.harness.calls()
        yield
        after = self.harness.calls()
        assert after == before, "a call was made to the store"


def scanned(pages: Sequence[Page]) -> Scanned:
    """What these pages have together."""
    items: dict[Key, Item] = {}
    doubles: set[Key] = set()
    for page in pages:
        for item in page.items:
            if item.key in items:
                doubles.add(item.key)
            items[item.key] = item
    return Scanned(pages, items, frozenset(doubles))


def calls_between(before: Calls, after: Calls) -> Calls:
    """The calls of a time."""
    return Calls(after.reads - before.reads, after.writes - before.writes)


def running_tasks() -> set[asyncio.Task[object]]:
    """The tasks that run, but for those of a harness's own servers, such as the proxy: one for each
    connection, and one for each call. They see later that a connection was closed."""
    return {
        each
        for each in asyncio.all_tasks()
        if not getattr(each.get_coro(), "__qualname__", "").startswith(_TASKS_OF_SERVERS)
    }


Body = Callable[[Any, Trial], Awaitable[None]]
Test = Callable[[Any, Harness], None]


def case(*needs: Needed, below: bool = False) -> Callable[[Body], Test]:
    """Make a test of a coroutine that gets a Trial.

    It is skipped where one of `needs` is missing. With `below` the place is bound as a prefix, and
    needs BELOW; a place of documents is bound so whenever it can be.
    """
    if below:
        needs = (*needs, Ability.BELOW)

    def decorate(body: Body) -> Test:
        def test(self: Any, harness: Harness) -> None:
            __tracebackhide__ = True
            with asyncio.Runner() as runner:
                missing = runner.run(_try(lambda trial: body(self, trial), needs, harness, below))
            if missing:
                pytest.skip(missing)

        name = getattr(body, "__name__", "")
        group = str(getattr(body, "__module__", "")).rsplit(".", 1)[-1]
        sentence = name.removeprefix("test_").replace("_", " ")
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(test, attribute, getattr(body, attribute))
        setattr(test, CASE_MARK, Case(group, sentence, needs))
        return test

    return decorate


async def _try(
    body: Callable[[Trial], Awaitable[None]],
    needs: Sequence[Needed],
    harness: Harness,
    below: bool,
) -> str:
    """Run a case, and return "", or why it is skipped."""
    __tracebackhide__ = True
    async with asyncio.timeout(PATIENCE_S):
        await harness.begin()
        try:
            if Ability.BELOW in needs and Ability.BELOW not in harness.abilities:
                return skip_reason(harness, Ability.BELOW)
            trial = await _open(harness, below=below)
            try:
                for need in needs:
                    if not is_met(need, trial):
                        return skip_reason(harness, need)
                await body(trial)
            finally:
                await harness.release()
                await trial.close()
        finally:
            await harness.end()
    return ""


async def _open(harness: Harness, *, below: bool) -> Trial:
    clock = Clock()
    several = harness.layout == "document" and Ability.BELOW in harness.abilities
    options = Options(
        place=harness.place, layout=harness.layout, below=below or several, wall_ms=clock
    )
    backend = await harness.make(options)
    await backend.open()
    return Trial(harness, backend, options, clock)


def is_met(need: Needed, trial: Trial) -> bool:
    """Whether a place has what a case needs."""
    match need:
        case Capability():
            return need in trial.backend.capabilities
        case Ability():
            return need in trial.harness.abilities
        case Kind():
            return need in trial.harness.faults
        case Need():
            return _is_so(need, trial)


def _is_so(need: Need, trial: Trial) -> bool:
    limits, capabilities = trial.backend.limits, trial.backend.capabilities
    match need:
        case Need.READABLE:
            return Capability.WRITE_ONLY not in capabilities
        case Need.VERSIONED:
            return bool(capabilities & (Capability.CAS | Capability.POSTCHECK))
        case Need.STAMPS:
            return bool(capabilities & (Capability.STAMP_ATOMIC | Capability.STAMP_SIDE))
        case Need.DELETE_HINTS:
            return Capability.WATCH in capabilities and (
                Capability.WATCH_NO_DELETES not in capabilities
            )
        case Need.MANY:
            return not trial.is_document or trial.options.below
        case Need.PAGES:
            return limits.page_items > 0
        case Need.BATCHES:
            return limits.batch != 1
        case Need.VALUE_LIMIT:
            return limits.max_value_bytes > 0
        case Need.LEAST_VALUE:
            return limits.min_value_bytes > 0
        case Need.NAME_LIMIT:
            return limits.max_name_bytes > 0


def skip_reason(harness: Harness, need: Needed) -> str:
    """`BACKEND: no CAPABILITY: why`; fails where the harness does not say why."""
    name = need.name or str(need)
    why = harness.why.get(name, need.value if isinstance(need, Need) else "")
    assert why, f"{harness.name} has no {name}, and its harness does not say why"
    return f"{harness.name}: no {name}: {why}"


def _told(outcome: Outcome) -> str:
    """An outcome for a message."""
    return f"{outcome.result.value} ({type(outcome.error).__name__}: {outcome.error})"
