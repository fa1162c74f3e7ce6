"""All nodes answer alike: revisions, values, histories and lists of conflicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chaos.live.checkers import Evidence, Verdict, some
from chaos.live.reading import Whole


def check(evidence: Evidence) -> list[Verdict]:
    """Compare every node with the first, aspect by aspect."""
    return [_compare(what, part, evidence.wholes) for what, part in _ASPECTS.items()]


def _conflicts(whole: Whole) -> dict[str, object]:
    return {each.id: each for each in whole.surface.conflicts}


_ASPECTS: Mapping[str, Callable[[Whole], Mapping[str, object]]] = {
    "revisions are equal": lambda whole: whole.surface.revisions,
    "values are equal": lambda whole: whole.values,
    "histories are equal": lambda whole: whole.histories,
    "conflict lists are equal": _conflicts,
}


def _compare(
    what: str, part: Callable[[Whole], Mapping[str, object]], wholes: Mapping[str, Whole]
) -> Verdict:
    (first, whole), *others = wholes.items()
    expected = part(whole)
    differences = []
    for name, other in others:
        found = part(other)
        keys = {key for key in expected.keys() | found if expected.get(key) != found.get(key)}
        if keys:
            differences.append(f"{name} differs from {first} in {len(keys)}: {some(keys)}")
    if differences:
        return Verdict(what, holds=False, seen="; ".join(differences))
    return Verdict(what, holds=True, seen=f"{len(expected)} on each of {len(wholes)} nodes")
