"""What a scenario came to; the report is written of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.live.checkers import Verdict


@dataclass(frozen=True, slots=True)
class Curve:
    """How far the nodes had come at a time after the heal: `shown[k]` is the share of the
    acknowledged writes that at least k + 1 nodes showed."""

    at_s: float
    shown: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """What was done, when after the beginning of the scenario, and the time of day (UTC)."""

    at_s: float
    clock: str
    what: str


@dataclass
class Outcome:
    """`could_not_run` says why it did not run, "" where it did. Times are in seconds.

    `shown_s`: how long after the last fault was mended every node showed every write that was
    acknowledged before. `equal_s`: how long after that, and after the last write, the reading began
    that found the same revisions and conflicts on all nodes. None for never. `arrivals_s`: by the
    node that took writes before the mending and the node that showed them, how long after it the
    last of them was shown there.
    """

    scenario: str
    about: str
    network: str = ""
    nodes: int = 0
    took_s: float = 0.0
    could_not_run: str = ""
    acknowledged: int = 0
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    not_admitted: int = 0
    detached: int = 0
    backlog: int = 0
    conflicts: int = 0
    shown_s: float | None = None
    equal_s: float | None = None
    latencies_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    verdicts: list[Verdict] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    curve: Sequence[Curve] = ()
    arrivals_s: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether it ran and every verdict holds."""
        return not self.could_not_run and all(verdict.holds for verdict in self.verdicts)


def curve(
    stamps: Sequence[str], seen: Sequence[dict[str, float]], healed_s: float, *, before_s: float
) -> list[Curve]:
    """The curve of these writes from `before_s` before the heal until nothing changes any more.

    `seen` has, for each node, when it first showed each stamp.
    """
    if not stamps:
        return []
    times = [sorted(node[stamp] for node in seen if stamp in node) for stamp in stamps]
    by_count = [
        sorted(each[count] - healed_s for each in times if len(each) > count)
        for count in range(len(seen))
    ]
    last_s = max((each[-1] for each in by_count if each), default=0.0)
    steps = 240
    end_s = max(last_s, 0.1) * 1.1
    return [
        Curve(at_s, tuple(_share(each, at_s, len(stamps)) for each in by_count))
        for at_s in (-before_s + (end_s + before_s) * step / steps for step in range(steps + 1))
    ]


def _share(moments: Sequence[float], at_s: float, of: int) -> float:
    return sum(each <= at_s for each in moments) / of
