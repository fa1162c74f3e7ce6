"""The text of a scrape: both formats, exemplars, and what checks them independently."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from envd.telemetry.node import OPENMETRICS, PLAIN, NodeFigures, Telemetry
from envd.telemetry.pulse import Pulse
from tests.telemetry.reading import families

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PROMTOOL = shutil.which("promtool") or ""


def figures() -> NodeFigures:
    return NodeFigures(
        environments=2,
        variables=31,
        commits=40,
        flushed_commits=38,
        watches=3,
        ready=True,
        storage_bytes=1_000,
        available_bytes=5_000,
        unflushed_bytes=200,
        queued_bytes=10,
    )


@pytest.fixture
def telemetry() -> Telemetry:
    """A node that had some traffic."""
    made = Telemetry(version="9.8.7")
    made._read = figures
    made.pulse = Pulse(lambda: (0, 0))
    made.pulse.lag.observe(0.002)
    made.syncs.observe(0.0004)
    get = made.requests.of("Get")
    get.record("OK", 0.0002)
    get.record("OK", 0.004, TRACE_ID)
    made.requests.of("GET /v1/environments/{name}").record("412", 0.1)
    made.requests.of("Write").record("FAILED_PRECONDITION", 0.001)
    made.fault_counts += [lambda: 1, lambda: 2]
    return made


def test_openmetrics_is_read_back_as_it_was_meant(telemetry: Telemetry) -> None:
    text, media_type = telemetry.text("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1")

    found = families(text.decode())
    assert media_type == OPENMETRICS
    assert found["envd_requests"].type == "counter"
    assert found["envd_request_duration_seconds"].type == "histogram"
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in found.values()
        for sample in family.samples
    }
    expected = {
        ("envd_build_info", (("version", "9.8.7"),)): 1,
        ("envd_requests_total", (("code", "OK"), ("method", "Get"))): 2,
        ("envd_request_duration_seconds_count", (("method", "Get"),)): 2,
        ("envd_conflicts_total", (("kind", "refused"),)): 2,
        ("envd_faults_total", ()): 3,
        ("envd_environments", ()): 2,
        ("envd_variables", ()): 31,
        ("envd_commits_total", ()): 40,
        ("envd_unflushed_commits", ()): 2,
        ("envd_members", (("state", "alive"),)): 1,
        ("envd_ready", ()): 1,
    }
    assert {key: samples[key] for key in expected} == expected


def test_a_bucket_shows_the_trace_of_a_request_that_fell_into_it(telemetry: Telemetry) -> None:
    text, _ = telemetry.text(OPENMETRICS)

    exemplars = [
        (sample.labels["le"], sample.exemplar.labels, sample.exemplar.value)
        for family in families(text.decode()).values()
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert exemplars == [("0.005", {"trace_id": TRACE_ID}, 0.004)]


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "application/json"])
def test_who_does_not_ask_for_openmetrics_gets_the_plain_format(
    telemetry: Telemetry, accept: str
) -> None:
    text, media_type = telemetry.text(accept)

    names = {family.name for family in plain_metrics(text.decode())}
    assert media_type == PLAIN
    assert {"envd_requests", "envd_environments", "process_cpu_seconds"} <= names
    assert TRACE_ID not in text.decode()
    assert "# EOF" not in text.decode()


def test_before_a_node_is_there_and_where_its_disk_is_gone_the_rest_is_told(
    telemetry: Telemetry,
) -> None:
    def gone() -> NodeFigures:
        raise OSError("gone")

    empty = Telemetry().text(OPENMETRICS)[0]
    telemetry._read = gone
    broken = telemetry.text(OPENMETRICS)[0]

    for text in (empty, broken):
        names = families(text.decode()).keys()
        assert "envd_environments" not in names
        assert {"envd_requests", "envd_faults", "process_open_fds"} <= names


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_say_of_the_metrics(telemetry: Telemetry) -> None:
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=telemetry.text("")[0], capture_output=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
