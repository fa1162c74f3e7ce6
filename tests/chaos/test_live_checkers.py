"""What live chaos asks of a cluster: each checker accepts what is right, and finds what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.live.checkers import (
    Apart,
    Evidence,
    all_accepted,
    lost_writes,
    marked_detached,
    same_everywhere,
)
from chaos.live.reading import Surface, Whole
from chaos.live.workload import Acknowledged, Failed, Records
from envd.core.answers import CommitView, ConflictSide, ConflictView

NAME = "chaos/app00/prod"
FIRST, SECOND, LONE = "1" * 16, "2" * 16, "3" * 16


def stamp(number: int, origin: str) -> str:
    return f"{number:024x}{origin}"


def write(number: int, origin: str = FIRST, **changed: object) -> Acknowledged:
    told = Acknowledged("n1", "set", NAME, stamp(number, origin), 2, False, 10.0, 10.1)
    return replace(told, **changed)  # type: ignore[arg-type]


def commit(number: int, origin: str = FIRST) -> CommitView:
    its = stamp(number, origin)
    return CommitView(f"{its}:{NAME}", NAME, f"{number:032x}", its, "", "n1", "", "", "", ())


def whole(*numbers: int, trimmed: bool = False) -> Whole:
    return Whole(
        Surface({NAME: "aa"}, ()),
        {NAME: tuple(commit(number) for number in sorted(numbers, reverse=True))},
        {NAME: {"A": "1"}},
        frozenset({NAME} if trimmed else ()),
    )


def evidence(*writes: Acknowledged, **wholes: Whole) -> Evidence:
    return Evidence(Records(acknowledged=list(writes)), wholes)


def test_a_write_that_is_in_every_history_is_not_lost() -> None:
    seen = evidence(write(1), write(2), n1=whole(1, 2), n2=whole(1, 2))

    assert lost_writes.check(seen).holds


def test_a_write_that_one_node_lacks_is_lost() -> None:
    verdict = lost_writes.check(evidence(write(1), write(2), n1=whole(1, 2), n2=whole(1)))

    assert not verdict.holds
    assert f"n2 lacks {stamp(2, FIRST)}" in verdict.seen


def test_a_run_without_writes_proves_nothing() -> None:
    assert not lost_writes.check(evidence(n1=whole())).holds


def test_what_retention_folded_away_is_not_lost_and_what_it_did_not_is() -> None:
    assert lost_writes.check(evidence(write(1), n1=whole(2, 3, trimmed=True))).holds
    assert not lost_writes.check(evidence(write(3), n1=whole(2, 4, trimmed=True))).holds
    assert not lost_writes.check(evidence(write(1), n1=whole(2, 3))).holds


def test_a_single_copy_is_excused_where_its_disk_was_lost_after_it() -> None:
    seen = evidence(write(1, copies=1), write(2), n1=whole(2))

    assert not lost_writes.check(seen).holds
    assert not lost_writes.check(replace(seen, lost_disks={SECOND: 20.0})).holds
    assert not lost_writes.check(replace(seen, lost_disks={FIRST: 5.0})).holds
    assert lost_writes.check(replace(seen, lost_disks={FIRST: 20.0})).holds


def test_two_copies_are_never_excused() -> None:
    seen = replace(evidence(write(1), write(2), n1=whole(2)), lost_disks={FIRST: 20.0})

    assert not lost_writes.check(seen).holds


def test_equal_nodes_are_equal_in_every_aspect() -> None:
    verdicts = same_everywhere.check(evidence(n1=whole(1), n2=whole(1)))

    assert [verdict.holds for verdict in verdicts] == [True] * 4


def test_each_aspect_is_compared_by_itself() -> None:
    side = ConflictSide("set", "1", False, False, stamp(1, FIRST), "", "", "", "")
    conflict = ConflictView("00" * 16, NAME, "A", side, side)
    usual = whole(1)
    others = {
        "revisions": replace(usual, surface=Surface({NAME: "bb"}, ())),
        "values": replace(usual, values={NAME: {"A": "2"}}),
        "histories": whole(1, 2),
        "conflict": replace(usual, surface=Surface({NAME: "aa"}, (conflict,))),
    }

    for aspect, other in others.items():
        verdicts = same_everywhere.check(evidence(n1=usual, n2=other))
        wrong = [verdict.what.split()[0] for verdict in verdicts if not verdict.holds]
        assert wrong == [aspect]


def test_a_failed_write_is_told_with_its_reason_and_counts_for_its_writer_alone() -> None:
    records = Records([write(1), write(2, writer="n2")])
    records.failed.append(Failed("n2", "set", "Unavailable/NO_DAEMON", "nobody", 1.0))
    seen = Evidence(records, {})

    other = all_accepted.check(seen, what="", asked=lambda name: name == "n1")
    verdict = all_accepted.check(seen, what="", asked=lambda name: name == "n2")

    assert other.holds
    assert not verdict.holds
    assert "1 Unavailable/NO_DAEMON" in verdict.seen


@pytest.mark.parametrize(
    ("kind", "reason", "holds"),
    [
        ("unset", "OutcomeUnknown/OUTCOME_UNKNOWN", True),
        ("set", "OutcomeUnknown/OUTCOME_UNKNOWN", False),
        ("unset", "Unavailable/NO_DAEMON", False),
    ],
)
def test_where_nodes_are_killed_what_is_no_set_may_be_left_open(
    kind: str, reason: str, *, holds: bool
) -> None:
    records = Records([write(1)], [Failed("n1", kind, reason, "", 1.0)])
    seen = Evidence(records, {})

    strict = all_accepted.check(seen, what="", asked=lambda _: True)
    mild = all_accepted.check(seen, what="", asked=lambda _: True, may_be_open=True)

    assert not strict.holds
    assert mild.holds is holds


def test_a_writer_that_wrote_nothing_proves_nothing() -> None:
    assert not all_accepted.check(Evidence(Records(), {}), what="", asked=lambda _: True).holds


def test_a_lone_node_marks_all_it_takes_and_a_side_with_company_nothing() -> None:
    apart = Apart((frozenset({LONE}), frozenset({FIRST, SECOND})), 5.0, 15.0)
    alone = write(1, LONE, copies=1, detached=True)
    before = write(2, LONE, began_s=4.0)

    def holds(*writes: Acknowledged) -> list[bool]:
        seen = replace(evidence(*writes), apart=apart)
        return [verdict.holds for verdict in marked_detached.check(seen)]

    assert holds(alone, before, write(3)) == [True, True]
    assert holds(alone, write(4, LONE), write(3)) == [False, True]
    assert holds(alone, write(3, detached=True)) == [True, False]
    assert holds(alone) == [True, False]


def test_a_rollback_that_changed_nothing_is_no_write_of_the_lone_node() -> None:
    apart = Apart((frozenset({LONE}), frozenset({FIRST, SECOND})), 5.0, 15.0)
    alone = write(1, LONE, copies=1, detached=True)
    nothing = replace(alone, kind="rollback", detached=False)

    seen = replace(evidence(alone, nothing, write(2)), apart=apart)

    assert all(verdict.holds for verdict in marked_detached.check(seen))
