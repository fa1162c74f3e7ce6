"""What is known of members is a join: order and repetition of what is heard do not matter."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from envd.core.members import Member, MemberState
from envd.core.swim.table import MemberTable

ME = Member(1, 1, 0, MemberState.ALIVE, "me", "me:1", "me:2", boot_id=bytes(16))

REACHABLE = attrgetter("reachable")


def member(uid: int, generation: int, incarnation: int, state: MemberState, boot: int) -> Member:
    """Facts are those of a start: `generation` and `boot` settle them."""
    place = f"{uid}-{generation}-{boot}:1"
    return Member(uid, generation, incarnation, state, "n", place, place, boot_id=boot.to_bytes(16))


told = st.lists(
    st.builds(
        member,
        st.integers(2, 4),
        st.integers(1, 3),
        st.integers(0, 2),
        st.sampled_from(MemberState),
        st.integers(0, 1),
    ),
    max_size=12,
)


def table_of(heard: list[Member]) -> MemberTable:
    table, chance = MemberTable(ME, 100), Random(1)
    for one in heard:
        table.put(one, 0, chance)
    return table


def joined(heard: list[Member]) -> list[Member]:
    return list(table_of(heard))


@given(told, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(heard: list[Member], chance: Random) -> None:
    shuffled = list(heard)
    chance.shuffle(shuffled)

    assert joined(shuffled) == joined(heard)


@given(told)
def test_repeating_does_not_matter(heard: list[Member]) -> None:
    assert joined(heard + heard) == joined(heard)


@given(told, told, told)
def test_grouping_does_not_matter(
    first: list[Member], second: list[Member], third: list[Member]
) -> None:
    left = joined(joined(first + second)[1:] + third)
    right = joined(first + joined(second + third)[1:])

    assert left == right == joined(first + second + third)


@given(told)
def test_what_is_known_is_the_highest_that_was_said(heard: list[Member]) -> None:
    known = {one.uid: one for one in joined(heard)[1:]}

    assert set(known) == {one.uid for one in heard}
    for one in heard:
        assert not one.supersedes(known[one.uid])


@given(told)
def test_the_count_of_the_reachable_is_right(heard: list[Member]) -> None:
    table = table_of(heard)

    assert table.reachable_count == sum(one.reachable for one in table)


@given(told, told)
def test_the_round_holds_each_other_member_once(heard: list[Member], more: list[Member]) -> None:
    table, chance = table_of(heard), Random(2)
    table.near.next(chance, REACHABLE)
    for one in more:
        table.put(one, 0, chance)
    table.forget(0, 0, 10)
    reachable = [one.uid for one in table if one.reachable and one is not ME]

    found = [table.near.next(chance, REACHABLE) for _ in range(3 * len(reachable))]

    assert {one.uid for one in found if one} == set(reachable)


def test_a_round_asks_everybody_before_anybody_again() -> None:
    table, chance = MemberTable(ME, 100), Random(3)
    for uid in range(2, 12):
        table.put(member(uid, 1, 0, MemberState.ALIVE, 0), 0, chance)

    rounds = [[_uid(table.near.next(chance, REACHABLE)) for _ in range(10)] for _ in range(20)]

    assert all(sorted(one) == list(range(2, 12)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 10


def test_a_pick_is_of_different_fitting_members() -> None:
    table, chance = MemberTable(ME, 1000), Random(4)
    for uid in range(2, 202):
        state = MemberState.DOWN if uid % 3 == 0 else MemberState.ALIVE
        table.put(member(uid, 1, 0, state, 0), 0, chance)

    picks = [table.near.pick(3, chance, REACHABLE) for _ in range(200)]

    assert all(len({one.uid for one in pick}) == 3 for pick in picks)
    assert all(one.reachable for pick in picks for one in pick)
    assert len({one.uid for pick in picks for one in pick}) > 100


def test_a_full_table_drops_who_is_down_for_longest_and_nobody_who_lives() -> None:
    table, chance = MemberTable(ME, 4), Random(5)
    table.put(member(2, 1, 0, MemberState.DOWN, 0), 20, chance)
    table.put(member(3, 1, 0, MemberState.DOWN, 0), 10, chance)
    table.put(member(4, 1, 0, MemberState.ALIVE, 0), 0, chance)

    taken = [table.put(member(uid, 1, 0, MemberState.ALIVE, 0), 30, chance) for uid in (5, 6, 7)]

    assert taken == [True, True, False]
    assert [one.uid for one in table] == [1, 4, 5, 6]


def test_the_time_of_a_loss_is_the_longest_that_anybody_knows_of() -> None:
    table, chance = MemberTable(ME, 4), Random(6)
    down = member(2, 1, 0, MemberState.DOWN, 0)
    table.put(down, 100, chance)

    table.make_older(2, 70, 110)
    table.make_older(2, 30, 110)

    assert table.age_ms(2, 110) == 70
    assert table.forget(71, 71, 110) == []
    assert table.forget(70, 71, 110) == [down]


def test_of_two_clones_all_take_the_one_with_the_higher_boot_id() -> None:
    lower = member(2, 1, 7, MemberState.ALIVE, 1)
    higher = replace(lower, incarnation=0, boot_id=(2).to_bytes(16))

    assert higher.supersedes(lower)
    assert not lower.supersedes(higher)


def _uid(found: Member | None) -> int:
    assert found is not None
    return found.uid
