"""Vectors and cursors by themselves: what raises them, what never lowers them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from envd.core.versions import Cursor
from envd.storage.progress import Moves, Place, Progress

places = st.tuples(st.integers(0, 2), st.integers(1, 3))
seqs = st.integers(1, 9)
origins = st.integers(1, 3)
moves = st.builds(
    Moves,
    st.dictionaries(places, seqs, max_size=3),
    st.dictionaries(origins, st.builds(Cursor, seqs, seqs), max_size=2),
    st.sets(origins, max_size=2),
)


def test_what_is_on_its_way_is_followed_and_not_told() -> None:
    progress = Progress({(0, 1): 4})

    progress.appended((0, 1), 5)
    seen = dict(progress.vectors)
    progress.synced((0, 1), 5)

    assert (seen, progress.last_seq(0, 1)) == ({(0, 1): 4}, 5)
    assert dict(progress.vectors) == {(0, 1): 5}


def test_a_refusal_takes_back_what_was_on_its_way_and_keeps_what_a_peer_told() -> None:
    progress = Progress({(0, 1): 4})
    progress.appended((0, 1), 5)
    progress.advance({(0, 2): 9}, {7: Cursor(3, 4)})
    progress.appended((0, 2), 10)

    progress.refused()

    assert [progress.last_seq(0, origin) for origin in (1, 2)] == [4, 9]
    assert progress.cursor(7) == Cursor(3, 4)


def test_an_older_record_does_not_lower_what_a_peer_told() -> None:
    progress = Progress()
    progress.advance({(0, 1): 9}, {})

    progress.appended((0, 1), 3)
    progress.synced((0, 1), 3)
    progress.advance({(0, 1): 5}, {})

    assert progress.last_seq(0, 1) == 9
    assert progress.take().vectors == {(0, 1): 9}


def test_a_record_without_a_name_leaves_vectors_alone() -> None:
    progress = Progress()

    progress.appended((0, 0), 0)
    progress.synced((0, 0), 0)

    assert not progress.moved
    assert dict(progress.vectors) == {}


def test_a_view_of_the_vectors_follows_all_that_happens() -> None:
    progress = Progress({(0, 1): 1, (0, 2): 2})
    view = progress.vectors

    progress.forget(1)
    progress.synced((5, 2), 3)

    assert dict(view) == {(0, 2): 2, (5, 2): 3}


class Flushing(RuleBasedStateMachine):
    """What flushes wrote, and what they failed to, always adds up to what is told."""

    @initialize()
    def start(self) -> None:
        self.progress = Progress()
        self.disk: dict[Place, int] = {}
        self.disk_cursors: dict[int, Cursor] = {}
        self.told: dict[Place, int] = {}

    @rule(place=places, seq=seqs)
    def a_record_becomes_durable(self, place: Place, seq: int) -> None:
        self.progress.appended(place, seq)
        self.progress.synced(place, seq)
        self.told[place] = max(seq, self.told.get(place, 0))

    @rule(vectors=st.dictionaries(places, seqs, max_size=2), uid=origins, lsn=seqs)
    def a_peer_tells(self, vectors: dict[Place, int], uid: int, lsn: int) -> None:
        self.progress.advance(vectors, {uid: Cursor(lsn, lsn)})
        for place, seq in vectors.items():
            self.told[place] = max(seq, self.told.get(place, 0))

    @rule(origin=origins)
    def an_origin_is_forgotten(self, origin: int) -> None:
        self.progress.forget(origin)
        self.told = {place: seq for place, seq in self.told.items() if place[1] != origin}

    @rule(fails=st.booleans(), place=places, seq=seqs, origin=st.none() | origins)
    def a_flush_ends(self, fails: bool, place: Place, seq: int, origin: int | None) -> None:
        taken = self.progress.take()
        self.a_record_becomes_durable(place, seq)
        if origin is not None:
            self.an_origin_is_forgotten(origin)
        if fails:
            self.progress.not_flushed(taken)
        else:
            write(taken, self.disk, self.disk_cursors)

    @invariant()
    def the_vectors_are_those_told(self) -> None:
        assert dict(self.progress.vectors) == self.told

    @invariant()
    def disk_and_moves_make_up_what_is_told(self) -> None:
        vectors, cursors = dict(self.disk), dict(self.disk_cursors)
        taken = self.progress.take()
        write(taken, vectors, cursors)
        self.progress.not_flushed(taken)
        assert vectors == self.told
        assert cursors == dict(self.progress.cursors)


def write(taken: Moves, vectors: dict[Place, int], cursors: dict[int, Cursor]) -> None:
    """What a flush does to the tables."""
    for place in [place for place in vectors if place[1] in taken.forgotten]:
        del vectors[place]
    vectors |= taken.vectors
    cursors |= taken.cursors


TestFlushing = Flushing.TestCase


@given(moves, moves, moves)
def test_moves_can_be_put_together_in_any_grouping(
    first: Moves, second: Moves, third: Moves
) -> None:
    one = first.followed_by(second).followed_by(third)
    other = first.followed_by(second.followed_by(third))

    assert one == other
