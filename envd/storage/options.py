"""Sizes and times of the durable store."""

from __future__ import annotations

from dataclasses import dataclass, field

from envd.core.history import Retention
from envd.storage.collecting import ROWS as COLLECTED_ROWS
from envd.storage.journal import DEFAULT_SEGMENT_BYTES
from envd.storage.purge import ROWS as PURGED_ROWS


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Sizes and times of the store; the settings of `[storage]`."""

    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    keep_segments: int = 4
    map_size_bytes: int = 256 << 30
    memtable_bytes: int = 64 << 20
    journal_queue_bytes: int = 64 << 20
    flush_interval_ms: int = 2_000
    purged_rows: int = PURGED_ROWS
    collected_rows: int = COLLECTED_ROWS
    retention: Retention = field(default_factory=Retention)
