"""The report of live chaos, and the curve that it plots."""

from __future__ import annotations

from math import inf
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from chaos.live import plot, report
from chaos.live.checkers import Verdict
from chaos.live.outcome import Curve, Moment, Outcome, curve

ABOUT = report.About("2026-01-01 00:00 UTC", "a machine", 1, 60, "")


def outcome(**changed: object) -> Outcome:
    made = Outcome("cut-1-2", "three nodes, one of them cut off", "namespaces", 3)
    made.acknowledged, made.shown_s, made.equal_s = 1234, 0.71, 0.76
    made.verdicts = [Verdict("nothing acknowledged is lost", holds=True, seen="1234 writes")]
    made.moments = [Moment(2.0, "10:00:00.000", "cut 1 from 2")]
    made.curve = [Curve(-0.5, (1.0, 0.5, 0.0)), Curve(1.0, (1.0, 1.0, 1.0))]
    made.arrivals_s = {("n1", "n2"): 0.71, ("n1", "n1"): -3.0, ("n2", "n1"): 0.4, ("n2", "n2"): inf}
    for name, value in changed.items():
        setattr(made, name, value)
    return made


def text_of(*outcomes: Outcome, about: report.About = ABOUT) -> str:
    return report.render(outcomes, about, lambda each: f"live-{each.scenario}.svg")


def row_of(text: str, scenario: str) -> list[str]:
    row = next(line for line in text.splitlines() if line.startswith(f"| {scenario} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_scenario_that_holds_has_its_figures_in_the_table() -> None:
    row = row_of(text_of(outcome()), "cut-1-2")

    assert row[:5] == ["cut-1-2", "holds", "namespaces", "3", "1234"]
    assert row[9:11] == ["0.71 s", "0.76 s"]


def test_one_verdict_that_does_not_hold_is_told_in_the_table_and_below() -> None:
    bad = outcome()
    bad.verdicts.append(Verdict("revisions are equal", holds=False, seen="n2 differs | in 3"))

    text = text_of(bad)

    assert row_of(text, "cut-1-2")[1] == "**does not hold**"
    assert "* **NO**: revisions are equal (n2 differs / in 3)" in text


def test_what_did_not_run_is_told_by_name_and_why() -> None:
    text = text_of(outcome(), Outcome("slow-link", "thin links", could_not_run="no netem here"))

    row = row_of(text, "slow-link")
    assert row[1] == "**did not run**"
    assert len(row) == len(row_of(text, "cut-1-2"))
    assert "* `slow-link` (thin links): no netem here" in text


def test_a_scenario_that_never_came_to_rest_says_so() -> None:
    assert row_of(text_of(outcome(equal_s=None)), "cut-1-2")[10] == "never"


def test_failed_writes_are_told_by_writer_and_reason() -> None:
    failing = outcome()
    failing.failed["n2", "Unavailable/NO_DAEMON"] = 4

    assert "* n2: 4 x `Unavailable/NO_DAEMON`" in text_of(failing)


def test_late_arrivals_stand_by_who_wrote_and_who_was_late() -> None:
    lines = text_of(outcome()).splitlines()

    assert "| n1 |  | 0.71 |" in lines
    assert "| n2 | 0.40 | never |" in lines


def test_the_report_tells_why_there_are_no_namespaces() -> None:
    about = report.About("", "", 1, 60, "there is no command unshare here")

    assert "there is no command unshare here" in text_of(outcome(), about=about)


def test_the_plots_stand_beside_the_report_and_are_linked(tmp_path: Path) -> None:
    report.write(tmp_path / "sub" / "live.md", [outcome()], ABOUT)

    assert "](live-cut-1-2.svg)" in (tmp_path / "sub" / "live.md").read_text()
    picture = ET.parse(tmp_path / "sub" / "live-cut-1-2.svg").getroot()
    assert len(picture.findall("{http://www.w3.org/2000/svg}polygon")) == 3


def test_the_plot_in_text_is_narrow_and_grows_to_all_nodes() -> None:
    lines = plot.text([Curve(at / 100, (1.0, at / 100)) for at in range(101)])

    assert max(map(len, lines)) <= 72
    top, bottom = lines[0], lines[-3]
    assert top.count("#") < bottom.count("#")
    assert top.endswith("#")


def test_the_curve_counts_nodes_that_show_a_write_by_then() -> None:
    seen = [{"a": 9.0, "b": 9.5}, {"a": 10.5, "b": 11.0}]

    points = curve(["a", "b"], seen, 10.0, before_s=1.0)

    assert points[0].at_s == pytest.approx(-1.0)
    assert points[0].shown == (0.5, 0.0)
    assert points[-1].shown == (1.0, 1.0)
    at_heal = min(points, key=lambda each: abs(each.at_s - 0.7))
    assert at_heal.shown == (1.0, 0.5)


def test_without_writes_there_is_no_curve() -> None:
    assert curve([], [{}], 0.0, before_s=1.0) == []
