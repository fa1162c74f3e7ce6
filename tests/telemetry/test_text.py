"""The text of a scrape: both formats, exemplars, and what checks them independently."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from envd.telemetry.cluster import (
    ClusterFigures,
    PartitionFigures,
    PeerFigures,
    RepairTotals,
)
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
        open_conflicts=4,
        ready=True,
        storage_bytes=1_000,
        available_bytes=5_000,
        unflushed_bytes=200,
        queued_bytes=10,
    )


def cluster() -> ClusterFigures:
    """Two peers, one of which was never reached."""
    return ClusterFigures(
        members={"alive": 2, "suspect": 0, "down": 1, "left": 0},
        peers=(
            PeerFigures("n2", True, True, 7, 1.5, 0.25, -0.003),
            PeerFigures('n"3\n', False, False, None, None, 0.0, None),
        ),
        detached=6,
        unreplicated=5,
        quarantined=8,
        zombies=4,
        floor_s=1_700_000_000.5,
        forgotten=12,
        repair=RepairTotals(900, 11, 1, {"catch_up": 2, "compare": 0, "read": 3}),
        datagrams={"sent": 30, "received": 20, "dropped": 1},
        refused={"unauthenticated": 9},
        health=1,
    )


@pytest.fixture
def telemetry() -> Telemetry:
    """A node that had some traffic."""
    made = Telemetry(version="9.8.7")
    made._read = figures
    made.pulse = Pulse(lambda: (0, 0))
    made.pulse.lag.observe(0.002)
    made.syncs.observe(0.0004)
    made.cluster = cluster()
    made.propagated(0.004)
    get = made.requests.of("Get")
    get.record("OK", 0.0002)
    get.record("OK", 0.004, TRACE_ID)
    made.requests.of("GET /v1/environments/{name}").record("412", 0.1)
    made.requests.of("Write").record("FAILED_PRECONDITION", 0.001)
    made.fault_counts += [lambda: 1, lambda: 2]
    return made


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a text in OpenMetrics, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(text.decode()).values()
        for sample in family.samples
    }


def test_openmetrics_is_read_back_as_it_was_meant(telemetry: Telemetry) -> None:
    text, media_type = telemetry.text("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1")

    found = families(text.decode())
    assert media_type == OPENMETRICS
    assert found["envd_requests"].type == "counter"
    assert found["envd_request_duration_seconds"].type == "histogram"
    told = samples(text)
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
        ("envd_open_conflicts", ()): 4,
        ("envd_ready", ()): 1,
    }
    assert {key: told[key] for key in expected} == expected


def test_the_cluster_is_told_as_it_was_seen_last(telemetry: Telemetry) -> None:
    told = samples(telemetry.text(OPENMETRICS)[0])

    n2, n3 = (("peer", "n2"),), (("peer", 'n"3\n'),)
    expected = {
        ("envd_members", (("state", "alive"),)): 2,
        ("envd_members", (("state", "suspect"),)): 0,
        ("envd_members", (("state", "down"),)): 1,
        ("envd_members", (("state", "left"),)): 0,
        ("envd_peer_up", n2): 1,
        ("envd_peer_up", n3): 0,
        ("envd_peer_connected", n2): 1,
        ("envd_peer_connected", n3): 0,
        ("envd_replication_lag_seconds", n2): 1.5,
        ("envd_peer_handoff_commits", n2): 7,
        ("envd_peer_clock_offset_seconds", n2): -0.003,
        ("envd_peer_phi", n2): 0.25,
        ("envd_handoff_commits", ()): 7,
        ("envd_detached_commits_total", ()): 6,
        ("envd_unreplicated_commits", ()): 5,
        ("envd_quarantined_records", ()): 8,
        ("envd_zombie_commits_total", ()): 4,
        ("envd_propagation_seconds_count", ()): 1,
        ("envd_propagation_seconds_bucket", (("le", "0.003"),)): 0,
        ("envd_propagation_seconds_bucket", (("le", "0.005"),)): 1,
        ("envd_repair_bytes_total", ()): 900,
        ("envd_repair_commits_total", ()): 11,
        ("envd_repair_pulls_total", (("kind", "read"),)): 3,
        ("envd_repair_divergences_total", ()): 1,
        ("envd_gossip_datagrams_total", (("kind", "dropped"),)): 1,
        ("envd_gossip_refused_total", (("reason", "unauthenticated"),)): 9,
        ("envd_membership_health_score", ()): 1,
    }
    assert {key: told.get(key) for key in expected} == expected


def test_what_is_not_known_of_a_peer_is_not_told_as_zero(telemetry: Telemetry) -> None:
    told = samples(telemetry.text(OPENMETRICS)[0])

    of_n3 = {name for name, labels in told if labels == (("peer", 'n"3\n'),)}
    assert of_n3 == {"envd_peer_up", "envd_peer_connected", "envd_peer_phi"}


def test_a_node_alone_has_no_figures_of_peers(telemetry: Telemetry) -> None:
    telemetry.cluster = ClusterFigures({"alive": 1})

    told = samples(telemetry.text(OPENMETRICS)[0])

    assert not [labels for _, labels in told if dict(labels).get("peer")]
    assert told["envd_handoff_commits", ()] == 0
    assert told["envd_unreplicated_commits", ()] == 0


def test_who_holds_what_is_told_where_not_every_node_holds_everything(
    telemetry: Telemetry,
) -> None:
    assert not [name for name, _ in samples(telemetry.text(OPENMETRICS)[0]) if "partitions" in name]

    spread = PartitionFigures(1536, 2, {"streaming": 512}, 700, 3, 1.04)
    telemetry.cluster = replace(cluster(), partitions=spread)

    told = samples(telemetry.text(OPENMETRICS)[0])
    moving = {labels[0][1]: told[name, labels] for name, labels in told if name.endswith("_moving")}
    assert moving == {
        "write_both": 0,
        "streaming": 512,
        "read_new": 0,
        "use_new": 0,
        "waiting": 700,
    }
    assert told["envd_partitions_held", ()] == 1536
    assert told["envd_partitions_kept", ()] == 2
    assert told["envd_partitions_under_replicated", ()] == 3
    assert told["envd_partitions_balance_ratio", ()] == 1.04


def test_how_far_what_was_deleted_is_forgotten(telemetry: Telemetry) -> None:
    telemetry.cluster = cluster()
    told = samples(telemetry.text(OPENMETRICS)[0])

    assert told["envd_floor_timestamp_seconds", ()] == 1_700_000_000.5
    assert told["envd_forgotten_tombstones_total", ()] == 12
    telemetry.cluster = replace(cluster(), floor_s=None)
    assert "envd_floor" not in telemetry.text(OPENMETRICS)[0].decode()


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
