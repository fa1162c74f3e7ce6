"""What a node's reconciler did, in figures; those of bindings are of the ones that it leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SyncFigures:
    """Since the start: `operations` by (action, result), `errors` of whole runs, `requests` by
    (backend, code), `dollars` by backend. Of each binding that this node leads: whether it is in
    step, how many variables differ, and the age in seconds of the oldest change that waits.
    """

    operations: Mapping[tuple[str, str], int] = field(default_factory=dict)
    errors: int = 0
    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    dollars: Mapping[str, float] = field(default_factory=dict)
    in_step: Mapping[str, bool] = field(default_factory=dict)
    drift: Mapping[str, int] = field(default_factory=dict)
    lag_s: Mapping[str, float] = field(default_factory=dict)
