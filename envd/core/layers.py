"""Layers: an environment that extends others has their variables too.

`extends` lists bases; a later one beats an earlier one, and what the environment sets itself
beats them all. Bases may extend others, up to MAX_DEPTH deep. An environment that is reached
more than once counts at its highest place, and a circle is refused. Unsetting a variable
uncovers the one of a base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envd.core.errors import Conflict, LimitExceeded

MAX_DEPTH = 8
EXTENDS = "extends"


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
