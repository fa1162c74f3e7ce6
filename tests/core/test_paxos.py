"""The rules by which one value is chosen for each place: by tables, by laws, and in a world."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.paxos import (
    NEVER,
    Acceptor,
    Ballot,
    Held,
    Proposal,
    Quorum,
    Verdict,
    accept,
    farthest,
    never_chosen,
    prepare,
    to_finish,
)
from envd.core.stamp import ZERO, Stamp
from tests.core.paxos_world import Entry, Sabotage, TwoChosen, World, run

LOW, MIDDLE, HIGH = Ballot(1, 9), Ballot(2, 1), Ballot(2, 2)
EARLIER, HERE, LATER = Stamp(1, 1, 1), Stamp(1, 2, 1), Stamp(1, 3, 1)

ballots = st.builds(Ballot, st.integers(0, 3), st.integers(1, 3))
uids = st.integers(1, 3)
groups = st.frozensets(st.integers(1, 6), min_size=1)
some_uids = st.frozensets(st.integers(1, 6))


# -- ballots -----------------------------------------------------------------------------------


def test_ballots_are_ordered_by_counter_then_by_node() -> None:
    assert sorted([HIGH, LOW, NEVER, MIDDLE]) == [NEVER, LOW, MIDDLE, HIGH]


@given(ballots, uids)
def test_the_next_ballot_of_a_node_is_its_least_above(ballot: Ballot, uid: int) -> None:
    above = ballot.above(uid)

    assert above.node_uid == uid
    assert above > ballot
    assert Ballot(above.counter - 1, uid) <= ballot


@given(ballots, uids, uids)
def test_two_nodes_never_use_one_ballot(ballot: Ballot, one: int, other: int) -> None:
    assert (ballot.above(one) == ballot.above(other)) == (one == other)


# -- what an acceptor answers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promised", "asked", "verdict"),
    [
        (NEVER, LOW, Verdict.YES),
        (LOW, MIDDLE, Verdict.YES),
        (MIDDLE, MIDDLE, Verdict.OUTBID),
        (HIGH, MIDDLE, Verdict.OUTBID),
    ],
)
def test_a_promise_is_given_to_who_bids_more_than_all_before(
    promised: Ballot, asked: Ballot, verdict: Verdict
) -> None:
    accepted = Proposal(LOW, HERE, b"v")

    said, kept = prepare(Acceptor(promised, accepted), asked)

    assert said is verdict
    assert kept == Acceptor(max(promised, asked), accepted)


@pytest.mark.parametrize(
    ("promised", "ballot", "position", "verdict"),
    [
        (NEVER, LOW, HERE, Verdict.YES),
        (MIDDLE, MIDDLE, HERE, Verdict.YES),
        (MIDDLE, HIGH, HERE, Verdict.YES),
        (HIGH, MIDDLE, HERE, Verdict.OUTBID),
        (LOW, MIDDLE, EARLIER, Verdict.BEHIND),
        (LOW, MIDDLE, LATER, Verdict.PAST),
        (HIGH, LOW, EARLIER, Verdict.OUTBID),
        (HIGH, LOW, LATER, Verdict.OUTBID),
    ],
)
def test_a_proposal_is_accepted_where_the_log_stands_unless_another_bid_more(
    promised: Ballot, ballot: Ballot, position: Stamp, verdict: Verdict
) -> None:
    before, proposal = Acceptor(promised), Proposal(ballot, HERE, b"v")

    said, kept = accept(before, proposal, position)

    assert said is verdict
    assert kept == (Acceptor(ballot, proposal) if verdict is Verdict.YES else before)


@pytest.mark.parametrize(("position", "is_open"), [(EARLIER, True), (HERE, True), (LATER, False)])
def test_what_was_accepted_is_open_until_the_log_is_past_it(position: Stamp, is_open: bool) -> None:
    proposal = Proposal(LOW, HERE, b"v")
    acceptor = Acceptor(MIDDLE, proposal)

    assert acceptor.open_at(position) == (proposal if is_open else None)
    assert acceptor.pruned(position) == (acceptor if is_open else Acceptor(MIDDLE))
    assert Acceptor(MIDDLE).pruned(position) == Acceptor(MIDDLE)


def test_a_proposal_does_not_show_its_value() -> None:
    assert "canary" not in repr(Acceptor(LOW, Proposal(LOW, HERE, b"canary")))


# -- who is enough -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "uids", "is_met"),
    [
        ((), {1, 2, 3}, False),
        (({1},), {1}, True),
        (({1},), {2, 3}, False),
        (({1, 2},), {1}, False),
        (({1, 2},), {1, 2}, True),
        (({1, 2, 3},), {1, 3}, True),
        (({1, 2, 3},), {3, 4, 5}, False),
        (({1, 2, 3, 4},), {1, 2}, False),
        (({1, 2, 3, 4, 5},), {1, 4, 5}, True),
        (({1}, {1, 2, 3}), {1}, False),
        (({1}, {1, 2, 3}), {1, 3}, True),
        (({1}, {1, 2, 3}), {2, 3}, False),
    ],
)
def test_a_quorum_is_a_majority_of_each_group(
    groups: tuple[set[int], ...], uids: set[int], is_met: bool
) -> None:
    quorum = Quorum(tuple(map(frozenset, groups)))

    assert quorum.is_met(uids) is is_met
    assert quorum.members == frozenset().union(*groups)


@given(st.lists(groups, min_size=1, max_size=2), some_uids, some_uids)
def test_two_quorums_have_a_member_in_common(
    drawn: list[frozenset[int]], one: frozenset[int], other: frozenset[int]
) -> None:
    quorum = Quorum(tuple(drawn))

    if quorum.is_met(one) and quorum.is_met(other):
        assert all(group & one & other for group in drawn)


@given(groups, groups, some_uids, some_uids)
def test_a_joint_quorum_meets_those_of_either_group(
    old: frozenset[int], new: frozenset[int], one: frozenset[int], other: frozenset[int]
) -> None:
    if Quorum((old, new)).is_met(one):
        for group in (old, new):
            if Quorum((group,)).is_met(other):
                assert group & one & other


@given(st.lists(groups, max_size=2), some_uids)
def test_a_quorum_can_be_met_as_long_as_the_others_are_enough(
    drawn: list[frozenset[int]], lost: frozenset[int]
) -> None:
    quorum = Quorum(tuple(drawn))

    assert quorum.can_be_met(lost) == quorum.is_met(quorum.members - lost)


# -- what is to be finished --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        pytest.param([], None, id="nobody-accepted"),
        pytest.param([(LOW, HERE, b"a")], b"a", id="one"),
        pytest.param([(LOW, HERE, b"a"), (HIGH, HERE, b"b")], b"b", id="the-highest-ballot"),
        pytest.param([(HIGH, EARLIER, b"a")], None, id="earlier-is-in-the-log"),
        pytest.param([(HIGH, LATER, b"a")], None, id="farther-was-answered-to-nobody"),
        pytest.param([(HIGH, EARLIER, b"a"), (LOW, HERE, b"b")], b"b", id="at-the-place-alone"),
    ],
)
def test_of_what_was_accepted_here_the_highest_ballot_is_finished(
    accepted: list[tuple[Ballot, Stamp, bytes]], expected: bytes | None
) -> None:
    held = [Held(HERE), *(Held(HERE, Proposal(*each)) for each in accepted)]

    found = to_finish(held, HERE)

    assert (None if found is None else found.value) == expected


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ({1: ZERO}, 1),
        ({1: EARLIER, 2: LATER, 3: HERE}, 2),
        ({3: LATER, 2: LATER, 1: HERE}, 2),
        ({1: Stamp(1, 9, 9), 2: Stamp(2, 0, 0)}, 2),
        ({1: Stamp(1, 9, 1), 2: Stamp(1, 9, 2)}, 2),
    ],
)
def test_the_farthest_log_is_that_of_the_highest_position(
    positions: dict[int, Stamp], expected: int
) -> None:
    assert farthest({uid: Held(at) for uid, at in positions.items()}) == expected


# -- in a world that loses, delays, doubles and reorders ----------------------------------------


seeds = st.integers(0, (1 << 32) - 1)


@given(st.sampled_from((1, 2, 3, 5)), seeds)
@settings(max_examples=300, deadline=None)
def test_at_most_one_value_is_chosen_at_a_place_and_all_logs_are_one_chain(
    count: int, seed: int
) -> None:
    run(count, Random(seed), 1000)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_world_does_choose_all_the_same(count: int) -> None:
    chosen = [len(run(count, Random(seed), 1000).chosen) for seed in range(20)]

    assert sum(chosen) >= 20


@pytest.mark.parametrize("sabotage", [each for each in Sabotage if each is not Sabotage.NONE])
def test_a_broken_rule_is_noticed(sabotage: Sabotage) -> None:
    def breaks(seed: int) -> bool:
        try:
            run(3, Random(seed), 1000, sabotage)
        except TwoChosen:
            return True
        return False

    assert any(breaks(seed) for seed in range(500))


@given(st.sampled_from((3, 5)), seeds, st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_a_proposer_that_is_left_alone_gets_its_value_chosen(
    count: int, seed: int, uid: int
) -> None:
    world = run(count, Random(seed), 300)
    for other in world.nodes.values():
        other.gives_up()
    world.network.clear()
    node = world.nodes[uid]

    value = _insist(world, uid)

    assert node.log[-1] == value
    assert world.chosen[value.place] == value


def _insist(world: World, uid: int) -> Entry:
    """Bid, finish what is open, then propose, a few times; return what was proposed last."""
    node = world.nodes[uid]
    world.settle()
    for _ in range(4):
        node.highest = max(each.acceptor.promised for each in world.nodes.values())
        world.bid(node)
        world.settle()
        world.propose(node)
        if node.proposal is not None:
            value = Entry.decode(node.proposal.value)
            world.settle()
            if node.log and node.log[-1] == value:
                return value
    raise AssertionError("nothing was chosen")


def test_nothing_was_chosen_where_those_that_hold_something_are_no_majority_of_any_group() -> None:
    place, nothing = Stamp(1, 0, 0), Held(Stamp(1, 0, 0))
    something = Held(place, Proposal(Ballot(1, 1), place, b"v"))
    one, joint = Quorum((frozenset({1, 2, 3}),)), Quorum((frozenset({1}), frozenset({1, 2, 3})))

    assert never_chosen(one, {1: nothing, 2: nothing, 3: something}, place)
    assert not never_chosen(one, {1: nothing, 3: something}, place)  # 2 may hold it too.
    assert not never_chosen(one, {1: nothing, 2: something, 3: something}, place)
    assert not never_chosen(joint, {1: something, 2: nothing, 3: nothing}, place)
    assert never_chosen(joint, {1: nothing, 2: nothing}, place)
