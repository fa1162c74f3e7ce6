"""`envctl tree` and `find`: where things are, over all environments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from envd.cli import exits
from envd.cli.commands.listing import whole_list
from envd.cli.exits import PartlyDone
from envd.cli.grammar import REVEAL, Command, Flag
from envd.cli.invocation import Invocation
from envd.core.answers import EnvironmentView, ListedEnvironment, ListPage
from envd.core.errors import NotFound
from envd.core.names import check_prefix


@dataclass(slots=True)
class Node:
    """One segment: the environment that ends here, if one does, and what is below."""

    listed: ListedEnvironment | None = None
    below: dict[str, Node] = field(default_factory=dict)


def _tree(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    prefix = check_prefix(words[0]) if words else ""
    page = whole_list(invocation.connection, prefix)
    root = _grown(page.environments)
    if not invocation.shows_tables():
        invocation.document({"tree": _plain(root), "partial": page.partial})
    elif page.environments:
        for line in _drawn(root):
            invocation.screen.line(line)
    elif not page.partial:
        below = f" below {prefix}" if prefix else ""
        invocation.screen.note(f"there are no environments{below} yet")
    _refuse_partial(page)
    return exits.DONE


def _grown(environments: Iterable[ListedEnvironment]) -> Node:
    root = Node()
    for each in environments:
        node = root
        for segment in each.environment.split("/"):
            node = node.below.setdefault(segment, Node())
        node.listed = each
    return root


def _drawn(root: Node) -> Iterator[str]:
    """The lines of a tree; the first segments stand at the margin."""
    for name, node in sorted(root.below.items()):
        yield f"{name}{_figures(node)}"
        yield from _branches(node, "")


def _branches(node: Node, margin: str) -> Iterator[str]:
    below = sorted(node.below.items())
    for at, (name, child) in enumerate(below, 1):
        corner, bar = ("└── ", "    ") if at == len(below) else ("├── ", "│   ")
        yield f"{margin}{corner}{name}{_figures(child)}"
        yield from _branches(child, margin + bar)


def _figures(node: Node) -> str:
    """How many variables an environment has; nothing for what is only a segment of names."""
    if node.listed is None:
        return "/"
    count = node.listed.variables
    return f"  ({count} variable{'' if count == 1 else 's'})"


def _plain(node: Node) -> list[dict[str, Any]]:
    return [
        {
            "segment": name,
            "environment": child.listed and child.listed.environment,
            "variables": child.listed and child.listed.variables,
            "below": _plain(child),
        }
        for name, child in sorted(node.below.items())
    ]


def _refuse_partial(page: ListPage) -> None:
    if page.partial:
        reason = page.partial_reason or "some partitions did not answer"
        raise PartlyDone(f"the list is not whole: {reason}")


def _find(invocation: Invocation) -> int:
    (pattern,) = invocation.take_words(most=1, least=1)
    page = whole_list(invocation.connection, "")
    found = []
    with invocation.progress("reading environments", len(page.environments)) as progress:
        for each in page.environments:
            view = _view(invocation, each.environment)
            found += _matches(invocation, view, pattern) if view else []
            progress.advance()
    if not invocation.shows_tables():
        invocation.document({"found": found, "partial": page.partial})
    elif found:
        columns = ("environment", "variable", "value")[: len(found[0]) - 1]
        header = [{"variable": "NAME"}.get(column, column.upper()) for column in columns]
        invocation.screen.table(header, [[str(row[key]) for key in columns] for row in found])
    else:
        what = "value" if invocation.arguments.on("--value") else "variable"
        invocation.screen.note(f"no {what} is like that")
    _refuse_partial(page)
    return exits.DONE


def _view(invocation: Invocation, environment: str) -> EnvironmentView | None:
    """The environment, with real values where they are looked at; None if it is gone by now."""
    real = invocation.arguments.on("--value") or invocation.arguments.on("--reveal")
    try:
        if real:
            return invocation.read_real(environment)
        return invocation.read(environment, reveal=False)
    except NotFound:
        return None


def _matches(
    invocation: Invocation, view: EnvironmentView, pattern: str
) -> list[dict[str, str | bool | None]]:
    by_value = invocation.arguments.on("--value")
    reveal = invocation.arguments.on("--reveal")
    return [
        {
            "environment": view.environment,
            "variable": name,
            **({"value": variable.value} if reveal else {}),
            "secret": variable.secret,
        }
        for name, variable in view.variables.items()
        if fnmatchcase((variable.value or "") if by_value else name, pattern)
    ]


TREE = Command(
    usage=("[PREFIX]",),
    about="""
    Show the environments, or those below a prefix, as a tree. A name that ends in '/' is no
    environment itself. Where some of the cluster did not answer, it says so and the exit code
    is 7.
    """,
    examples=(
        ("envctl tree", "all of them"),
        ("envctl tree payments", "payments and what is below it"),
    ),
    run=_tree,
)
FIND = Command(
    usage=("NAME [--value] [--reveal]",),
    about="""
    Show which environments have a variable whose name is like NAME, a pattern such as 'DB_*'.
    With --value, the pattern is for values: '*db1.internal*' finds every value with that in
    it, and the right to reveal is needed where one is secret. Values are shown with --reveal
    only.
    """,
    examples=(
        ("envctl find DATABASE_URL", "who has it"),
        ("envctl find 'AWS_*' --reveal", "with the values"),
        ("envctl find '*db1.internal*' --value", "who uses this machine"),
    ),
    run=_find,
    flags=(Flag("--value", "NAME is a pattern for values"), REVEAL),
)
