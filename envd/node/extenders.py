"""Who extends what, as far as somebody watches it, kept while somebody does.

A watch that resolves layers must know, when a base changes, which of the environments below
its prefix extend it. What it costs follows the watches, not the store: with none it costs
nothing; the first below a prefix has the environments there read once; and what is kept is
the names of those that extend others, shared by all watches, until the last one ends. From
then on every commit that touches the setting `extends` keeps it up to date.
"""

from __future__ import annotations

from collections.abc import Sequence

from envd.core.commit import Commit, Kind
from envd.core.environment import Environment
from envd.core.layers import EXTENDS, LayerGraph, bases_of
from envd.core.names import has_prefix
from envd.ports import Applied, Store


class Extenders:
    """The layers of the watched environments of one node.

    The graph is that of now, while a watch may read commits of earlier. That is enough: where
    a relation began or ended since, the commit that changed it is one to an environment that
    is a layer on both sides of it, so it is told after those commits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._graph = LayerGraph()
        self._covered: set[str] = set()
        self._watches = 0

    def __len__(self) -> int:
        """How many environments that extend others are known."""
        return len(self._graph)

    def join(self) -> None:
        """One more watch needs this."""
        self._watches += 1

    def leave(self) -> None:
        """One watch less; the last one takes everything with it."""
        self._watches -= 1
        if self._watches == 0:
            self._graph.clear()
            self._covered.clear()

    def covers(self, prefix: str) -> bool:
        """Tell whether all that is below `prefix` was learnt."""
        return any(has_prefix(prefix, covered) or not covered for covered in self._covered)

    def cover(self, prefix: str) -> None:
        """Note that all below `prefix` was learnt."""
        self._covered = {one for one in self._covered if not has_prefix(one, prefix)}
        self._covered.add(prefix)

    def learn(self, name: str) -> None:
        """Read what `name` extends, and what that extends; raises Corrupt."""
        waiting = [name]
        while waiting:
            one = waiting.pop()
            state = self._store.visible(one)
            waiting += self._put(one, state.environment if state else None)

    def applied(self, applied: Applied) -> None:
        """Keep up with a commit that became visible."""
        commit = applied.record.commit
        if self._watches and (commit.environment in self._graph or _touches_layers(commit)):
            for base in self._put(commit.environment, applied.after.environment):
                self.learn(base)

    def of(self, base: str) -> Sequence[str]:
        """All that extend `base`, directly or through others, in order of name."""
        return self._graph.above(base)

    def bases(self, name: str) -> set[str]:
        """All that `name` extends, directly or through others."""
        return self._graph.below(name)

    def _put(self, name: str, environment: Environment | None) -> list[str]:
        """Note what one environment extends; return what was not a base before."""
        bases: tuple[str, ...] = ()
        if environment is not None:
            setting = environment.metadata.get(EXTENDS)
            bases = bases_of(setting.value or "") if setting else ()
        unknown = [base for base in bases if not self._graph.is_base(base)]
        self._graph.put(name, bases)
        return unknown


def _touches_layers(commit: Commit) -> bool:
    return any(change.kind is Kind.METADATA and change.name == EXTENDS for change in commit.changes)
