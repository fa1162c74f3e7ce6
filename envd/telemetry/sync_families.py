"""The metrics of a node's reconciler. A node that keeps nothing in step has none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric

from envd.telemetry.samples import counter, counters, gauges
from envd.telemetry.sync import SyncFigures


def sync_families(figures: SyncFigures) -> Iterator[Metric]:
    """All of them."""
    yield _by_two(
        "envd_sync_operations",
        "What was done with variables to keep stores in step, by action and result.",
        ("action", "result"),
        figures.operations,
    )
    yield counter(
        "envd_sync_errors",
        "Runs of bindings that could do nothing; `envctl sync status` tells why.",
        figures.errors,
    )
    yield _by_two(
        "envd_backend_requests",
        "Calls to stores, by backend and what became of them: ok, or the reason.",
        ("backend", "code"),
        figures.requests,
    )
    yield counters(
        "envd_backend_cost_dollars",
        "What the calls to stores have cost since the start, at list prices.",
        "backend",
        figures.dollars,
    )
    for name, about, values in (
        ("envd_binding_in_step", "1 where a binding was in step at its last run.", figures.in_step),
        ("envd_binding_drift", "Variables of a binding that differ.", figures.drift),
        (
            "envd_binding_lag_seconds",
            "The age of the oldest change of a binding that is not taken along yet.",
            figures.lag_s,
        ),
    ):
        yield gauges(name, about, "binding", {key: float(value) for key, value in values.items()})


def _by_two(
    name: str, about: str, labels: tuple[str, str], values: Mapping[tuple[str, str], float]
) -> Metric:
    family = CounterMetricFamily(name, about, labels=labels)
    for of, value in sorted(values.items()):
        family.add_metric(of, value)
    return family
