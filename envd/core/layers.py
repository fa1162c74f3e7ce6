"""Layers: an environment that extends others has their variables too.

`extends` lists bases; a later one beats an earlier one, and what the environment sets itself
beats them all. Bases may extend others, up to MAX_DEPTH deep. An environment that is reached
more than once counts at its highest place, and a circle is refused. Unsetting a variable
uncovers the one of a base.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from envd.core.errors import Conflict, LimitExceeded

MAX_DEPTH = 8
EXTENDS = "extends"
_REMEMBERED = 100_000
"""So many names `LayerGraph.above` keeps as answers, and always one answer."""


def bases_of(setting: str) -> tuple[str, ...]:
    """The names in an `extends` setting, lowest first: "base, team/base" is two."""
    return tuple(filter(None, (name.strip() for name in setting.split(","))))


def layers(name: str, bases: Callable[[str], Sequence[str]]) -> list[str]:
    """`name` and all it extends, from the lowest layer to the highest, which is `name`.

    `bases` tells the direct bases of an environment, lowest first, and may raise for one
    that is not there. Raises Conflict for a circle and LimitExceeded below MAX_DEPTH.

    Example: with prod extending (base, team) and team extending (base,), the layers of prod
    are base, team, prod.
    """
    highest_first: dict[str, None] = {}
    _visit(name, bases, (), highest_first)
    return list(reversed(highest_first))


def _visit(
    name: str,
    bases: Callable[[str], Sequence[str]],
    above: tuple[str, ...],
    visited: dict[str, None],
) -> None:
    """Note `name` and what it extends, the highest layer first, each once."""
    if name in above:
        circle = " extends ".join((*above[above.index(name) :], name))
        raise Conflict(
            f"the layers form a circle: {circle}",
            hint="change the setting extends of one of them",
            reason="EXTENDS_CIRCLE",
        )
    if len(above) > MAX_DEPTH:
        raise LimitExceeded(
            f"{above[0]} extends more than {MAX_DEPTH} layers deep",
            hint="let it extend its bases directly",
        )
    if name in visited:
        return
    visited[name] = None
    for base in reversed(bases(name)):
        _visit(base, bases, (*above, name), visited)


class LayerGraph:
    """Who extends whom, in both directions, for as many environments as were put in.

    Its size is that of the environments that extend others; all else costs nothing. Circles
    and any depth are taken: what can't be resolved is found where it is resolved.
    """

    def __init__(self) -> None:
        self._bases: dict[str, tuple[str, ...]] = {}
        self._extenders: dict[str, set[str]] = {}
        self._above: dict[str, tuple[str, ...]] = {}
        self._remembered = 0

    def __len__(self) -> int:
        """How many environments extend others."""
        return len(self._bases)

    def __contains__(self, name: str) -> bool:
        """Tell whether `name` extends others."""
        return name in self._bases

    @property
    def remembered(self) -> int:
        """How many names the answers that are remembered hold."""
        return self._remembered

    def is_base(self, name: str) -> bool:
        """Tell whether something extends `name` directly."""
        return name in self._extenders

    def put(self, name: str, bases: Sequence[str]) -> None:
        """`name` extends `bases` from now on, and nothing else."""
        known = self._bases.get(name, ())
        if known == tuple(bases):
            return
        for base in set(known):
            extenders = self._extenders[base]
            extenders.discard(name)
            if not extenders:
                del self._extenders[base]
        for base in bases:
            self._extenders.setdefault(base, set()).add(name)
        self._bases.pop(name, None)
        if bases:
            self._bases[name] = tuple(bases)
        self._forget()

    def above(self, base: str) -> tuple[str, ...]:
        """All that extend `base`, directly or through others, in order of name."""
        if base not in self._extenders:
            return ()
        found = self._above.get(base)
        if found is None:
            found = tuple(sorted(_reached(base, lambda name: self._extenders.get(name, ()))))
            if self._remembered + len(found) > _REMEMBERED:
                self._forget()
            self._above[base] = found
            self._remembered += len(found)
        return found

    def below(self, name: str) -> set[str]:
        """All that `name` extends, directly or through others."""
        return _reached(name, lambda each: self._bases.get(each, ()))

    def clear(self) -> None:
        """Take everything out."""
        self._bases.clear()
        self._extenders.clear()
        self._forget()

    def _forget(self) -> None:
        self._above.clear()
        self._remembered = 0


def under(names: Sequence[str], prefix: str) -> Iterator[str]:
    """Those of the sorted `names` that `prefix` holds, found without a look at the others.

    Example: of a, a-b, a/c the prefix a holds a and a/c.
    """
    if not prefix:
        yield from names
        return
    at = bisect_left(names, prefix)
    if at < len(names) and names[at] == prefix:
        yield prefix
    end = bisect_left(names, prefix + "0")  # 0 is what follows the slash
    for at in range(bisect_left(names, prefix + "/"), end):
        yield names[at]


def _reached(start: str, step: Callable[[str], Iterable[str]]) -> set[str]:
    """All that steps from `start` reach, without `start` itself."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for name in step(waiting.pop()):
            if name != start and name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached
