"""Two real daemons: what one tells of the other in a scrape, and to a collector."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.node import PATIENCE_S, Node
from tests.telemetry.collector import Collector
from tests.telemetry.reading import families
from tests.telemetry.test_daemon import OPENMETRICS, configured, scrape


def join(joiner: Node, founder: Node, ready: dict[str, Any]) -> None:
    """Start `joiner` as a second node, called b, of the cluster that `founder` made."""
    secret = founder.data / "cluster.secret"
    joiner.start(
        *("--node-name", "b", "--join", ready["gossip"], "--cluster-secret-file", str(secret))
    )


def until(claim: Callable[[], bool]) -> None:
    """Ask again and again, until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "it never came to hold"


def told(node: Node, ready: dict[str, Any]) -> dict[tuple[str, str], float]:
    """The samples of a scrape by name and the value of their only label, "" for none."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in families(scrape(ready["http"], node, OPENMETRICS)).values()
        for sample in family.samples
        if len(sample.labels) < 2
    }


def test_a_scrape_tells_how_the_other_node_does(stopped: Node, joiner: Node) -> None:
    ready = stopped.start("--node-name", "a")
    alone = told(stopped, ready)
    join(joiner, stopped, ready)
    until(lambda: told(stopped, ready).get(("envd_peer_connected", "b")) == 1)

    assert stopped.envctl("set", "web/prod", "A=1").code == 0
    until(lambda: told(stopped, ready)["envd_unreplicated_commits", ""] == 0)
    whole = told(stopped, ready)
    joiner.kill()
    until(lambda: told(stopped, ready)["envd_members", "down"] == 1)
    assert stopped.envctl("set", "web/prod", "A=2").code == 0
    lone = told(stopped, ready)

    assert (alone["envd_members", "alive"], alone["envd_propagation_seconds_count", ""]) == (1, 0)
    assert ("envd_peer_connected", "b") not in alone
    assert (whole["envd_members", "alive"], whole["envd_peer_up", "b"]) == (2, 1)
    assert whole["envd_replication_lag_seconds", "b"] == 0
    assert whole["envd_propagation_seconds_count", ""] >= 1
    assert whole["envd_detached_commits_total", ""] == 0
    assert whole["envd_gossip_datagrams_total", "received"] > 0
    assert (lone["envd_members", "alive"], lone["envd_peer_up", "b"]) == (1, 0)
    assert lone["envd_peer_connected", "b"] == 0
    assert lone["envd_handoff_commits", ""] == lone["envd_peer_handoff_commits", "b"] == 1
    assert (lone["envd_unreplicated_commits", ""], lone["envd_detached_commits_total", ""]) == (
        1,
        1,
    )


def test_the_cluster_is_pushed_to_a_collector_too(
    stopped: Node, joiner: Node, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    node = configured(stopped, f'metrics_endpoint = "{collector.url}"')
    ready = node.start("--node-name", "a")
    join(joiner, node, ready)

    collector.wait_for(lambda: "envd_peer_connected" in collector.metrics())
    pushed = collector.metrics()

    (connected,) = pushed["envd_peer_connected"].gauge.data_points
    assert connected.attributes[0].value.string_value == "b"
    states = {
        point.attributes[0].value.string_value: point.as_int
        for point in pushed["envd_members"].gauge.data_points
    }
    assert states.keys() == {"alive", "suspect", "down", "left"}
    assert pushed["envd_propagation_seconds"].histogram.data_points[0].explicit_bounds[0] == 0.001
    assert pushed["envd_repair_bytes_total"].sum.is_monotonic
