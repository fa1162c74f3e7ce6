"""A short look at how fast a node is, which leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from envd.cli.commands.benching import Case, Figures
from envd.core.errors import Unavailable
from tests.cli.bench import Envctl

CASES = ("get one variable", "set one variable", "set 100 in a commit", "set, pipelined")


def left(envctl: Envctl) -> list[str]:
    return [each["environment"] for each in envctl.json("list")["environments"]]


def test_each_case_is_measured_with_each_number_of_callers(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")

    document = envctl.json("bench --seconds 200 --yes")

    assert [(each["case"], each["callers"]) for each in document["cases"]] == [
        (case, callers) for case in CASES for callers in (1, 16, 64)
    ]
    for each in document["cases"]:
        assert each["calls"] > 0
        assert 0 < each["p50_ms"] <= each["p99_ms"]
    assert left(envctl) == ["web/prod"]


def test_it_writes_below_its_own_prefix_only(envctl: Envctl) -> None:
    envctl.ok("bench --seconds 1 --yes")

    written = {write.environment.rpartition("/")[0] for write in envctl.node.writes()}
    assert len(written) == 1
    assert written.pop().startswith("bench/")


def test_the_table_fits_and_promises_nothing(envctl: Envctl) -> None:
    shown = envctl.ok("bench --seconds 1 --yes")

    assert shown.lines[0].split() == ["CASE", "CALLERS", "CALLS/S", "VARIABLES/S", "P50", "P99"]
    assert len(shown.lines) == 14
    assert max(map(len, shown.lines)) <= 80
    assert "often the limit itself" in shown.lines[-1]


def test_it_asks_before_it_writes(envctl: Envctl) -> None:
    assert envctl("bench").code == 2
    assert envctl("bench", typed="n\n").code == 1
    assert not envctl.node.writes()


@pytest.mark.parametrize(
    ("error", "code"), [(Unavailable("overloaded"), 5), (KeyboardInterrupt(), 130)]
)
def test_nothing_is_left_where_it_is_ended_early(
    envctl: Envctl, error: BaseException, code: int
) -> None:
    def before(call: str, request: Any) -> None:
        if call == "write" and len(envctl.node.writes()) == 30:
            raise error

    envctl.node.before = before

    assert envctl("bench --seconds 9 --yes").code == code
    assert left(envctl) == []


def test_a_caller_that_fails_ends_it_and_nothing_is_left(envctl: Envctl) -> None:
    def before(call: str, request: Any) -> None:
        if call == "get" and request.variables:
            raise Unavailable("overloaded")

    envctl.node.before = before

    assert envctl("bench --seconds 9 --yes").code == 5
    assert left(envctl) == []


def test_percentiles_are_of_the_nearest_rank() -> None:
    case = Case("x", 1, lambda connection, environment, number: None)
    figures = Figures(case, 1, [0.004, 0.001, 0.003, 0.002], elapsed_s=2.0)

    assert figures.percentile_ms(50) == 2.0
    assert figures.percentile_ms(99) == 4.0
    assert figures.rate == 2.0
    assert Figures(case, 1).percentile_ms(99) == 0.0


def test_without_a_terminal_it_names_no_flag_that_it_lacks(envctl: Envctl) -> None:
    result = envctl("bench")

    assert result.code == 2
    assert "hint: repeat it with --yes\n" in result.err
