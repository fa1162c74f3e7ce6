"""A read that has the token of a write shows that write, or a later one."""

from __future__ import annotations

from chaos.live.checkers import Evidence, Verdict, some


def check(evidence: Evidence) -> Verdict:
    """Of all reads of the scenario."""
    stale, count = evidence.records.stale, evidence.records.answered.total()
    seen = f"{len(stale)} did not: {some(stale)}" if stale else f"{count} reads"
    return Verdict("who reads with the token of a write sees it", bool(count) and not stale, seen)
