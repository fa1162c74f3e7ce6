"""Tells whether what clients saw is what one copy, one operation at a time, could have told them.

A history is linearizable if each operation can be given a moment between its call and its return
so that the answers are right in the order of these moments (Herlihy & Wing 1990). The search for
them (`linear_search`) is that of Wing & Gong ("Testing and verifying concurrent objects", 1993) in
the form of Lowe ("Testing for linearizability", 2017). Before it comes a look at how long states
must have held (`linear_stretches`), which finds most violations at once.

A long history is cut where nothing is under way, and still judged as a whole. `check` and
`check_segments` judge by any `Model`; `check_serial` judges one `serial` environment, whose
operations are an `Operation` each of `Wrote`, `Refused` or `Read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import Final, Generic, assert_never

from chaos.sim.linear_search import (
    Model,
    Operation,
    OutOfSteps,
    PayloadT,
    Search,
    StateT,
    Steps,
)
from chaos.sim.linear_stretches import may_be_explained

__all__ = [
    "BUDGET",
    "MOST_CLIENTS",
    "MOST_OPERATIONS",
    "Model",
    "Operation",
    "Outcome",
    "Read",
    "Refused",
    "SerialEnvironment",
    "SerialOperation",
    "SerialPayload",
    "Verdict",
    "Wrote",
    "check",
    "check_segments",
    "check_serial",
    "segments",
]

MOST_CLIENTS: Final = 10
MOST_OPERATIONS: Final = 500
BUDGET: Final = 1_000_000
"""Steps of a model for an outcome, and as many again for the account of a violation.

A step takes a few microseconds and is remembered in up to 200 bytes. A linearizable history of 10
clients and 500 operations takes 500 to 1,600.
"""

_TOLD: Final = 3


class Outcome(Enum):
    """What a check came to; UNDECIDED is when its steps ran out."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "violated"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict(Generic[PayloadT]):
    """The outcome, how many steps of the model it took, and what it rests on.

    `placed` is an order that explains a linearizable history. Of another one it explains all that
    had returned before the first return that can't be explained: no order has room for its
    operation, the first of `unplaced`. The others are those under way with it that are not placed
    either. Where all returns can be explained, the first of `unplaced` is an operation that is
    known to have happened and can't have. `account` says it in words; where the steps ran out it
    says so, and nothing is placed or unplaced.
    """

    outcome: Outcome
    steps: int
    placed: tuple[Operation[PayloadT], ...] = ()
    unplaced: tuple[Operation[PayloadT], ...] = ()
    account: str = ""

    @property
    def is_linearizable(self) -> bool:
        return self.outcome is Outcome.LINEARIZABLE


def check(
    model: Model[StateT, PayloadT],
    operations: Sequence[Operation[PayloadT]],
    *,
    budget: int = BUDGET,
) -> Verdict[PayloadT]:
    """Judge a history as one segment, of whatever length."""
    return _judge(model, operations, [operations], budget)


def check_segments(
    model: Model[StateT, PayloadT],
    operations: Sequence[Operation[PayloadT]],
    *,
    most_clients: int = MOST_CLIENTS,
    most_operations: int = MOST_OPERATIONS,
    budget: int = BUDGET,
) -> Verdict[PayloadT]:
    """Judge a long history by its segments: the same outcome as that of `check`.

    Raises ValueError as `segments` does.
    """
    cut = segments(operations, most_clients=most_clients, most_operations=most_operations)
    return _judge(model, operations, cut, budget)


def segments(
    operations: Sequence[Operation[PayloadT]],
    *,
    most_clients: int = MOST_CLIENTS,
    most_operations: int = MOST_OPERATIONS,
) -> list[Sequence[Operation[PayloadT]]]:
    """Cut a history wherever all that was called has returned, or never will.

    An unknown operation belongs to the segment in which it was called. Raises ValueError for a
    segment of more clients or operations than a search should be asked to order.
    """
    cut = _cut(operations)
    for segment in cut:
        clients = len({operation.client for operation in segment})
        if clients > most_clients or len(segment) > most_operations:
            raise ValueError(
                f"the segment from {segment[0].called} on has {clients} clients and "
                f"{len(segment)} operations; at most {most_clients} and {most_operations} "
                "can be checked: let all clients pause together now and then"
            )
    return cut


def _cut(operations: Sequence[Operation[PayloadT]]) -> list[Sequence[Operation[PayloadT]]]:
    cut: list[list[Operation[PayloadT]]] = []
    quiet_after = -inf
    for operation in sorted(operations, key=lambda one: one.called):
        if not cut or operation.called > quiet_after:
            cut.append([])
        cut[-1].append(operation)
        if operation.returned is not None:
            quiet_after = max(quiet_after, operation.returned)
    return [*cut]


# -- the verdict ---------------------------------------------------------------------------------


def _judge(
    model: Model[StateT, PayloadT],
    operations: Sequence[Operation[PayloadT]],
    cut: Sequence[Sequence[Operation[PayloadT]]],
    budget: int,
) -> Verdict[PayloadT]:
    steps = Steps(budget)
    try:
        order = _order(model, cut, steps)
    except OutOfSteps:
        return Verdict(Outcome.UNDECIDED, steps.taken, account=f"undecided after {budget} steps")
    if order is not None:
        return Verdict(Outcome.LINEARIZABLE, steps.taken, tuple(order))
    try:
        placed, unplaced = _first_failure(model, operations, Steps(budget))
    except OutOfSteps:
        return Verdict(Outcome.VIOLATED, steps.taken, account="no order fits; where, is not known")
    account = _account(model, placed, unplaced)
    return Verdict(Outcome.VIOLATED, steps.taken, tuple(placed), tuple(unplaced), account)


def _first_failure(
    model: Model[StateT, PayloadT], operations: Sequence[Operation[PayloadT]], steps: Steps
) -> tuple[list[Operation[PayloadT]], list[Operation[PayloadT]]]:
    """Bisect for the first return that can't be explained; return what is placed and what is not.

    That works because whatever precedes a return in a linearizable history is linearizable too.
    Operations that happened and never returned come last, in the order of their calls.
    """
    demands = sorted((one for one in operations if one.must_be_placed), key=_by_return)
    low, high, explained = 0, len(demands) - 1, list[Operation[PayloadT]]()
    while low < high:  # demands[:low] can be met, demands[: high + 1] can't
        middle = (low + high) // 2
        order = _order_that_meets(model, operations, demands[: middle + 1], steps)
        if order is None:
            high = middle
        else:
            low, explained = middle + 1, order
    first, placed = demands[low], {id(one) for one in explained}
    beside = [
        one
        for one in demands[low + 1 :]
        if one.called <= first.until and one.returned is not None and id(one) not in placed
    ]
    return explained, [first, *beside]


def _order_that_meets(
    model: Model[StateT, PayloadT],
    operations: Sequence[Operation[PayloadT]],
    demands: Sequence[Operation[PayloadT]],
    steps: Steps,
) -> list[Operation[PayloadT]] | None:
    """An order of these, and of what was called by the last return if that helps."""
    until, demanded = demands[-1].until, {id(one) for one in demands}
    called = [one for one in operations if one.called <= until]
    seen = [
        one if id(one) in demanded else replace(one, returned=None, happened=False)
        for one in called
    ]
    originals = {id(one): original for one, original in zip(seen, called, strict=True)}
    order = _order(model, _cut(seen), steps)
    return None if order is None else [originals[id(one)] for one in order]


def _order(
    model: Model[StateT, PayloadT],
    cut: Sequence[Sequence[Operation[PayloadT]]],
    steps: Steps,
) -> list[Operation[PayloadT]] | None:
    """An order that explains all segments, None where there is none."""
    if not may_be_explained(model, [operation for segment in cut for operation in segment]):
        return None
    return Search(model, cut, steps).order()


def _account(
    model: Model[StateT, PayloadT],
    placed: Sequence[Operation[PayloadT]],
    unplaced: Sequence[Operation[PayloadT]],
) -> str:
    def told(operation: Operation[PayloadT]) -> str:
        until = "unknown" if operation.returned is None else f"{operation.returned:.10g}"
        when = f"{operation.called:.10g} to {until}"
        return f"{operation.name} of {operation.client} ({when}) {model.told(operation)}"

    account = f"{len(placed)} operations fit"
    if last := "; ".join(map(told, placed[-_TOLD:])):
        account += f", at last {last}"
    first, *beside = unplaced
    account += f". No place for {told(first)}"
    if beside:
        account += f". Under way with it: {'; '.join(map(told, beside[:_TOLD]))}"
        account += f" and {len(beside) - _TOLD} more" * (len(beside) > _TOLD)
    return account


def _by_return(operation: Operation[PayloadT]) -> tuple[float, float]:
    return (operation.until, operation.called)


# -- a serial environment ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wrote:
    """A write that answered the revision `made`, or whose revision the final history tells.

    `expected` is the whole revision of its precondition, "" that there be no environment, None
    that there was no precondition. A deletion makes "". `changed` tells whether a commit stands
    in the history under its operation id: a write that found nothing to change has none, and
    answers the present revision. It is None where that is not known.

    Only a write of unknown outcome may have `made` None: the final history has no commit under
    its operation id, so it had no effect. That can be said once nothing is under way any more,
    and of a history that reaches back to the call.
    """

    made: str | None
    expected: str | None = None
    changed: bool | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A write that was refused, with nothing done, because the revision was not `expected`.

    "" is for a write that wanted no environment there and was told that there is one.
    """

    expected: str


@dataclass(frozen=True, slots=True)
class Read:
    """A strong read that answered a revision, "" where it was told that there is no environment.

    A write refused because there is no environment is a read of "" too.
    """

    revision: str


SerialPayload = Wrote | Refused | Read
SerialOperation = Operation[SerialPayload]
"""The type; what makes one is `Operation`."""


@dataclass(frozen=True, slots=True)
class SerialEnvironment:
    """The model; `initial` is the revision before the first operation."""

    initial: str = ""

    def step(self, state: str, operation: SerialOperation) -> tuple[str, ...]:
        match operation.payload:
            case Wrote(made, expected, changed):
                if made is None or expected not in (None, state):
                    return ()
                return (made,) if changed in (None, made != state) else ()
            case Refused(expected):
                return (state,) if state != expected else ()
            case Read(revision):
                return (state,) if state == revision else ()
            case _:
                assert_never(operation.payload)

    def looks(self, operation: SerialOperation) -> bool:
        match operation.payload:
            case Wrote(made, expected, changed):
                return changed is False or made == expected
            case Refused() | Read():
                return True
            case _:
                assert_never(operation.payload)

    def needs(self, operation: SerialOperation) -> str | None:
        match operation.payload:
            case Wrote(made, expected, changed):
                return made if changed is False else expected
            case Refused():
                return None
            case Read(revision):
                return revision
            case _:
                assert_never(operation.payload)

    def makes(self, operation: SerialOperation) -> str | None:
        wrote = operation.payload
        return wrote.made if isinstance(wrote, Wrote) and not self.looks(operation) else None

    def told(self, operation: SerialOperation) -> str:
        match operation.payload:
            case Wrote(made, expected, _):
                over = "" if expected is None else f" over {expected or 'nothing'}"
                return f"wrote {made or 'nothing'}{over}"
            case Refused(expected):
                return f"was refused as it wanted {expected or 'nothing'}"
            case Read(revision):
                return f"read {revision or 'nothing'}"
            case _:
                assert_never(operation.payload)


def check_serial(
    operations: Sequence[SerialOperation],
    *,
    initial: str = "",
    most_clients: int = MOST_CLIENTS,
    most_operations: int = MOST_OPERATIONS,
    budget: int = BUDGET,
) -> Verdict[SerialPayload]:
    """Judge all strong reads and writes of one environment.

    A write of unknown outcome that made a revision has happened, whenever that was. One that made
    none says nothing and is left out, as are reads and refusals whose answer never came; a write
    refused for a reason that says nothing of the state is not to be passed in.

    Raises ValueError for a write that returned and made None, and as `segments` does.
    """
    judged: list[SerialOperation] = []
    for operation in operations:
        wrote = operation.payload if isinstance(operation.payload, Wrote) else None
        if operation.returned is not None:
            if wrote and wrote.made is None:
                raise ValueError(f"{operation.name} returned, but what it made is not told")
            judged.append(operation)
        elif wrote and wrote.made is not None:
            judged.append(replace(operation, happened=True))
    return check_segments(
        SerialEnvironment(initial),
        judged,
        most_clients=most_clients,
        most_operations=most_operations,
        budget=budget,
    )
