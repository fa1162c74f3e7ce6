"""`envctl plan` and `apply`: many environments from the files of a directory.

A plan reads each file and its environment, one after the other, shows what differs and
forgets it again but for a digest, so memory holds one environment whatever their number.
Apply makes each step anew, carries it out only if it is still the one that was shown, and
under the condition that the environment is at the revision it was compared with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from envd.cli import exits, states
from envd.cli.commands.listing import whole_list
from envd.cli.commands.reading import MASK
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation, short
from envd.cli.manifests import Directory, Place, read_directory, read_manifest
from envd.cli.screen import printable
from envd.cli.states import Cell
from envd.cli.steps import Operation, Step, plan_id, removal_of, step_of
from envd.core.errors import Conflict, NotFound, Unavailable
from envd.core.names import check_prefix, has_prefix
from envd.core.syncing import BindingsRequest, BindingView

_MAX_VALUE = 40
_COLOURS = {**states.COLOURS, "!": "red"}


class Planned(NamedTuple):
    """One step of a plan, without its values; `place` is None for a removal.

    `counts` are its operations by action, `missing` the names that are in the way; `documents`
    are there only where programs read them.
    """

    environment: str
    place: Place | None
    digest: str
    counts: Mapping[str, int]
    missing: tuple[str, ...]
    documents: tuple[dict[str, Any], ...]


class Plan(NamedTuple):
    """All steps in the order in which they are carried out."""

    name: str
    steps: tuple[Planned, ...]
    same: int

    def count(self, action: str) -> int:
        """How many operations do this."""
        return sum(step.counts.get(action, 0) for step in self.steps)

    def document(self) -> dict[str, Any]:
        """The plan for programs."""
        operations = [document for step in self.steps for document in step.documents]
        return {"plan": self.name, "operations": operations}


def make_plan(invocation: Invocation) -> Plan:
    """Compare the directory with the node, and show what differs."""
    refuse_empty(invocation, "--delete-missing")
    directory, shown = _directory(invocation)
    _note_files(invocation, directory)
    removals = _missing(invocation, directory, shown)
    steps = []
    bound = bound_now(invocation, directory)
    detailed = not invocation.shows_tables()
    with invocation.progress("comparing environments", len(directory.places)) as progress:
        for place in directory.places:
            step = step_now(invocation, place, bound)
            steps.append(_planned(step, place, detailed=detailed))
            _show(invocation, step, place.shown)
            progress.advance()
        for environment in removals:
            step = removal_now(invocation, environment)
            steps.append(_planned(step, None, detailed=detailed))
            _show(invocation, step, "")
    found = [step for step in steps if step.digest]
    return Plan(plan_id(step.digest for step in found), tuple(found), len(steps) - len(found))


def bound_now(invocation: Invocation, directory: Directory) -> Mapping[str, BindingView]:
    """The bindings by name, asked for only where a file has some."""
    if not any(place.binds for place in directory.places):
        return {}
    listed = invocation.connection.sync.bindings(BindingsRequest())
    return {each.name: each for each in listed.bindings}


def step_now(
    invocation: Invocation, place: Place, bound: Mapping[str, BindingView] | None = None
) -> Step:
    """What the file asks of its environment at this moment; `bound` where that is known."""
    manifest = read_manifest(place)
    view = states.read_comparable_if_there(invocation, place.environment)
    if bound is None:
        bound = bound_now(invocation, Directory((place,), ()))
    return step_of(manifest, view, bound, prune=invocation.arguments.on("--prune"))


def removal_now(invocation: Invocation, environment: str) -> Step:
    """The removal of an environment as it is at this moment."""
    return removal_of(invocation.read(environment, reveal=False))


def _directory(invocation: Invocation) -> tuple[Directory, str]:
    invocation.take_words(most=0)
    named = invocation.arguments.text("--directory")
    if not named:
        raise UsageError(
            "no directory is named",
            hint=f"envctl {invocation.arguments.command} -f DIR   (its files: DIR/web/prod.toml)",
        )
    return read_directory(Path(invocation.world.cwd) / named, named), named


def _note_files(invocation: Invocation, directory: Directory) -> None:
    if directory.passed_over:
        names = ", ".join(directory.passed_over[:3])
        more = len(directory.passed_over) - 3
        rest = f" and {more} more" if more > 0 else ""
        invocation.screen.note(
            f"note: not read (no .toml, .yaml or .env, or a link to a directory): {names}{rest}"
        )


def _missing(invocation: Invocation, directory: Directory, shown: str) -> list[str]:
    """The environments below --delete-missing that no file is about."""
    given = invocation.arguments.text("--delete-missing")
    if not given:
        return []
    prefix = check_prefix(given)
    named = {place.environment for place in directory.places}
    if not any(has_prefix(name, prefix) for name in named):
        raise Failed(
            f"no file of {shown} is about {prefix} or below, so everything there would be deleted",
            hint="is it the right directory? envctl delete removes single environments",
        )
    page = whole_list(invocation.connection, prefix)
    if page.partial:
        raise Unavailable("the list of environments is not whole, so what is missing is unknown")
    return [each.environment for each in page.environments if each.environment not in named]


def _planned(step: Step, place: Place | None, *, detailed: bool) -> Planned:
    counts = Counter(each.action for each in step.operations)
    missing = tuple(each.difference.name for each in step.operations if each.in_the_way)
    documents = [_document(step, each) for each in step.operations] if detailed else []
    return Planned(step.environment, place, step.digest, counts, missing, tuple(documents))


def _document(step: Step, operation: Operation) -> dict[str, Any]:
    after = operation.difference.after
    return {
        "environment": step.environment,
        "action": operation.action,
        "kind": operation.kind,
        "variable": operation.difference.name or None,
        "secret": bool(after and after.secret),
        "reason": operation.reason,
        "revision": step.revision,
    }


# -- what is shown ---------------------------------------------------------------------


def _show(invocation: Invocation, step: Step, source: str) -> None:
    if not step.operations or not invocation.shows_tables():
        return
    screen = invocation.screen
    where = f"at revision {short(step.revision)}" if step.view else "is new"
    what = "will be deleted" if step.deletes else where
    screen.line(
        f"{step.environment}  {what}" + (f"  ({source})" if source else ""), "bold", cut=True
    )
    width = max(len(_title(each)) for each in step.operations)
    for each in step.operations:
        sign = each.difference.sign
        text = f"  {sign} {_title(each):<{width}}  {_change(each)}".rstrip()
        screen.line(text, _COLOURS[sign], cut=True)


def _title(operation: Operation) -> str:
    match operation.kind:
        case "setting":
            return f"setting {operation.difference.name}"
        case "binding":
            return f"binding {operation.difference.name}"
        case "environment":
            return "the environment"
        case _:
            return operation.difference.name


def _change(operation: Operation) -> str:
    """Both values, secret ones masked, and what else there is to say."""
    if operation.kind == "binding":
        return operation.reason
    before, after = operation.difference.before, operation.difference.after
    hidden = any(
        cell is not None and (cell.secret or cell.value is None) for cell in (before, after)
    )
    shown = [_value(cell, hidden) for cell in (before, after) if cell is not None]
    remark = f"({operation.reason})" if operation.reason else ""
    return "  ".join(filter(None, (" -> ".join(shown), remark)))


def _value(cell: Cell, hidden: bool) -> str:
    if hidden or cell.value is None:
        return MASK
    text = printable(cell.value[: _MAX_VALUE + 1])
    if not text:
        return '""'
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def in_figures(plan: Plan) -> str:
    """The plan in one line: "2 to create, 3 to change, 1 to remove"."""
    figures = [plan.count(action) for action in ("create", "update", "delete")]
    text = "{} to create, {} to change, {} to remove".format(*figures)
    blocked = plan.count("conflict")
    text += f", {blocked} in the way" if blocked else ""
    where = f" in {counted(len(plan.steps), 'environment')}" if plan.steps else ""
    same = f"; {plan.same} unchanged" if plan.same else ""
    return f"{text}{where}{same}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def refuse_obstacles(plan: Plan) -> None:
    """Raise where a variable that is left to the server is not there."""
    for step in plan.steps:
        if step.missing:
            name, environment = step.missing[0], step.environment
            raise NotFound(
                f"{environment} has no {name}, which keep leaves to the server; "
                "nothing was changed",
                hint=f"set it first: envctl set {environment} {name} --secret",
            )


def refuse_other_plan(invocation: Invocation, plan: Plan) -> None:
    """Raise where --plan names another plan than this one; one that is done is none."""
    wanted = invocation.arguments.text("--plan")
    if wanted and plan.steps and wanted.lower() != plan.name:
        raise Conflict(
            f"the plan is {plan.name} now, not {wanted[:64]!a}; nothing was changed",
            hint=f"look at it again: envctl plan {_scope(invocation)}",
            reason="PLAN_CHANGED",
        )


def _scope(invocation: Invocation) -> str:
    """The flags that say what a plan is about, for a command that a person may copy."""
    from shlex import quote

    arguments = invocation.arguments
    scope = f"-f {quote(arguments.text('--directory'))}"
    scope += " --prune" if arguments.on("--prune") else ""
    missing = arguments.text("--delete-missing")
    return f"{scope} --delete-missing {quote(missing)}" if missing else scope


def refuse_empty(invocation: Invocation, *flags: str) -> None:
    """Raise where a flag was given without a value, as "$PLAN" does when that is not set."""
    for flag in flags:
        if invocation.arguments.is_empty(flag):
            raise UsageError(f"{flag} has no value", hint="is the variable in it set?")


def end_plan(invocation: Invocation, plan: Plan) -> int:
    """The last lines of a plan that is only looked at, and its exit code."""
    if not invocation.shows_tables():
        invocation.document(plan.document())
    else:
        if plan.steps:
            invocation.screen.line()
        invocation.screen.line(in_figures(plan))
        if plan.steps and not plan.count("conflict"):
            invocation.screen.line(
                f"to do exactly this: envctl apply {_scope(invocation)} --plan {plan.name}"
            )
    different = bool(plan.steps) and invocation.arguments.on("--exit-code")
    return exits.DIFFERENCES if different else exits.DONE


def _plan(invocation: Invocation) -> int:
    return end_plan(invocation, make_plan(invocation))


FILES = Flag("--directory", "the directory with the files", "DIR", "-f")
EXIT_CODE = Flag("--exit-code", "exit 9 if something would change")
SCOPE_FLAGS = (
    FILES,
    Flag("--prune", "remove variables that stand in no file"),
    Flag("--delete-missing", "delete the environments below this that have no file", "PREFIX"),
)
PLAN = Command(
    usage=("-f DIR [--prune] [--delete-missing PREFIX] [--exit-code]",),
    about="""
    Show what envctl apply would change to bring environments to what the files of a directory
    say. The file DIR/web/prod.toml is about web/prod; .env, .toml, .yaml and .yml are read. A
    .env file holds variables; the others are documents with [variables], [settings], secrets
    and plain (patterns of names), keep, prune, and [[bindings]] of the environment with stores
    (envctl sync). Values are text, and ${...} means nothing.

    What stands in no file is left alone: environments, settings, bindings, and variables unless the
    file says prune = true. Secrets need not be in the files: keep = ["API_KEY"] leaves one to the
    server and refuses to go on without it.

    Lines begin with + for create, ~ for change, - for remove and ! for what is in the way;
    secret values are masked. The plan's name stands for exactly these changes.
    """,
    examples=(
        ("envctl plan -f envs", "what would change"),
        ("envctl plan -f envs --exit-code", "exit 9 if anything would, for a pipeline"),
        ("envctl plan -f envs --delete-missing web", "and what web has too much"),
    ),
    run=_plan,
    flags=(*SCOPE_FLAGS, EXIT_CODE),
)
