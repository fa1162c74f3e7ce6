"""What the servers count and time: each call by method and code, and how long it took.

    underway = requests.begin(figures, traceparent)
    ...
    underway.end("OK")

Every method has its own accumulators, found once, when its handler is made; ending a call
then is a dictionary's entry, a binary search and three additions. All of it belongs to the
event loop's thread; others may read at any time, and see counts that are complete up to a
call or two.

Methods are the names of the node's own tables, never a client's text, so the number of
series is bounded.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

DURATION_BOUNDS_S: Final = (
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""A read of one environment takes some 100 us on the loop, a durable write a millisecond."""
CANCELLED: Final = "CANCELLED"
OK: Final = "OK"


class Kind(Enum):
    """What a call is, and so what of it is counted."""

    CALL = 1
    """It ends when it is done: counted and timed."""
    WAIT = 2
    """It lasts as long as its client likes, as a watch does: counted at its end, not timed."""
    CARRIER = 3
    """It carries writes, which are counted and timed one by one; itself only where it fails."""


class Exemplar(NamedTuple):
    """One observation with the trace that it was part of; `time_s` is Unix time."""

    value: float
    trace_id: str
    time_s: float


class Histogram:
    """Observations by bucket; `bounds` are upper ends, inclusive, ascending.

    One thread observes. `counts` has one more than `bounds`: what is above the last.
    """

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, trace_id: str = "") -> None:
        """Count one observation; with a trace it becomes the exemplar of its bucket."""
        at = bisect_left(self.bounds, value)
        self.counts[at] += 1
        self.total += value
        if trace_id:
            self.exemplars[at] = Exemplar(value, trace_id, time.time())


class MethodFigures:
    """The calls of one method: how many by code, and how long they took."""

    __slots__ = ("codes", "method", "seconds")

    def __init__(self, method: str) -> None:
        self.method = method
        self.codes: dict[str, int] = {}
        self.seconds = Histogram(DURATION_BOUNDS_S)

    def count(self, code: str, number: int = 1) -> None:
        """Count calls whose time says nothing, such as a watch's."""
        codes = self.codes
        codes[code] = codes.get(code, 0) + number

    def record(self, code: str, seconds: float, trace_id: str = "") -> None:
        """Count a call and the time that it took."""
        codes = self.codes
        codes[code] = codes.get(code, 0) + 1
        self.seconds.observe(seconds, trace_id)


class ServerSpan(Protocol):
    """The span of a call that is sampled; it is current, for children and logs, until its end."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    def about(self, environment: str) -> None:
        """Note which environment the call is about."""
        ...

    def end(self, code: str) -> None:
        """End it, in the context in which it began."""
        ...


class Spans(Protocol):
    """Makes the spans of calls."""

    def server(self, method: str, traceparent: str, kind: Kind) -> ServerSpan | None:
        """Begin the span of a call, or None where it is not sampled.

        Only of a plain call the steps get spans too: a stream's may be millions.
        """
        ...


class Underway:
    """A call between its beginning and its end."""

    __slots__ = ("_clock", "_figures", "_kind", "_span", "_started")

    def __init__(
        self,
        figures: MethodFigures,
        clock: Callable[[], float],
        span: ServerSpan | None,
        kind: Kind,
    ) -> None:
        self._figures = figures
        self._clock = clock
        self._span = span
        self._kind = kind
        self._started = clock()

    def about(self, environment: str) -> None:
        """Note for the trace which environment the call is about, if it is about one."""
        if self._span is not None:
            self._span.about(environment)

    def end(self, code: str) -> None:
        """Count the call; to be called once, in the task that began it."""
        span, trace_id = self._span, ""
        if span is not None:
            trace_id = span.trace_id
            span.end(code)
        if self._kind is Kind.CALL:
            self._figures.record(code, self._clock() - self._started, trace_id)
        elif self._kind is Kind.WAIT or code != OK:
            self._figures.count(code)


class Requests:
    """The calls of all servers of a node. `clock` counts seconds, for intervals."""

    def __init__(
        self, spans: Spans | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.spans = spans
        self.clock = clock
        self._methods: dict[str, MethodFigures] = {}

    @property
    def traces(self) -> bool:
        """Tell whether a traceparent is worth looking for."""
        return self.spans is not None

    @property
    def methods(self) -> Mapping[str, MethodFigures]:
        """The figures by method, as a copy: other threads read it."""
        return self._methods.copy()

    def of(self, method: str) -> MethodFigures:
        """The figures of a method, one of a table of ours."""
        return self._methods.setdefault(method, MethodFigures(method))

    def begin(
        self, figures: MethodFigures, traceparent: str = "", kind: Kind = Kind.CALL
    ) -> Underway:
        """Begin a call; see the module."""
        spans = self.spans
        span = None if spans is None else spans.server(figures.method, traceparent, kind)
        return Underway(figures, self.clock, span, kind)
