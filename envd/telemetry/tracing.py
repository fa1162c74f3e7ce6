"""Spans: one for a call, below it the node's work on it, below that the wait for the disk.

    Write                       server span, child of the caller's (traceparent)
      coordinator.write         checks, the new state, its digest; until a second node has it
        store.append            until the commit is durable: the journal's group and its sync

Whether a call is traced is the caller's decision where a traceparent tells of one, else a draw
with the set probability (parent-based sampling). It is drawn before anything is made, so a call
that is not sampled costs the draw. A span's name and attributes say the method, the
environment and the code: names, never a value.

While a call runs its span is current in this module's context variable, and its trace id is
bound to the log lines that it causes.
"""

from __future__ import annotations

import functools
import inspect
from asyncio import Future
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, Final, Self, TypeVar, cast

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from structlog.contextvars import bind_contextvars, reset_contextvars

from envd.core.errors import EnvdError
from envd.core.names import check_environment
from envd.telemetry.requests import Kind, ServerSpan
from envd.wire import trace_context

T = TypeVar("T")
ENVIRONMENT: Final = "envd.environment"
METHOD: Final = "envd.method"
CODE: Final = "envd.code"
_FAULTS: Final = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE"})
_current: ContextVar[Span | None] = ContextVar("envd_span", default=None)


class Tracing:
    """Makes spans with `tracer`; `ratio` of the calls that nobody decided about are sampled.

    `draw` gives numbers from 0 to below 1.
    """

    def __init__(self, tracer: trace.Tracer, ratio: float, draw: Callable[[], float]) -> None:
        self._tracer = tracer
        self._ratio = ratio
        self._draw = draw

    def server(self, method: str, traceparent: str, kind: Kind) -> ServerSpan | None:
        """Begin a call's span and make it current, or None; see `requests.Spans`."""
        parent = trace_context.parse(traceparent) if traceparent else None
        sampled = self._draw() < self._ratio if parent is None else parent.sampled
        if not sampled:
            return None
        span = self._tracer.start_span(
            method, _context_of(parent), SpanKind.SERVER, {METHOD: method}
        )
        return _Serving(span, current=kind is Kind.CALL)

    def traced(self, inner: T, names: Mapping[str, str]) -> T:
        """`inner`, whose methods in `names` run in child spans of these names.

        A method may answer at once, be a coroutine, or return a future: the span ends with it.
        Outside a sampled call nothing is made.
        """
        return cast(T, _Traced(inner, names, self._tracer))


class _Serving:
    """The span of one call."""

    __slots__ = ("_bound", "_span", "_token", "trace_id")

    def __init__(self, span: Span, *, current: bool) -> None:
        self._span = span
        self.trace_id = f"{span.get_span_context().trace_id:032x}"
        self._token: Token[Span | None] = _current.set(span if current else None)
        self._bound = bind_contextvars(trace_id=self.trace_id)

    def about(self, environment: str) -> None:
        """Note which environment the call is about."""
        self._span.set_attributes(_about(environment))

    def end(self, code: str) -> None:
        """End the span with the call's code."""
        reset_contextvars(**self._bound)
        _current.reset(self._token)
        self._span.set_attribute(CODE, code)
        if code in _FAULTS or code.startswith("5"):
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class _Traced:
    """Stands for another object, and lets some of its methods run in spans."""

    def __init__(self, inner: object, names: Mapping[str, str], tracer: trace.Tracer) -> None:
        self._inner = inner
        for method, name in names.items():
            setattr(self, method, _in_span(getattr(inner, method), name, tracer))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _in_span(method: Callable[..., Any], name: str, tracer: trace.Tracer) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def later(*arguments: Any, **named: Any) -> Any:
            parent = _current.get()
            if parent is None:
                return await method(*arguments, **named)
            with _Step(tracer, name, parent, arguments):
                return await method(*arguments, **named)

        return later

    @functools.wraps(method)
    def now(*arguments: Any, **named: Any) -> Any:
        parent = _current.get()
        if parent is None:
            return method(*arguments, **named)
        with _Step(tracer, name, parent, arguments) as step:
            answer = method(*arguments, **named)
            if isinstance(answer, Future):
                step.ends_with(answer)
            return answer

    return now


class _Step:
    """A child span, current while inside."""

    __slots__ = ("_future", "_span", "_token")

    def __init__(
        self, tracer: trace.Tracer, name: str, parent: Span, arguments: tuple[Any, ...]
    ) -> None:
        about = _about(getattr(arguments[0], "environment", "")) if arguments else {}
        self._span = tracer.start_span(name, trace.set_span_in_context(parent), attributes=about)
        self._token: Token[Span | None] | None = None
        self._future: Future[Any] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self._span)
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        assert self._token is not None
        _current.reset(self._token)
        if self._future is None:
            self._end(error)
        else:
            self._future.add_done_callback(self._done)

    def ends_with(self, future: Future[Any]) -> None:
        """Let the span go on until `future` is done."""
        self._future = future

    def _done(self, future: Future[Any]) -> None:
        self._end(None if future.cancelled() else future.exception())

    def _end(self, error: BaseException | None) -> None:
        if error is not None:
            # The reason is a constant; a message may quote what the caller sent.
            reason = error.reason if isinstance(error, EnvdError) else type(error).__name__
            self._span.set_attribute(CODE, reason)
        self._span.end()


def _about(environment: str) -> dict[str, str]:
    """The attribute that names an environment; what is no name might be anything, and is not."""
    try:
        return {ENVIRONMENT: check_environment(environment)}
    except EnvdError:
        return {}


def _context_of(parent: trace_context.TraceParent | None) -> Any:
    """The context of a span whose parent is the caller's, or of one without a parent."""
    if parent is None:
        return trace.set_span_in_context(trace.INVALID_SPAN)
    caller = trace.SpanContext(
        parent.trace_id, parent.span_id, is_remote=True, trace_flags=trace.TraceFlags(1)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(caller))
