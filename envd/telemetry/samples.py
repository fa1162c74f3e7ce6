"""Making families of metrics of numbers and histograms."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar

from envd.telemetry.requests import Histogram


def gauge(name: str, about: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, about, value=value)


def counter(name: str, about: str, value: float) -> Metric:
    """A counter without labels; its sample is `name` with `_total`."""
    return CounterMetricFamily(name, about, value=value)


def gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge for each value of one label."""
    family = GaugeMetricFamily(name, about, labels=(label,))
    for of, value in values.items():
        family.add_metric((of,), value)
    return family


def counters(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter for each value of one label."""
    family = CounterMetricFamily(name, about, labels=(label,))
    for of, value in values.items():
        family.add_metric((of,), value)
    return family


def histogram(name: str, about: str, seen: Histogram) -> Metric:
    """A histogram without labels."""
    family = HistogramMetricFamily(name, about)
    observed(family, (), seen)
    return family


def observed(family: HistogramMetricFamily, labels: tuple[str, ...], seen: Histogram) -> None:
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
