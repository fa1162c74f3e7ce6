"""Two states side by side: what was added, removed and changed, without showing values.

To tell whether a secret changed takes its value, so both sides are read with reveal where
that is allowed. Where it is not, equal stamps tell that nothing changed, and different ones
leave it open: then the variable counts as changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from envd.cli.invocation import Invocation
from envd.core.answers import EnvironmentView
from envd.core.errors import Denied, NotFound

COLOURS = {"+": "green", "-": "red", "~": "yellow"}


class Cell(NamedTuple):
    """One variable of a state; `value` None is one that may not be shown to us.

    `secret` None is where nobody has decided (in a file).
    """

    value: str | None
    secret: bool | None
    stamp: str = ""

    def __repr__(self) -> str:
        """Leave the value out."""
        return f"Cell(secret={self.secret})"


State = Mapping[str, Cell]


class Difference(NamedTuple):
    """One variable that is not the same: `sign` is + for added, - for removed, ~ for changed."""

    sign: str
    name: str
    before: Cell | None
    after: Cell | None

    @property
    def remark(self) -> str:
        """What the sign does not say, about the secret flag."""
        before, after = self.before, self.after
        if before and after and _flag_differs(before, after):
            only = before.value is not None and before.value == after.value
            what = "becomes secret" if after.secret else "is no longer secret"
            return f"{what}, same value" if only else what
        if before and after and None in (before.value, after.value):
            return "may be the same: values can't be compared without the right to reveal"
        return ""


def read_comparable(invocation: Invocation, environment: str, at: str = "") -> EnvironmentView:
    """Read with real values if that is allowed, else with secret ones masked."""
    try:
        return invocation.read(environment, at=at, reveal=True)
    except Denied:
        return invocation.read(environment, at=at, reveal=False)


def read_comparable_if_there(invocation: Invocation, environment: str) -> EnvironmentView | None:
    """The same, None where the environment does not exist."""
    try:
        return read_comparable(invocation, environment)
    except NotFound:
        return None


def cells(view: EnvironmentView | None) -> dict[str, Cell]:
    """The variables of an answer; of no environment, none."""
    if view is None:
        return {}
    return {
        name: Cell(variable.value, variable.secret, variable.stamp)
        for name, variable in view.variables.items()
    }


def differences(before: State, after: State) -> list[Difference]:
    """What turns `before` into `after`, by name."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            found.append(Difference("+" if old is None else "-", name, old, new))
        elif not _same(old, new):
            found.append(Difference("~", name, old, new))
    return found


def show(invocation: Invocation, found: Iterable[Difference], *, indent: str = "") -> None:
    """One line for each difference: the sign and the name, never a value."""
    for each in found:
        remark = f"  ({each.remark})" if each.remark else ""
        invocation.screen.line(f"{indent}{each.sign} {each.name}{remark}", COLOURS[each.sign])


def counted(found: Iterable[Difference]) -> str:
    """The differences in figures: "2 to add, 1 to change, 0 to remove"."""
    signs = [each.sign for each in found]
    added, changed, removed = (signs.count(sign) for sign in "+~-")
    return f"{added} to add, {changed} to change, {removed} to remove"


def named(found: Iterable[Difference]) -> dict[str, list[str]]:
    """The differences for programs: names by kind."""
    words = {"+": "added", "~": "changed", "-": "removed"}
    result: dict[str, list[str]] = {word: [] for word in words.values()}
    for each in found:
        result[words[each.sign]].append(each.name)
    return result


def _same(before: Cell, after: Cell) -> bool:
    if _flag_differs(before, after):
        return False
    if before.value is None or after.value is None:
        return bool(before.stamp) and before.stamp == after.stamp
    return before.value == after.value


def _flag_differs(before: Cell, after: Cell) -> bool:
    return None not in (before.secret, after.secret) and before.secret != after.secret
