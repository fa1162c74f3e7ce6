"""The text of a scrape, read by prometheus_client's own parser."""

from __future__ import annotations

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def families(text: str) -> dict[str, Metric]:
    """The families of a text in OpenMetrics by name; raises ValueError where it is none."""
    return {one.name: one for one in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]


def names_of(text: str) -> set[str]:
    """The names of all samples, as expressions use them."""
    return {sample.name for family in families(text).values() for sample in family.samples}
