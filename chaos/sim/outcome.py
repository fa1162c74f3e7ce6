"""What a run came to, and how it is told to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

QUALIFYING_S: Final = 60
QUALIFYING_OPERATIONS: Final = 500
QUALIFYING_FAULTS: Final = 3


@dataclass
class Outcome:
    """What a run came to. `violation` is "" where all held."""

    seed: int
    nodes: int
    trace_hash: str = ""
    virtual_s: float = 0.0
    real_s: float = 0.0
    operations: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    logs: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    floors: Counter[str] = field(default_factory=Counter)
    healed: bool = False
    converged_s: float = 0.0
    violation: str = ""
    invariant: str = ""
    last_events: list[str] = field(default_factory=list)

    @property
    def qualifies(self) -> bool:
        """Whether the seed counts: long enough, busy enough, faulty enough, then healed."""
        return (
            self.virtual_s >= QUALIFYING_S
            and self.operations >= QUALIFYING_OPERATIONS
            and len(self.faults) >= QUALIFYING_FAULTS
            and self.healed
        )


def describe(outcome: Outcome) -> Sequence[str]:
    """An outcome in lines for people."""
    speed = outcome.virtual_s / max(outcome.real_s, 1e-9)
    lines = [
        f"seed {outcome.seed}: {outcome.nodes} nodes, trace {outcome.trace_hash}",
        f"  {outcome.virtual_s:.1f} virtual seconds in {outcome.real_s:.2f} s of CPU"
        f" ({speed:.0f} x)",
        f"  {outcome.operations} operations: {_counted(outcome.clients, 'operations')}",
        f"  {sum(outcome.faults.values())} faults: {_counted(outcome.faults)}",
        *forgotten(outcome),
        f"  logged: {_counted(outcome.logs) or 'nothing'}",
    ]
    if outcome.violation:
        lines += [
            f"  VIOLATION of {outcome.invariant}",
            f"    {outcome.violation}",
            "  the last events:",
            *(f"    {line}" for line in outcome.last_events),
        ]
    else:
        kind = "qualifies" if outcome.qualifies else "does not qualify"
        lines.append(f"  all invariants held; equal {outcome.converged_s:.1f} s after the heal;")
        lines.append(f"  the seed {kind}")
    return lines


def forgotten(outcome: Outcome) -> Sequence[str]:
    """What became of the floor, in a line where it was raised."""
    counts, events = outcome.floors, outcome.events
    if not counts["floors"]:
        return ()
    return (
        f"  the floor was raised {counts['floors']} times: {counts['given up']} nodes given up,"
        f" {events['emptied']} began anew; {counts['too late']} commits came too late,"
        f" {counts['salvaged']} of them on record",
    )


def _counted(counts: Counter[str], leave_out: str = "") -> str:
    told = sorted(counts.items())
    return ", ".join(f"{count} {name}" for name, count in told if name != leave_out and count)
