"""Answers about plans: no longer than a message can be, and of what failed nothing is left out."""

from __future__ import annotations

from envd.core.syncing import MAX_LISTED, AppliedView, OperationView, PlanView


def operation(number: int, result: str = "") -> OperationView:
    return OperationView("b", "create", "web", f"K{number}", "not in the store yet", result=result)


def test_a_short_answer_is_whole() -> None:
    plan = PlanView("p", tuple(map(operation, range(MAX_LISTED))), in_step=7)

    assert plan.in_short() == plan


def test_of_a_long_plan_the_first_operations_are_listed_and_the_others_counted() -> None:
    short = PlanView("p", tuple(map(operation, range(MAX_LISTED + 9)))).in_short()

    assert short.operations == tuple(map(operation, range(MAX_LISTED)))
    assert (short.plan, short.unlisted, short.in_short()) == ("p", 9, short)


def test_what_failed_is_listed_before_what_was_done() -> None:
    done = [operation(number, "applied") for number in range(MAX_LISTED + 9)]
    done[MAX_LISTED + 5] = operation(MAX_LISTED + 5, "rejected")

    short = AppliedView("p", tuple(done)).in_short()

    assert (len(short.operations), short.unlisted) == (MAX_LISTED, 9)
    assert short.failed == 1
    assert short.operations[-1].result == "rejected"
