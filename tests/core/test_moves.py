"""How moves of partitions go on: what may begin, what each stage takes, what is in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from envd.core.moves import (
    MOST_MOVING,
    Progress,
    due,
    has_enough,
    in_vain,
    is_partial,
    planning,
    to_begin,
    to_move,
    to_pull,
)
from envd.core.partitions import ANYWHERE, Move, PartitionTable, Stage, first_table
from envd.core.placement import Site, run_through
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION

OLD, NEW = (1, 2, 3), (3, 4, 5)
ALL = (1, 2, 3, 4, 5)
SOME = 0 if SYSTEM_PARTITION else 1
EPOCH = 9


def held(*row: int) -> PartitionTable:
    """Every partition is on these nodes."""
    return first_table(row, {ANYWHERE: 3})


def moving(stage: Stage, to: tuple[int, ...] = NEW, old: tuple[int, ...] = OLD) -> PartitionTable:
    """One partition is on its way."""
    return replace(held(*old), moves={SOME: Move(stage, to, EPOCH - 1)})


def told(epoch: int = EPOCH, **others: Progress) -> Mapping[int, Progress]:
    """What all nodes said: that they know this epoch; `n4` of one what it said instead."""
    said = {uid: Progress(epoch) for uid in ALL}
    return said | {int(name[1:]): progress for name, progress in others.items()}


PULLED = Progress(EPOCH, pulled=frozenset({SOME}))
KEEPS = Progress(EPOCH, kept=frozenset({SOME}))


def goes_on(
    table: PartitionTable, said: Mapping[int, Progress], able: tuple[int, ...] = ALL
) -> bool:
    return due(table, EPOCH, able, said) == {SOME}


@pytest.mark.parametrize("stage", [Stage.WRITE_BOTH, Stage.READ_NEW])
def test_every_node_that_can_be_reached_must_know_that_writes_and_reads_go_elsewhere(
    stage: Stage,
) -> None:
    table = moving(stage)

    assert goes_on(table, told())
    assert not goes_on(table, told(n1=Progress(EPOCH - 1)))
    assert not goes_on(table, {uid: at for uid, at in told().items() if uid != 1})
    assert goes_on(table, told(n1=Progress(EPOCH - 1)), able=(2, 3, 4, 5))


def test_nobody_reads_from_a_new_holder_before_it_has_everything() -> None:
    table = moving(Stage.STREAMING)

    assert goes_on(table, told(n3=PULLED, n4=PULLED, n5=PULLED))
    assert not goes_on(table, told(n3=PULLED, n4=PULLED))
    assert not goes_on(table, told(n3=PULLED, n4=PULLED), able=(1, 2, 3, 4))


def test_who_holds_it_and_goes_on_with_it_is_to_know_what_the_others_chose() -> None:
    table = moving(Stage.STREAMING, to=(1, 2, 4), old=(1, 2, 3, 5, 6))

    assert not goes_on(table, told(n4=PULLED))
    assert goes_on(table, told(n1=PULLED, n2=PULLED, n4=PULLED))
    assert goes_on(table, told(n1=PULLED, n4=PULLED), able=(1, 3, 4, 5))


def test_no_minority_of_the_new_holders_is_enough_even_if_the_others_are_away() -> None:
    table = moving(Stage.STREAMING, to=(1, 2, 4), old=(1, 2, 3, 5, 6))

    assert not goes_on(table, told(n4=PULLED), able=(3, 4, 5))


def test_what_was_pulled_counts_in_the_epoch_in_which_it_was_told() -> None:
    late = Progress(EPOCH - 1, pulled=frozenset({SOME}))

    assert not goes_on(moving(Stage.STREAMING), told(n3=PULLED, n4=PULLED, n5=late))


def test_a_move_is_done_once_the_former_holders_let_go() -> None:
    table = moving(Stage.USE_NEW)

    assert not goes_on(table, told(n1=KEEPS))
    assert not goes_on(table, told(n2=Progress(EPOCH - 1)))
    assert goes_on(table, told(n1=KEEPS), able=(2, 3, 4, 5))
    assert goes_on(table, told(n3=KEEPS))
    assert goes_on(table, told())


def test_a_move_to_who_leaves_or_is_lost_is_in_vain_until_it_is_read_from() -> None:
    early, late = moving(Stage.STREAMING), moving(Stage.READ_NEW)

    assert in_vain(early, {1, 2, 3, 5}, ()) == {SOME}
    assert in_vain(early, ALL, {4}) == {SOME}
    assert not in_vain(early, ALL, {3})
    assert not in_vain(early, ALL, ())
    assert not in_vain(late, {1, 2, 3}, {4})


def test_the_partitions_of_the_fewest_copies_move_first_and_only_some_at_once() -> None:
    rows = list(held(*OLD).holders)
    rows[7] = (1,)
    table = replace(held(*OLD), holders=tuple(rows))

    begun = to_begin(table, {at: NEW for at in range(PARTITIONS) if rows[at]}, ALL)

    assert len(begun) == MOST_MOVING
    assert next(iter(begun)) == 7
    moves = {at: Move(Stage.STREAMING, NEW, 3) for at in begun}
    assert to_begin(replace(table, moves=moves), {9: OLD, 3000: NEW}, ALL) == {}


def test_nothing_begins_to_move_to_a_node_that_can_not_be_reached() -> None:
    table = held(*OLD)

    assert to_begin(table, {SOME: NEW}, (1, 2, 3, 4)) == {}
    assert to_begin(table, {SOME: NEW}, (4, 5)) == {SOME: NEW}
    assert to_begin(moving(Stage.STREAMING), {SOME: (1, 2, 4)}, ALL) == {}


def test_a_plan_moves_what_is_not_where_it_should_be() -> None:
    sites = [Site(uid) for uid in ALL]
    table = held(1, 2, 3)

    rows = run_through(planning(table, sites, {ANYWHERE: 3}))
    wanted = to_move(table, rows)

    assert wanted
    assert all(len(row) == 3 and set(row) != set(OLD) for row in wanted.values())
    assert SYSTEM_PARTITION not in wanted
    assert to_move(table.begin(wanted, EPOCH), rows) == {}


def test_what_could_be_nowhere_stays_where_it_is() -> None:
    table = held(*OLD)

    rows = run_through(planning(table, [Site(1, region="eu")], {"us": 2}))

    assert to_move(table, rows) == {}


@pytest.mark.parametrize(
    ("copies", "partial"),
    [
        ({"": 0}, False),
        ({"": 2}, True),
        ({"": 3}, False),
        ({"": 9}, False),
        ({"eu": 2, "us": 1}, False),
        ({"eu": 1, "us": 1}, True),
        ({"eu": 2}, True),
    ],
)
def test_a_table_is_for_clusters_in_which_some_node_does_not_hold_all(
    copies: Mapping[str, int], *, partial: bool
) -> None:
    sites = [Site(1, region="eu"), Site(2, region="eu"), Site(3, region="us")]

    assert is_partial(sites, copies) is partial


def test_a_majority_of_the_old_holders_is_enough_to_pull_from() -> None:
    assert has_enough(OLD, {1, 2})
    assert not has_enough(OLD, {1})
    assert not has_enough((1, 2), {1, 9})
    assert has_enough((), ())


def test_all_that_are_to_hold_it_pull_while_it_is_streamed() -> None:
    table = moving(Stage.STREAMING)

    assert to_pull(table, 3) == to_pull(table, 4) == table.moves
    assert to_pull(table, 1) == {}
    assert to_pull(moving(Stage.WRITE_BOTH), 4) == {}
