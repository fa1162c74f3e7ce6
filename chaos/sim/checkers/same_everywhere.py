"""Invariants 12 and 13: after the heal all nodes show the same, soon, and for the same reasons.

12: states, histories and bases are equal everywhere, within a bound of virtual time. What is in
quarantine has to be there too: after the heal its time has come.
13: the history of each environment is the same bytes everywhere, and so are its conflicts, which
are those that the history makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from chaos.sim.checkers import Checker, Sighting, Violation, names_of
from envd.core import history
from envd.core.commit import Kind
from envd.core.environment import Environment
from envd.core.history import ConflictRecord
from envd.core.names import is_system

_ALL = 1_000_000


class Convergence(Checker):
    """Says whether the nodes are equal by now; the run asks until they are or time is up."""

    name = "12 convergence after the heal"

    def ended(self, nodes: Sequence[Sighting]) -> None:
        if told := difference(nodes):
            raise Violation(self.name, told)


class SameHistory(Checker):
    """Compares histories and conflicts of all nodes."""

    name = "13 the same history and conflicts everywhere"

    def ended(self, nodes: Sequence[Sighting]) -> None:
        first, others = nodes[0], nodes[1:]
        listed = _conflicts(first)
        for name in names_of(first):
            rows = first.store.commit_rows(name)
            for other in others:
                if rows != other.store.commit_rows(name):
                    told = f"{first.machine} and {other.machine} tell another history of {name}"
                    raise Violation(self.name, told)
        for other in others:
            if _conflicts(other) != listed:
                told = f"{first.machine} and {other.machine} list other conflicts"
                raise Violation(self.name, told)
        self._check_made(first, listed)

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
    """Where the states and histories of nodes differ, or are about to, "" where they do not."""
    for node in nodes:
        if held := len(node.store.quarantined()):
            return f"{node.machine} holds back {held} records"
    seen = [(node, fingerprint(node)) for node in nodes]
    first, expected = seen[0]
    for other, found in seen[1:]:
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                return f"{first.machine} and {other.machine} differ in {name}"
    return ""


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


def _key(conflict: ConflictRecord) -> tuple[str, int, str, bytes, bytes]:
    kept, lost = conflict.kept.stamp.to_bytes(), conflict.lost.stamp.to_bytes()
    return (conflict.environment, int(conflict.kind), conflict.name, kept, lost)
