"""envd's own nodes in the simulator: a few short seeds; many and long ones are run by CI."""

from __future__ import annotations

import sys

import pytest

from chaos.sim.determinism import Wanted, trace_hash
from chaos.sim.held import Held, together
from chaos.sim.outcome import Outcome, describe
from chaos.sim.run import Run
from envd.core.stamp import Stamp

SHORT = 0.3


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return Run(4, SHORT, 3).go()


def test_a_seed_holds_and_heals(outcome: Outcome) -> None:
    assert outcome.violation == ""
    assert outcome.healed
    assert outcome.operations > 100
    assert outcome.faults.total() > 2


def test_a_short_run_does_not_qualify_and_says_so(outcome: Outcome) -> None:
    told = "\n".join(describe(outcome))

    assert not outcome.qualifies
    assert "does not qualify" in told
    assert outcome.trace_hash in told
    assert "all invariants held" in told


def test_one_seed_is_one_run_in_other_processes_and_under_other_hash_seeds() -> None:
    wanted = Wanted(6, 0.15, 3)

    hashes = {trace_hash(wanted, sys.executable, hash_seed) for hash_seed in ("0", "77")}

    assert hashes == {Run(6, 0.15, 3).go().trace_hash}


def test_a_cluster_whose_partitions_move_holds_and_settles() -> None:
    run = Run(4, 0.3, 8, copies=3)

    outcome = run.go()

    assert outcome.violation == ""
    assert outcome.healed
    assert outcome.nodes == 8
    assert outcome.events["dropped"]


def test_a_cluster_that_forgets_raises_its_floor_and_takes_back_who_was_given_up() -> None:
    outcome = Run(2, 0.5, forgets=True).go()

    assert outcome.violation == ""
    assert outcome.healed
    assert outcome.floors["floors"]
    assert outcome.floors["given up"]
    assert outcome.events["emptied"]


def test_a_violation_is_told_with_its_invariant_and_what_came_before(outcome: Outcome) -> None:
    failed = Outcome(9, 3, violation="n2 lacks x", invariant="3 lost", last_events=["1.0 crash"])

    told = "\n".join(describe(failed))

    assert "VIOLATION of 3 lost" in told
    assert "n2 lacks x" in told
    assert "1.0 crash" in told
    assert not failed.qualifies


def test_what_all_must_hold_is_the_highest_that_any_holds() -> None:
    one, two, three = (Stamp(0, number, 7) for number in (1, 2, 3))
    some = Held({(1, 7): 3, (2, 7): 1}, {"a": frozenset({one, two})}, {"a": one})
    more = Held({(1, 7): 2, (3, 8): 5}, {"a": frozenset({two, three}), "b": frozenset({one})})

    wanted = together([some, more])

    assert wanted.vectors == {(1, 7): 3, (2, 7): 1, (3, 8): 5}
    assert wanted.commits == {"a": {one, two, three}, "b": {one}}
    assert not some.has(wanted)
    assert Held(wanted.vectors, wanted.commits).has(wanted)
    assert Held(wanted.vectors, {"a": frozenset({three})}, {"a": two, "b": one}).has(wanted)
    # Equal vectors don't say that commits are equal.
    assert not Held(wanted.vectors, {"a": frozenset({one, three})}).has(wanted)
