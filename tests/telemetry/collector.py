"""A collector that takes OTLP over HTTP and keeps what it got, as bytes and as messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_S = 30


@dataclass
class Collector:
    """Answers with `status`; `paths` and `bodies` are what came, in order.

    One that is `endless` goes on answering until nobody listens. A redirection leads to `url`.
    """

    url: str = ""
    status: int = 200
    endless: bool = False
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, path: str, body: bytes) -> None:
        with self._news:
            self.paths.append(path)
            self.bodies.append(body)
            self._news.notify_all()

    def wait_for(self, claim: Callable[[], bool]) -> None:
        """Wait until what came fulfils `claim`."""
        with self._news:
            assert self._news.wait_for(claim, PATIENCE_S), f"only {self.paths} came"

    def resources(self) -> list[dict[str, str]]:
        """The attributes of what sent the traces."""
        return [
            {one.key: one.value.string_value for one in resource.resource.attributes}
            for request in self._traces()
            for resource in request.resource_spans
        ]

    def spans(self) -> list[Span]:
        """Every span that came."""
        return [
            span
            for request in self._traces()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def span(self, name: str) -> Span:
        """The one span of that name."""
        (found,) = (span for span in self.spans() if span.name == name)
        return found

    def metrics(self) -> dict[str, Metric]:
        """The metrics that came last, by name."""
        found = {}
        for path, body in zip(self.paths, self.bodies, strict=True):
            if path == "/v1/metrics":
                request = ExportMetricsServiceRequest.FromString(body)
                for resource in request.resource_metrics:
                    for scope in resource.scope_metrics:
                        found.update({metric.name: metric for metric in scope.metrics})
        return found

    def _traces(self) -> list[ExportTraceServiceRequest]:
        return [
            ExportTraceServiceRequest.FromString(body)
            for path, body in zip(self.paths, self.bodies, strict=True)
            if path == "/v1/traces"
        ]


def attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of the loopback, while inside."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, body)
            self.send_response(collector.status)
            self.send_header("Location", f"{collector.url}/elsewhere")
            if not collector.endless:
                self.send_header("Content-Length", "0")
            self.end_headers()
            with suppress(ConnectionError):
                while collector.endless:
                    self.wfile.write(b"x" * 65536)

        def log_message(self, *_: object) -> None:
            """Nothing: tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
