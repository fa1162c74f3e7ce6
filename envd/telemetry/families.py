"""The metrics of a node: names, meanings, labels, and where each figure comes from.

Names are those that dashboards and alerts are written against: they stay. What a node has no
subject for is left out: a figure that is always 0 would say that all is well with something that
does not exist. Those of the cluster are in `cluster_families`, of stores in `sync_families`.

This module imports prometheus_client, so it is imported by the first who asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from envd.telemetry.cluster_families import cluster_families
from envd.telemetry.node import NodeFigures, Telemetry
from envd.telemetry.requests import MethodFigures
from envd.telemetry.samples import counter, gauge, histogram, observed
from envd.telemetry.sync_families import sync_families

_CONFLICT_CODES: Final = frozenset({"FAILED_PRECONDITION", "ALREADY_EXISTS", "409", "412"})
_THREADS: Final = "/proc/self/task"


def registry_of(telemetry: Telemetry) -> CollectorRegistry:
    """A registry with all figures of a node and of its process; not the global one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Node(telemetry))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _Node:
    """Collects what is true at the moment when it is asked."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are not checked against others' at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        telemetry = self._telemetry
        build = InfoMetricFamily("envd_build", "The version that runs.")
        build.add_metric((), {"version": telemetry.version})
        yield build
        yield from _requests(telemetry.requests.methods)
        yield counter(
            "envd_faults",
            "Calls that ended in an exception that nobody meant to raise; the log has each.",
            sum(count() for count in tuple(telemetry.fault_counts)),
        )
        yield counter(
            "envd_export_failures",
            "Batches of spans or metrics that the collector did not take; they are lost.",
            telemetry.export_failures,
        )
        figures = telemetry.node()
        if figures is not None:
            yield from _content(figures)
            yield from _storage(figures)
        if telemetry.cluster is not None:
            yield from cluster_families(telemetry.cluster, telemetry.propagation)
        if (sync := telemetry.sync()) is not None:
            yield from sync_families(sync)
        yield from _times(telemetry)
        if os.path.isdir(_THREADS):  # noqa: PTH112 - a Path made per scrape says no more
            threads = len(os.listdir(_THREADS))  # noqa: PTH208
            yield gauge("process_threads", "Threads of the process, of its libraries too.", threads)


def _requests(methods: Mapping[str, MethodFigures]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "envd_requests",
        "Requests that ended, by method and code: `Get` over gRPC, `socket get` over the Unix "
        "socket, with the codes of gRPC; `GET /v1/...` over HTTP with its statuses. Of "
        "WriteStream and Import each write counts; a watch counts when it ends.",
        labels=("method", "code"),
    )
    seconds = HistogramMetricFamily(
        "envd_request_duration_seconds",
        "How long requests took in the node; of WriteStream and Import, each write until it "
        "was durable. Watches are left out: they wait.",
        labels=("method",),
    )
    refused = 0
    for name, figures in sorted(methods.items()):
        for code, number in sorted(figures.codes.copy().items()):
            requests.add_metric((name, code), number)
            refused += number if code in _CONFLICT_CODES else 0
        observed(seconds, (name,), figures.seconds)
    conflicts = CounterMetricFamily(
        "envd_conflicts",
        "Writes that met another: `refused`, since what they were based on had changed.",
        labels=("kind",),
    )
    conflicts.add_metric(("refused",), refused)
    return iter((requests, seconds, conflicts))


def _content(figures: NodeFigures) -> Iterator[Metric]:
    yield gauge(
        "envd_environments", "Environments that exist, as of the last flush.", figures.environments
    )
    yield gauge(
        "envd_variables",
        "Variables of all environments together, as of the last flush.",
        figures.variables,
    )
    yield counter(
        "envd_commits",
        "Commits that this node took in since its data directory was made.",
        figures.commits,
    )
    yield gauge("envd_watches", "Watches that are open.", figures.watches)
    yield gauge("envd_ready", "1 while the node takes requests, else 0.", int(figures.ready))
    yield gauge(
        "envd_open_conflicts",
        "Variables that were written on two sides at once and that nobody has settled, as of the "
        "last flush.",
        figures.open_conflicts,
    )


def _storage(figures: NodeFigures) -> Iterator[Metric]:
    yield gauge(
        "envd_storage_bytes",
        "Bytes on disk: state and journal, preallocated room included.",
        figures.storage_bytes,
    )
    yield gauge(
        "envd_storage_available_bytes",
        "Bytes that the file system of the data directory has left for this user.",
        figures.available_bytes,
    )
    yield gauge(
        "envd_unflushed_bytes",
        "Memory held by commits that are durable in the journal and not yet in the state.",
        figures.unflushed_bytes,
    )
    yield gauge(
        "envd_unflushed_commits",
        "Commits that are durable in the journal and not yet in the state.",
        max(0, figures.commits - figures.flushed_commits),
    )
    yield gauge(
        "envd_journal_queued_bytes",
        "Bytes of commits that wait for the disk.",
        figures.queued_bytes,
    )


def _times(telemetry: Telemetry) -> Iterator[Metric]:
    flush = telemetry.pulse.flush.seconds if telemetry.pulse is not None else 0.0
    yield gauge(
        "envd_flush_lag_seconds",
        "How old the oldest commit is that the state lacks; two seconds are usual.",
        flush,
    )
    yield histogram(
        "envd_journal_sync_duration_seconds",
        "How long the disk took to make a group of commits durable (fdatasync).",
        telemetry.syncs,
    )
    if telemetry.pulse is not None:
        yield histogram(
            "envd_event_loop_lag_seconds",
            "How much too late the event loop ran a timer; every request waits as long.",
            telemetry.pulse.lag,
        )
