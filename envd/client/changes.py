"""What a program is told of a change, and the bounded queue of those it has not taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from envd.core.answers import ChangeView, CommitView, EnvironmentView

DEFAULT_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """One commit that became visible, or several that were merged.

    `environment` is the one that is followed, `source` the one that was written: itself, or
    one that it extends. `names` are the variables it touched. `time` is ISO 8601 in UTC.
    `commits` is how many were merged: more than 1 only where the reader was too slow. With
    `caught_up` it stands for all that was missed while no node could tell (`commits` is then
    1, and actor and message are empty).
    """

    environment: str
    revision: str
    changes: tuple[ChangeView, ...]
    source: str = ""
    stamp: str = ""
    time: str = ""
    actor: str = ""
    message: str = ""
    deleted: bool = False
    commits: int = 1
    caught_up: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The variables that were set or unset."""
        return frozenset(change.variable for change in self.changes if not change.metadata)


def change_of(commit: CommitView, through: str = "") -> Change:
    """The change that a commit is, made to the environment itself or `through` a base."""
    return Change(
        environment=commit.environment,
        revision=commit.revision,
        changes=commit.changes,
        source=through or commit.environment,
        stamp=commit.stamp,
        time=commit.time,
        actor=commit.actor,
        message=commit.message,
        deleted=commit.deleted,
    )


def difference(
    environment: str, before: EnvironmentView | None, after: EnvironmentView | None
) -> Change | None:
    """The one change that leads from one state to another, None where they show the same.

    A state is None where the environment does not exist.
    """
    changes = [
        *_differing(_variables(before), _variables(after), metadata=False),
        *_differing(_settings(before), _settings(after), metadata=True),
    ]
    if not changes and _identity(before) == _identity(after):
        return None
    return Change(
        environment=environment,
        revision=after.revision if after else "",
        changes=tuple(changes),
        source=environment,
        stamp=after.stamp if after else "",
        deleted=after is None,
        caught_up=True,
    )


def merged(first: Change, second: Change) -> Change:
    """Both as one: what it says is of the second, its changes are all of them."""
    kinds = {(change.variable, change.metadata): change for change in first.changes}
    kinds |= {(change.variable, change.metadata): change for change in second.changes}
    return replace(
        second,
        changes=tuple(kinds.values()),
        commits=first.commits + second.commits,
        caught_up=first.caught_up or second.caught_up,
    )


def completed(change: Change, missed: Change | None) -> Change:
    """`change`, which stands for what was `missed` before it too."""
    if missed is None:
        return change
    return replace(merged(missed, change), commits=change.commits)


class Backlog:
    """At most `limit` changes in order; where it is full, the last two become one."""

    __slots__ = ("_changes", "_limit")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError("a backlog holds at least one change")
        self._changes: deque[Change] = deque()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._changes)

    def add(self, change: Change) -> None:
        """Note a change behind all others."""
        if len(self._changes) == self._limit:
            change = merged(self._changes.pop(), change)
        self._changes.append(change)

    def take(self) -> Change:
        """The oldest; raises IndexError where there is none."""
        return self._changes.popleft()


def _variables(view: EnvironmentView | None) -> Mapping[str, object]:
    if view is None:
        return {}
    return {
        name: (variable.value, variable.secret, variable.source)
        for name, variable in view.variables.items()
    }


def _settings(view: EnvironmentView | None) -> Mapping[str, object]:
    return {} if view is None else view.metadata


def _identity(view: EnvironmentView | None) -> object:
    return None if view is None else (view.revision, view.bases)


def _differing(
    before: Mapping[str, object], after: Mapping[str, object], *, metadata: bool
) -> list[ChangeView]:
    names = sorted({*before, *after})
    return [
        ChangeView(name, "set" if name in after else "unset", metadata)
        for name in names
        if (name in before) != (name in after) or before.get(name) != after.get(name)
    ]
