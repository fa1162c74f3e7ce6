"""Writes that a lone node took are marked detached; those of a side with company are not.

Asked of writes that began after the cut and ended before the heal. A rollback that finds nothing
to change makes no commit: it answers with the stamp of an earlier write, and is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chaos.live.checkers import Evidence, Verdict
from chaos.live.workload import Acknowledged


def check(evidence: Evidence) -> list[Verdict]:
    """One verdict for each side of the cut."""
    apart = evidence.apart
    if apart is None:
        return []
    answers = Counter(each.stamp for each in evidence.records.acknowledged)
    within = [
        each
        for each in evidence.records.acknowledged
        if each.began_s >= apart.from_s
        and each.ended_s <= apart.until_s
        and not (each.kind == "rollback" and answers[each.stamp] > 1)
    ]
    verdicts = []
    for side in apart.sides:
        taken = [each for each in within if each.origin in side]
        detached = sum(each.detached for each in taken)
        odd = [each for each in taken if each.detached != (len(side) == 1)]
        seen = f"{detached} of {len(taken)} writes marked detached{_told(odd, apart.from_s)}"
        if len(side) == 1:
            verdicts.append(
                Verdict(
                    "what the lone node took is marked detached",
                    bool(taken) and detached == len(taken),
                    seen,
                )
            )
        else:
            verdicts.append(
                Verdict(
                    f"a side of {len(side)} has two copies of what it took",
                    bool(taken) and not detached,
                    seen,
                )
            )
    return verdicts


def _told(odd: Sequence[Acknowledged], from_s: float) -> str:
    """The first of those that are marked wrongly."""
    if not odd:
        return ""
    first = min(odd, key=lambda each: each.began_s)
    return (
        f"; the first that is not as it should be: a {first.kind} with {first.copies} copies, "
        f"begun {first.began_s - from_s:.3f} s after the cut, "
        f"answered after {first.ended_s - first.began_s:.3f} s"
    )
