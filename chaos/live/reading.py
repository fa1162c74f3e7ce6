"""What a node answers of everything the writers wrote, through the public API alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import envd
from chaos.live.workload import PREFIX
from envd.core.answers import CommitView, ConflictView

_PAGE = 1000


@dataclass(frozen=True)
class Surface:
    """The part that is cheap to read: revisions by environment, and the conflicts."""

    revisions: dict[str, str]
    conflicts: tuple[ConflictView, ...]


@dataclass(frozen=True)
class Whole:
    """All of it; `values` has the visible content of each environment."""

    surface: Surface
    histories: dict[str, tuple[CommitView, ...]]
    values: dict[str, dict[str, str | None]]
    trimmed: frozenset[str]

    def stamps(self, environment: str) -> frozenset[str]:
        """Of the commits in the history of an environment."""
        return frozenset(commit.stamp for commit in self.histories.get(environment, ()))


async def revisions(client: envd.Client) -> dict[str, str]:
    """The revision of every environment that exists."""
    found: dict[str, str] = {}
    after = ""
    while True:
        page = await client.list(PREFIX, after=after, limit=_PAGE)
        found |= {each.environment: each.revision for each in page.environments}
        if not page.next:
            return found
        after = page.next


async def conflicts(client: envd.Client) -> tuple[ConflictView, ...]:
    """Every unsettled conflict, in the order that the node tells them."""
    found: list[ConflictView] = []
    after = ""
    while True:
        page = await client.conflicts(prefix=PREFIX, after=after, limit=_PAGE)
        found += page.conflicts
        if not page.next:
            return tuple(found)
        after = page.next


async def surface(client: envd.Client) -> Surface:
    return Surface(await revisions(client), await conflicts(client))


async def history(client: envd.Client, environment: str) -> tuple[tuple[CommitView, ...], bool]:
    """All commits of an environment, newest first, and whether older ones were trimmed."""
    found: list[CommitView] = []
    before, trimmed = "", False
    while True:
        try:
            page = await client.history(environment, before=before, limit=_PAGE)
        except envd.NotFound:
            return tuple(found), trimmed
        found += page.commits
        trimmed = trimmed or page.trimmed
        if not page.next:
            return tuple(found), trimmed
        before = page.next


async def whole(client: envd.Client, environments: Sequence[str]) -> Whole:
    """Everything that a node has of these environments."""
    histories, trimmed = {}, set()
    for name in environments:
        histories[name], was_trimmed = await history(client, name)
        if was_trimmed:
            trimmed.add(name)
    views = await client.get_many(environments)
    values = {
        name: {key: one.value for key, one in view.variables.items()}
        for name, view in views.items()
    }
    return Whole(await surface(client), histories, values, frozenset(trimmed))
