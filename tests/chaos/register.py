"""Histories of one register, and whether any order of their operations explains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from random import Random

from hypothesis import strategies as st

from chaos.sim.linearizability import (
    Operation,
    Read,
    Refused,
    SerialEnvironment,
    SerialOperation,
    SerialPayload,
    Wrote,
)

CLIENTS = 10
APART = 10
"""Between the moments at which the operations of `history_of` take effect."""
SPREAD = APART * CLIENTS // 2 - 5
"""At most so long before and after: no client is in two operations at once."""


def operation(
    name: str, called: float, returned: float | None, payload: SerialPayload, client: str = ""
) -> SerialOperation:
    return Operation(name, client or f"client of {name}", called, returned, payload)


def names(operations: Iterable[SerialOperation]) -> list[str]:
    return [one.name for one in operations]


@dataclass(frozen=True)
class Untold(SerialEnvironment):
    """The same model, which gives the search nothing to go by but its steps."""

    def looks(self, operation: SerialOperation) -> bool:
        return False

    def needs(self, operation: SerialOperation) -> None:
        return None

    def makes(self, operation: SerialOperation) -> None:
        return None


@dataclass(frozen=True)
class HalfTold(SerialEnvironment):
    """The same model, which tells nothing of what was called at an odd time."""

    def looks(self, operation: SerialOperation) -> bool:
        return not operation.called % 2 and super().looks(operation)

    def needs(self, operation: SerialOperation) -> str | None:
        return None if operation.called % 2 else super().needs(operation)

    def makes(self, operation: SerialOperation) -> str | None:
        return None if operation.called % 2 else super().makes(operation)


@dataclass(frozen=True)
class Command:
    """What to do at one moment, called so long before it and answered so long after it."""

    kind: str
    before: int
    after: int


KINDS = ("write", "write over", "write over another", "write the same", "delete", "read")
UNKNOWN_KINDS = ("unknown write", "unknown write over", "unknown nothing")


def history_of(commands: Sequence[Command]) -> list[SerialOperation]:
    """The operations of clients of one register, in the order in which they took effect."""
    state, history = "", list[SerialOperation]()
    for at, command in enumerate(commands):
        made, moment = f"r{at}", at * APART
        payload: SerialPayload
        match command.kind:
            case "write" | "unknown write":
                payload, state = Wrote(made, changed=True), made
            case "write over" | "unknown write over":
                payload, state = Wrote(made, expected=state, changed=True), made
            case "write over another":
                payload = Refused(f"r{at - 3}" if state != f"r{at - 3}" else "r")
            case "write the same":
                payload = Wrote(state, changed=False)
            case "delete" if state:
                payload, state = Wrote("", expected=state, changed=True), ""
            case "unknown nothing":
                payload = Wrote(None)
            case _:
                payload = Read(state)
        returned = None if command.kind.startswith("unknown") else moment + command.after
        client = f"c{at % CLIENTS}"
        history.append(operation(f"op-{at}", moment - command.before, returned, payload, client))
    return history


def commands(kinds: Sequence[str] = KINDS + UNKNOWN_KINDS) -> st.SearchStrategy[Command]:
    around = st.integers(0, SPREAD)
    return st.builds(Command, st.sampled_from(kinds), around, around)


def random_commands(chance: Random, kinds: Sequence[str], count: int) -> list[Command]:
    return [
        Command(chance.choice(kinds), chance.randint(0, SPREAD), chance.randint(0, SPREAD))
        for _ in range(count)
    ]


def right_answer(state: str, one: SerialOperation) -> bool:
    match one.payload:
        case Read(revision):
            return revision == state
        case Refused(expected):
            return expected != state
        case Wrote(made, expected, changed):
            if expected is not None and expected != state:
                return False
            return changed is None or changed is (made != state)


def replays(state: str, order: Iterable[SerialOperation]) -> bool:
    for one in order:
        if not right_answer(state, one):
            return False
        if isinstance(one.payload, Wrote):
            state = one.payload.made or ""
    return True


def keeps_times(order: Sequence[SerialOperation]) -> bool:
    return all(
        later.returned is None or later.returned >= earlier.called
        for earlier, later in combinations(order, 2)
    )


def orders(
    must: Sequence[SerialOperation], may: Sequence[SerialOperation]
) -> Iterator[tuple[SerialOperation, ...]]:
    for count in range(len(may) + 1):
        for chosen in combinations(may, count):
            yield from permutations([*must, *chosen])


def has_order(must: Sequence[SerialOperation], may: Sequence[SerialOperation] = ()) -> bool:
    return any(replays("", order) and keeps_times(order) for order in orders(must, may))


def assert_explains(placed: Sequence[SerialOperation], history: Iterable[SerialOperation]) -> None:
    """Each operation once, in an order that their times allow, each with a right answer."""
    assert len(set(names(placed))) == len(placed)
    assert set(names(placed)) <= set(names(history))
    assert keeps_times(placed)
    assert replays("", placed)
