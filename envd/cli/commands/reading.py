"""`envctl get`: an environment as a table, or one real value."""

from __future__ import annotations

from envd.cli import exits, target
from envd.cli.grammar import REVEAL, Command, Flag
from envd.cli.invocation import Invocation, short
from envd.core.answers import EnvironmentView, VariableView
from envd.wire.plain import to_plain

MASK = "********"


def shown_value(variable: VariableView) -> str:
    """The value, or the mask for one that is hidden."""
    return MASK if variable.value is None else variable.value


def _get(invocation: Invocation) -> int:
    reference, key = target.environment_and_key(invocation)
    resolve = invocation.arguments.on("--resolved")
    if key:
        view = invocation.read_real(
            reference.environment, at=reference.at, variables=(key,), resolve=resolve
        )
    else:
        reveal = invocation.arguments.on("--reveal")
        view = invocation.read(
            reference.environment, at=reference.at, reveal=reveal, resolve=resolve
        )
    if not invocation.shows_tables():
        invocation.document(to_plain(view))
    elif key:
        _show_value(invocation, view.variables[key].value or "")
    else:
        _show(invocation, view, str(reference))
    return exits.DONE


def _show_value(invocation: Invocation, value: str) -> None:
    if invocation.screen.exact(value):
        invocation.screen.note("note: control characters are shown escaped; a pipe gets them")


def _show(invocation: Invocation, view: EnvironmentView, title: str) -> None:
    screen = invocation.screen
    count = len(view.variables)
    variables = "1 variable" if count == 1 else f"{count} variables"
    screen.heading(title, f"revision {short(view.revision)}  {variables}")
    if view.variables:
        shown = [
            (name, shown_value(variable), variable.source)
            for name, variable in view.variables.items()
        ]
        if any(source for _, _, source in shown):
            screen.table(("NAME", "VALUE", "FROM"), shown)
        else:
            screen.table(("NAME", "VALUE"), [row[:2] for row in shown])


GET = Command(
    usage=("[ENV[@REV]] [KEY] [--reveal] [--resolved]",),
    about="""
    Show an environment as a table, or one variable as its real value. Secret values are masked
    in the table unless --reveal is given. A single value is written exactly as it is, with a
    line end on a terminal only, so that it can be used in scripts.

    REV is a revision or its first digits, ~N for N commits ago, or 'deleted' for the state
    before the last deletion. ENV may be left out where a default is in force (envctl use).

    With --resolved the variables of what it extends are there too, each with where it comes
    from (envctl settings ENV extends=BASE,...). A revision stands without its bases.
    """,
    examples=(
        ("envctl get web/prod", "everything, secrets masked"),
        ("envctl get web/prod DATABASE_URL", "one real value"),
        ("envctl get web/prod@~1", "as it was before the last commit"),
        ("envctl get web/prod -o json | jq .revision", "for programs"),
    ),
    run=_get,
    flags=(
        REVEAL,
        Flag("--resolved", "with what it extends, and where each value comes from"),
    ),
)
