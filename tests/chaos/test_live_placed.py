"""What live chaos asks where partitions move: each checker accepts what is right, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.live import disks
from chaos.live.checkers import Evidence, Verdict, placed, read_back
from chaos.live.disks import Disk
from chaos.live.placing import is_placed
from chaos.live.workload import Records
from envd.core.answers import TopologyView, VoterView
from envd.core.moves import planning
from envd.core.partitions import ANYWHERE, Holders, Move, PartitionTable, Stage
from envd.core.placement import Site, run_through
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.core.topology import TABLE, TOPOLOGY, VARIABLE, Topology
from tests.chaos.stores import Node

SOME = 0 if SYSTEM_PARTITION else 1
NAME = "web/prod"
HERE = partition_of(NAME)
EPOCH = 7


def table(row: Callable[[int], Holders], **changed: object) -> PartitionTable:
    """Each partition is on the nodes that `row` says."""
    rows = tuple(() if at == SYSTEM_PARTITION else row(at) for at in range(PARTITIONS))
    return replace(PartitionTable({ANYWHERE: 3}, rows), **changed)  # type: ignore[arg-type]


def upon(nodes: int, before: PartitionTable) -> PartitionTable:
    """As the product itself places it upon so many nodes."""
    sites = [Site(uid, "") for uid in range(1, nodes + 1)]
    return table(run_through(planning(before, sites, {ANYWHERE: 3})).__getitem__)


def in_turn(nodes: int, first: int = 1) -> PartitionTable:
    """The copies of each partition are on three nodes that follow each other."""
    return table(lambda at: tuple(first + (at + more) % nodes for more in range(3)))


def disk(uid: int, roots: Mapping[int, int], environments: int = 1) -> Disk:
    return Disk(uid, roots, environments)


def test_a_join_as_it_is_planned_moves_few_and_leaves_loads_even() -> None:
    before = upon(8, in_turn(8))
    after = upon(9, before)

    assert placed.few_moved("", before, after, 9).holds
    assert placed.few_moved("", after, before, 9).holds
    assert placed.even("", after).holds


def test_more_moves_than_have_to_do_not_hold() -> None:
    everywhere_else = in_turn(9)
    before = table(lambda at: tuple(1 + (at + 4 + more) % 8 for more in range(3)))

    assert not placed.few_moved("", before, everywhere_else, 9).holds
    assert not placed.few_moved("", in_turn(8), in_turn(8), 8).holds


def test_a_node_with_a_twentieth_more_than_the_mean_is_too_much() -> None:
    one_has_all = table(lambda at: (1, 2 + at % 4, 2 + (at + 1) % 4))

    assert placed.even("", in_turn(8)).holds
    assert not placed.even("", one_has_all).holds
    assert not placed.even("", table(lambda _: ())).holds


def test_a_partition_with_a_copy_less_is_told() -> None:
    short = table(lambda at: (1, 2) if at == SOME else (1, 2, 3))

    assert placed.whole(in_turn(8), 3).holds
    assert not placed.whole(short, 3).holds
    assert "1 with 2" in placed.whole(short, 3).seen


def test_a_table_in_which_something_moves_has_not_come_to_rest() -> None:
    moving = replace(in_turn(8), moves={SOME: Move(Stage.USE_NEW, (1, 2, 3), EPOCH)})

    assert not placed.whole(moving, 3).holds
    assert not placed.whole(replace(in_turn(8), waiting=1), 3).holds


def test_copies_that_differ_or_lack_are_told() -> None:
    three = table(lambda _: (1, 2, 3))
    same = {f"n{uid}": disk(uid, {SOME: 5}) for uid in (1, 2, 3)}

    assert placed.equal_copies(three, same).holds
    assert not placed.equal_copies(three, same | {"n3": disk(3, {SOME: 6})}).holds
    assert not placed.equal_copies(three, same | {"n3": disk(3, {})}).holds
    assert not placed.equal_copies(three, {"n1": same["n1"], "n2": same["n2"]}).holds
    assert not placed.equal_copies(three, {f"n{uid}": disk(uid, {}) for uid in (1, 2, 3)}).holds


def test_what_no_node_should_have_is_told_by_the_node_that_has_it() -> None:
    first_two = table(lambda at: (2, 3, 4) if at == SOME else (1, 2, 3))
    has = {"n1": disk(1, {SOME: 5}), "n2": disk(2, {SOME: 5})}

    verdict = placed.nothing_besides(first_two, has)

    assert not verdict.holds
    assert verdict.seen == "n1 has 1"
    assert placed.nothing_besides(first_two, {"n2": has["n2"]}).holds


@pytest.mark.parametrize(
    ("had", "left", "holds"),
    [
        (10, disk(1, {}, 0), True),
        (10, disk(1, {SOME: 5}, 0), False),
        (10, disk(1, {}, 1), False),
        (0, disk(1, {}, 0), False),
    ],
)
def test_a_node_that_left_has_nothing_any_more(had: int, left: Disk, *, holds: bool) -> None:
    assert placed.nothing_left("n1", had, left).holds is holds


def course(*stages: Stage | None) -> Verdict:
    """A partition that goes from 1 to 2, as far as each epoch says; None: it does not move."""
    tables, last = [], None
    for stage in stages:
        over = stage is None and last is not None
        moves = {} if stage is None else {SOME: Move(stage, (2,), EPOCH)}
        here = table(lambda _: (1,)).holders if not over else table(lambda _: (2,)).holders
        tables.append(PartitionTable({ANYWHERE: 1}, here, moves))
        last = stage or last
    return placed.in_order(tables)


def test_a_move_through_all_stages_is_in_order_and_one_that_skips_some_is_not() -> None:
    first, second, third, last = Stage

    assert course(None, first, second, third, last, None).holds
    assert course(None, first, first, second, third, last, None).holds
    assert not course(None, first, third, last, None).holds
    assert not course(None, second, third, last, None).holds
    assert not course(None, first, second, first, second, third, last, None).holds
    assert not course(None, first, second, third, None).holds
    assert not course(None, None).holds


def test_a_move_that_was_given_up_is_in_order() -> None:
    begun = table(lambda _: (1,), moves={SOME: Move(Stage.STREAMING, (2,), EPOCH)})
    before = table(lambda _: (1,), moves={SOME: Move(Stage.WRITE_BOTH, (2,), EPOCH)})

    assert placed.in_order([before, begun, table(lambda _: (1,))]).holds


def test_copies_in_one_zone_are_told() -> None:
    zones = {1: "a", 2: "b", 3: "c", 4: "a"}

    assert placed.spread_over(zones, table(lambda at: (1 if at % 2 else 4, 2, 3))).holds
    assert not placed.spread_over(zones, table(lambda _: (1, 2, 4))).holds
    assert not placed.spread_over({}, in_turn(3)).holds


def test_a_read_that_lacks_the_write_it_followed_is_told() -> None:
    fine, stale, none = Records(), Records(stale=["web/prod"]), Records()
    fine.answered["reader"] = stale.answered["reader"] = 1

    holds = [read_back.check(Evidence(each, {})).holds for each in (fine, stale, none)]

    assert holds == [True, False, False]


async def test_what_a_store_has_is_told_with_the_table_of_each_epoch() -> None:
    node = Node("n1", 1)
    first, second = in_turn(4), in_turn(5)
    await node.put({"A": "1"}, NAME)
    for epoch, held in ((1, first), (2, first), (3, second)):
        said = Topology(epoch, (Site(1, ""),), (1,)).encode()
        rows = {} if epoch == 2 else {TABLE: held.encode()}
        await node.put({VARIABLE: said, **rows}, TOPOLOGY)

    told = disks.told_by(1, node.store)

    assert (told.uid, set(told.roots), told.environments) == (1, {HERE}, 1)
    assert disks.history([told]) == {1: first, 2: first, 3: second}


async def test_a_directory_without_a_node_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no node"):
        await disks.read(tmp_path / "data", secret=None, insecure=True)


def view(**changed: object) -> TopologyView:
    nodes = tuple(VoterView(uid, uid, "", "", "alive", "yes", True, False, 5) for uid in "ab")
    told = TopologyView(EPOCH, nodes, majority=True, copies={"": 2})
    return replace(told, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "here", "holds"),
    [
        (view(), "ab", True),
        (view(moving={"streaming": 1}), "ab", False),
        (view(waiting=1), "ab", False),
        (view(under_replicated=1), "ab", False),
        (view(copies={}), "ab", False),
        (view(), "abc", False),
        (view(), "a", False),
    ],
)
def test_all_is_placed_once_nothing_moves_and_those_that_are_here_hold_it(
    seen: TopologyView, here: str, *, holds: bool
) -> None:
    assert is_placed(seen, set(here)) is holds
