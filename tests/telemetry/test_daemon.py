"""A real daemon with a real collector: one trace through all of it, and no value anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from opentelemetry import trace

from envd.client.rpc import GrpcConnection
from envd.core.errors import EnvdError
from envd.core.requests import Put, ReadRequest, WriteRequest
from envd.wire import trace_context
from tests.e2e.node import Node
from tests.telemetry.collector import Collector, attributes

CANARY = "canary-7d1e-value"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def configured(node: Node, text: str) -> Node:
    """`node` with these settings of observability."""
    file = node.directory / "envd.toml"
    file.write_text(f"[observability]\n{text}\n")
    node.flags = ("--config", str(file))
    return node


def scrape(address: str, node: Node, accept: str = "") -> str:
    token = (node.data / "admin.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Accept": accept}
    request = urllib.request.Request(f"http://{address}/metrics", headers=headers)
    with urllib.request.urlopen(request) as response:
        text: str = response.read().decode()
    return text


def over_grpc(node: Node, ready: dict[str, Any]) -> GrpcConnection:
    token = (node.data / "admin.token").read_text().strip()
    return GrpcConnection([ready["listen"]], token=token)


def in_span(traceparent: str) -> AbstractContextManager[object]:
    """Make this the current span of opentelemetry, as a program that uses it has one."""
    parent = trace_context.parse(traceparent)
    if parent is None:
        return nullcontext()
    flags = trace.TraceFlags(int(parent.sampled))
    context = trace.SpanContext(parent.trace_id, parent.span_id, False, trace_flags=flags)
    return trace.use_span(trace.NonRecordingSpan(context))


def test_one_trace_goes_from_the_client_through_the_daemon_to_the_disk(
    stopped: Node, collector: Collector
) -> None:
    node = configured(stopped, f'tracing_endpoint = "{collector.url}"')
    node.start()

    done = node.envctl("set", "web/prod", f"PASSWORD={CANARY}", TRACEPARENT=TRACEPARENT)
    node.stop()

    assert done.code == 0, done.err
    server = collector.span("socket write")
    work = collector.span("coordinator.write")
    disk = collector.span("store.append")
    assert {span.trace_id.hex() for span in (server, work, disk)} == {TRACE}
    assert server.parent_span_id.hex() == SPAN
    assert work.parent_span_id == server.span_id
    assert disk.parent_span_id == work.span_id
    assert server.start_time_unix_nano <= work.start_time_unix_nano <= disk.start_time_unix_nano
    assert disk.end_time_unix_nano <= server.end_time_unix_nano
    assert attributes(server) == {
        "envd.method": "socket write",
        "envd.environment": "web/prod",
        "envd.code": "OK",
    }
    assert {one["service.name"] for one in collector.resources()} == {"envd"}


def test_grpc_takes_the_clients_trace_and_the_callers_decision(
    stopped: Node, collector: Collector
) -> None:
    node = configured(stopped, f'tracing_endpoint = "{collector.url}"')
    connection = over_grpc(node, node.start())

    not_sampled = TRACEPARENT.removesuffix("01") + "00"
    for traceparent, environment in ((TRACEPARENT, "a"), (not_sampled, "b"), ("", "c")):
        with in_span(traceparent):
            connection.write(WriteRequest(environment, (Put("A", CANARY),)))
    connection.close()
    node.stop()

    servers = [span for span in collector.spans() if span.name == "Write"]
    by_environment = {attributes(span)["envd.environment"]: span for span in servers}
    assert by_environment.keys() == {"a", "c"}
    assert by_environment["a"].trace_id.hex() == TRACE
    assert by_environment["a"].parent_span_id.hex() == SPAN
    below = {span.parent_span_id for span in collector.spans() if span.name == "coordinator.write"}
    assert below == {span.span_id for span in servers}
    assert by_environment["c"].trace_id.hex() != TRACE
    assert by_environment["c"].parent_span_id == b""


def test_http_takes_the_clients_trace_from_its_header(stopped: Node, collector: Collector) -> None:
    node = configured(stopped, f'tracing_endpoint = "{collector.url}"')
    ready = node.start()

    sent = {"variables": {"A": CANARY}}
    _ask(ready["http"], node, "PUT", "/v1/environments/web/prod", sent, traceparent=TRACEPARENT)
    node.stop()

    server = collector.span("PUT /v1/environments/{name}")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN)
    assert attributes(server)["envd.environment"] == "web/prod"
    assert attributes(server)["envd.code"] == "200"
    assert collector.span("store.append").trace_id.hex() == TRACE


def test_with_a_ratio_of_zero_only_what_the_caller_samples_is_traced(
    stopped: Node, collector: Collector
) -> None:
    node = configured(stopped, f'tracing_endpoint = "{collector.url}"\ntrace_sample_ratio = 0')
    node.start()

    node.envctl("set", "web/prod", "A=1")
    node.envctl("get", "web/prod", TRACEPARENT=TRACEPARENT)
    node.stop()

    assert [span.name for span in collector.spans()] == ["coordinator.read", "socket get"]


def test_metrics_are_pushed_under_the_names_that_a_scrape_has(
    stopped: Node, collector: Collector
) -> None:
    node = configured(stopped, f'metrics_endpoint = "{collector.url}"')
    ready = node.start()
    node.envctl("set", "web/prod", "A=1", "B=2")
    scraped = scrape(ready["http"], node)

    node.stop()

    pushed = collector.metrics()
    names = {line.split()[2] for line in scraped.splitlines() if line.startswith("# TYPE ")}
    assert names <= pushed.keys()
    (variables,) = pushed["envd_variables"].gauge.data_points
    assert variables.as_int == 2
    assert pushed["envd_requests_total"].sum.is_monotonic
    durations = pushed["envd_request_duration_seconds"].histogram.data_points
    counts = {point.attributes[0].value.string_value: point.count for point in durations}
    assert counts["socket write"] == 1
    assert all(sum(point.bucket_counts) == point.count for point in durations)


def test_a_collector_that_is_down_costs_one_warning_and_no_request(stopped: Node) -> None:
    node = configured(
        stopped,
        'tracing_endpoint = "http://127.0.0.1:9"\nmetrics_endpoint = "http://127.0.0.1:9"',
    )
    node.start()

    codes = {node.envctl("set", "web/prod", f"A={n}").code for n in range(3)}
    code = node.stop()

    assert codes == {0}
    assert code == 0
    told = [one for one in node.events if one["event"].startswith("telemetry.")]
    signals = [one["signal"] for one in told if one["event"] == "telemetry.export_failed"]
    assert len(signals) == len(set(signals))
    assert any(one["level"] == "warning" for one in told)
    loggers = {one["logger"] for one in node.events if one["level"] in {"warning", "error"}}
    assert not {name for name in loggers if not name.startswith("envd.")}


def test_no_value_is_in_metrics_traces_or_logs(stopped: Node, collector: Collector) -> None:
    node = configured(
        stopped,
        f'tracing_endpoint = "{collector.url}"\nmetrics_endpoint = "{collector.url}"\n'
        'log_level = "debug"',
    )
    ready = node.start()
    connection = over_grpc(node, ready)

    connection.write(WriteRequest("web/prod", (Put("PASSWORD", CANARY, True),)))
    node.envctl("set", "web/prod", f"TOKEN={CANARY}")
    node.envctl("get", "web/prod", "--reveal")
    node.envctl("set", f"web/{CANARY}!", "A=1")  # no name, so it might be anything
    for wrong in (ReadRequest(f"{CANARY}="), ReadRequest("web/prod", token=CANARY)):
        with pytest.raises(EnvdError):
            connection.get(wrong)
    with pytest.raises(EnvdError):
        connection.write(WriteRequest("web/prod", (Put(f"={CANARY}", CANARY),)))
    _ask(ready["http"], node, "PUT", "/v1/environments/web/http", {"variables": {"A": CANARY}})
    _ask(ready["http"], node, "PATCH", f"/v1/environments/{CANARY}=", {"set": {"A": CANARY}})
    _ask(ready["http"], node, "GET", f"/{CANARY}?{CANARY}={CANARY}")
    texts = [scrape(ready["http"], node), scrape(ready["http"], node, OPENMETRICS)]
    connection.close()
    node.stop()

    assert len(collector.spans()) > 10
    assert "/v1/metrics" in collector.paths
    sent = b"".join(collector.bodies)
    assert b"web/prod" in sent
    assert CANARY.encode() not in sent
    assert CANARY not in "".join(texts)
    assert CANARY not in json.dumps(node.events)


def _ask(
    address: str, node: Node, method: str, path: str, body: object = None, **headers: str
) -> None:
    """One request over HTTP, whatever its answer."""
    token = (node.data / "admin.token").read_text().strip()
    request = urllib.request.Request(
        f"http://{address}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            **headers,
        },
    )
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError as error:
        error.close()


def test_the_metrics_port_serves_metrics_alone_and_behind_the_same_guards(stopped: Node) -> None:
    node = configured(stopped, "metrics_port = 0")
    ready = node.start()
    address = ready["metrics"]

    assert "envd_environments 0.0" in scrape(address, node)
    assert _status(f"http://{address}/metrics") == 401
    assert _status(f"http://{address}/v1/status", node) == 404
    assert _status(f"http://{address}/metrics", node, Host="evil.example") == 421
    assert address != ready["http"]


def _status(url: str, node: Node | None = None, **headers: str) -> int:
    if node is not None:
        token = (node.data / "admin.token").read_text().strip()
        headers["Authorization"] = f"Bearer {token}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_daemon_that_pushes_nothing_imports_neither_library_before_a_scrape() -> None:
    code = (
        "import sys, envd.running, envd.reporting\n"
        "envd.running._import_servers()\n"
        "import envd.node.api, envd.storage.store\n"
        "late = ('opentelemetry', 'prometheus_client', 'requests')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in late])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
