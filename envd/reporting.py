"""Wiring of telemetry: where a node's figures come from, and where they go.

Without a collector nothing of opentelemetry is imported; with one it costs a start 0.2 s, which
pass beside the check of the state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import envd
from envd.settings import Settings
from envd.settings.units import Address
from envd.telemetry.destinations import destinations
from envd.telemetry.node import NodeFigures, Telemetry

if TYPE_CHECKING:
    from envd.node.watch import WatchHub
    from envd.storage.store import DurableStore

COORDINATOR_SPANS: Final = {
    name: f"coordinator.{name}"
    for name in (
        "begin_write",
        "delete",
        "history",
        "list",
        "read",
        "rendered",
        "rollback",
        "write",
    )
}
STORE_SPANS: Final = {"append": "store.append"}


def telemetry_of(settings: Settings, environ: Mapping[str, str]) -> Telemetry:
    """The telemetry of a node: metrics always, and pushing what settings or `environ` ask for."""
    observability = settings.observability
    wanted = destinations(observability.tracing_endpoint, observability.metrics_endpoint, environ)
    if not wanted:
        return Telemetry(version=envd.__version__)
    from envd.telemetry.otlp import Origin, OtlpExport

    origin = Origin(envd.__version__, settings.node.name, settings.cluster.name)
    export = OtlpExport(wanted, origin, ratio=observability.trace_sample_ratio)
    return Telemetry(version=envd.__version__, export=export)


def begin(
    telemetry: Telemetry,
    store: DurableStore,
    hub: WatchHub,
    ready: Callable[[], bool],
    data_dir: Path,
) -> None:
    """Let `telemetry` look at the node from now on; on the running loop."""

    def read() -> NodeFigures:
        disk = os.statvfs(data_dir)
        return NodeFigures(
            environments=store.environment_count(),
            variables=store.variable_count(),
            commits=store.last_lsn(),
            flushed_commits=store.flushed_lsn(),
            watches=hub.open_watches,
            ready=ready(),
            storage_bytes=store.storage_bytes(),
            available_bytes=disk.f_bavail * disk.f_frsize,
            unflushed_bytes=store.unflushed_bytes(),
            queued_bytes=store.queued_bytes(),
        )

    telemetry.start(read, lambda: (store.last_lsn(), store.flushed_lsn()))


def metrics_address(settings: Settings) -> Address | None:
    """Where metrics are served besides the HTTP address: its host, so the same rules hold."""
    port = settings.observability.metrics_port
    return None if port is None else Address(settings.node.http.host, port)
