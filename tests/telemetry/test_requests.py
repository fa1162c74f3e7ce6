"""What is counted of a call, and when."""

from __future__ import annotations

import pytest

from envd.telemetry.requests import Histogram, Kind, Requests, ServerSpan

TRACE_ID = "ab" * 16


class Clock:
    """Goes on by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Span:
    """Notes what it is told."""

    trace_id = TRACE_ID

    def __init__(self) -> None:
        self.told: list[str] = []

    def about(self, environment: str) -> None:
        self.told.append(environment)

    def end(self, code: str) -> None:
        self.told.append(code)


class Spans:
    """Samples every call with a traceparent."""

    def __init__(self) -> None:
        self.made: list[Span] = []

    def server(self, method: str, traceparent: str, kind: Kind) -> ServerSpan | None:
        del method, kind
        if not traceparent:
            return None
        self.made.append(Span())
        return self.made[-1]


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (1.0, 0), (1.0001, 1), (2.0, 1), (2.0001, 2), (1e9, 2)],
)
def test_a_buckets_upper_end_belongs_to_it(value: float, bucket: int) -> None:
    histogram = Histogram((1.0, 2.0))

    histogram.observe(value)

    assert histogram.counts.index(1) == bucket
    assert histogram.total == value


def test_a_call_is_counted_by_its_code_and_timed() -> None:
    clock = Clock()
    requests = Requests(clock=clock)
    figures = requests.of("Get")

    for code, seconds in (("OK", 0.004), ("OK", 0.006), ("NOT_FOUND", 20.0)):
        underway = requests.begin(figures)
        clock.now += seconds
        underway.end(code)

    assert figures.codes == {"OK": 2, "NOT_FOUND": 1}
    assert sum(figures.seconds.counts) == 3
    assert figures.seconds.counts[-1] == 1
    assert figures.seconds.total == pytest.approx(20.01)


@pytest.mark.parametrize(
    ("kind", "code", "counted"),
    [
        (Kind.WAIT, "OK", {"OK": 1}),
        (Kind.WAIT, "CANCELLED", {"CANCELLED": 1}),
        (Kind.CARRIER, "OK", {}),
        (Kind.CARRIER, "UNAUTHENTICATED", {"UNAUTHENTICATED": 1}),
    ],
)
def test_what_waits_for_its_client_is_not_timed_and_a_carrier_counts_where_it_fails(
    kind: Kind, code: str, counted: dict[str, int]
) -> None:
    requests = Requests()
    figures = requests.of("stream")

    requests.begin(figures, kind=kind).end(code)

    assert figures.codes == counted
    assert not any(figures.seconds.counts)


def test_a_sampled_call_leaves_its_trace_as_the_exemplar_of_its_bucket() -> None:
    spans = Spans()
    requests = Requests(spans)
    figures = requests.of("Get")

    underway = requests.begin(figures, "some trace")
    underway.about("web/prod")
    underway.end("OK")
    requests.begin(figures).end("OK")

    ((_, exemplar),) = figures.seconds.exemplars.items()
    assert exemplar.trace_id == TRACE_ID
    assert [span.told for span in spans.made] == [["web/prod", "OK"]]


def test_a_method_has_one_set_of_figures() -> None:
    requests = Requests()

    assert requests.of("Get") is requests.of("Get")
    assert list(requests.methods) == ["Get"]
