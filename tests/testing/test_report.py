"""What the report plugin tells, and which skips it does not let pass."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_SUITE = """
import pytest
from envd.testing.conformance import BackendConformance
from tests.testing.broken import LosesCas, BrokenHarness
from tests.testing.memory_harness import MEMORY, SSM_LIKE, MemoryHarness

class TestSound(BackendConformance):
    @pytest.fixture
    def harness(self):
        return MemoryHarness(SSM_LIKE)

class TestBroken(BackendConformance):
    @pytest.fixture
    def harness(self):
        return BrokenHarness(MEMORY, LosesCas)
"""
_FEW = "stale_delete or a_stamp_reads_back or change_is_hinted or what_is_forbidden"


@pytest.fixture(autouse=True)
def _in_this_tree(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p envd.testing.report -p no:cacheprovider -p no:asyncio")


def _run(pytester: pytest.Pytester, suite: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_suite=suite)
    return pytester.runpytest_inprocess("-k", _FEW, *arguments)


def test_a_run_ends_with_a_line_for_each_backend(pytester: pytest.Pytester) -> None:
    result = _run(pytester, _SUITE)

    result.stdout.fnmatch_lines(
        [
            "*conformance of backends*",
            "memory * passed, * 0 skipped, * 1 failed, *not run",
            "memory as aws-ssm * 2 passed, * 2 skipped, * 0 failed, *not run",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_each_case_is_told_on_request_with_the_reason_of_a_skip(pytester: pytest.Pytester) -> None:
    result = _run(pytester, _SUITE, "--conformance-cases")

    result.stdout.fnmatch_lines(
        [
            "memory as aws-ssm",
            "  stamps * a stamp reads back: passed",
            "  deletes * a stale delete is refused: skipped, no CAS: *",
            "  faults * what is forbidden is refused: passed (faults at the contract)",
            "  watch * a change is hinted at: skipped, no WATCH: the store tells of no changes",
        ]
    )


def test_a_page_of_markdown_has_a_column_for_each_backend(pytester: pytest.Pytester) -> None:
    _run(pytester, _SUITE, "--conformance-report", "page.md")

    page = (pytester.path / "page.md").read_text("utf-8")
    assert "| group | case | memory | memory as aws-ssm |" in page
    assert "| deletes | a stale delete is refused | failed | no CAS |" in page
    assert "| values | outer spaces read back exactly | not run | not run |" in page
    assert "* no WATCH: the store tells of no changes" in page


@pytest.mark.parametrize(
    "rotten",
    [
        "pytest.skip('it is late')",
        "pytest.skip('memory: no CAS')",
        "pytest.skip('memory: no CAS: ')",
    ],
)
def test_a_skip_for_no_good_reason_is_a_failure(pytester: pytest.Pytester, rotten: str) -> None:
    suite = _SUITE.replace("return MemoryHarness(SSM_LIKE)", rotten)

    result = _run(pytester, suite)

    result.assert_outcomes(passed=3, failed=1, errors=4)
    result.stdout.fnmatch_lines(["*may be skipped only for what a backend lacks*"])


def test_a_case_that_is_expected_to_fail_has_failed(pytester: pytest.Pytester) -> None:
    suite = _SUITE.replace("class TestBroken", "@pytest.mark.xfail\nclass TestBroken")

    result = _run(pytester, suite, "-k", "TestBroken and stale_delete")

    assert result.parseoutcomes().get("failed") == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_case_that_is_skipped_by_a_mark_has_failed(pytester: pytest.Pytester) -> None:
    suite = _SUITE.replace("class TestBroken", "@pytest.mark.skip('later')\nclass TestBroken")

    result = _run(pytester, suite, "-k", "TestBroken and stale_delete")

    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_other_tests_may_be_skipped_as_they_like(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\ndef test_mine():\n    pytest.skip('it is late')\n")

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(skipped=1)
    result.stdout.no_fnmatch_line("*conformance of backends*")
