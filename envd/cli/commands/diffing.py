"""`envctl diff`: two environments, revisions or files, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envd.cli import exits, sources, states, target
from envd.cli.commands.reading import MASK
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import REVEAL, Command, Flag
from envd.cli.invocation import Invocation, short
from envd.cli.states import Cell, Difference
from envd.formats.secrets import looks_secret


class Side(NamedTuple):
    """One side: `title` says what it is, `detail` which of it, `hidden` are the names whose
    values stay masked."""

    name: str
    detail: str
    state: dict[str, Cell]
    hidden: set[str]

    @property
    def title(self) -> str:
        return f"{self.name} {self.detail}".rstrip()


def _diff(invocation: Invocation) -> int:
    words = invocation.take_words(most=2)
    if not words:
        raise UsageError("nothing to compare", hint="envctl diff web/prod@~1 web/prod")
    if len(words) == 1:
        words = [target.required_default(invocation), *words]
    left, right = (_side(invocation, word) for word in words)
    found = states.differences(left.state, right.state)
    hidden = set() if invocation.arguments.on("--reveal") else left.hidden | right.hidden
    if invocation.shows_tables():
        _show(invocation, (left, right), found, hidden)
    else:
        rows = [_document(each, hidden) for each in found]
        invocation.document({"from": left.title, "to": right.title, "differences": rows})
    return exits.DIFFERENCES if found and invocation.arguments.on("--exit-code") else exits.DONE


def _side(invocation: Invocation, word: str) -> Side:
    if word == "-" or _is_file(invocation, word):
        assignments = sources.read_assignments(invocation, word)
        state = {each.name: Cell(each.value, each.secret) for each in assignments}
        guessed = {each.name for each in assignments if looks_secret(each.name, each.value)}
        declared = {each.name for each in assignments if each.secret}
        return Side(f"file {word}", "", state, guessed | declared)
    if word.startswith((".", "/")):
        raise Failed(f"there is no file {word}", hint="name a file, ENV or ENV@REV")
    reference = target.referenced(invocation, word)
    if invocation.arguments.on("--reveal"):
        view = invocation.read_real(reference.environment, at=reference.at)
    else:
        view = states.read_comparable(invocation, reference.environment, reference.at)
    secret = {name for name, variable in view.variables.items() if variable.secret}
    return Side(str(reference), f"(revision {short(view.revision)})", states.cells(view), secret)


def _is_file(invocation: Invocation, word: str) -> bool:
    try:
        return (Path(invocation.world.cwd) / word).is_file()
    except (OSError, ValueError):
        return False  # Too long, for one; then it is no environment either, and is told so.


def _show(
    invocation: Invocation,
    sides: tuple[Side, Side],
    found: list[Difference],
    hidden: set[str],
) -> None:
    screen = invocation.screen
    if not found:
        screen.line(f"no differences between {sides[0].title} and {sides[1].title}")
        return
    for sign, side, colour in (("---", sides[0], "red"), ("+++", sides[1], "green")):
        screen.heading(f"{sign} {side.name}", side.detail, colour, " ")
    rows = [
        (
            f"{each.sign} {each.name}",
            _value(each.before, each.name in hidden),
            _value(each.after, each.name in hidden),
            each.remark,
        )
        for each in found
    ]
    header: tuple[str, ...] = ("  NAME", "BEFORE", "AFTER", "")
    if not any(row[-1] for row in rows):
        header, rows = header[:3], [row[:3] for row in rows]  # type: ignore[misc]
    screen.table(header, rows)


def _value(cell: Cell | None, hidden: bool) -> str:
    if cell is None:
        return ""
    return MASK if hidden or cell.value is None else cell.value


def _document(difference: Difference, hidden: set[str]) -> dict[str, object]:
    masked = difference.name in hidden
    before, after = difference.before, difference.after
    kinds = {"+": "added", "-": "removed", "~": "changed"}
    return {
        "variable": difference.name,
        "kind": kinds[difference.sign],
        "before": None if masked or before is None else before.value,
        "after": None if masked or after is None else after.value,
        "masked": masked,
        "remark": difference.remark,
    }


DIFF = Command(
    usage=("A B [--reveal] [--exit-code]", "B"),
    about="""
    Compare two environments, revisions or files: + is only in B, - only in A, ~ in both with
    different values. Values that are secret on either side are masked unless --reveal is
    given. A word that names a file here is that file; everything else is ENV or ENV@REV.
    With one word, A is the default environment.
    """,
    examples=(
        ("envctl diff web/staging web/prod", "two environments"),
        ("envctl diff web/prod@~1 web/prod", "what the last commit did"),
        ("envctl diff web/prod .env --exit-code", "exit 9 if the file differs"),
    ),
    run=_diff,
    flags=(REVEAL, Flag("--exit-code", "exit 9 if there are differences")),
)
