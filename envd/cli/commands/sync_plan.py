"""`envctl sync plan` and `apply`: what is to be done with stores, and doing just that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final

from envd.cli import exits
from envd.cli.exits import Failed, PartlyDone, UsageError
from envd.cli.invocation import Invocation
from envd.core.errors import Conflict, EnvdError
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BindingsRequest,
    HeldView,
    OperationView,
    PlanRequest,
    PlanView,
)
from envd.wire.plain import to_plain

_SIGNS: Final = {
    "create": "+",
    "update": "~",
    "delete": "-",
    "adopt": "=",
    "conflict": "!",
    "skip": ".",
}
_TO_DO: Final = {
    "create": "to create",
    "update": "to update",
    "delete": "to delete",
    "adopt": "to adopt",
    "conflict": "in conflict",
    "skip": "left alone",
}
_DID: Final = {
    "create": "created",
    "update": "updated",
    "delete": "deleted",
    "adopt": "adopted",
    "conflict": "in conflict",
}
_COLOURS: Final = {"+": "green", "~": "yellow", "-": "red", "!": "red", ".": "dim", "=": ""}
_DONE: Final = frozenset({"applied", "noop"})
_NOT_DONE: Final = frozenset({"conflict", "rejected", "failed", "not tried"})
_GLANCE_S: Final = 2.0
_ARROWS: Final = {"store": "->", "envd": "<-"}


# -- plan --------------------------------------------------------------------------------


def plan(invocation: Invocation, words: Sequence[str]) -> int:
    """Show what would be done; with --exit-code 9 where that is something."""
    return _end_plan(invocation, words, _planned(invocation, words))


def _planned(invocation: Invocation, words: Sequence[str]) -> PlanView:
    """The plan as of now, shown to people."""
    with invocation.waiting("comparing with the stores"):
        made = invocation.connection.sync.plan(PlanRequest(tuple(words)))
    if invocation.shows_tables():
        _show(invocation, made.operations)
        _show_held(invocation, made.held)
        if made.operations or made.held:
            invocation.screen.line()
        invocation.screen.line(in_figures(made))
    return made


def _end_plan(invocation: Invocation, words: Sequence[str], made: PlanView) -> int:
    todo = _to_do(made.operations)
    if not invocation.shows_tables():
        invocation.document(to_plain(made))
    elif todo:
        names = "".join(f" {word}" for word in words)
        invocation.screen.line(f"to do exactly this: envctl sync apply{names} --plan {made.plan}")
    if not invocation.arguments.on("--exit-code"):
        return exits.DONE
    if todo:
        return exits.DIFFERENCES
    if made.held:
        raise PartlyDone(
            "whether all is in step is not known:"
            + "".join(f"\n       {_held_in_words(each)}" for each in made.held),
            hint=made.held[0].hint,
        )
    return exits.DONE


def _to_do(operations: Sequence[OperationView]) -> list[OperationView]:
    return [each for each in operations if each.action != "skip"]


def in_figures(made: PlanView) -> str:
    """The plan in one line: "1 to create, 2 to update; 37 in step"."""
    counts = Counter(each.action for each in made.operations)
    known = [f"{counts[action]} {words}" for action, words in _TO_DO.items() if counts[action]]
    further = [f"{count} to {each}" for each, count in counts.items() if each not in _TO_DO]
    more = [f"{made.unlisted:,} more that are not listed"] if made.unlisted else []
    return f"{', '.join([*known, *further, *more]) or 'nothing to do'}; {made.in_step:,} in step"


def _show(invocation: Invocation, operations: Sequence[OperationView]) -> None:
    """The operations below a heading for each environment and place."""
    for (binding, environment, target), group in groupby(operations, _heading):
        found = list(group)
        where = f"{environment}, {target}" if target else environment
        invocation.screen.heading(f"{binding}:", where, "bold", gap=" ")
        verb = max(len(each.result or each.action) for each in found)
        name = max(len(each.variable) for each in found)
        for each in found:
            _show_operation(invocation, each, verb, name)


def _show_operation(invocation: Invocation, each: OperationView, verb: int, name: int) -> None:
    sign = _SIGNS.get(each.action, "?")
    arrow = _ARROWS.get(each.side, "")
    shown = each.variable or "(all of it)"
    said = each.detail or ("" if each.result in _DONE else each.reason)
    colour = "red" if each.result in _NOT_DONE else _COLOURS.get(sign, "")
    title = f"  {sign} {each.result or each.action:<{verb}}  {arrow:2} {shown:<{name}}"
    invocation.screen.heading(title if said else title.rstrip(), said, colour, indent=" " * 8)


def _heading(operation: OperationView) -> tuple[str, str, str]:
    return operation.binding, operation.environment, operation.target


def _show_held(invocation: Invocation, held: Sequence[HeldView]) -> None:
    for each in held:
        invocation.screen.line(_held_in_words(each), "yellow")
        if each.hint:
            invocation.screen.line(f"  {each.hint}")


def _held_in_words(held: HeldView) -> str:
    return f"{held.binding} is held back: {held.detail or held.reason}"


# -- apply -------------------------------------------------------------------------------


def apply(invocation: Invocation, words: Sequence[str]) -> int:
    """Do a plan: the one that is named, or the one that is shown and agreed to."""
    given = invocation.arguments
    if given.is_empty("--plan"):
        raise UsageError("--plan has no value", hint="is the variable in it set?")
    if given.on("--exit-code") and not given.on("--dry-run"):
        raise UsageError("--exit-code goes with --dry-run")
    named = given.text("--plan")
    if named and not given.on("--dry-run"):
        return _told(invocation, _applied(invocation, words, named), shown=False)
    made = _planned(invocation, words)
    if named and named != made.plan:
        raise _moved(f"the plan is {made.plan} by now, not {named[:32]}; nothing was done")
    if given.on("--dry-run"):
        return _end_plan(invocation, words, made)
    # What the brake holds back is no operation, but may be let pass.
    may_pass = made.held and (given.text("--allow-deletes") or given.on("--allow-restart"))
    if not _to_do(made.operations) and not may_pass:
        return _nothing(invocation, made)
    invocation.confirm("do this?")
    return _told(invocation, _applied(invocation, words, made.plan), shown=True)


def _nothing(invocation: Invocation, made: PlanView) -> int:
    return _told(invocation, AppliedView(made.plan, made.operations, made.held), shown=True)


def _applied(invocation: Invocation, words: Sequence[str], named: str) -> AppliedView:
    """Have that plan be done; raises Conflict where it is not the plan any more."""
    given = invocation.arguments
    request = ApplyRequest(
        tuple(words),
        named,
        given.number("--allow-deletes", 0),
        given.on("--allow-restart"),
        invocation.message,
    )
    connection = invocation.connection.sync
    invocation.write_in_flight = True
    try:
        with invocation.waiting("applying", _how_far(invocation, words)):
            applied = connection.apply(request)
    except EnvdError as error:
        invocation.write_in_flight = False
        if isinstance(error, Conflict) and not error.hint:
            raise _moved(error.message, error.reason) from error
        raise
    invocation.write_in_flight = False
    return applied


def _how_far(invocation: Invocation, words: Sequence[str]) -> Generator[str, None, None]:
    """What is done of the runs under way, each time anew: "1,200 of 10,000  12%"."""
    try:
        connection = invocation.another_connection(_GLANCE_S)
    except EnvdError:
        return
    try:
        while True:
            shown = ""
            with suppress(EnvdError):
                found = connection.sync.status(BindingsRequest(tuple(words))).bindings
                done, total = sum(b.run_done for b in found), sum(b.run_total for b in found)
                shown = f"{done:,} of {total:,}  {100 * done // total}%" if total else ""
            yield shown
    finally:
        connection.close()


def _moved(message: str, reason: str = "PLAN_MOVED") -> Conflict:
    return Conflict(message, hint="look at it again: envctl sync plan", reason=reason)


def _told(invocation: Invocation, applied: AppliedView, *, shown: bool) -> int:
    """Tell what was done, and what was not; `shown` tells whether the plan was."""
    done = [each for each in applied.operations if each.result in _DONE]
    undone = [each for each in applied.operations if each.result in _NOT_DONE]
    if not invocation.shows_tables():
        invocation.document({**to_plain(applied), "failed": applied.failed})
    else:
        if undone or (not shown and done):
            _show(invocation, applied.operations)
        if done:
            invocation.screen.line(f"{_results(applied)}")
        elif not undone and not applied.held:
            invocation.screen.line("there was nothing to do")
    if not undone and not applied.held:
        return exits.DONE
    raise _unfinished(applied, done, undone)


def _results(applied: AppliedView) -> str:
    """Example: "applied: 1 created, 2 updated"."""
    counts = Counter(each.action for each in applied.operations if each.result in _DONE)
    known = [f"{count} {_DID.get(action, action)}" for action, count in counts.items()]
    more = [f"and {applied.unlisted:,} more"] if applied.unlisted else []
    return "applied: " + ", ".join([*known, *more])


def _unfinished(
    applied: AppliedView, done: Sequence[OperationView], undone: Sequence[OperationView]
) -> EnvdError:
    """The error that lists what was not done; its kind goes by whether anything was."""
    whole = len(done) + len(undone)
    count = f"{len(done)} of {whole} operations are done; not done:" if whole else "not done:"
    told = "\n       ".join([count, *_listed(applied, undone)])
    hints = [each.hint for each in applied.held if each.hint]
    if done:
        again = "what is done is done; mend the rest and apply again, which does only that"
        return PartlyDone(told, hint=next(iter(hints), again))
    if undone and all(each.result == "conflict" for each in undone):
        return Conflict(told, hint="look at it again: envctl sync plan", reason="STALE_VERSION")
    return Failed(told, hint=next(iter(hints), ""), reason="NOT_APPLIED")


def _listed(applied: AppliedView, undone: Sequence[OperationView]) -> Iterator[str]:
    several = len({each.environment for each in undone}) > 1
    for each in undone:
        where = f"{each.binding}: {each.environment} " if several else f"{each.binding}: "
        why = f" ({each.detail})" if each.detail else ""
        yield f"{where}{each.action} {each.variable}: {each.result}{why}"
    for held in applied.held:
        yield _held_in_words(held)
