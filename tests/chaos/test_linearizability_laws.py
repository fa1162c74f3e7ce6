"""The checker against registers that are right, and against every order of a few operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from chaos.sim.linearizability import (
    Outcome,
    Read,
    Refused,
    SerialEnvironment,
    SerialOperation,
    SerialPayload,
    Verdict,
    Wrote,
    check,
    check_segments,
    check_serial,
)
from tests.chaos.register import (
    CLIENTS,
    KINDS,
    UNKNOWN_KINDS,
    Command,
    HalfTold,
    Untold,
    assert_explains,
    commands,
    has_order,
    history_of,
    names,
    operation,
    random_commands,
)

# -- steps -----------------------------------------------------------------------------------------


def test_writes_at_once_are_tried_by_sets_and_not_by_orders() -> None:
    at_once = [operation(f"w{n}", 0, 9, Wrote(f"r{n}")) for n in range(CLIENTS)]
    wrong = [operation("last", 20, 21, Wrote("r99")), operation("no", 30, 31, Refused("r99"))]
    configurations = CLIENTS * 2 ** (CLIENTS - 1) + 1  # a set with the last of it, or none

    verdict = check_serial([*at_once, *wrong])

    assert verdict.outcome is Outcome.VIOLATED
    assert configurations < verdict.steps <= CLIENTS * configurations  # there are 3,628,800 orders


def test_reads_at_once_are_tried_in_one_order() -> None:
    write = operation("write", 0, 1, Wrote("r1"))
    reads = [operation(f"read {n}", 2, 19, Read("r1")) for n in range(CLIENTS)]
    wrong = operation("wrong", 20, 21, Refused("r1"))

    verdict = check_serial([write, *reads, wrong])

    assert verdict.outcome is Outcome.VIOLATED
    assert verdict.steps == 1 + CLIENTS + 1


def wrote(
    name: str, called: float, returned: float | None, made: str, expected: str | None = None
) -> SerialOperation:
    return operation(name, called, returned, Wrote(made, expected, changed=True))


def read(name: str, called: float, returned: float, revision: str) -> SerialOperation:
    return operation(name, called, returned, Read(revision))


@pytest.mark.parametrize(
    "history",
    [
        [read("ghost", 0, 1, "r1")],
        [read("early", 0, 1, "r1"), wrote("late", 2, 3, "r1")],
        [wrote("a", 0, 1, "r1"), wrote("b", 2, 3, "r2"), read("stale", 4, 5, "r1")],
        [wrote("a", 0, 1, "r1"), read("before it", 2, 3, "")],
        [
            wrote("a", 0, 9, "r1"),
            wrote("b", 0, 9, "r2"),
            *(read(f"{at}", at, at + 1, f"r{at // 10 % 2 + 1}") for at in (10, 20, 30, 40)),
        ],
        [wrote("a", 0, 1, "r1"), wrote("b", 2, 9, "r2", "r1"), wrote("c", 2, 9, "r3", "r1")],
        [wrote("a", 0, 9, "r1", "r2"), wrote("b", 0, 9, "r2", "r1")],
        [
            wrote("a", 0, 9, "r1"),
            wrote("b", 0, 9, "r2", "r1"),
            wrote("c", 0, 9, "r3", "r2"),
            read("x", 10, 11, "r3"),
            wrote("d", 12, 13, "r4"),
            read("y", 14, 15, "r1"),
        ],
        [
            wrote("a", 0, 9, "r1"),
            wrote("b", 0, None, "r2", "r1"),
            wrote("c", 0, None, "r3", "r2"),
            read("x", 3, 4, "r3"),
            read("y", 5, 20, "r1"),
        ],
        [
            wrote("a", 0, 1, "r1"),
            wrote("b", 2, 3, "r2"),
            operation("stale", 4, 5, Wrote("r1", changed=False)),
        ],
        [
            wrote("a", 0, 1, "r1"),
            wrote("b", 2, 3, "r2"),
            operation("same", 4, 5, Wrote("r2", "r2")),
            wrote("c", 6, 7, "r3"),
            read("stale", 8, 9, "r2"),
        ],
    ],
    ids=[
        "nobody made it",
        "made too late",
        "it was over",
        "the beginning was over",
        "there and back",
        "two ways on",
        "a circle",
        "a chain was over",
        "a chain turned round",
        "nothing to change any more",
        "nothing to change, then over",
    ],
)
def test_states_that_can_not_follow_each_other_are_found_without_a_search(
    history: list[SerialOperation],
) -> None:
    verdict = check_serial(history)

    assert verdict.outcome is Outcome.VIOLATED
    assert verdict.steps == 0
    assert not has_order(with_certain_writes(history))


def test_more_windows_of_writes_at_once_add_steps_and_do_not_multiply_them() -> None:
    def steps(windows: int) -> int:
        history = [
            operation(f"w{window}.{n}", 10 * window + n, 10 * window + 9, Wrote(f"r{window}.{n}"))
            for window in range(windows)
            for n in range(6)
        ]
        wrong = [operation("last", 900, 901, Wrote("r")), operation("no", 903, 904, Refused("r"))]
        verdict = check_serial([*history, *wrong])
        assert verdict.outcome is Outcome.VIOLATED
        return verdict.steps

    assert steps(40) < 40 * steps(1) * 6  # a window may begin in as many states as one ends in


# -- histories of a real register ------------------------------------------------------------------


@given(st.lists(commands(), max_size=40), st.randoms(use_true_random=False))
def test_whatever_a_register_tells_is_linearizable(told: list[Command], chance: Random) -> None:
    history = history_of(told)
    chance.shuffle(history)

    verdict = check_serial(history)

    assert verdict.is_linearizable
    happened = [one for one in history if one.payload != Wrote(None)]
    assert_explains(verdict.placed, history)
    assert len(verdict.placed) == len(happened)


@pytest.mark.parametrize(
    "kinds",
    [
        KINDS,
        KINDS * 3 + UNKNOWN_KINDS,
        KINDS + UNKNOWN_KINDS * 2,
        ("write", "write", "write", "read"),
        ("write over", "write over another", "read"),
        ("write", "write over", "unknown write", "unknown write over"),
    ],
    ids=["known", "some unknown", "many unknown", "no preconditions", "preconditions", "writes"],
)
def test_ten_clients_and_five_hundred_operations_take_a_few_steps_each(
    kinds: Sequence[str],
) -> None:
    for seed in range(5):
        told = random_commands(Random(seed), kinds, 500)

        verdict = check_serial(history_of(told))

        assert verdict.is_linearizable
        assert verdict.steps < 500 * CLIENTS


@pytest.mark.parametrize("kinds", [KINDS, KINDS * 3 + UNKNOWN_KINDS], ids=["known", "unknown"])
def test_one_stale_read_among_five_hundred_operations_is_found_and_named(
    kinds: Sequence[str],
) -> None:
    for seed in range(5):
        history = history_of(random_commands(Random(seed), kinds, 500))
        reads = [at for at, one in enumerate(history) if isinstance(one.payload, Read)]
        at = next(at for at in reads if at > 250)
        long_ago = next(at for at in reads if history[at].payload != Read(""))
        history[at] = replace(history[at], payload=history[long_ago].payload)

        verdict = check_serial(history)

        assert verdict.outcome is Outcome.VIOLATED
        assert verdict.unplaced[0] == history[at]
        assert_explains(verdict.placed, history)


# -- against all orders ----------------------------------------------------------------------------


def with_certain_writes(history: Iterable[SerialOperation]) -> list[SerialOperation]:
    """What a history of a serial environment says: of the unknown, only what was made."""
    certain = []
    for one in history:
        if one.returned is not None:
            certain.append(one)
        elif isinstance(one.payload, Wrote) and one.payload.made is not None:
            certain.append(replace(one, happened=True))
    return certain


def assert_agrees(verdict: Verdict[SerialPayload], history: Sequence[SerialOperation]) -> None:
    """The verdict is that of all orders, and the first failure is the first one there is."""
    must = [one for one in history if one.must_be_placed]
    may = [one for one in history if not one.must_be_placed]
    event(verdict.outcome.value)
    assert_explains(verdict.placed, history)
    assert verdict.is_linearizable == has_order(must, may)
    if verdict.is_linearizable:
        assert set(names(must)) <= set(names(verdict.placed))
        return
    first = verdict.unplaced[0]
    must.sort(key=lambda one: (one.until, one.called))
    earlier = must[: must.index(first)]
    others = [one for one in history if one not in earlier and one.called <= first.until]
    assert set(names(earlier)) <= set(names(verdict.placed))
    assert has_order(earlier, [one for one in others if one != first])
    assert not has_order([*earlier, first], [one for one in others if one != first])


FEW = st.sampled_from(("", "r0", "r1", "r2"))
PAYLOADS = st.one_of(
    st.builds(Read, FEW),
    st.builds(Refused, FEW),
    st.builds(Wrote, FEW, st.none() | FEW, st.none() | st.booleans()),
)


@st.composite
def small_histories(draw: st.DrawFn) -> list[SerialOperation]:
    """Up to five operations that may be of no register at all; some may never have happened."""
    history = []
    for at in range(draw(st.integers(1, 5))):
        called = draw(st.integers(0, 8))
        lasted = draw(st.none() | st.integers(0, 8))
        returned = None if lasted is None else called + lasted
        one = operation(f"op-{at}", called, returned, draw(PAYLOADS))
        history.append(replace(one, happened=draw(st.booleans())))
    return history


@settings(max_examples=400)
@given(small_histories())
def test_a_verdict_is_that_of_all_orders(history: list[SerialOperation]) -> None:
    assert_agrees(check(SerialEnvironment(), history), history)
    assert_agrees(check_segments(SerialEnvironment(), history), history)
    assert_agrees(check_segments(HalfTold(), history), history)
    assert_agrees(check_segments(Untold(), history), history)


@settings(max_examples=400)
@given(st.lists(commands(), min_size=2, max_size=5), st.integers(0, 4), st.integers(0, 4), PAYLOADS)
def test_a_verdict_on_a_history_with_two_answers_swapped_is_that_of_all_orders(
    told: list[Command], one: int, other: int, payload: SerialPayload
) -> None:
    history = history_of(told)
    one, other = one % len(history), other % len(history)
    swapped = list(history)
    swapped[one] = replace(history[one], payload=history[other].payload)
    swapped[other] = replace(history[other], payload=history[one].payload)
    forged = list(history)
    forged[one] = replace(history[one], payload=payload)

    for changed in (swapped, forged):
        if all(each.returned is None or each.payload != Wrote(None) for each in changed):
            assert_agrees(check_serial(changed), with_certain_writes(changed))


@settings(max_examples=50)
@given(st.lists(commands(), min_size=10, max_size=25), st.data())
def test_neither_cuts_nor_what_a_model_tells_of_itself_change_an_outcome(
    told: list[Command], data: st.DataObject
) -> None:
    history = with_certain_writes(history_of(told))
    if history:
        at = data.draw(st.integers(0, len(history) - 1))
        other = data.draw(st.integers(0, len(history) - 1))
        history[at] = replace(history[at], payload=history[other].payload)

    whole = check(SerialEnvironment(), history)
    cut = check_segments(SerialEnvironment(), history)
    plain = check_segments(Untold(), history)

    event(whole.outcome.value)
    assert whole.outcome is cut.outcome
    assert plain.outcome in (whole.outcome, Outcome.UNDECIDED)
    assert whole.unplaced[:1] == cut.unplaced[:1]
