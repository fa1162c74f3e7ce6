"""Every call was accepted: nobody that this is asked of, who writes or reads, got an error.

Where nodes are killed, a write that is no set may be left open: its node died before it answered,
and the client says that it does not know. Those are told, and don't count as failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from chaos.live.checkers import Evidence, Verdict


def check(
    evidence: Evidence, *, what: str, asked: Callable[[str], bool], may_be_open: bool = False
) -> Verdict:
    """`asked` tells of which callers this is asked, by name."""
    ended = [each for each in evidence.records.failed if asked(each.writer)]
    failed = [each for each in ended if not (may_be_open and each.is_open)]
    left_open = len(ended) - len(failed)
    also = f", {left_open} of unknown outcome (no sets)" if left_open else ""
    taken = sum(asked(each.writer) for each in evidence.records.acknowledged)
    taken += sum(count for name, count in evidence.records.answered.items() if asked(name))
    if failed:
        reasons = Counter(each.reason for each in failed)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
        first = min(failed, key=lambda each: each.ended_s)
        counts = f"{len(failed)} failed ({told}), {taken} accepted{also}"
        seen = f"{counts}; the first: {first.message[:160]}"
        return Verdict(what, holds=False, seen=seen)
    return Verdict(what, bool(taken), f"{taken} accepted, none failed{also}")
