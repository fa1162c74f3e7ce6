"""`envctl copy`: variables of one environment, or of a revision of it, into another.

Only what differs is written, as one commit, under the condition that the target is still at
the revision that was compared. What is secret in either of the two is secret afterwards.
"""

from __future__ import annotations

from envd.cli import states, target
from envd.cli.commands.importing import Plan, dry_exit, perform_plan, show_plan
from envd.cli.exits import UsageError
from envd.cli.grammar import DRY_RUN, IF_REVISION, WRITE_FLAGS, YES, Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.states import Cell
from envd.core.names import check_variable


def _copy(invocation: Invocation) -> int:
    words = invocation.take_words(least=2)
    prune = invocation.arguments.on("--prune")
    source = target.referenced(invocation, words[0])
    to = target.environment_only(words[1])
    names = tuple(check_variable(name) for name in words[2:])
    if names and prune:
        raise UsageError("--prune is about all variables; it does not go with KEY")
    if str(source) == to:
        raise UsageError("the two are the same environment")
    plan = _plan(invocation, source, to, names)
    if invocation.shows_tables():
        show_plan(invocation, plan)
    if invocation.arguments.on("--dry-run"):
        return dry_exit(invocation, plan)
    if plan.removed:
        invocation.confirm(f"remove {len(plan.removed)} variables from {to}?")
    return perform_plan(invocation, plan, "copied", f"copied from {source}")


def _plan(
    invocation: Invocation, source: target.Reference, to: str, names: tuple[str, ...]
) -> Plan:
    with invocation.waiting(f"reading {source} and {to}"):
        given = invocation.read_real(source.environment, at=source.at, variables=names)
        view = states.read_comparable_if_there(invocation, to)
    current = states.cells(view)
    wanted: dict[str, Cell] = {}
    for name, variable in given.variables.items():
        known = current.get(name)
        wanted[name] = Cell(variable.value, variable.secret or bool(known and known.secret))
    after = wanted if invocation.arguments.on("--prune") else {**current, **wanted}
    found = states.differences(current, after)
    touched = {each.name for each in found}
    return Plan(to, view, wanted, found, len(wanted.keys() - touched))


COPY = Command(
    usage=("A B [KEY...] [--prune] [--dry-run] [--yes]",),
    about="""
    Bring the variables of A, or only some of them, into B as one commit. What will be added
    (+), changed (~) and removed (-) is shown first, without values; what is the same is not
    written. B is created where it does not exist; its settings stay as they are. A may be a
    revision: ENV@REV.

    What is secret in A is secret in B, and what is secret in B stays so. If something is
    secret, the right to reveal is needed. Where B changes at the same time, nothing is copied
    and the exit code is 4.
    """,
    examples=(
        ("envctl copy web/staging web/prod --dry-run", "show what would change"),
        ("envctl copy web/staging web/prod DB_URL DB_POOL", "two variables"),
        ("envctl copy web/prod@~3 web/rescue --prune", "an earlier state, exactly"),
    ),
    run=_copy,
    flags=(
        Flag("--prune", "remove the variables that A lacks (asks)"),
        DRY_RUN,
        YES,
        IF_REVISION,
        *WRITE_FLAGS,
    ),
)
