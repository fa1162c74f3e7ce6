"""Times as users read them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(time_ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC, to the millisecond.

    Example: iso_time(0) is "1970-01-01T00:00:00.000Z".
    """
    seconds, millis = divmod(time_ms, 1000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"
