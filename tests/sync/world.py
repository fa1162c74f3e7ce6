"""A small cluster of one for the reconciler: environments, records and time, all in memory.

`Environments` keeps what the real one does: stamps that grow, revisions, and a record of what a
write replaced without having seen it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from envd.backends.contract import Capability, Key, Options
from envd.backends.memory import CAPABILITIES, Manners, MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.core.answers import WriteAnswer
from envd.core.errors import Conflict, NotFound, OutcomeUnknown, Unavailable
from envd.core.names import has_prefix
from envd.core.requests import WriteRequest
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.core.syncing import AppliedView, BindingView
from envd.node.recording import commits_of
from envd.sync import applying, picture, plan
from envd.sync.applying import Leave
from envd.sync.layouts import Place, place_of
from envd.sync.merge import Left
from envd.sync.picture import Looking, Picture
from envd.sync.plan import Plan
from envd.sync.ports import Local, LocalState, Lost

NODE = 7
START_MS = 1_700_000_000_000


class StillClock:
    """Time that passes only where somebody sleeps."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        await asyncio.sleep(0)

    def random(self) -> float:
        return 0.5


class LoopClock:
    """The time of the event loop, which may be a virtual one."""

    def wall_ms(self) -> int:
        return START_MS + int(asyncio.get_running_loop().time() * 1000)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random(self) -> float:
        return 0.5


def fingerprint(value: str) -> str:
    return blake2b(value.encode(), digest_size=16, key=b"tests").hexdigest()


@dataclass(frozen=True)
class OnRecord:
    """One conflict: what was lost, of which variable; `kept` None for an unset."""

    id: str
    environment: str
    variable: str
    lost: str | None
    kept: str | None


@dataclass
class Held:
    """One environment: what has a value, and the stamps of what was unset."""

    variables: dict[str, Local] = field(default_factory=dict)
    unset: dict[str, Stamp] = field(default_factory=dict)
    floor: int = 0


@dataclass
class Reach:
    """How many more calls reach the cluster, None for all.

    With `loses_answer` the last call that does, if it writes an environment, is not answered.
    """

    calls: int | None = None
    loses_answer: bool = False

    def call(self) -> None:
        """Make one; raises Unavailable where the cluster can't be reached any more."""
        if self.calls is not None:
            if not self.calls:
                raise Unavailable("no node that holds it can be reached")
            self.calls -= 1

    def answer(self) -> None:
        """Have what was written answered."""
        if self.loses_answer and self.calls == 0:
            raise OutcomeUnknown("the node that did it can't be reached any more")


class Environments:
    """All environments of the cluster, and the conflicts that are on record."""

    def __init__(self, clock: StillClock | LoopClock, reach: Reach | None = None) -> None:
        self._clock = clock
        self._reach = reach or Reach()
        self._held: dict[str, Held] = {}
        self._last = ZERO
        self.on_record: dict[str, OnRecord] = {}
        self.settled: set[str] = set()
        self.commits = 0
        self.away = False
        self._watchers: list[asyncio.Queue[str]] = []

    # What people do.

    def set(self, environment: str, **values: str) -> None:
        held = self._held.setdefault(environment, Held())
        stamp = self._stamp()
        for name, value in values.items():
            held.variables[name] = Local(stamp, value, False)
        self._tell(environment)

    def unset(self, environment: str, *names: str) -> None:
        held = self._held[environment]
        stamp = self._stamp()
        for name in names:
            del held.variables[name]
            held.unset[name] = stamp
        self._tell(environment)

    def values(self, environment: str) -> dict[str, str]:
        held = self._held.get(environment, Held())
        return {name: local.value for name, local in sorted(held.variables.items())}

    def secret(self, environment: str, name: str) -> bool:
        return self._held[environment].variables[name].secret

    def mark_secret(self, environment: str, name: str) -> None:
        held = self._held[environment]
        held.variables[name] = replace(held.variables[name], secret=True, stamp=self._stamp())
        self._tell(environment)

    def state(self, environment: str) -> Held:
        """As it is now, for `become`."""
        held = self._held[environment]
        return Held(dict(held.variables), dict(held.unset), held.floor)

    def become(self, environment: str, state: Held) -> None:
        """Be a node that has another state of it."""
        self._held[environment] = state

    def collect(self, environment: str) -> None:
        """Forget what was unset, once all nodes know of it."""
        held = self._held[environment]
        held.unset, held.floor = {}, self._last.hlc

    def settle(self, conflict: str, *, take_lost: bool = False) -> None:
        """What `envctl resolve` does."""
        record = self.on_record[conflict]
        self.settled.add(conflict)
        if take_lost and record.lost is not None:
            self.set(record.environment, **{record.variable: record.lost})
        self._tell(record.environment)

    def lost(self, environment: str) -> list[tuple[str, str | None]]:
        """What is on record as lost, by variable."""
        return [
            (each.variable, each.lost)
            for each in self.on_record.values()
            if each.environment == environment
        ]

    # The port.

    async def names(self, prefix: str) -> Sequence[str]:
        self._check()
        await asyncio.sleep(0)
        return sorted(
            name for name, held in self._held.items() if held.variables and has_prefix(name, prefix)
        )

    async def read(self, environment: str) -> LocalState:
        self._check()
        await asyncio.sleep(0)
        held = self._held.get(environment, Held())
        return LocalState(
            environment,
            self._revision(environment),
            dict(held.variables),
            dict(held.unset),
            floor=held.floor,
        )

    async def write(self, request: WriteRequest, author: str) -> WriteAnswer:
        self._check()
        await asyncio.sleep(0)
        name = request.environment
        if request.if_revision and request.if_revision != self._revision(name):
            raise Conflict("it moved on")
        if request.must_not_exist and self._revision(name):
            raise Conflict("it is there")
        held = self._held.setdefault(name, Held())
        seen = {each.name: each.stamp for each in request.seen}
        stamp = self._stamp()
        for unset in request.unsets:
            if unset.name not in held.variables:
                raise NotFound("it is not there")
            self._overruled(name, unset.name, None, seen)
            del held.variables[unset.name]
            held.unset[unset.name] = stamp
        for put in request.puts:
            self._overruled(name, put.name, put.value, seen)
            before = held.variables.get(put.name)
            secret = put.secret if put.secret is not None else before is not None and before.secret
            held.variables[put.name] = Local(stamp, put.value, secret)
        self.commits += 1
        self._tell(name)
        self._reach.answer()
        return WriteAnswer(name, self._revision(name), stamp.hex(), "")

    async def put_on_record(self, environment: str, lost: Sequence[Lost]) -> Sequence[str]:
        self._check()
        await asyncio.sleep(0)
        commits_of(environment, lost)  # What can't be kept is refused, and all with it.
        ids = []
        for each in lost:
            held = self._held.get(environment, Held())
            kept = held.variables.get(each.variable)
            named = f"{environment}\0{each.variable}\0{each.stamp.hex()}"
            conflict = fingerprint(named)
            if kept is None or kept.value != each.value:
                value = None if kept is None else kept.value
                self.on_record.setdefault(
                    conflict, OnRecord(conflict, environment, each.variable, each.value, value)
                )
            is_open = conflict in self.on_record and conflict not in self.settled
            ids.append(conflict if is_open else "")
        return ids

    async def open_conflicts(self, environment: str) -> frozenset[str]:
        self._check()
        await asyncio.sleep(0)
        return frozenset(
            each.id
            for each in self.on_record.values()
            if each.environment == environment and each.id not in self.settled
        )

    async def changes(self, prefix: str) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                name = await queue.get()
                if has_prefix(name, prefix):
                    yield name
        finally:
            self._watchers.remove(queue)

    # Inside.

    def _check(self) -> None:
        self._reach.call()
        if self.away:
            raise Unavailable("no node that holds it can be reached")

    def _tell(self, environment: str) -> None:
        for queue in self._watchers:
            queue.put_nowait(environment)

    def _stamp(self) -> Stamp:
        hlc = max(self._clock.wall_ms() << COUNTER_BITS, self._last.hlc + 1)
        self._last = Stamp(0, hlc, NODE)
        return self._last

    def _revision(self, environment: str) -> str:
        held = self._held.get(environment, Held())
        rows = sorted((name, local.stamp, local.value) for name, local in held.variables.items())
        return fingerprint(repr(rows)) if rows else ""

    def _overruled(
        self, environment: str, name: str, value: str | None, seen: Mapping[str, str]
    ) -> None:
        held = self._held[environment].variables.get(name)
        known = seen.get(name)
        if held is None or known is None or known >= held.stamp.hex() or held.value == value:
            return
        conflict = fingerprint(f"{environment}\0{name}\0{held.stamp.hex()}")
        self.on_record[conflict] = OnRecord(conflict, environment, name, held.value, value)


class Records:
    """The documents of the reconciler. `lose` is what no replicated store does."""

    def __init__(self, reach: Reach | None = None) -> None:
        self._reach = reach or Reach()
        self.documents: dict[str, dict[str, str]] = {}
        self.updates = 0
        self.away = False
        self._watchers: list[asyncio.Queue[str]] = []

    async def names(self, prefix: str) -> Sequence[str]:
        return sorted(
            name
            for name, document in self.documents.items()
            if document and has_prefix(name, prefix)
        )

    async def read(self, name: str) -> dict[str, str]:
        self._reach.call()
        await asyncio.sleep(0)
        return dict(self.documents.get(name, {}))

    async def update(self, name: str, puts: dict[str, str], unsets: Sequence[str] = ()) -> None:
        self._reach.call()
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("no node that holds it can be reached")
        before = self.documents.get(name, {})
        after = {key: value for key, value in {**before, **puts}.items() if key not in unsets}
        if after != before:
            self.documents[name] = after
            self.updates += 1
            for queue in self._watchers:
                queue.put_nowait(name)

    async def changes(self, prefix: str) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                name = await queue.get()
                if has_prefix(name, prefix):
                    yield name
        finally:
            self._watchers.remove(queue)

    def lose(self, prefix: str = "anchors") -> None:
        for name in list(self.documents):
            if has_prefix(name, prefix):
                del self.documents[name]


class World:
    """Environments, records, one memory store, and what binds them."""

    def __init__(
        self, *, capabilities: Capability = CAPABILITIES, clock: StillClock | None = None
    ) -> None:
        self.clock = clock or StillClock()
        self.reach = Reach()
        self.environments = Environments(self.clock, self.reach)
        self.records = Records(self.reach)
        self.store = MemoryStore("place")
        self.capabilities = capabilities
        self.manners = Manners()
        self.left: dict[BindingView, Mapping[Key, Left]] = {}
        self.looking = Looking(self.environments, self.records, fingerprint)

    def place(self, binding: BindingView) -> Place:
        options = Options(
            "place",
            "document" if binding.layout == "document" else "per-variable",
            below=binding.environment is None,
            name_template=binding.name_template,
            wall_ms=self.clock.wall_ms,
        )
        backend = MemoryBackend(
            options, store=self.store, capabilities=self.capabilities, manners=self.manners
        )
        return place_of(binding, backend, fingerprint)

    async def plan(self, binding: BindingView) -> tuple[Plan, Picture, Place]:
        place = self.place(binding)
        left = self.left.get(binding, {})
        pictured = await picture.take(self.looking, binding, binding.targets[0], place, left)
        made = plan.make(pictured, place, fingerprint)
        self.left[binding] = made.left
        return made, pictured, place

    async def run(self, binding: BindingView, leave: Leave | None = None) -> AppliedView:
        """One comparison, and all that follows from it."""
        made, pictured, place = await self.plan(binding)
        views = await applying.apply(
            made, pictured, place, self.looking, leave or Leave(), self.clock.wall_ms()
        )
        return AppliedView(made.id, tuple(views), made.held)


def bound(**changed: object) -> BindingView:
    """A binding of `web` to the memory store, both ways."""
    fields: dict[str, object] = {
        "name": "b",
        "environment": "web",
        "prefix": None,
        "targets": ("memory:place",),
        "direction": "both",
        **changed,
    }
    return BindingView(**fields)  # type: ignore[arg-type]


def done(view: AppliedView) -> list[tuple[str, str, str]]:
    """(action, variable, result) of each operation."""
    return [(each.action, each.variable, each.result) for each in view.operations]
