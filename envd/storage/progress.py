"""How far a node holds the logs of the others: vectors, and cursors.

A vector says of a partition and an origin up to which seq all records are held. It is raised by
the records themselves, in the order of the log, and by what a peer's whole state brought
(`advance`); it never goes down, whatever is applied again after a crash. What is on its way to
the disk has a seq already, so that the next one follows, but counts for nobody else.

Bookkeeping only, for the durable store and the one in memory alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from envd.core.versions import Cursor

Place = tuple[int, int]


@dataclass(slots=True)
class Moves:
    """What changed since the last flush; origins are forgotten before vectors are raised."""

    vectors: dict[Place, int] = field(default_factory=dict)
    cursors: dict[int, Cursor] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.vectors or self.cursors or self.forgotten)

    def forget(self, origin: int) -> None:
        """Drop an origin."""
        self.forgotten.add(origin)
        _drop(self.vectors, origin)

    def followed_by(self, later: Moves) -> Moves:
        """These moves and then `later`, as one."""
        both = Moves(dict(self.vectors), self.cursors | later.cursors, set(self.forgotten))
        for origin in later.forgotten:
            both.forget(origin)
        both.vectors |= later.vectors
        return both


class Progress:
    """Vectors and cursors of one node, from those that its state holds."""

    def __init__(
        self,
        vectors: Mapping[Place, int] | None = None,
        cursors: Mapping[int, Cursor] | None = None,
    ) -> None:
        self._given = dict(vectors or {})
        self._durable = dict(vectors or {})
        self._cursors = dict(cursors or {})
        self._moves = Moves()

    @property
    def vectors(self) -> Mapping[Place, int]:
        """The last durable seq by (partition, origin): a view that follows what happens."""
        return MappingProxyType(self._durable)

    @property
    def cursors(self) -> Mapping[int, Cursor]:
        """All cursors by node: a view that follows what happens."""
        return MappingProxyType(self._cursors)

    def last_seq(self, partition: int, origin: int) -> int:
        """The last seq that was given or is held."""
        return self._given.get((partition, origin), 0)

    def cursor(self, uid: int) -> Cursor:
        """How far the log of the node `uid` was taken in."""
        return self._cursors.get(uid, Cursor())

    def appended(self, place: Place, seq: int) -> None:
        """A record is on its way; origin 0 names none."""
        if place[1]:
            _raise_to(self._given, place, seq)

    def synced(self, place: Place, seq: int) -> None:
        """A record is durable."""
        if place[1] and seq > self._durable.get(place, 0):
            self._durable[place] = self._moves.vectors[place] = seq
            _raise_to(self._given, place, seq)

    def refused(self) -> None:
        """All that was on its way is gone."""
        self._given = dict(self._durable)

    def advance(self, vectors: Mapping[Place, int], cursors: Mapping[int, Cursor]) -> None:
        """Raise vectors and set cursors."""
        for place, seq in vectors.items():
            self.synced(place, seq)
        self._cursors |= cursors
        self._moves.cursors |= cursors

    def forget(self, origin: int) -> None:
        """Drop all vectors of an origin, also of what is on its way.

        That all records up to `relay_lsn` are held is true no longer: relays begin anew.
        """
        _drop(self._given, origin)
        _drop(self._durable, origin)
        self._moves.forget(origin)
        begun_anew = {uid: cursor._replace(relay_lsn=0) for uid, cursor in self._cursors.items()}
        self.advance({}, begun_anew)

    def drop(self, partition: int, keep_origin: int) -> None:
        """Drop the vectors of a partition, of which nothing is on its way, but for one origin's.

        The state does so by itself, and so no flush does.
        """
        for vectors in (self._given, self._durable, self._moves.vectors):
            for place in [place for place in vectors if place[0] == partition]:
                if place[1] != keep_origin:
                    del vectors[place]

    @property
    def moved(self) -> bool:
        """Tell whether a flush would write anything."""
        return bool(self._moves)

    def take(self) -> Moves:
        """What the next flush writes."""
        moves, self._moves = self._moves, Moves()
        return moves

    def not_flushed(self, moves: Moves) -> None:
        """A flush failed: the next one writes this too."""
        self._moves = moves.followed_by(self._moves)


def _raise_to(vectors: dict[Place, int], place: Place, seq: int) -> None:
    if seq > vectors.get(place, 0):
        vectors[place] = seq


def _drop(vectors: dict[Place, int], origin: int) -> None:
    for place in [place for place in vectors if place[1] == origin]:
        del vectors[place]
