"""Invariants 12 and 13: after the heal all nodes show the same, soon, and for the same reasons.

12: states, histories and bases are equal everywhere, within a bound of virtual time. What is in
quarantine has to be there too: after the heal its time has come. And all are at the floor that is
agreed, with nothing left to collect.
13: the history of each environment is the same bytes everywhere, and so are its conflicts, which
are those that the history makes. Everywhere is: on each node that holds the partition; then no
partition is on its way any more, each has its copies, and nobody has what is not its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from chaos.sim import shares
from chaos.sim.checkers import Checker, Sighting, Violation, names_of
from chaos.sim.collection import unforgotten
from envd.core import history
from envd.core.commit import Kind
from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Retention
from envd.core.names import is_system
from envd.core.ring import partition_of

_ALL = 1_000_000


class Convergence(Checker):
    """Says whether the nodes are equal by now; the run asks until they are or time is up."""

    name = "12 convergence after the heal"

    def __init__(self, retention: Retention | None = None) -> None:
        """`retention` is that of the nodes."""
        self._retention = retention or Retention()

    def ended(self, nodes: Sequence[Sighting]) -> None:
        if told := unforgotten(nodes, self._retention) or difference(nodes):
            raise Violation(self.name, told)


class SameHistory(Checker):
    """Compares histories and conflicts of all nodes."""

    name = "13 the same history and conflicts everywhere"

    def ended(self, nodes: Sequence[Sighting]) -> None:
        known = shares.of(nodes)
        listed = {node.machine: _conflicts(node) for node in nodes}
        for name in sorted({name for node in nodes for name in names_of(node)}):
            holders = [node for node in nodes if known.has_all(node.uid, partition_of(name))]
            for first, other in pairs(holders):
                if first.store.commit_rows(name) != other.store.commit_rows(name):
                    told = f"{first.machine} and {other.machine} tell another history of {name}"
                    raise Violation(self.name, told)
                if _of(name, listed[first.machine]) != _of(name, listed[other.machine]):
                    told = f"{first.machine} and {other.machine} list other conflicts of {name}"
                    raise Violation(self.name, told)
        for node in nodes[:1] if known.table is None else nodes:
            self._check_made(node, listed[node.machine])

    def _check_made(self, node: Sighting, listed: Sequence[ConflictRecord]) -> None:
        """The conflicts are those that the history makes of the base."""
        for name in names_of(node):
            if is_system(name):  # Its conflicts are nobody's to settle, and not listed.
                continue
            commits = node.store.commits(name, None, _ALL)[::-1]
            made = [_key(one) for one in history.conflicts(commits, node.store.base(name))]
            if sorted(made) != sorted(_key(one) for one in listed if one.environment == name):
                raise Violation(self.name, f"{node.machine} lists other conflicts of {name}")


def difference(nodes: Sequence[Sighting]) -> str:
    """Where the states and histories of nodes differ, or are about to, "" where they do not.

    Or what else is not as it is to stay: of an environment all that hold it show the same, and the
    others nothing.
    """
    known = shares.of(nodes)
    if told := known.unsettled(nodes):
        return told
    for node in nodes:
        if held := len(node.store.quarantined()):
            return f"{node.machine} holds back {held} records"
    seen = {node.machine: fingerprint(node) for node in nodes}
    for name in sorted({name for found in seen.values() for name in found}):
        holders = [node for node in nodes if known.has_all(node.uid, partition_of(name))]
        if not holders:
            return f"no node that there is has all of {name}"
        for first, other in pairs(holders):
            if seen[first.machine].get(name) != seen[other.machine].get(name):
                return f"{first.machine} and {other.machine} differ in {name}"
    return ""


def pairs(nodes: Sequence[Sighting]) -> list[tuple[Sighting, Sighting]]:
    """The first one with each of the others."""
    return [(nodes[0], other) for other in nodes[1:]]


def fingerprint(node: Sighting) -> dict[str, bytes]:
    """By environment, a hash of its state, its history and its base."""
    found = {}
    for name in names_of(node):
        hashed = blake2b(digest_size=16)
        state = node.store.visible(name)
        hashed.update(state.revision if state else b"")
        for environment in (state.environment if state else None, node.store.base(name)):
            hashed.update(_content(environment).encode())
        for _, row in node.store.commit_rows(name):
            hashed.update(row)
        found[name] = hashed.digest()
    return found


def _content(environment: Environment | None) -> str:
    if environment is None:
        return ""
    sides = [sorted((key, *entry) for key, entry in environment.entries(k).items()) for k in Kind]
    return repr((environment.deleted_at, sides))


def _conflicts(node: Sighting) -> list[ConflictRecord]:
    found: list[ConflictRecord] = []
    while page := node.store.conflicts("", found[-1].environment if found else "", _ALL):
        found += page
    return found


def _of(name: str, listed: Sequence[ConflictRecord]) -> list[ConflictRecord]:
    return [one for one in listed if one.environment == name]


def _key(conflict: ConflictRecord) -> tuple[str, int, str, bytes, bytes]:
    kept, lost = conflict.kept.stamp.to_bytes(), conflict.lost.stamp.to_bytes()
    return (conflict.environment, int(conflict.kind), conflict.name, kept, lost)
