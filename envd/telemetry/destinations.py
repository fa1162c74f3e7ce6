"""Where traces and metrics are pushed: the settings, else opentelemetry's own variables.

Cheap to import: it decides whether the SDK is needed at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_OFF: Final = "none"
_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
DEFAULT_INTERVAL_S: Final = 60.0
_SHORTEST_INTERVAL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Destinations:
    """Whole URLs, "" for what is not pushed; metrics go every `interval_s`.

    `own_timeout`: the environment says how long a try may take.
    """

    traces: str = ""
    metrics: str = ""
    own_timeout: bool = False
    interval_s: float = DEFAULT_INTERVAL_S

    def __bool__(self) -> bool:
        """Tell whether anything is pushed."""
        return bool(self.traces or self.metrics)


def shown(url: str) -> str:
    """A URL for the log: without a user, a password, a query, which may hold a credential.

    Example: shown("https://u:p@host:1/v1/traces?key=k") is "https://host:1/v1/traces".
    """
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    bare = place.rpartition("@")[2] + slash + path
    return scheme + mark + bare.partition("?")[0].partition("#")[0]


def destinations(
    tracing_endpoint: str | None, metrics_endpoint: str | None, environ: Mapping[str, str]
) -> Destinations:
    """Where to push; the endpoints are those of the settings.

    A setting may be the collector's address or the whole URL: `/v1/traces` is added to an
    address without a path. Of the variables, the specific one (_TRACES_ENDPOINT) is a whole
    URL and the general one an address, as opentelemetry has it; a setting beats both.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Destinations()
    timeouts = ("TIMEOUT", "TRACES_TIMEOUT", "METRICS_TIMEOUT")
    return Destinations(
        _destination("traces", tracing_endpoint, environ),
        _destination("metrics", metrics_endpoint, environ),
        any(environ.get(_PREFIX + name) for name in timeouts),
        _interval_s(environ.get(_INTERVAL, "")),
    )


def _interval_s(text: str) -> float:
    """The interval that the environment gives in milliseconds; the default for no number."""
    try:
        interval_s = float(text) / 1000
    except ValueError:
        return DEFAULT_INTERVAL_S
    return interval_s if interval_s >= _SHORTEST_INTERVAL_S else DEFAULT_INTERVAL_S


def _destination(signal: str, endpoint: str | None, environ: Mapping[str, str]) -> str:
    if endpoint:
        return _whole(endpoint, signal)
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == _OFF:
        return ""
    if specific := environ.get(f"{_PREFIX}{signal.upper()}_ENDPOINT", "").strip():
        return specific
    general = environ.get(f"{_PREFIX}ENDPOINT", "").strip()
    return f"{general.rstrip('/')}/v1/{signal}" if general else ""


def _whole(endpoint: str, signal: str) -> str:
    _, _, place = endpoint.partition("://")
    _, _, path = place.partition("/")
    return endpoint if path else f"{endpoint.rstrip('/')}/v1/{signal}"
