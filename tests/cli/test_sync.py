"""`envctl sync plan|apply|status|cost`: what is to be done with stores, and how bindings do."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import Any

import pytest

from envd.core.errors import Conflict, OutcomeUnknown
from envd.core.syncing import (
    ApplyRequest,
    BindingStatus,
    CostView,
    HeldView,
    PlanRequest,
    PlanView,
    SyncStatus,
    TargetStatus,
)
from tests.cli.bench import Envctl
from tests.syncing import COST, PLAN, SSM, STATUS, operation

NOTHING = PlanView("00", (operation("skip", "OWNER", "not envd's"),), in_step=3)
BRAKE = HeldView(
    "web", "brake", "63 of 70 names would be deleted", "envctl sync apply web --allow-deletes 63"
)
NOW = "2023-11-14T22:13:20.000Z"
"""What the other clock of the tests says."""
LATER = "2023-11-14T22:15:50.000Z"


# -- plan --------------------------------------------------------------------------------


def test_a_plan_lists_what_is_done_where_and_why(envctl: Envctl) -> None:
    shown = envctl.ok("sync plan payments")

    assert envctl.node.stores.asked == [("plan", PlanRequest(("payments",)))]
    assert shown.lines == [
        f"payments: payments/prod, {SSM}",
        "  + create  -> DATABASE_URL  not in the store yet",
        "  ~ update  -> POOL_SIZE     changed here",
        "  ~ update  <- LOG_LEVEL     changed in the store",
        "  = adopt      REGION        equal on both sides",
        "  . skip       OWNER         the store has it from somebody else",
        "",
        "1 to create, 2 to update, 1 to adopt, 1 left alone; 37 in step",
        "to do exactly this: envctl sync apply payments --plan 5c1d0e4f9a7b2233",
    ]
    assert max(map(len, shown.lines)) <= 80


def test_a_plan_of_several_bindings_has_a_heading_for_each_place(envctl: Envctl) -> None:
    envctl.node.stores.plan_now = PlanView(
        "aa",
        (
            operation("create", "A", "new", binding="all", environment="web/a", target="file:/x"),
            operation("delete", "B", "gone", binding="all", environment="web/b", target="file:/x"),
            operation("conflict", "", "both changed", side="envd"),
        ),
    )

    assert envctl.ok("sync plan").lines[:6] == [
        "all: web/a, file:/x",
        "  + create  -> A  new",
        "all: web/b, file:/x",
        "  - delete  -> B  gone",
        f"payments: payments/prod, {SSM}",
        "  ! conflict  <- (all of it)  both changed",
    ]


def test_a_plan_as_a_document_has_the_shape_of_the_contract(envctl: Envctl) -> None:
    document = envctl.json("sync plan")

    assert document["plan"] == PLAN.plan
    assert document["operations"][0].items() >= {
        *{("binding", "payments"), ("action", "create"), ("variable", "DATABASE_URL")},
        *{("reason", "not in the store yet"), ("side", "store")},
    }


@pytest.mark.parametrize(("plan", "code"), [(PLAN, 9), (NOTHING, 0)])
def test_with_exit_code_nine_says_that_something_is_to_be_done(
    envctl: Envctl, plan: PlanView, code: int
) -> None:
    envctl.node.stores.plan_now = plan

    assert envctl("sync plan").code == 0
    assert envctl("sync plan --exit-code").code == code
    assert envctl("sync apply --dry-run --exit-code").code == code


def test_what_could_not_be_compared_is_not_in_step(envctl: Envctl) -> None:
    envctl.node.stores.plan_now = PlanView("00", (), (BRAKE,))

    looked = envctl("sync plan")
    result = envctl("sync plan --exit-code")

    assert looked.code == 0
    assert looked.lines == [
        "web is held back: 63 of 70 names would be deleted",
        "  envctl sync apply web --allow-deletes 63",
        "",
        "nothing to do; 0 in step",
    ]
    assert result.code == 7
    assert "whether all is in step is not known" in result.err


# -- apply -------------------------------------------------------------------------------


def applied(envctl: Envctl) -> list[ApplyRequest]:
    return [request for call, request in envctl.node.stores.asked if call == "apply"]


def test_apply_shows_the_plan_asks_and_does_exactly_that(envctl: Envctl) -> None:
    shown = envctl.ok("sync apply payments --message why", typed="y\n")

    assert applied(envctl) == [ApplyRequest(("payments",), PLAN.plan, message="why")]
    assert "  + create  -> DATABASE_URL  not in the store yet" in shown.lines
    assert "do this? [y/N]" in shown.err
    assert shown.lines[-1] == "applied: 1 created, 2 updated, 1 adopted"


def test_who_does_not_agree_changes_nothing(envctl: Envctl) -> None:
    refused = envctl("sync apply", typed="n\n")
    unasked = envctl("sync apply")

    assert (refused.code, unasked.code) == (1, 2)
    assert "look at it with --dry-run, then repeat it with --yes" in unasked.err
    assert not applied(envctl)


def test_a_dry_run_ends_behind_the_plan(envctl: Envctl) -> None:
    shown = envctl.ok("sync apply --dry-run")

    assert shown.lines[-1] == "to do exactly this: envctl sync apply --plan 5c1d0e4f9a7b2233"
    assert not applied(envctl)


def test_with_nothing_to_do_nobody_is_asked(envctl: Envctl) -> None:
    envctl.node.stores.plan_now = NOTHING

    shown = envctl.ok("sync apply")

    assert shown.lines[-1] == "there was nothing to do"
    assert not applied(envctl)


def test_a_reviewed_plan_is_done_without_another_look(envctl: Envctl) -> None:
    shown = envctl.ok("sync apply --plan 5c1d --allow-deletes 63 --allow-restart")

    assert [call for call, _ in envctl.node.stores.asked] == ["apply"]
    assert applied(envctl) == [ApplyRequest((), "5c1d", 63, allow_restart=True)]
    assert "  + applied  -> DATABASE_URL" in shown.lines


def test_a_plan_whose_state_has_moved_on_is_a_conflict_with_a_hint(envctl: Envctl) -> None:
    envctl.node.stores.error = Conflict("the state has moved on", reason="PLAN_MOVED")

    result = envctl("sync apply --plan 5c1d")

    assert result.code == 4
    assert result.err == (
        "error: the state has moved on\nhint: look at it again: envctl sync plan\n"
    )


def test_a_dry_run_tells_whether_a_reviewed_plan_is_still_the_plan(envctl: Envctl) -> None:
    same = envctl("sync apply --dry-run --plan 5c1d0e4f9a7b2233")
    other = envctl("sync apply --dry-run --plan aaaa")

    assert (same.code, other.code) == (0, 4)
    assert "the plan is 5c1d0e4f9a7b2233 by now, not aaaa" in other.err


def test_a_long_apply_tells_how_far_it_is(envctl: Envctl) -> None:
    under_way = BindingStatus("payments", "behind", run_done=1200, run_total=10_000)
    envctl.node.stores.status_now = SyncStatus((under_way,))
    asked_twice = threading.Event()
    asked: list[str] = []

    def before(call: str, _: object) -> None:
        asked.append(call)
        if asked.count("sync_status") == 2:
            asked_twice.set()
        if call == "sync_apply":
            assert asked_twice.wait(60)

    envctl.node.before = before

    shown = envctl.ok("sync apply payments --yes", terminal=True)

    assert "applying: 1,200 of 10,000  12%" in shown.err


def test_what_is_too_much_to_be_listed_is_counted(envctl: Envctl) -> None:
    envctl.node.stores.plan_now = replace(PLAN, unlisted=45_000)

    planned = envctl.ok("sync plan payments")

    figures = "1 to create, 2 to update, 1 to adopt, 1 left alone, 45,000 more that are not listed"
    assert f"{figures}; 37 in step" in planned.lines


def test_what_is_partly_done_lists_each_item(envctl: Envctl) -> None:
    envctl.node.stores.results = {
        "POOL_SIZE": ("failed", "throttled"),
        "LOG_LEVEL": ("conflict", "it was changed meanwhile"),
        "REGION": ("noop", ""),
    }
    envctl.node.stores.held = (BRAKE,)

    result = envctl("sync apply --yes")

    assert result.code == 7
    assert result.lines[-7:] == [
        f"payments: payments/prod, {SSM}",
        "  + applied   -> DATABASE_URL",
        "  ~ failed    -> POOL_SIZE     throttled",
        "  ~ conflict  <- LOG_LEVEL     it was changed meanwhile",
        "  = noop         REGION",
        "  . skip         OWNER         the store has it from somebody else",
        "applied: 1 created, 1 adopted",
    ]
    assert result.err == (
        "error: 2 of 4 operations are done; not done:\n"
        "       payments: update POOL_SIZE: failed (throttled)\n"
        "       payments: update LOG_LEVEL: conflict (it was changed meanwhile)\n"
        "       web is held back: 63 of 70 names would be deleted\n"
        "hint: envctl sync apply web --allow-deletes 63\n"
    )


@pytest.mark.parametrize(("results", "code"), [("conflict", 4), ("failed", 1), ("not tried", 1)])
def test_where_nothing_is_done_it_is_not_partly_done(
    envctl: Envctl, results: str, code: int
) -> None:
    names = [each.variable for each in PLAN.operations]
    envctl.node.stores.results = dict.fromkeys(names, (results, ""))

    result = envctl("sync apply --yes")

    assert result.code == code
    assert "0 of 4 operations are done" in result.err


def test_what_is_held_back_alone_is_an_error_with_its_mend(envctl: Envctl) -> None:
    envctl.node.stores.plan_now = PlanView("00", (), (BRAKE,))

    result = envctl("sync apply --yes")

    assert result.code == 1
    assert "hint: envctl sync apply web --allow-deletes 63" in result.err


@pytest.mark.parametrize("flag", ["--allow-deletes 63", "--allow-restart"])
def test_what_is_held_back_can_be_let_pass(envctl: Envctl, flag: str) -> None:
    envctl.node.stores.plan_now = PlanView("00", (), (BRAKE,))

    envctl.ok(f"sync apply web --yes {flag}")

    (request,) = applied(envctl)
    assert (request.names, request.plan) == (("web",), "00")
    assert (request.allow_deletes == 63) is not request.allow_restart


def test_what_was_applied_is_a_document_with_the_results(envctl: Envctl) -> None:
    envctl.node.stores.results = {"POOL_SIZE": ("failed", "throttled")}

    result = envctl("sync apply --yes -o json")

    document: dict[str, Any] = json.loads(result.out)
    assert result.code == 7
    assert document["failed"] == 1
    assert [each["result"] for each in document["operations"]] == [
        *("applied", "failed", "applied", "applied", ""),
    ]


def test_a_lost_answer_says_how_to_see_what_was_done(envctl: Envctl) -> None:
    envctl.node.stores.error = OutcomeUnknown("no answer", hint="see: envctl sync plan")

    result = envctl("sync apply --plan 5c1d")

    assert result.code == 8
    assert result.err == "error: no answer\nhint: see: envctl sync plan\n"


def test_an_interruption_says_that_it_may_be_done(envctl: Envctl) -> None:
    def interrupt(call: str, request: Any) -> None:
        if call == "sync_apply":
            raise KeyboardInterrupt

    envctl.node.before = interrupt

    result = envctl("sync apply --yes")

    assert result.code == 130
    assert "may or may not be done" in result.err
    assert "--operation" not in result.err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sync apply --plan ''", "--plan has no value"),
        ("sync apply --exit-code", "goes with --dry-run"),
        ("sync apply --plan a --allow-deletes none", "takes a number above 0"),
        ("sync plan --yes", "envctl sync plan has no --yes"),
    ],
)
def test_wrong_usage_is_refused(envctl: Envctl, line: str, complaint: str) -> None:
    result = envctl(line)

    assert result.code == 2
    assert complaint in result.err
    assert not envctl.node.stores.asked


# -- status ------------------------------------------------------------------------------


def test_status_is_a_row_for_each_binding(envctl: Envctl) -> None:
    lines = envctl.ok("sync status").lines

    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert rows[0] == ["BINDING", "STATE", "DRIFT", "LAG", "LAST SUCCESS", "NEXT", "LEADER"]
    assert rows[2] == ["payments", "in step", "0", "-", "20 s ago", "in 40 s", "node-1"]
    assert max(map(len, lines)) <= 80


def test_status_says_in_words_what_is_not_well_and_what_to_do(envctl: Envctl) -> None:
    failing = BindingStatus(
        "batch",
        "failing",
        last_try=NOW,
        drift=3,
        lag_s=7300,
        conflicts=1,
        detail="the role may not write",
        hint="give it the right to",
        targets=(
            TargetStatus("file:/x", True, "open", last_error="Forbidden", open_until=LATER),
            TargetStatus("file:/y", False, "closed"),
        ),
    )
    envctl.node.stores.status_now = SyncStatus((failing, *STATUS.bindings))

    lines = envctl.ok("sync status").lines

    assert re.split(r"\s{2,}", lines[1])[:4] == ["batch", "failing", "3", "2 h"]
    assert lines[5:10] == [
        "batch: the role may not write",
        "  give it the right to",
        "batch: 1 conflict to settle",
        "  see envctl conflicts",
        "batch: file:/x is asked again in 2 min: Forbidden",
    ]
    assert lines[10].startswith("batch: no node leads it")


def test_status_says_that_all_is_in_step(envctl: Envctl) -> None:
    envctl.node.stores.status_now = SyncStatus(STATUS.bindings[1:])

    assert envctl.ok("sync status").lines[-1] == "All is in step."


def test_status_of_a_binding_that_is_named_has_all_figures(envctl: Envctl) -> None:
    shown = envctl.ok("sync status payments")

    assert shown.lines[0] == "payments: in step"
    assert "  costs         about $2.05 a month" in shown.lines
    assert re.split(r"\s{2,}", shown.lines[-2]) == [
        *(SSM, "yes", "closed", "120", "7", "0", "0", "48"),
    ]


def test_status_of_a_binding_follows_the_run_under_way(envctl: Envctl) -> None:
    under_way = BindingStatus("payments", "behind", run_done=1200, run_total=10_000)
    envctl.node.stores.status_now = SyncStatus((under_way,))

    shown = envctl.ok("sync status payments")

    assert re.search(r"under way +1,200 of 10,000 operations are done", shown.out)


def test_status_as_a_document_is_whole(envctl: Envctl) -> None:
    document = envctl.json("sync status")

    assert [each["state"] for each in document["bindings"]] == ["no leader", "in step"]
    assert document["bindings"][1]["targets"][0]["reads"] == 120


# -- cost --------------------------------------------------------------------------------


def test_cost_tells_calls_money_and_what_is_cheaper(envctl: Envctl) -> None:
    shown = envctl.ok("sync cost")

    assert [re.split(r"\s{2,}", line) for line in shown.lines[:2]] == [
        ["BINDING", "STORE", "ITEMS", "READS", "WRITES", "$/MONTH", "BUDGET"],
        ["payments", "aws-ssm", "42", "43,200", "310", "2.05", "5.00"],
    ]
    assert shown.lines[3:] == [
        "payments: one document instead of 42 parameters saves $1.65 a month",
        "  aws, Secrets Manager, eu-central-1; confidence high, effort low",
    ]
    assert shown.err == ("an estimate at the prices of 2026-11-01, from the traffic of 1 d\n")
    assert max(map(len, shown.lines)) <= 80


def test_what_is_over_its_budget_is_red_and_several_are_added_up(envctl: Envctl) -> None:
    over = replace(COST.bindings[0], binding="web", dollars_month=7.5, savings=())
    envctl.node.stores.cost_now = CostView((COST.bindings[0], over), 9.55)

    lines = envctl.ok("sync cost", terminal=True).lines

    assert lines[2].startswith("\x1b[31mweb")
    assert re.split(r"\s{2,}", lines[3])[-1].startswith("9.55")


def test_without_bindings_nothing_costs_anything(envctl: Envctl) -> None:
    envctl.node.stores.cost_now = CostView(())
    envctl.node.stores.status_now = SyncStatus(())

    assert "stores cost nothing" in envctl.ok("sync cost").err
    assert "there are no bindings" in envctl.ok("sync status").err
    assert envctl.json("sync cost") == {"bindings": [], "dollars_month": 0.0}
