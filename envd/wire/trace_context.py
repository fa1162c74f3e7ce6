"""W3C trace context (https://www.w3.org/TR/trace-context/): the `traceparent` of a call.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version, trace id, id of the caller's span, flags (1: the caller samples this trace)

A daemon reads it from what comes in (gRPC metadata, an HTTP header, a field of the socket's
request), a client sends it. A client costs nothing by it: opentelemetry is asked only where the
program has imported it already, and never imported here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

TRACEPARENT: Final = "traceparent"
ENVIRONMENT_VARIABLE: Final = "TRACEPARENT"
"""Where a program finds the trace that it is part of, by a convention of many CI systems."""

_API: Final = "opentelemetry.trace"
_SAMPLED: Final = 1
_MAX_LENGTH: Final = 256
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(NamedTuple):
    """A caller's span; both ids are not 0."""

    trace_id: int
    span_id: int
    sampled: bool


def parse(text: str) -> TraceParent | None:
    """Read a traceparent; None for one that is none, as the standard has it ignored.

    Example: parse("00-" + "0" * 31 + "1-" + "0" * 15 + "2-01") is TraceParent(1, 2, True).
    """
    match = _FORM.fullmatch(text.strip()) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def current(environ: Mapping[str, str] | None = None) -> str:
    """The traceparent to send with a call made now, "" where it belongs to no trace.

    That is the span which is current in opentelemetry, if the program uses that; else what
    TRACEPARENT says in `environ`.
    """
    api: Any = sys.modules.get(_API)
    if api is not None and hasattr(api, "get_current_span"):
        span = api.get_current_span().get_span_context()
        if span.is_valid:
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
    given = (environ or {}).get(ENVIRONMENT_VARIABLE, "")
    return given.strip() if given and parse(given) is not None else ""


def metadata(environ: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """What a gRPC call made now adds to its metadata: one pair, or none."""
    traceparent = current(environ)
    return ((TRACEPARENT, traceparent),) if traceparent else ()
