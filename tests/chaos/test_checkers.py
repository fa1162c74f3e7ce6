"""Each checker passes over what is right and fails on a violation made by hand."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chaos.sim.chance import Chance
from chaos.sim.checkers import Violation
from chaos.sim.checkers.equal_roots import PATIENCE_S, EqualRoots
from chaos.sim.checkers.growing_stamps import GrowingStamps
from chaos.sim.checkers.lost_writes import LostWrites
from chaos.sim.checkers.merge_laws import MergeLaws, tied
from chaos.sim.checkers.same_everywhere import Convergence, SameHistory
from chaos.sim.checkers.session_tokens import SessionTokens
from chaos.sim.checkers.whole_commits import GROUP, WholeCommits
from chaos.sim.controls import CONTROLS
from chaos.sim.serial import Unknown, what_became_of
from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Retention
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from envd.wire import records
from tests.chaos.stores import NAME, OTHER, WHOLE, Node, acknowledged, pair
from tests.storage.world import START_MS

# -- 1 -----------------------------------------------------------------------------------------


def states() -> list[Environment]:
    def state(hlc: int, value: str | None) -> Environment:
        stamp = Stamp(0, hlc, 1)
        return Environment(NAME).apply_changes(stamp, changes_of(value))

    return [state(5, "a"), state(6, "b"), state(7, None)]


def changes_of(value: str | None) -> tuple[Change, ...]:
    return (Change(Kind.VARIABLE, "X", value, False, ZERO),)


def test_the_production_merge_keeps_the_laws_and_one_that_is_blind_to_ties_does_not() -> None:
    ties = [tied(state) for state in states()]
    chance = Chance(1).stream("x")

    MergeLaws(chance).check(states())
    MergeLaws(chance).check(ties)

    with pytest.raises(Violation, match="order of two states"):
        MergeLaws(chance, CONTROLS["tie-blind-merge"].merge).check(ties)


# -- 2 -----------------------------------------------------------------------------------------


async def test_equal_vectors_with_equal_roots_are_right() -> None:
    one, other = await pair()

    EqualRoots().ended([one.seen, other.seen])
    EqualRoots().looked([one.seen, other.seen], 0.0)


async def test_equal_vectors_with_unequal_roots_are_found_at_once_after_the_heal() -> None:
    one, other = Node("n1", 7), Node("n2", 7)
    await one.put(WHOLE)
    await other.put(dict.fromkeys(GROUP, "another"))

    with pytest.raises(Violation, match="equal roots"):
        EqualRoots().ended([one.seen, other.seen])


async def test_a_difference_under_faults_counts_once_it_stood_for_long() -> None:
    one, other = Node("n1", 7), Node("n2", 7)
    await one.put(WHOLE)
    await other.put(dict.fromkeys(GROUP, "another"))
    checker = EqualRoots()

    checker.looked([one.seen, other.seen], 100.0)
    checker.looked([one.seen, other.seen], 100.0 + PATIENCE_S)

    with pytest.raises(Violation, match="equal roots"):
        checker.looked([one.seen, other.seen], 101.0 + PATIENCE_S)


# -- 3 -----------------------------------------------------------------------------------------


async def test_an_acknowledged_write_that_a_node_lacks_is_lost() -> None:
    one, other = await pair()
    checker = LostWrites()
    checker.answered(acknowledged(one, one.writer.stamps[0]))
    checker.ended([one.seen, other.seen])

    checker.answered(acknowledged(one, await one.put(WHOLE)))

    with pytest.raises(Violation, match="n2 lacks its commit"):
        checker.ended([one.seen, other.seen])


async def test_a_commit_that_is_in_the_history_and_not_in_the_state_is_lost() -> None:
    one, _ = await pair()
    stamp = Stamp(0, (START_MS + 5000) << COUNTER_BITS, 7)
    head = one.store.head(NAME)
    assert head is not None
    made = Commit(NAME, stamp, changes_of("x"))
    await one.store.append(
        replace(one.applied[0].record, seq=2, commit=made),
        head,  # the state does not move
    )
    checker = LostWrites()
    checker.answered(replace(acknowledged(one, stamp), names=("X",)))

    with pytest.raises(Violation, match="n1 lacks X"):
        checker.ended([one.seen])


async def test_only_an_unsafe_write_goes_with_the_disk_and_only_if_nobody_else_has_it() -> None:
    one, other = await pair()
    known = one.writer.stamps[0]
    alone = await one.put(WHOLE)
    checker = LostWrites()
    checker.answered(acknowledged(one, known, safe=False))
    checker.answered(acknowledged(one, alone, safe=False))

    checker.disk_lost("n1", {"n2": other.seen}, 0.0)

    assert checker.excused == 1
    checker.ended([other.seen])
    safe = LostWrites()
    safe.answered(acknowledged(one, alone, safe=True))
    safe.disk_lost("n1", {"n2": other.seen}, 0.0)
    with pytest.raises(Violation):
        safe.ended([other.seen])


async def test_a_write_that_another_node_has_in_quarantine_does_not_go_with_the_disk() -> None:
    one, other = await pair()
    stamp = await one.put(WHOLE)
    record = one.applied[-1].record
    row = records.encode_log_record(record, records.encode_commit(record.commit))
    await other.store.quarantine(row)
    checker = LostWrites()
    checker.answered(acknowledged(one, stamp, safe=False))

    checker.disk_lost("n1", {"n2": other.seen}, 0.0)

    assert checker.excused == 0
    with pytest.raises(Violation, match="n2 lacks its commit"):
        checker.ended([other.seen])  # In the end it must be seen.


async def test_a_disk_that_went_back_excuses_only_what_is_younger() -> None:
    one, other = await pair()
    checker = LostWrites()
    checker.answered(acknowledged(one, await one.put(WHOLE), safe=False, at_s=5.0))

    checker.disk_lost("n1", {"n2": other.seen}, 6.0)

    assert checker.excused == 0


async def test_what_retention_folded_into_the_base_is_not_lost() -> None:
    node = Node("n1", 7, Retention(2, 0))
    stamps = [await node.put(WHOLE) for _ in range(6)]
    checker = LostWrites()

    for stamp in stamps:
        checker.answered(acknowledged(node, stamp))

    assert len(node.store.commit_rows(NAME)) == 2
    checker.ended([node.seen])


# -- 7 -----------------------------------------------------------------------------------------


async def test_a_part_of_a_commit_is_seen_in_the_state() -> None:
    node = Node("n1", 7)
    checker = WholeCommits(Chance(1).stream("x"))
    await node.put(WHOLE)
    checker.applied(node.seen, node.applied[-1])

    await node.put({GROUP[0]: "other"})

    with pytest.raises(Violation, match="part of a commit"):
        checker.applied(node.seen, node.applied[-1])


async def test_a_change_that_the_state_left_out_is_seen() -> None:
    one, _ = await pair()
    applied = one.applied[0]
    state = applied.after.environment
    less = {name: entry for name, entry in state.variables.items() if name not in GROUP}
    after = replace(applied.after, environment=Environment(NAME, less))

    with pytest.raises(Violation, match="left out"):
        WholeCommits(Chance(1).stream("x")).applied(one.seen, replace(applied, after=after))


async def test_a_state_that_its_history_does_not_make_is_seen() -> None:
    one, _ = await pair()
    head = one.store.head(NAME)
    assert head is not None
    checker = WholeCommits(Chance(1).stream("x"))
    checker.check_history(one.seen, NAME)
    made = Commit(NAME, Stamp(0, (START_MS + 9000) << COUNTER_BITS, 7), changes_of("x"))

    await one.store.append(replace(one.applied[0].record, seq=2, commit=made), head)

    with pytest.raises(Violation, match="not what its history makes"):
        checker.check_history(one.seen, NAME)


# -- 8 -----------------------------------------------------------------------------------------


async def test_a_stamp_that_does_not_grow_is_seen_even_in_another_environment() -> None:
    node = Node("n1", 7)
    checker = GrowingStamps()
    await node.put(WHOLE)
    checker.applied(node.seen, node.applied[-1])
    node.writer.hlc -= 1 << COUNTER_BITS

    await node.put(WHOLE, "c/d")

    with pytest.raises(Violation, match="after"):
        checker.applied(node.seen, node.applied[-1])


async def test_one_name_for_two_commits_is_seen() -> None:
    one, other = Node("n1", 7), Node("n2", 7)
    checker = GrowingStamps()
    await one.put(WHOLE)
    other.writer.hlc += 5 << COUNTER_BITS
    await other.put(WHOLE)

    checker.applied(one.seen, one.applied[-1])

    with pytest.raises(Violation, match="on n2"):
        checker.applied(other.seen, other.applied[-1])


async def test_a_disk_that_went_back_may_repeat_itself() -> None:
    node = Node("n1", 7)
    checker = GrowingStamps()
    await node.put(WHOLE)
    checker.applied(node.seen, node.applied[-1])
    node.writer.hlc -= 1 << COUNTER_BITS

    checker.disk_lost("n1", {}, 0.0)
    await node.put(WHOLE, "c/d")

    checker.applied(node.seen, node.applied[-1])


# -- 12 and 13 -----------------------------------------------------------------------------------


async def test_nodes_that_hold_the_same_have_converged() -> None:
    one, other = await pair()

    Convergence().ended([one.seen, other.seen])
    SameHistory().ended([one.seen, other.seen])


async def test_nodes_that_differ_have_not() -> None:
    one, other = await pair()
    await one.put(WHOLE, "c/d")

    with pytest.raises(Violation, match="differ in c/d"):
        Convergence().ended([one.seen, other.seen])


async def test_nodes_of_which_one_holds_something_back_have_not() -> None:
    one, other = await pair()
    third = Node("n3", 9)
    await third.put(WHOLE, "c/d")
    record = third.applied[-1].record
    row = records.encode_log_record(record, records.encode_commit(record.commit))
    await other.store.quarantine(row)

    with pytest.raises(Violation, match="n2 holds back 1 records"):
        Convergence().ended([one.seen, other.seen])


async def test_another_history_of_the_same_state_is_seen() -> None:
    one, other = Node("n1", 7), Node("n2", 7)
    for node, message in ((one, "here"), (other, "there")):
        await node.writer.commit(NAME, WHOLE, message=message)

    with pytest.raises(Violation, match="another history"):
        SameHistory().ended([one.seen, other.seen])


class Forgetful(MemoryStore):
    """Lists no conflicts."""

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        return []


async def test_a_conflict_that_only_one_node_lists_is_seen() -> None:
    one, other, blind = Node("n1", 7), Node("n2", OTHER), Node("n3", 9)
    blind.store.__class__ = Forgetful
    await asyncio.gather(one.put(WHOLE), other.put(dict.fromkeys(GROUP, "w")))
    mine, theirs = list(one.applied), list(other.applied)
    for node in (one, other, blind):
        for source in (mine, theirs):
            if node.applied and node.applied[0] in source:
                continue
            stand_in = Node("x", 1)
            stand_in.applied = list(source)
            await node.take(stand_in)

    SameHistory().ended([one.seen, other.seen])

    with pytest.raises(Violation, match="list other conflicts"):
        SameHistory().ended([one.seen, blind.seen])
    with pytest.raises(Violation, match="lists other conflicts of"):
        SameHistory().ended([blind.seen])


@pytest.mark.parametrize(("shown", "is_right"), [(5, False), (6, True), (7, True)])
def test_who_gives_a_token_is_shown_its_write_or_later(shown: int, is_right: bool) -> None:
    checker = SessionTokens()
    written = WriteAnswer(NAME, "", Stamp(0, 6, OTHER).hex(), "")
    view = EnvironmentView(NAME, "", Stamp(0, shown, OTHER).hex(), {}, {})
    told: list[Violation] = []

    try:
        checker.read_back("n1", "n2", written, view)
    except Violation as violation:
        told.append(violation)

    assert bool(told) is not is_right
    checker.disk_lost("n2", {}, 0.0)
    checker.read_back("n1", "n2", written, view)


async def test_a_write_of_which_all_said_that_nothing_was_done_is_found_in_the_history() -> None:
    node = Node("one", 7)
    put = Change(Kind.VARIABLE, "V", "1", False, ZERO)
    commit = Commit(NAME, Stamp(0, 1, 7), (put,), author="s1", operation="serial-1")
    after = StoredState(Environment(NAME).apply(commit), b"r" * 16)
    unknown = Unknown(NAME, "s1", "serial-1", 0.0, None, undone=False)
    undone = replace(unknown, undone=True)
    before = what_became_of(undone, [node.seen])

    await node.store.append(LogRecord(partition_of(NAME), 7, 1, commit), after)

    assert before is None
    assert what_became_of(unknown, [node.seen]) is not None
    with pytest.raises(Violation, match="serial-1"):
        what_became_of(undone, [node.seen])
