"""Nothing acknowledged is lost: its commit is in the history that every node tells.

Excused is a write with one copy whose node then lost its disk, and one that retention folded into
the base of a trimmed history (older than all that is told of it).
"""

from __future__ import annotations

from chaos.live.checkers import Evidence, Verdict, some
from chaos.live.reading import Whole
from chaos.live.workload import Acknowledged

WHAT = "nothing acknowledged is lost"


def check(evidence: Evidence) -> Verdict:
    """Look for every acknowledged write on every node."""
    writes = [each for each in evidence.records.acknowledged if not _excused(each, evidence)]
    lost: list[str] = []
    for name, whole in evidence.wholes.items():
        told = {environment: whole.stamps(environment) for environment in whole.histories}
        lost += [
            f"{name} lacks {write.stamp} of {write.environment} (acknowledged by {write.copies})"
            for write in writes
            if write.stamp not in told.get(write.environment, frozenset())
            and not _trimmed(write, whole)
        ]
    excused = len(evidence.records.acknowledged) - len(writes)
    also = f"; {excused} had their only copy on a disk that was lost" if excused else ""
    if lost:
        return Verdict(WHAT, holds=False, seen=f"{len(lost)} missing: {some(lost)}{also}")
    nodes = len(evidence.wholes)
    return Verdict(WHAT, bool(writes), f"{len(writes)} writes found on {nodes} nodes{also}")


def _excused(write: Acknowledged, evidence: Evidence) -> bool:
    """One copy, and its disk was lost after it."""
    lost_s = evidence.lost_disks.get(write.origin)
    if lost_s is None or write.copies > 1 or write.began_s > lost_s:
        return False
    return not any(
        write.stamp in whole.stamps(write.environment) for whole in evidence.wholes.values()
    )


def _trimmed(write: Acknowledged, whole: Whole) -> bool:
    if write.environment not in whole.trimmed:
        return False
    return write.stamp < min(whole.stamps(write.environment), default=write.stamp + "0")
