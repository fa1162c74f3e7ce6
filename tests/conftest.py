"""Golden bytes (`pytest --rewrite-golden` accepts what the encoders give now), and hypothesis."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# gRPC's own handlers crash a child now and then whose parent was in a call: docs/client.md.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A deadline fails where the machine is busy, not where the code is wrong.
settings.register_profile("envd", deadline=None)
settings.load_profile("envd")

pytest_plugins = ["envd.testing.report"]  # Its rule holds for our own backends too.

_GOLDEN = Path(__file__).parent / "golden"
_LINE = 64


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="accept new golden bytes")
    parser.addoption("--rewrite-scenarios", action="store_true", help="accept what is said now")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, which they told by `record_property("measured", LINE)`."""
    reports = [each for found in terminalreporter.stats.values() for each in found]
    lines = [
        f"{report.nodeid}: {line}"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, line in report.user_properties
        if name == "measured"
    ]
    if lines:
        terminalreporter.section("measured")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], bytes]:
    """Return the bytes of `tests/golden/NAME.hex`, after writing `encoded` there if asked to."""

    def read(name: str, encoded: bytes) -> bytes:
        path = _GOLDEN / f"{name}.hex"
        if request.config.getoption("--rewrite-golden"):
            digits = encoded.hex()
            lines = [digits[at : at + _LINE] for at in range(0, len(digits), _LINE)]
            path.write_text("\n".join(lines) + "\n", "ascii")
        return bytes.fromhex(path.read_text("ascii"))

    return read
