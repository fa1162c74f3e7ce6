"""All figures of a node in one place, and their text for whoever scrapes it.

A server takes a `Telemetry` and counts in it; the daemon tells it where the node's own
figures come from. One that nobody tells anything, as in tests, works too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from envd.telemetry.cluster import ClusterFigures
from envd.telemetry.pulse import Pulse
from envd.telemetry.requests import Histogram, Requests, Spans
from envd.telemetry.sync import SyncFigures

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

T = TypeVar("T")
SYNC_BOUNDS_S: Final = (
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0,
)  # fmt: skip
"""An fdatasync takes 0.1 ms on good flash, 10 ms on a rotating disk."""
PROPAGATION_BOUNDS_S: Final = (
    1e-3, 2e-3, 3e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
)  # fmt: skip
"""To a peer in the same room it takes 2 ms, over an ocean 0.1 s, after an outage minutes."""
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What a node is at one moment; `commits` and `flushed_commits` count from its creation."""

    environments: int
    variables: int
    commits: int
    flushed_commits: int
    watches: int
    open_conflicts: int
    ready: bool
    storage_bytes: int
    available_bytes: int
    unflushed_bytes: int
    queued_bytes: int


class Export(Protocol):
    """What pushes traces and metrics to a collector."""

    @property
    def spans(self) -> Spans | None:
        """Makes spans, None where no traces are sent."""
        ...

    @property
    def failures(self) -> int:
        """How many batches were lost."""
        ...

    def traced(self, inner: T, names: Mapping[str, str]) -> T:
        """`inner`, whose methods in `names` run in spans of these names."""
        ...

    def start(self, telemetry: Telemetry) -> None:
        """Begin to push `telemetry`'s figures, where metrics are sent."""
        ...

    async def close(self) -> None:
        """Send what is left, for at most a few seconds."""
        ...


class Telemetry:
    """The figures of one node; `export` pushes them, None where nobody asked for it."""

    def __init__(self, *, version: str = "", export: Export | None = None) -> None:
        self.version = version
        self.requests = Requests(None if export is None else export.spans)
        self.syncs = Histogram(SYNC_BOUNDS_S)
        self.propagation = Histogram(PROPAGATION_BOUNDS_S)
        self.cluster: ClusterFigures | None = None
        self.fault_counts: list[Callable[[], int]] = []
        self.sync: Callable[[], SyncFigures | None] = lambda: None
        self.pulse: Pulse | None = None
        self._export = export
        self._read: Callable[[], NodeFigures] | None = None
        self._look_at_cluster: Callable[[], ClusterFigures] | None = None
        self._registry: CollectorRegistry | None = None

    @property
    def export_failures(self) -> int:
        """How many batches the collector did not take."""
        return 0 if self._export is None else self._export.failures

    def start(
        self,
        read: Callable[[], NodeFigures],
        positions: Callable[[], tuple[int, int]],
        cluster: Callable[[], ClusterFigures],
    ) -> None:
        """Begin, on the running loop.

        `read` gives the node's figures, from any thread; `positions` the last lsn and the
        flushed one, and `cluster` the figures of the cluster, on the loop, cheaply.
        """
        self._read = read
        self._look_at_cluster = cluster
        self.look()
        self.pulse = Pulse(positions, also=self.look)
        self.pulse.start()
        if self._export is not None:
            self._export.start(self)

    def look(self) -> None:
        """See how the cluster is now; on the loop."""
        if self._look_at_cluster is not None:
            self.cluster = self._look_at_cluster()

    def propagated(self, seconds: float) -> None:
        """A peer has synced a batch of commits so long after they were durable here.

        The loop's own time counts milliseconds: without the error of their difference, such a
        one falls into the bucket that it bounds.
        """
        self.propagation.observe(round(seconds, 4))

    def traced(self, inner: T, names: Mapping[str, str]) -> T:
        """`inner`, whose methods in `names` run in spans of these names where traces are sent."""
        return inner if self._export is None else self._export.traced(inner, names)

    def node(self) -> NodeFigures | None:
        """The node's figures, None before `start` and where they can't be had now."""
        if self._read is None:
            return None
        try:
            return self._read()
        except OSError as error:
            _log.warning("telemetry.unreadable", extra={"error": type(error).__name__})
            return None

    def registry(self) -> CollectorRegistry:
        """All figures as families of metrics; the first call imports what makes them."""
        if self._registry is None:
            from envd.telemetry.families import registry_of

            self._registry = registry_of(self)
        return self._registry

    def text(self, accept: str) -> tuple[bytes, str]:
        """The figures as text, and its media type: OpenMetrics where `accept` names that.

        From any thread; it takes milliseconds, the first time a tenth of a second.
        """
        registry = self.registry()
        if OPENMETRICS.partition(";")[0] in accept.lower():
            from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

            return openmetrics(registry), OPENMETRICS  # type: ignore[no-untyped-call]
        from prometheus_client.exposition import generate_latest

        return generate_latest(registry), PLAIN

    async def close(self) -> None:
        """Stop, and send what is left."""
        if self.pulse is not None:
            self.pulse.stop()
        if self._export is not None:
            await self._export.close()
