"""A pytest plugin that tells what the conformance kit found: each case of each backend.

    pytest -p envd.testing.report --conformance-cases --conformance-report conformance.md

At the end of a run it prints one line a backend, with the options each case, or a page of Markdown
as well. A case was passed, failed, or skipped for a reason; for one that injects faults it tells
where: at the contract, or on the wire below the backend's own translation.

It also holds the rule of the kit: a case of it that is skipped without naming what the backend
lacks, or that is expected to fail, has failed.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest

from envd.testing.conformance import CASES
from envd.testing.trial import CASE_MARK, Case

REASON: Final = re.compile(r"(?P<backend>.+): no (?P<lacks>[A-Z0-9_]+): (?P<why>\S.*)")
"""What the reason of a skip must be."""
_PROPERTY: Final = "envd.conformance"

Result = Literal["passed", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one case of one backend. `faults_at` is "" where none are injected."""

    backend: str
    case: str
    result: Result
    reason: str = ""
    faults_at: str = ""

    @property
    def told(self) -> str:
        """The result in a few words."""
        words: str = self.result
        if self.faults_at and self.result != "skipped":
            words += f" (faults at the {self.faults_at})"
        if self.result == "skipped":
            words += f", {self.reason.partition(': ')[2]}"
        return words


@dataclass(slots=True)
class Conformance:
    """All lines of a run, by backend and case. One that failed in any phase has failed."""

    lines: dict[tuple[str, str], Line] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        known = self.lines.get((line.backend, line.case))
        if known is None or known.result == "passed":
            self.lines[line.backend, line.case] = line

    def of(self, backend: str) -> list[Line]:
        """The lines of one backend, in the order of the groups."""
        return [self.lines[backend, case] for case in CASES if (backend, case) in self.lines]

    @property
    def backends(self) -> list[str]:
        return sorted({backend for backend, _ in self.lines})

    def summary(self) -> list[str]:
        """A line a backend."""
        width = max(map(len, self.backends), default=0)
        return [f"{backend:{width}}  {_counts(self.of(backend))}" for backend in self.backends]

    def every_case(self) -> list[str]:
        """A line for each case of each backend."""
        told: list[str] = []
        for backend in self.backends:
            told += ["", backend]
            for line in self.of(backend):
                case = CASES[line.case]
                told.append(f"  {case.group:11}  {case.sentence}: {line.told}")
        return told

    def markdown(self) -> str:
        """A page with a table of results, and for each backend why cases were skipped."""
        head = "| group | case | " + " | ".join(self.backends) + " |"
        rule = "|---|---|" + "---|" * len(self.backends)
        rows = [
            f"| {case.group} | {case.sentence} | "
            + " | ".join(self._mark(backend, name) for backend in self.backends)
            + " |"
            for name, case in CASES.items()
        ]
        counts = [f"* {line}" for line in self.summary()]
        why = [line for backend in self.backends for line in self._skipped(backend)]
        return "\n".join(
            ["# Conformance of backends", "", *counts, "", head, rule, *rows, "", *why]
        )

    def _mark(self, backend: str, case: str) -> str:
        line = self.lines.get((backend, case))
        if line is None:
            return "not run"
        if line.result == "skipped":
            return f"no {_lacks(line)}"
        return f"{line.result} ({line.faults_at})" if line.faults_at else line.result

    def _skipped(self, backend: str) -> list[str]:
        """Why a backend skipped cases: each reason once."""
        skipped = [line.reason for line in self.of(backend) if line.result == "skipped"]
        reasons = sorted({reason.partition(": ")[2] for reason in skipped})
        return [f"## {backend}", "", *(f"* {reason}" for reason in reasons), ""] if reasons else []


_CONFORMANCE: Final = pytest.StashKey[Conformance]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("envd", "conformance of backends")
    group.addoption(
        "--conformance-cases", action="store_true", help="tell each case of each backend"
    )
    group.addoption("--conformance-report", metavar="FILE", help="write a page of Markdown")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_CONFORMANCE] = Conformance()
    config.pluginmanager.register(_Collector(config.stash[_CONFORMANCE]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a case of the kit came to, and let none be skipped without a reason."""
    report = yield
    case = case_of(item)
    if case is None:
        return report
    if report.skipped:
        _hold_rule(report)
    harness = getattr(item, "funcargs", {}).get("harness")
    backend = str(getattr(harness, "name", "")) or _class_name(item)
    faults_at = case.faults_at(getattr(harness, "wire_faults", frozenset()))
    report.user_properties.append((_PROPERTY, f"{backend}\0{faults_at}"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell it all, once, where the run began."""
    config = terminalreporter.config
    conformance = config.stash[_CONFORMANCE]
    if not conformance.lines:
        return
    terminalreporter.section("conformance of backends")
    for line in conformance.summary():
        terminalreporter.write_line(line)
    if config.getoption("--conformance-cases"):
        for line in conformance.every_case():
            terminalreporter.write_line(line)
    target = config.getoption("--conformance-report")
    if target:
        Path(target).write_text(conformance.markdown(), "utf-8")
        terminalreporter.write_line(f"written: {target}")


class _Collector:
    """Takes what is reported, also by other processes of a run."""

    def __init__(self, conformance: Conformance) -> None:
        self._conformance = conformance

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties).get(_PROPERTY)
        if told is None or (report.when != "call" and report.passed):
            return
        backend, _, faults_at = str(told).partition("\0")
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        reason = _reason(report) if report.skipped else ""
        result = report.outcome
        self._conformance.add(Line(backend, name, result, reason, faults_at))


def case_of(item: pytest.Item) -> Case | None:
    """The case of the kit that an item is, None for any other test."""
    case = getattr(getattr(item, "function", None), CASE_MARK, None)
    return case if isinstance(case, Case) else None


def _hold_rule(report: pytest.TestReport) -> None:
    """Fail what is skipped for no good reason."""
    reason = _reason(report)
    expected_to_fail = hasattr(report, "wasxfail")
    if expected_to_fail or not REASON.fullmatch(reason):
        if expected_to_fail:
            del report.wasxfail
        report.outcome = "failed"
        report.longrepr = (
            "a case of the conformance kit may be skipped only for what a backend lacks "
            f"(BACKEND: no CAPABILITY: why), not for: {reason or 'no reason'}"
        )


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    told = report.longrepr
    text = str(told[2]) if isinstance(told, tuple) else str(getattr(report, "wasxfail", ""))
    return text.removeprefix("Skipped: ")


def _class_name(item: pytest.Item) -> str:
    kind = getattr(item, "cls", None)
    return item.nodeid if kind is None else str(kind.__name__)


def _lacks(line: Line) -> str:
    match = REASON.fullmatch(line.reason)
    return match["lacks"] if match else "reason"


def _counts(lines: Sequence[Line]) -> str:
    results = [line.result for line in lines]
    counts: Mapping[str, int] = {
        "passed": results.count("passed"),
        "skipped": results.count("skipped"),
        "failed": results.count("failed"),
        "not run": len(CASES) - len(lines),
    }
    return ", ".join(f"{count:3} {name}" for name, count in counts.items())
