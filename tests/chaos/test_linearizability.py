"""What one copy could have told its clients passes, and anything else is found and told of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from chaos.sim.linearizability import (
    Operation,
    Outcome,
    Read,
    Refused,
    SerialEnvironment,
    SerialOperation,
    SerialPayload,
    Wrote,
    check,
    check_segments,
    check_serial,
    segments,
)
from tests.chaos.register import CLIENTS, HalfTold, Untold, names, operation

FIRST = operation("first", 0, 1, Wrote("r1"))
SECOND = operation("second", 2, 3, Wrote("r2"))
SEEN = operation("seen", 6, 7, Read("r1"))


# -- what is right ---------------------------------------------------------------------------------


def test_what_follows_one_after_the_other_is_placed_in_that_order() -> None:
    verdict = check_serial(
        [
            operation("a", 0, 1, Read("")),
            operation("b", 2, 3, Wrote("r1", expected="", changed=True)),
            operation("c", 4, 5, Read("r1")),
            operation("d", 6, 7, Wrote("r2", expected="r1", changed=True)),
            operation("e", 8, 9, Refused("r1")),
            operation("f", 10, 11, Wrote("r2", changed=False)),
        ]
    )

    assert verdict.outcome is Outcome.LINEARIZABLE
    assert verdict.is_linearizable
    assert names(verdict.placed) == ["a", "b", "c", "d", "e", "f"]
    assert (verdict.unplaced, verdict.account) == ((), "")


def test_a_history_of_nothing_is_linearizable() -> None:
    assert check_serial([]).is_linearizable
    assert check(SerialEnvironment(), []).is_linearizable


@pytest.mark.parametrize("seen", ["r1", "r2"])
def test_a_read_during_a_write_may_see_either_side_of_it(seen: str) -> None:
    write = operation("write", 2, 9, Wrote("r2"))
    read = operation("read", 4, 5, Read(seen))

    assert check_serial([FIRST, write, read]).is_linearizable


def test_a_call_at_the_time_of_a_return_may_come_first() -> None:
    write = operation("write", 2, 5, Wrote("r2"))
    read = operation("read", 5, 6, Read("r1"))

    assert check_serial([FIRST, write, read]).is_linearizable
    assert not check_serial([FIRST, write, replace(read, called=5.1)]).is_linearizable


def test_what_was_there_before_the_history_may_be_read() -> None:
    read = operation("read", 0, 1, Read("r0"))

    assert check_serial([read], initial="r0").is_linearizable
    assert not check_serial([read]).is_linearizable


def test_a_deletion_makes_way_for_a_write_that_wants_nothing_there() -> None:
    delete = operation("delete", 2, 3, Wrote("", expected="r1", changed=True))
    again = operation("again", 4, 5, Wrote("r2", expected="", changed=True))

    assert check_serial([FIRST, delete, operation("r", 4, 4, Read("")), again]).is_linearizable
    assert not check_serial([FIRST, again]).is_linearizable


# -- what is wrong ---------------------------------------------------------------------------------


def test_a_stale_read_is_found() -> None:
    stale = operation("stale", 4, 5, Read("r1"))

    verdict = check_serial([FIRST, SECOND, stale])

    assert verdict.outcome is Outcome.VIOLATED
    assert names(verdict.placed) == ["first", "second"]
    assert names(verdict.unplaced) == ["stale"]


def test_a_read_that_goes_back_in_time_is_found() -> None:
    write = operation("write", 2, 9, Wrote("r2"))
    new, old = operation("new", 3, 4, Read("r2")), operation("old", 5, 6, Read("r1"))

    verdict = check_serial([FIRST, write, new, old])

    assert names(verdict.unplaced) == ["old"]
    assert check_serial([FIRST, write, replace(new, returned=5), old]).is_linearizable


def test_a_lost_update_is_found() -> None:
    onto = operation("onto", 4, 5, Wrote("r3", expected="r1", changed=True))

    assert names(check_serial([FIRST, SECOND, onto]).unplaced) == ["onto"]


def test_two_writes_over_one_revision_do_not_both_succeed() -> None:
    one = operation("one", 2, 9, Wrote("r2", expected="r1", changed=True))
    other = operation("other", 2, 8, Wrote("r3", expected="r1", changed=True))

    verdict = check_serial([FIRST, one, other])

    assert names(verdict.placed) == ["first", "other"]
    assert names(verdict.unplaced) == ["one"]


def test_a_read_of_what_nobody_wrote_is_found() -> None:
    ghost = operation("ghost", 0, 9, Read("r7"))

    assert names(check_serial([FIRST, ghost]).unplaced) == ["ghost"]


def test_a_read_before_its_write_was_called_is_found() -> None:
    early = operation("early", 0, 1, Read("r2"))

    assert names(check_serial([early, SECOND]).unplaced) == ["early"]


def test_a_refusal_although_nobody_wrote_meanwhile_is_found() -> None:
    refused = operation("refused", 4, 9, Refused("r1"))
    meanwhile = operation("meanwhile", 5, 8, Wrote("r2"))

    assert names(check_serial([FIRST, refused]).unplaced) == ["refused"]
    assert check_serial([FIRST, refused, meanwhile]).is_linearizable


def test_a_write_that_found_nothing_to_change_tells_the_present_revision() -> None:
    unchanged = operation("unchanged", 4, 5, Wrote("r2", changed=False))
    stale = operation("unchanged", 4, 5, Wrote("r1", changed=False))

    assert check_serial([FIRST, SECOND, unchanged]).is_linearizable
    assert check_serial([FIRST, SECOND, stale]).outcome is Outcome.VIOLATED


def test_a_write_that_changed_something_leads_to_another_revision() -> None:
    same = operation("same", 2, 3, Wrote("r1", changed=True))

    assert not check_serial([FIRST, same]).is_linearizable
    assert check_serial([FIRST, replace(same, payload=Wrote("r1"))]).is_linearizable


# -- outcomes that nobody knows --------------------------------------------------------------------


def test_a_write_of_unknown_outcome_may_take_effect_late() -> None:
    unknown = operation("unknown", 0, None, Wrote("r9"))
    before, after = operation("before", 4, 5, Read("r2")), operation("after", 8, 9, Read("r9"))

    verdict = check_serial([unknown, FIRST, SECOND, before, after])

    assert names(verdict.placed) == ["first", "second", "before", "unknown", "after"]


def test_a_write_of_unknown_outcome_that_left_nothing_says_nothing() -> None:
    never = operation("never", 2, None, Wrote(None, expected="r1"))

    verdict = check_serial([FIRST, never, operation("read", 4, 5, Read("r1"))])

    assert names(verdict.placed) == ["first", "read"]


def test_a_write_of_unknown_outcome_does_not_come_undone() -> None:
    unknown = operation("unknown", 2, None, Wrote("r9"))
    seen, gone = operation("seen", 4, 5, Read("r9")), operation("gone", 6, 7, Read("r1"))

    assert names(check_serial([FIRST, unknown, seen, gone]).unplaced) == ["gone"]


def test_a_write_of_unknown_outcome_has_no_effect_before_its_call() -> None:
    seen = operation("seen", 2, 3, Read("r9"))

    assert not check_serial([FIRST, seen, operation("u", 4, None, Wrote("r9"))]).is_linearizable


def test_a_write_of_unknown_outcome_that_happened_needs_a_place() -> None:
    unknown = operation("unknown", 4, None, Wrote("r9", expected="r1", changed=True))

    verdict = check_serial([FIRST, SECOND, unknown])

    assert names(verdict.placed) == ["first", "second"]
    assert names(verdict.unplaced) == ["unknown"]
    assert check_serial([FIRST, SECOND, replace(unknown, called=1)]).is_linearizable


def test_a_chain_of_writes_of_unknown_outcome_is_placed_between_what_saw_its_ends() -> None:
    links = [
        operation(f"link {at}", 2, None, Wrote(f"r{at + 1}", expected=f"r{at}", changed=True))
        for at in range(1, 9)
    ]
    middle = operation("middle", 40, 41, Read("r5"))
    last = operation("last", 50, 51, Read("r9"))

    assert check_serial([FIRST, *links, middle, last]).is_linearizable
    assert not check_serial(
        [FIRST, *links, replace(middle, called=60, returned=61), last]
    ).is_linearizable


def test_what_has_no_answer_is_left_out_unless_it_is_a_write() -> None:
    silent = [operation("read", 2, None, Read("r7")), operation("no", 2, None, Refused("r1"))]

    assert names(check_serial([FIRST, *silent]).placed) == ["first"]


def test_a_write_that_returned_has_to_tell_what_it_made() -> None:
    with pytest.raises(ValueError, match="first returned"):
        check_serial([replace(FIRST, payload=Wrote(None))])


def test_no_operation_returns_before_its_call() -> None:
    with pytest.raises(ValueError, match="first returned at -1"):
        replace(FIRST, returned=-1)


# -- segments --------------------------------------------------------------------------------------


def test_a_history_is_cut_where_only_unknown_operations_are_open() -> None:
    unknown = operation("unknown", 2.5, None, Wrote("r8"))
    alone = operation("alone", 3.5, None, Wrote("r9"))
    long, within = operation("long", 5, 9, Read("r2")), operation("within", 6, 7, Read("r2"))
    touching = operation("touching", 9, 10, Read("r2"))

    cut = segments([touching, within, long, alone, unknown, SECOND, FIRST])

    assert [names(segment) for segment in cut] == [
        ["first"],
        ["second", "unknown"],
        ["alone"],
        ["long", "within", "touching"],
    ]


@pytest.mark.parametrize("seen", ["r1", "r2"])
def test_all_states_that_a_segment_may_end_in_go_over_the_cut(seen: str) -> None:
    one, other = operation("one", 0, 9, Wrote("r1")), operation("other", 0, 9, Wrote("r2"))
    pause = operation("pause", 20, 21, Refused("r7"))

    verdict = check_serial([one, other, pause, operation("read", 30, 31, Read(seen))])

    assert verdict.is_linearizable
    assert len(segments([*verdict.placed])) == 3


def test_a_violation_across_a_cut_is_found() -> None:
    one, other = operation("one", 0, 9, Wrote("r1")), operation("other", 0, 9, Wrote("r2"))
    refused = [operation("x", 20, 21, Refused("r1")), operation("y", 30, 31, Refused("r2"))]

    verdict = check_serial([one, other, *refused])

    assert verdict.outcome is Outcome.VIOLATED
    assert names(verdict.placed) == ["one", "other", "x"]
    assert names(verdict.unplaced) == ["y"]


def test_an_unknown_write_goes_over_cuts_until_it_is_placed_and_no_further() -> None:
    unknown = operation("unknown", 2, None, Wrote("r9"))
    reads = [
        operation(f"at {at}", at, at + 1, Read(seen))
        for at, seen in ((4, "r1"), (6, "r1"), (8, "r9"), (10, "r9"))
    ]
    late = operation("late", 12, 13, Read("r1"))

    assert len(segments([FIRST, unknown, *reads])) == 6
    assert check_serial([FIRST, unknown, *reads]).is_linearizable
    assert names(check_serial([FIRST, unknown, *reads, late]).unplaced) == ["late"]


@pytest.mark.parametrize("model", [SerialEnvironment(), Untold()], ids=["told", "untold"])
def test_a_segment_may_be_tried_again_with_less_placed_before_it(model: SerialEnvironment) -> None:
    unknown = [operation(f"u{n}", 2, None, Wrote(f"r{n}")) for n in (7, 8, 9)]
    fits_all = operation("x", 4, 5, Refused("r99"))
    reads = [operation(f"at {n}", n, n + 1, Read(f"r{n}")) for n in (7, 8, 9)]

    verdict = check_segments(model, [FIRST, *unknown, fits_all, SEEN, *reads])

    assert verdict.is_linearizable


def test_two_unknown_writes_over_cuts_are_placed_in_the_order_that_was_seen() -> None:
    one, other = operation("one", 2, None, Wrote("r8")), operation("other", 2, None, Wrote("r9"))
    reads = [operation("x", 4, 5, Read("r9")), operation("y", 6, 7, Read("r8"))]

    placed = check_serial([FIRST, one, other, *reads]).placed

    assert names(placed) == ["first", "other", "x", "one", "y"]


def test_a_segment_of_too_many_clients_or_operations_is_refused() -> None:
    at_once = [operation(f"w{n}", 0, 9, Wrote(f"r{n}")) for n in range(CLIENTS)]
    more = operation("more", 0, 9, Wrote("r99"))

    assert check_serial(at_once).is_linearizable
    with pytest.raises(ValueError, match="has 11 clients and 11 operations"):
        check_serial([*at_once, more])
    with pytest.raises(ValueError, match="at most 10 and 9 can"):
        check_serial(at_once, most_operations=9)
    assert check_serial([*at_once, more], most_clients=11).is_linearizable
    assert check_serial([*at_once, replace(more, called=10, returned=11)]).is_linearizable


# -- accounts --------------------------------------------------------------------------------------


def test_an_account_tells_what_fits_at_last_and_what_does_not() -> None:
    beside = operation("beside", 3.5, 9, Read("r2"), "c4")
    unknown = operation("unknown", 3.5, None, Wrote("r9", expected="r8"))
    stale = operation("stale", 4, 5.25, Read("r1"), "c3")

    account = check_serial([FIRST, SECOND, beside, unknown, stale]).account

    assert account == (
        "2 operations fit, at last first of client of first (0 to 1) wrote r1; "
        "second of client of second (2 to 3) wrote r2. "
        "No place for stale of c3 (4 to 5.25) read r1. "
        "Under way with it: beside of c4 (3.5 to 9) read r2"
    )


def test_an_account_of_many_operations_is_short() -> None:
    writes = [operation(f"w{at}", at, at + 0.5, Wrote(f"r{at}")) for at in range(200)]
    slow = [operation(f"s{n}", 300, 400, Read("r199")) for n in range(9)]
    stale = operation("stale", 301, 302, Read("r7"))

    verdict = check_serial([*writes, *slow, stale])

    assert len(verdict.account) < 600
    assert "200 operations fit" in verdict.account
    assert verdict.account.endswith(" and 6 more")


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (Wrote("r3", expected="r0", changed=True), "wrote r3 over r0"),
        (Wrote("", expected="", changed=True), "wrote nothing over nothing"),
        (Refused("r1"), "was refused as it wanted r1"),
        (Read(""), "read nothing"),
    ],
)
def test_an_account_names_revisions(payload: SerialPayload, told: str) -> None:
    wrong = operation("wrong", 2, 3, payload)

    assert check_serial([FIRST, wrong]).account.endswith(f"(2 to 3) {told}")


def test_an_account_calls_an_unknown_return_unknown() -> None:
    unknown = operation("unknown", 2, None, Wrote("r3", expected="r0"))

    assert "(2 to unknown) wrote r3 over r0" in check_serial([FIRST, unknown]).account


# -- other models ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queue:
    """A queue of values; `+x` puts x in, `x` is what taking one out gave."""

    initial: tuple[str, ...] = ()

    def step(
        self, state: tuple[str, ...], operation: Operation[str]
    ) -> tuple[tuple[str, ...], ...]:
        if operation.payload.startswith("+"):
            return ((*state, operation.payload[1:]),)
        return (state[1:],) if state[:1] == (operation.payload,) else ()

    def looks(self, operation: Operation[str]) -> bool:
        return False

    def needs(self, operation: Operation[str]) -> None:
        return None

    def makes(self, operation: Operation[str]) -> None:
        return None

    def told(self, operation: Operation[str]) -> str:
        return "put one in" if operation.payload.startswith("+") else "took one out"


def queue_operation(
    name: str, called: float, returned: float | None, payload: str
) -> Operation[str]:
    return Operation(name, "c", called, returned, payload)


def test_any_model_may_be_judged_by() -> None:
    puts = [queue_operation("one", 0, 5, "+secret"), queue_operation("two", 1, 4, "+other")]
    took = [queue_operation("three", 6, 7, "other"), queue_operation("four", 8, 9, "secret")]

    assert check_segments(Queue(), [*puts, *took]).is_linearizable
    assert not check_segments(
        Queue(), [replace(puts[0], returned=0.5), *puts[1:], *took]
    ).is_linearizable


def test_no_verdict_shows_what_a_model_does_not_tell() -> None:
    put, took = queue_operation("put", 0, 1, "+secret"), queue_operation("took", 2, 3, "other")

    verdict = check(Queue(), [put, took])

    assert verdict.account.endswith(
        "(0 to 1) put one in. No place for took of c (2 to 3) took one out"
    )
    assert "secret" not in repr(verdict)
    assert "other" not in repr(verdict)


def test_what_may_never_have_happened_may_be_left_out() -> None:
    unknown = queue_operation("unknown", 0, None, "+x")
    took = queue_operation("took", 8, 9, "x")

    assert check(Queue(), [unknown]).placed == ()
    assert check(Queue(), [unknown, took]).placed == (unknown, took)
    assert not check(Queue(), [took]).is_linearizable
    assert check(Queue(), [replace(unknown, happened=True)]).placed != ()


def test_a_model_need_not_tell_what_each_operation_makes() -> None:
    again = operation("again", 5, 5, Wrote("r1"))  # at an odd time, of which nothing is told

    verdict = check_segments(HalfTold(), [FIRST, SECOND, again, SEEN])

    assert verdict.is_linearizable


@dataclass(frozen=True)
class Forgetful(Untold):
    """Any write may have been kept or not."""

    def step(self, state: str, operation: SerialOperation) -> tuple[str, ...]:
        after = super().step(state, operation)
        return (*after, state) if isinstance(operation.payload, Wrote) else after


def test_an_operation_may_lead_to_several_states() -> None:
    old, new = operation("old", 4, 5, Read("r1")), operation("new", 4, 5, Read("r2"))

    assert check_segments(Forgetful(), [FIRST, SECOND, old]).is_linearizable
    assert check_segments(Forgetful(), [FIRST, SECOND, new]).is_linearizable
    assert not check_segments(
        Forgetful(), [FIRST, SECOND, old, replace(new, called=4.5)]
    ).is_linearizable


# -- a budget --------------------------------------------------------------------------------------


def test_a_search_whose_steps_run_out_is_undecided() -> None:
    needed = check_serial([FIRST, SECOND]).steps

    verdict = check_serial([FIRST, SECOND], budget=needed - 1)

    assert verdict.outcome is Outcome.UNDECIDED
    assert not verdict.is_linearizable
    assert (verdict.steps, verdict.account) == (needed - 1, f"undecided after {needed - 1} steps")
    assert check_serial([FIRST, SECOND], budget=needed).is_linearizable


def test_a_violation_stands_where_the_steps_do_not_suffice_to_place_it() -> None:
    stale = operation("stale", 4, 5, Read("r1"))

    verdict = check_serial([FIRST, SECOND, stale], budget=1)

    assert verdict.outcome is Outcome.VIOLATED
    assert verdict.account == "no order fits; where, is not known"
