"""The metrics of a node: names, meanings, labels, and where each figure comes from.

Names are those that dashboards and alerts are written against: they stay. What this version
has no subject for (replication, sync with other stores, handoff, repair) is not here: a
figure that is always 0 would say that all is well with something that does not exist.

This module imports prometheus_client, so it is imported by the first who asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar

from envd.telemetry.node import NodeFigures, Telemetry
from envd.telemetry.requests import Histogram, MethodFigures

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
        yield _counter(
            "envd_faults",
            "Calls that ended in an exception that nobody meant to raise; the log has each.",
            sum(count() for count in tuple(telemetry.fault_counts)),
        )
        yield _counter(
            "envd_export_failures",
            "Batches of spans or metrics that the collector did not take; they are lost.",
            telemetry.export_failures,
        )
        figures = telemetry.node()
        if figures is not None:
            yield from _content(figures)
            yield from _storage(figures)
        yield from _times(telemetry)
        if os.path.isdir(_THREADS):  # noqa: PTH112 - a Path made per scrape says no more
            threads = len(os.listdir(_THREADS))  # noqa: PTH208
            yield _gauge(
                "process_threads", "Threads of the process, of its libraries too.", threads
            )


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
        _observed(seconds, (name,), figures.seconds)
    conflicts = CounterMetricFamily(
        "envd_conflicts",
        "Writes that met another: `refused`, since what they were based on had changed.",
        labels=("kind",),
    )
    conflicts.add_metric(("refused",), refused)
    return iter((requests, seconds, conflicts))


def _content(figures: NodeFigures) -> Iterator[Metric]:
    yield _gauge(
        "envd_environments", "Environments that exist, as of the last flush.", figures.environments
    )
    yield _gauge(
        "envd_variables",
        "Variables of all environments together, as of the last flush.",
        figures.variables,
    )
    yield _counter(
        "envd_commits",
        "Commits that this node took in since its data directory was made.",
        figures.commits,
    )
    yield _gauge("envd_watches", "Watches that are open.", figures.watches)
    yield _gauge("envd_ready", "1 while the node takes requests, else 0.", int(figures.ready))
    members = GaugeMetricFamily("envd_members", "Members by state.", labels=("state",))
    members.add_metric(("alive",), 1)
    yield members


def _storage(figures: NodeFigures) -> Iterator[Metric]:
    yield _gauge(
        "envd_storage_bytes",
        "Bytes on disk: state and journal, preallocated room included.",
        figures.storage_bytes,
    )
    yield _gauge(
        "envd_storage_available_bytes",
        "Bytes that the file system of the data directory has left for this user.",
        figures.available_bytes,
    )
    yield _gauge(
        "envd_unflushed_bytes",
        "Memory held by commits that are durable in the journal and not yet in the state.",
        figures.unflushed_bytes,
    )
    yield _gauge(
        "envd_unflushed_commits",
        "Commits that are durable in the journal and not yet in the state.",
        max(0, figures.commits - figures.flushed_commits),
    )
    yield _gauge(
        "envd_journal_queued_bytes",
        "Bytes of commits that wait for the disk.",
        figures.queued_bytes,
    )


def _times(telemetry: Telemetry) -> Iterator[Metric]:
    flush = telemetry.pulse.flush.seconds if telemetry.pulse is not None else 0.0
    yield _gauge(
        "envd_flush_lag_seconds",
        "How old the oldest commit is that the state lacks; half a second is usual.",
        flush,
    )
    syncs = HistogramMetricFamily(
        "envd_journal_sync_duration_seconds",
        "How long the disk took to make a group of commits durable (fdatasync).",
    )
    _observed(syncs, (), telemetry.syncs)
    yield syncs
    if telemetry.pulse is not None:
        lag = HistogramMetricFamily(
            "envd_event_loop_lag_seconds",
            "How much too late the event loop ran a timer; every request waits as long.",
        )
        _observed(lag, (), telemetry.pulse.lag)
        yield lag


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=value)


def _observed(family: HistogramMetricFamily, labels: tuple[str, ...], seen: Histogram) -> None:
    """Add a histogram; its counts are copied at once, so the buckets agree with each other."""
    counts, total, exemplars = seen.counts.copy(), seen.total, seen.exemplars.copy()
    if not any(counts) and labels:
        return
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    below = 0
    for at, bound in enumerate((*seen.bounds, float("inf"))):
        below += counts[at]
        kept = exemplars.get(at)
        label = _number(bound)
        if kept is None:
            buckets.append((label, below))
        else:
            shown = Exemplar({"trace_id": kept.trace_id}, kept.value, kept.time_s)
            buckets.append((label, below, shown))
    family.add_metric(labels, buckets, total)


def _number(bound: float) -> str:
    """As OpenMetrics writes the bounds of buckets: 0.001, 1.0, +Inf."""
    return "+Inf" if bound == float("inf") else str(bound)
