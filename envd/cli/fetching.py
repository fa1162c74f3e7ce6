"""The variables at a place in a store, as an import takes them.

The node reads them once, with its own way to the store. What can't be a variable here is left out
and told, with what would make it one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from envd.cli.commands.sync_bindings import check_target
from envd.cli.exits import Failed
from envd.cli.invocation import Invocation
from envd.cli.renames import Rename, read_map, renamed, suggested
from envd.core.errors import InvalidRequest, NotFound
from envd.core.names import check_value
from envd.core.syncing import FetchedVariable, FetchRequest
from envd.formats.read import Assignment
from envd.formats.source import is_variable_name

_UNREADABLE = "its value can't be read"


class Fetched(NamedTuple):
    """What is to be imported, and the store's names that are not, each with why."""

    assignments: list[Assignment]
    left_out: Mapping[str, str]


def fetch(invocation: Invocation, target: str) -> Fetched:
    """Read a place; raises NotFound where nothing is there, which is never taken for an end."""
    check_target(target)
    given = invocation.arguments
    renames = read_map(given.text("--rename"), invocation.world.cwd)
    request = FetchRequest(target, given.text("--credentials"), reveal=True)
    with invocation.waiting(f"reading {target}"):
        found = invocation.connection.sync.fetch(request)
    taken: dict[str, FetchedVariable] = {}
    left_out = dict(found.skipped)
    for each in found.variables:
        name, why = _name(each, renames)
        if why:
            left_out[each.native] = why
        elif name in taken:
            raise Failed(
                f"{taken[name].native} and {each.native} would both be {name}; nothing was changed",
                hint="give one another name, or leave it out: --rename 'OLD=NEW,OLD2='",
            )
        else:
            taken[name] = each
    if not taken:
        told = f"; {len(left_out)} names there are no variables" if left_out else ""
        raise NotFound(
            f"there is nothing to import at {target}{told}",
            hint="is it the right place? envctl backend check tries it",
        )
    if given.on("--prune") and _UNREADABLE in left_out.values():
        native = next(name for name, why in left_out.items() if why == _UNREADABLE)
        raise Failed(
            f"the value of {native} can't be read, so --prune can't tell what the store lacks; "
            "nothing was changed",
            hint=f"import without --prune, or leave it out: --rename '{native}='",
        )
    _note_unused(invocation, renames, found.variables)
    _note_left_out(invocation, left_out)
    return Fetched([_assignment(name, each) for name, each in taken.items()], left_out)


def _name(each: FetchedVariable, renames: tuple[Rename, ...]) -> tuple[str, str]:
    """The name here, or why there is none."""
    if each.environment:
        return "", f"is of {each.environment}, below that place; import that by itself"
    new = renamed(renames, each.variable, each.native)
    if new == "":
        return "", "left out by --rename"
    name = each.variable if new is None else new
    if not is_variable_name(name):
        mend = f"{each.variable or each.native}={suggested(name)}"
        return "", f"is no name of a variable; take it with --rename '{mend}'"
    if each.value is None:
        return "", _UNREADABLE
    return name, ""


def _assignment(name: str, each: FetchedVariable) -> Assignment:
    """What the store says is secret stays so; what it says is not is judged by its look."""
    assert each.value is not None
    try:
        check_value(name, each.value)
    except InvalidRequest as error:
        # It is the store's content that can't be taken, not the command line.
        raise Failed(
            f"{error.message}; nothing was changed", hint=error.hint, reason=error.reason
        ) from None
    return Assignment(name, each.value, 1, True if each.secret else None)


def _note_unused(
    invocation: Invocation, renames: tuple[Rename, ...], found: tuple[FetchedVariable, ...]
) -> None:
    for rename in renames:
        about = (rename.of(name) for each in found for name in (each.variable, each.native))
        if all(new is None for new in about):
            invocation.screen.note(f"note: --rename {rename.old} matches no name in the store")


def _note_left_out(invocation: Invocation, left_out: Mapping[str, str]) -> None:
    if not left_out:
        return
    count = f"{len(left_out)} name{'' if len(left_out) == 1 else 's'}"
    invocation.screen.note(
        f"note: {count} in the store {'is' if len(left_out) == 1 else 'are'} left out:"
    )
    for native, why in sorted(left_out.items()):
        invocation.screen.note(f"  {native}: {why}")
