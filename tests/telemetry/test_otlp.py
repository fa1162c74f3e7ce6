"""Where things are pushed, and what happens while nobody takes them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from envd import logs
from envd.core.errors import NotFound
from envd.core.requests import ReadRequest
from envd.telemetry.destinations import Destinations, destinations, shown
from envd.telemetry.node import Telemetry
from envd.telemetry.otlp import FIRST_PAUSE_S, LONGEST_PAUSE_S, Line, Origin, OtlpExport
from envd.telemetry.requests import Kind
from envd.telemetry.tracing import Tracing
from tests.telemetry.collector import Collector

URL = "http://collector:4318"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ((None, None), {}, ("", "")),
        ((URL, None), {}, (f"{URL}/v1/traces", "")),
        ((f"{URL}/", URL), {}, (f"{URL}/v1/traces", f"{URL}/v1/metrics")),
        ((f"{URL}/otlp/t", None), {}, (f"{URL}/otlp/t", "")),
        ((None, None), {"ENDPOINT": f"{URL}/"}, (f"{URL}/v1/traces", f"{URL}/v1/metrics")),
        ((None, None), {"ENDPOINT": f"{URL}/a"}, (f"{URL}/a/v1/traces", f"{URL}/a/v1/metrics")),
        ((None, None), {"TRACES_ENDPOINT": f"{URL}/t"}, (f"{URL}/t", "")),
        ((None, None), {"METRICS_ENDPOINT": f"{URL}/m"}, ("", f"{URL}/m")),
        (("http://mine:1", None), {"TRACES_ENDPOINT": URL}, ("http://mine:1/v1/traces", "")),
    ],
)
def test_a_setting_beats_the_variables_of_opentelemetry(
    settings: tuple[str | None, str | None], environ: dict[str, str], expected: tuple[str, str]
) -> None:
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environ.items()}

    found = destinations(*settings, named)

    assert (found.traces, found.metrics) == expected
    assert bool(found) == any(expected)


def test_the_variables_can_turn_it_off_and_say_how_often() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRIC_EXPORT_INTERVAL": "5000"}

    assert not destinations(URL, URL, {**environ, "OTEL_SDK_DISABLED": "TRUE"})
    assert destinations(None, None, {**environ, "OTEL_TRACES_EXPORTER": "none"}).traces == ""
    assert destinations(None, None, environ).interval_s == 5
    assert destinations(None, None, {"OTEL_METRIC_EXPORT_INTERVAL": "soon"}).interval_s == 60
    assert destinations(None, None, {"OTEL_METRIC_EXPORT_INTERVAL": "0"}).interval_s == 60


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (URL, URL),
        ("https://u:p@host:1/v1/traces?key=k#f", "https://host:1/v1/traces"),
        ("https://host?key=k", "https://host"),
        ("https://u:p@host?key=k/v1", "https://host"),
        ("", ""),
    ],
)
def test_the_log_shows_no_credential_of_a_collector(url: str, text: str) -> None:
    assert shown(url) == text


class Clock:
    """Goes on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged from now on, as JSON."""
    root, own = logging.getLogger(), logging.getLogger("envd")
    levels = root.level, own.level
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    yield stream
    for handler in [one for one in root.handlers if isinstance(one, logs.EventHandler)]:
        root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    logging.captureWarnings(False)


def events(logged: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in logged.getvalue().splitlines()]


def test_a_collector_that_is_away_is_tried_ever_less_often_and_told_of_once(
    logged: io.StringIO,
) -> None:
    clock, tries = Clock(), []
    line = Line("traces", URL, clock)

    def fails() -> bool:
        tries.append(clock.now)
        return False

    for second in range(2000):
        clock.now = float(second)
        assert not line.carries(fails)

    assert tries[:4] == [0.0, FIRST_PAUSE_S, 3 * FIRST_PAUSE_S, 7 * FIRST_PAUSE_S]
    assert tries[-1] - tries[-2] == LONGEST_PAUSE_S
    assert line.failures == 2000
    assert events(logged) == ["telemetry.export_failed"]


def test_when_it_is_back_that_is_told_and_the_pauses_begin_anew(logged: io.StringIO) -> None:
    clock = Clock()
    line = Line("traces", URL, clock)

    line.carries(lambda: False)
    clock.now = FIRST_PAUSE_S
    assert line.carries(lambda: True)
    assert line.carries(lambda: True)
    line.carries(lambda: False)

    assert events(logged) == [
        "telemetry.export_failed",
        "telemetry.export_resumed",
        "telemetry.export_failed",
    ]
    assert line.failures == 2


@pytest.mark.parametrize("status", [301, 307, 400])
async def test_what_a_collector_refuses_is_counted_and_nobody_waits(
    collector: Collector, logged: io.StringIO, status: int
) -> None:
    collector.status = status
    wanted = Destinations(f"{collector.url}/v1/traces", f"{collector.url}/v1/metrics")
    export = OtlpExport(wanted, Origin("1", "node-1", "default"), ratio=1.0)
    telemetry = Telemetry(export=export)
    export.start(telemetry)

    telemetry.requests.begin(telemetry.requests.of("Get")).end("OK")
    await telemetry.close()

    assert sorted(set(collector.paths)) == ["/v1/metrics", "/v1/traces"]
    assert telemetry.export_failures == 2
    assert events(logged).count("telemetry.export_failed") == 2


async def test_an_answer_without_an_end_is_not_read(
    collector: Collector, logged: io.StringIO
) -> None:
    collector.endless = True
    wanted = Destinations(f"{collector.url}/v1/traces", f"{collector.url}/v1/metrics")
    telemetry = Telemetry(export=OtlpExport(wanted, Origin("1", "node-1", "default"), ratio=1.0))

    telemetry.requests.begin(telemetry.requests.of("Get")).end("OK")
    await telemetry.close()

    assert [span.name for span in collector.spans()] == ["Get"]
    assert telemetry.export_failures == 0
    assert "telemetry.not_all_sent" not in events(logged)


# Spans in one process.


class Kept:
    """Tracing whose spans stay here."""

    def __init__(self, ratio: float = 1.0, draws: tuple[float, ...] = (0.5,)) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._draws = iter(draws)
        self.tracing = Tracing(self.provider.get_tracer("test"), ratio, lambda: next(self._draws))

    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]


class Reader:
    """Something with methods of all three kinds."""

    async def read(self, request: ReadRequest) -> str:
        return request.environment

    def look(self, request: ReadRequest) -> str:
        if request.environment == "gone":
            raise NotFound("no")
        return request.environment

    other = look


@pytest.mark.parametrize(
    ("ratio", "drawn", "traceparent", "sampled"),
    [
        (0.1, 0.05, "", True),
        (0.1, 0.1, "", False),
        (0.0, 0.0, "", False),
        (1.0, 0.999, "", True),
        (0.0, 0.5, TRACEPARENT, True),
        (1.0, 0.5, TRACEPARENT[:-1] + "0", False),
        (1.0, 0.5, "no traceparent", True),
    ],
)
def test_the_caller_decides_and_else_the_draw(
    ratio: float, drawn: float, traceparent: str, sampled: bool
) -> None:
    kept = Kept(ratio, (drawn,))

    span = kept.tracing.server("Get", traceparent, Kind.CALL)

    assert (span is not None) is sampled
    if span is not None:
        span.end("OK")


async def test_steps_get_spans_below_the_call_and_none_outside_of_it() -> None:
    kept = Kept()
    reader = kept.tracing.traced(Reader(), {"read": "reader.read", "look": "reader.look"})

    await reader.read(ReadRequest("web/prod"))
    span = kept.tracing.server("Get", "", Kind.CALL)
    assert span is not None
    answers = (await reader.read(ReadRequest("web/prod")), reader.other(ReadRequest("a")))
    with pytest.raises(NotFound):
        reader.look(ReadRequest("gone"))
    span.end("NOT_FOUND")
    reader.look(ReadRequest("web/prod"))

    assert answers == ("web/prod", "a")
    assert kept.names() == ["reader.read", "reader.look", "Get"]
    read, look, call = kept.exporter.get_finished_spans()
    assert call.context is not None
    assert {one.parent.span_id for one in (read, look) if one.parent} == {call.context.span_id}
    assert dict(look.attributes or {})["envd.code"] == "NOT_FOUND"


@pytest.mark.parametrize("kind", [Kind.WAIT, Kind.CARRIER])
def test_the_steps_of_a_stream_get_no_spans(kind: Kind) -> None:
    kept = Kept()
    reader = kept.tracing.traced(Reader(), {"look": "reader.look"})

    span = kept.tracing.server("WriteStream", "", kind)
    assert span is not None
    reader.look(ReadRequest("web/prod"))
    span.end("OK")

    assert kept.names() == ["WriteStream"]


def test_what_is_no_name_of_an_environment_is_not_told() -> None:
    kept = Kept(draws=(0.0, 0.0))

    for name in ("PASSWORD=hunter2", "web/prod"):
        span = kept.tracing.server("Get", "", Kind.CALL)
        assert span is not None
        span.about(name)
        span.end("OK")

    first, second = kept.exporter.get_finished_spans()
    assert "envd.environment" not in (first.attributes or {})
    assert (second.attributes or {})["envd.environment"] == "web/prod"


def test_a_log_line_within_a_call_carries_its_trace(logged: io.StringIO) -> None:
    kept = Kept()
    log = logs.get_logger("envd.test")

    span = kept.tracing.server("Get", TRACEPARENT, Kind.CALL)
    assert span is not None
    log.info("within")
    span.end("OK")
    log.info("outside")

    within, outside = map(json.loads, logged.getvalue().splitlines())
    assert within["trace_id"] == TRACEPARENT.split("-")[1]
    assert "trace_id" not in outside
