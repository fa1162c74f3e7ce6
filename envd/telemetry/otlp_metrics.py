"""Families of metrics, as prometheus_client has them -> opentelemetry's data model.

The names stay as they are, so a dashboard works whichever way the figures came. Sums are
cumulative, from the start of the process on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
_Labels = tuple[tuple[str, str], ...]


def metrics_data(registry: CollectorRegistry, resource: Resource, began_ns: int) -> MetricsData:
    """All that a registry collects now; `began_ns` is when its counting began, in Unix time."""
    now_ns = time.time_ns()
    metrics = [_metric(family, began_ns, now_ns) for family in registry.collect()]
    scope = ScopeMetrics(InstrumentationScope("envd"), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, began_ns: int, now_ns: int) -> Metric:
    unit = next((unit for end, unit in _UNITS.items() if family.name.endswith(end)), "")
    if family.type == "histogram":
        points = list(_histograms(family.samples, began_ns, now_ns))
        return Metric(family.name, family.documentation, unit, HistogramData(points, _CUMULATIVE))
    numbers = [
        NumberDataPoint(dict(one.labels), began_ns, now_ns, one.value) for one in family.samples
    ]
    if family.type == "counter":
        name = f"{family.name}_total"
        return Metric(name, family.documentation, unit, Sum(numbers, _CUMULATIVE, True))
    name = f"{family.name}_info" if family.type == "info" else family.name
    return Metric(name, family.documentation, unit, Gauge(numbers))


def _histograms(
    samples: Iterable[Sample], began_ns: int, now_ns: int
) -> Iterator[HistogramDataPoint]:
    """One point for each set of labels; the buckets' counts are no longer added up."""
    bounds: dict[_Labels, list[tuple[float, float]]] = {}
    totals: dict[_Labels, float] = {}
    for sample in samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        if sample.name.endswith("_bucket"):
            bounds.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            totals[labels] = sample.value
    for labels, buckets in bounds.items():
        below = [0, *(int(count) for _, count in buckets)]
        yield HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=below[-1],
            sum=totals.get(labels, 0.0),
            bucket_counts=[after - before for before, after in pairwise(below)],
            explicit_bounds=[bound for bound, _ in buckets[:-1]],
            min=None,  # type: ignore[arg-type]  # not kept; the encoder leaves it out then
            max=None,  # type: ignore[arg-type]
        )
