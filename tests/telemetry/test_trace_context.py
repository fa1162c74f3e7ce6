"""traceparent: what is read, and what a client sends."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from envd.wire import trace_context
from envd.wire.trace_context import TraceParent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (GOOD, True),
        (f" {GOOD} ", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_traceparent_of_this_and_later_versions_is_read(text: str, sampled: bool) -> None:
    assert trace_context.parse(text) == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 1000}",
    ],
)
def test_what_is_none_is_passed_over(text: str) -> None:
    assert trace_context.parse(text) is None


@given(st.text())
def test_any_text_is_read_or_passed_over(text: str) -> None:
    assert trace_context.parse(text) is None or text.count("-") >= 3


def test_a_client_sends_the_span_that_is_current() -> None:
    context = trace.SpanContext(
        int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=trace.TraceFlags(1)
    )

    with trace.use_span(trace.NonRecordingSpan(context)):
        sent = trace_context.metadata({"TRACEPARENT": "ignored"})

    assert sent == (("traceparent", GOOD),)
    assert trace_context.metadata() == ()


@pytest.mark.parametrize(("given_text", "sent"), [(GOOD, GOOD), ("nonsense\n", ""), ("", "")])
def test_outside_a_span_it_sends_what_the_environment_says(given_text: str, sent: str) -> None:
    assert trace_context.current({"TRACEPARENT": given_text}) == sent


def test_a_program_without_opentelemetry_is_not_made_to_import_it() -> None:
    code = (
        "import sys\n"
        "from envd.wire import trace_context\n"
        "assert trace_context.metadata({}) == ()\n"
        "print('opentelemetry' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
