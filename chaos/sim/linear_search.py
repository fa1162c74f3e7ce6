"""Searches for an order of operations, one at a time, that explains what their clients were told.

Each operation takes effect at some moment between its call and its return. To find an order, or
that there is none, is the search of Wing & Gong ("Testing and verifying concurrent objects", 1993):
take any operation that no other one must precede, apply it to a model, go on, and go back where
no answer fits. Lowe ("Testing for linearizability", 2017) made it quick: calls and returns stand
in a doubly linked list out of which an operation is lifted in no time, and a set of configurations
(operations placed, state) remembers what need not be tried again.

Three things are added, none of which changes what is found:

* Where something that only looks fits, nothing else is tried after it: placed at once, it takes
  nothing from the others.
* A state is not left while operations yet to be placed, however late, need it and none can make
  it again. Without this a write that nobody saw for a while, one of unknown outcome most of all,
  would be placed too soon and found out only much later.
* A history comes in segments that only operations of unknown outcome overlap. What one hands to the
  next is a state and which of those are placed by then. Each such pair is handed on once, and only
  if the history did not end well after those before.

An operation of unknown outcome never returns, so it may be placed at any time after its call, or
not at all; but where it is known to have happened, it must be placed somewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Generic, Protocol, TypeVar

StateT = TypeVar("StateT", bound=Hashable)
PayloadT = TypeVar("PayloadT")


@dataclass(frozen=True, slots=True)
class Operation(Generic[PayloadT]):
    """What one client asked and was told, from call to return.

    Times are of one clock that all clients share. At equal times calls come before returns, so
    the operations overlap and either may be first. `returned` is None where the outcome is
    unknown: it took effect at some time after the call, or never, or, if it is known to have
    `happened`, surely at some time. Only the model looks into `payload`.
    """

    name: str
    client: str
    called: float
    returned: float | None
    payload: PayloadT = field(repr=False)
    happened: bool = False

    def __post_init__(self) -> None:
        if self.returned is not None and not self.called <= self.returned:
            raise ValueError(f"{self.name} returned at {self.returned}, before {self.called}")

    @property
    def must_be_placed(self) -> bool:
        """Whether no order without it explains the history."""
        return self.returned is not None or self.happened

    @property
    def until(self) -> float:
        """When it returned, infinity where it did not."""
        return inf if self.returned is None else self.returned


class Model(Protocol[StateT, PayloadT]):
    """What operations do to one copy.

    Equal states are the same for all that follows; no state is None. `looks`, `needs` and `makes`
    let a search skip what can't succeed: they must be true, and False and None are always.
    """

    @property
    def initial(self) -> StateT:
        """The state before the first operation."""
        ...

    def step(self, state: StateT, operation: Operation[PayloadT]) -> tuple[StateT, ...]:
        """All states that the operation may lead to with the answer it had; empty if none."""
        ...

    def looks(self, operation: Operation[PayloadT]) -> bool:
        """Whether it leaves every state that allows it as it is."""
        ...

    def needs(self, operation: Operation[PayloadT]) -> StateT | None:
        """The one state that allows it, None where others may."""
        ...

    def makes(self, operation: Operation[PayloadT]) -> StateT | None:
        """The one state that it leads to, None where it looks or may lead to several."""
        ...

    def told(self, operation: Operation[PayloadT]) -> str:
        """What an account says of the payload: never the value of a variable."""
        ...


class OutOfSteps(Exception):
    """The budget of a search is spent; nothing is known."""


class Steps:
    """Counts steps of the model up to a budget."""

    def __init__(self, budget: int) -> None:
        self.taken = 0
        self._budget = budget

    def take(self) -> None:
        if self.taken >= self._budget:
            raise OutOfSteps
        self.taken += 1


class Search(Generic[StateT, PayloadT]):
    """Goes through the segments depth first."""

    def __init__(
        self,
        model: Model[StateT, PayloadT],
        cut: Sequence[Sequence[Operation[PayloadT]]],
        steps: Steps,
    ) -> None:
        self._initial = model.initial
        self._ahead = _Ahead(model, [operation for segment in cut for operation in segment])
        self._segments: list[_Segment[StateT, PayloadT]] = []
        width = sum(operation.returned is None for segment in cut for operation in segment)
        unknown: dict[int, Operation[PayloadT]] = {}
        for number, segment in enumerate(cut, 1):
            known: dict[int, Operation[PayloadT]] = {}
            for operation in segment:
                if operation.returned is None:
                    unknown[1 << len(unknown)] = operation
                else:
                    known[1 << (width + len(known))] = operation
            needed = sum(known)
            if number == len(cut):
                needed += sum(bit for bit, operation in unknown.items() if operation.happened)
            sets = _Sets(unknown | known, needed, (1 << width) - 1)
            self._segments.append(_Segment(model, steps, self._ahead, sets))

    def order(self) -> list[Operation[PayloadT]] | None:
        """An order of all segments, None where there is none."""
        if not self._segments:
            return []
        path = [self._segments[0].ends(self._initial, 0)]
        while path:
            end = next(path[-1], None)
            if end is None:
                path.pop()
            elif len(path) < len(self._segments):
                path.append(self._segments[len(path)].ends(*end))
            else:
                return [operation for segment in self._segments for operation in segment.placed()]
        return None


@dataclass(frozen=True, slots=True)
class _Sets(Generic[PayloadT]):
    """Sets of operations as bits of an integer: which bit is which operation's in a segment.

    Without the bits `needed` the segment has not ended; those `handed_on` are of operations that
    never return, and mean the same in all segments.
    """

    operations: Mapping[int, Operation[PayloadT]]
    needed: int
    handed_on: int


class _Segment(Generic[StateT, PayloadT]):
    """The search among the operations of one segment and the unknown ones up to it.

    Operations are indexes here.
    """

    def __init__(
        self,
        model: Model[StateT, PayloadT],
        steps: Steps,
        ahead: _Ahead[StateT, PayloadT],
        sets: _Sets[PayloadT],
    ) -> None:
        self._model = model
        self._steps = steps
        self._ahead = ahead
        self._sets = sets
        self._bits = list(sets.operations)
        self._operations = list(sets.operations.values())
        self._looks = [model.looks(operation) for operation in self._operations]
        self._events = _Events(self._operations)
        self._seen: set[tuple[int, StateT]] = set()
        self._order: list[int] = []

    def placed(self) -> list[Operation[PayloadT]]:
        """The operations in the order in which they stand now."""
        return [self._operations[index] for index in self._order]

    def ends(self, state: StateT, before: int) -> Iterator[tuple[StateT, int]]:
        """Each state in which the segment may end, with the unknown operations placed by then.

        `before` are those that were placed in earlier segments. What was yielded after another
        beginning need not be yielded again.
        """
        earlier = [index for index, bit in enumerate(self._bits) if bit & before]
        for index in earlier:
            self._events.lift(index)
        if self._sets.needed & ~before:
            yield from self._ends_after(state, before)
        else:
            yield state, before
        for index in reversed(earlier):
            self._events.put_back(index)

    def _ends_after(self, state: StateT, placed: int) -> Iterator[tuple[StateT, int]]:
        trying = [self._next(state, placed)]
        while trying:
            choice = next(trying[-1], None)
            if choice is None:
                trying.pop()
                placed ^= self._take_back()
                continue
            index, after = choice
            placed ^= self._place(index)
            if self._sets.needed & ~placed:
                trying.append(self._next(after, placed))
            else:
                yield after, placed & self._sets.handed_on
                placed ^= self._take_back()

    def _place(self, index: int) -> int:
        self._order.append(index)
        self._events.lift(index)
        self._ahead.remove(self._operations[index])
        return self._bits[index]

    def _take_back(self) -> int:
        """Undo the last `_place`, if there is one, and return the bit."""
        if not self._order:
            return 0
        index = self._order.pop()
        self._events.put_back(index)
        self._ahead.add(self._operations[index])
        return self._bits[index]

    def _next(self, state: StateT, placed: int) -> Iterator[tuple[int, StateT]]:
        """Each operation that may come next and the state after it, unless that was tried."""
        for index in self._events.called_before_first_return():
            operation = self._operations[index]
            self._steps.take()
            states = self._model.step(state, operation)
            for after in states:
                configuration = (placed | self._bits[index], after)
                if configuration in self._seen:
                    continue
                self._seen.add(configuration)
                if after == state or self._ahead.may_leave(state, operation):
                    yield index, after
            if states and self._looks[index]:
                return


class _Ahead(Generic[StateT, PayloadT]):
    """What the operations that are not placed yet need and make, in all segments."""

    def __init__(
        self, model: Model[StateT, PayloadT], operations: Sequence[Operation[PayloadT]]
    ) -> None:
        self._model = model
        self._needed: Counter[StateT] = Counter()
        self._made: Counter[StateT] = Counter()
        self._any_made = 0
        for operation in operations:
            self.add(operation)

    def add(self, operation: Operation[PayloadT]) -> None:
        self._count(operation, 1)

    def remove(self, operation: Operation[PayloadT]) -> None:
        self._count(operation, -1)

    def _count(self, operation: Operation[PayloadT], by: int) -> None:
        needs = self._model.needs(operation)
        if needs is not None and operation.must_be_placed:
            self._needed[needs] += by
        makes = self._model.makes(operation)
        if makes is not None:
            self._made[makes] += by
        elif not self._model.looks(operation):
            self._any_made += by

    def may_leave(self, state: StateT, operation: Operation[PayloadT]) -> bool:
        """Whether, once this operation is placed, none needs the state or one may make it again."""
        needed = self._needed[state]
        if needed and operation.must_be_placed and self._model.needs(operation) == state:
            needed -= 1
        return not needed or self._made[state] > 0 or self._any_made > 0


class _Events:
    """Calls and returns in the order of time, as a doubly linked list of numbers from 1 on."""

    def __init__(self, operations: Sequence[Operation[PayloadT]]) -> None:
        events = [(one.called, False, index) for index, one in enumerate(operations)]
        events += [
            (one.returned, True, index)
            for index, one in enumerate(operations)
            if one.returned is not None
        ]
        events.sort()
        self._calls = [0] * len(operations)
        self._returns = [0] * len(operations)
        self._indexes = [-1]
        self._is_call = [False]
        for event, (_, is_return, index) in enumerate(events, 1):
            (self._returns if is_return else self._calls)[index] = event
            self._indexes.append(index)
            self._is_call.append(not is_return)
        self._is_call.append(False)
        self._following = [*range(1, len(events) + 2), 0]
        self._previous = [len(events) + 1, *range(len(events) + 1)]

    def lift(self, index: int) -> None:
        """Take an operation out."""
        for event in (self._calls[index], self._returns[index]):
            if event:
                previous, following = self._previous[event], self._following[event]
                self._following[previous], self._previous[following] = following, previous

    def put_back(self, index: int) -> None:
        """Undo the last `lift` that is not undone yet, which was of this operation."""
        for event in (self._returns[index], self._calls[index]):
            if event:
                self._following[self._previous[event]] = event
                self._previous[self._following[event]] = event

    def called_before_first_return(self) -> list[int]:
        """The operations that may come next, in the order of their calls."""
        found = []
        event = self._following[0]
        while self._is_call[event]:
            found.append(self._indexes[event])
            event = self._following[event]
        return found
