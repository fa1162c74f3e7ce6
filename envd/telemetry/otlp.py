"""Pushing to a collector by OTLP over HTTP: spans as they end, metrics every minute.

Both go in threads of their own, spans from the SDK's bounded queue, and no request ever waits
for them. A collector that can't be reached costs one warning, not one per batch: what follows is
dropped and counted while the next try waits, 5 s at first and up to 5 minutes; when the
collector is back, that is told once too. At the end what is left is sent, for at most CLOSE_S.

Where to comes from the settings, else from the variables that every program with
opentelemetry knows: OTEL_EXPORTER_OTLP_ENDPOINT and its forms for traces and metrics,
OTEL_TRACES_EXPORTER=none, OTEL_METRICS_EXPORTER=none, OTEL_METRIC_EXPORT_INTERVAL and
OTEL_SDK_DISABLED. The SDK itself reads
OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION and _CERTIFICATE, OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES and those of the batches (OTEL_BSP_*).

This module imports the SDK (0.2 s), so it is imported only where something is to be pushed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from envd.telemetry.destinations import Destinations, shown
from envd.telemetry.otlp_metrics import metrics_data
from envd.telemetry.requests import Spans
from envd.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from envd.telemetry.node import Telemetry

T = TypeVar("T")
CLOSE_S: Final = 2.0
TIMEOUT_S: Final = 5.0
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
_SCOPE: Final = "envd"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which node tells: what its spans and metrics are marked with."""

    version: str
    node: str
    cluster: str

    def resource(self) -> Resource:
        """As opentelemetry's resource; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME add to it."""
        mine = Resource(
            {
                SERVICE_NAME: "envd",
                SERVICE_VERSION: self.version,
                SERVICE_INSTANCE_ID: self.node,
                "envd.cluster": self.cluster,
            }
        )
        return mine.merge(_of_environment(Resource.create()))


def _of_environment(found: Resource) -> Resource:
    """What was really set: without the name that the SDK makes up."""
    attributes = dict(found.attributes)
    if str(attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        del attributes[SERVICE_NAME]
    return Resource(attributes)


class Line:
    """The way to one collector: whether it works, and when to try again.

    `clock` counts seconds for intervals. It belongs to the exporting thread.
    """

    def __init__(self, signal: str, endpoint: str, clock: Callable[[], float]) -> None:
        self._signal = signal
        self._endpoint = endpoint
        self._clock = clock
        self._pause_s = 0.0
        self._again_at = 0.0
        self.failures = 0

    def carries(self, send: Callable[[], bool]) -> bool:
        """Call `send` unless it is too early for a new try; tell whether it succeeded."""
        if self._pause_s and self._clock() < self._again_at:
            self.failures += 1
            return False
        sent = send()
        if sent:
            self._works()
        else:
            self._fails()
        return sent

    def _works(self) -> None:
        if self._pause_s:
            _log.info("telemetry.export_resumed", extra=self._about())
        self._pause_s = 0.0

    def _fails(self) -> None:
        self.failures += 1
        if not self._pause_s:
            mend = "check the endpoint and the collector; requests go on without it"
            _log.warning("telemetry.export_failed", extra={**self._about(), "mend": mend})
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._again_at = self._clock() + self._pause_s

    def _about(self) -> dict[str, object]:
        return {
            "signal": self._signal,
            "endpoint": shown(self._endpoint),
            "lost_batches": self.failures,
        }


class _Heads(requests.Session):
    """Takes the head of an answer and no more: what follows may be endless, or never end.

    A redirection is no success; nobody is sent on to where the settings do not point.
    """

    def request(self, *arguments: Any, **named: Any) -> requests.Response:
        """As the SDK calls it."""
        response = super().request(*arguments, **{**named, "stream": True})
        response.close()
        if 300 <= response.status_code < 400:
            raise requests.TooManyRedirects
        return response


class _Spans(SpanExporter):
    """Sends spans over a line."""

    def __init__(self, inner: SpanExporter, line: Line) -> None:
        self._inner = inner
        self._line = line

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = self._line.carries(lambda: self._inner.export(spans) is SpanExportResult.SUCCESS)
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Metrics:
    """Sends the families that `collected` gives, every `interval_s` and once at the end.

    A thread of its own instead of the SDK's periodic reader, which takes its figures from a
    meter's instruments and from nothing else.
    """

    def __init__(
        self,
        exporter: OTLPMetricExporter,
        line: Line,
        collected: Callable[[], MetricsData],
        interval_s: float,
    ) -> None:
        self._exporter = exporter
        self._line = line
        self._collected = collected
        self._interval_s = interval_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="envd-metrics", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Send once more and end."""
        self._ending.set()
        self._thread.join(CLOSE_S)
        self._exporter.shutdown()

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(self._interval_s)
            try:
                self._line.carries(self._send)
            except Exception as error:  # noqa: BLE001 - the thread's outermost guard
                _log.error("telemetry.push_failed", extra={"error": type(error).__name__})

    def _send(self) -> bool:
        return self._exporter.export(self._collected()) is MetricExportResult.SUCCESS


class OtlpExport:
    """`node.Export` by OTLP; made before the servers, whose spans it makes."""

    def __init__(
        self,
        destinations: Destinations,
        origin: Origin,
        *,
        ratio: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        # What the SDK says of each failed try; `Line` says it once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._destinations = destinations
        self._resource = origin.resource()
        self._lines: list[Line] = []
        self._provider: TracerProvider | None = None
        self._reader: _Metrics | None = None
        self._tracing: Tracing | None = None
        if destinations.traces:
            self._provider = self._traces(destinations.traces)
            tracer = self._provider.get_tracer(_SCOPE, origin.version)
            self._tracing = Tracing(tracer, ratio, draw)

    @property
    def spans(self) -> Spans | None:
        """Makes spans, None where no traces are sent."""
        return self._tracing

    @property
    def failures(self) -> int:
        """How many batches were lost."""
        return sum(line.failures for line in self._lines)

    def traced(self, inner: T, names: Mapping[str, str]) -> T:
        """See `Tracing.traced`."""
        return inner if self._tracing is None else self._tracing.traced(inner, names)

    def start(self, telemetry: Telemetry) -> None:
        """Begin to push the figures, where metrics are sent."""
        endpoint = self._destinations.metrics
        if endpoint:
            began_ns = time.time_ns()
            self._reader = _Metrics(
                OTLPMetricExporter(endpoint=endpoint, timeout=self._timeout_s, session=_Heads()),
                self._line("metrics", endpoint),
                lambda: metrics_data(telemetry.registry(), self._resource, began_ns),
                self._destinations.interval_s,
            )
        _log.info(
            "telemetry.exporting",
            extra={"traces": shown(self._destinations.traces), "metrics": shown(endpoint)},
        )

    async def close(self) -> None:
        """Send what is left, for at most CLOSE_S seconds; then let go of it.

        Threads of its own: those of the loop's executor would hold up the end.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def close() -> None:
            for part in (self._reader, self._provider):
                if part is not None:
                    part.shutdown()
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=close, name="envd-telemetry-end", daemon=True).start()
        try:
            await asyncio.wait_for(ended.wait(), CLOSE_S)
        except TimeoutError:
            _log.warning("telemetry.not_all_sent")

    @property
    def _timeout_s(self) -> float | None:
        """How long one try may take; None lets the SDK read what the environment says."""
        return None if self._destinations.own_timeout else TIMEOUT_S

    def _line(self, signal: str, endpoint: str) -> Line:
        line = Line(signal, endpoint, time.monotonic)
        self._lines.append(line)
        return line

    def _traces(self, endpoint: str) -> TracerProvider:
        exporter = _Spans(
            OTLPSpanExporter(endpoint=endpoint, timeout=self._timeout_s, session=_Heads()),
            self._line("traces", endpoint),
        )
        # Sampled is decided before a span is made.
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=self._resource, shutdown_on_exit=False
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return provider
