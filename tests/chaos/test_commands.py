"""`python -m chaos.sim`: its words, its exit codes, its ledger."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chaos.sim import ledger
from chaos.sim.__main__ import main
from chaos.sim.controls import CONTROLS
from chaos.sim.many import Work, results, run, summary
from chaos.sim.outcome import Outcome

DAY = datetime(2026, 1, 2, tzinfo=UTC)


def outcome(seed: int, violation: str = "") -> Outcome:
    return Outcome(
        seed,
        3,
        virtual_s=90.0,
        real_s=3.0,
        operations=600,
        faults=Counter(crash=1, loss=2, wipe=1),
        healed=not violation,
        violation=violation,
        invariant="3 lost" if violation else "",
    )


def test_one_seed_is_told_and_what_held_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seed", "4", "--minutes", "0.1", "--nodes", "3"])

    told = capsys.readouterr().out
    assert code == 0
    assert "seed 4: 3 nodes, trace " in told
    assert "all invariants held" in told


def test_controls_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--control", "list"]) == 0

    told = capsys.readouterr().out
    assert all(name in told for name in CONTROLS)


def test_a_control_that_is_caught_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["--control", "tie-blind-merge", "--seeds", "1..3", "--minutes", "0.2", "--nodes", "3"]
    )

    assert code == 0
    assert "caught by seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seeds", "5..1"],
        ["--seeds", "x"],
        ["--control", "none"],
        ["--faults", "old topology"],
        ["--copies", "x"],
    ],
)
def test_wrong_usage_is_exit_code_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)

    assert ended.value.code == 2


def test_seeds_in_other_processes_are_the_same_runs() -> None:
    work = Work(0.1, 3)

    here = [one.trace_hash for one in results(work, [1, 2])]
    told: list[str] = []
    there = run(Work(0.1, 3, jobs=2), [1, 2], told.append)

    assert [one.trace_hash for one in there] == here
    assert len(told) == 2


def test_a_summary_counts_and_names_the_seeds_that_failed() -> None:
    told = summary([outcome(1), outcome(2, "n1 lacks it"), outcome(3)])

    assert told.startswith("3 seeds, 2 qualify, 1 failed\n")
    assert "FAILED 3 lost: 1 (2)" in told
    assert "3 crash, 6 loss, 3 wipe" in told


def test_the_ledger_adds_rows_and_counts_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "LEDGER.md"

    ledger.add(path, [outcome(1), outcome(2)])
    ledger.add(path, [outcome(3), outcome(4, "n1 lacks it")])

    text = path.read_text()
    assert "Qualifying seeds so far: 3." in text
    assert len(ledger.rows_of(text)) == 2
    assert "seed 4: 3 lost" in text


def test_a_row_has_the_day_the_commit_and_the_figures() -> None:
    row = ledger.row_of([outcome(7), outcome(8)], "abc1234", DAY)

    assert row == "| 2026-01-02 | `abc1234` | 7..8 | 2 | 1,200 | 3 | 6 | none |"


def test_a_fault_of_rounds_takes_a_cluster_that_forgets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--seed", "4", "--faults", "death in a round"])

    assert ended.value.code == 2
    assert "death in a round: only with --forgets" in capsys.readouterr().err
