"""Many seeds, in several processes: results in the order in which they come in."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from chaos.sim.controls import CONTROLS, SOUND
from chaos.sim.outcome import Outcome, describe
from chaos.sim.run import Run


@dataclass(frozen=True, slots=True)
class Work:
    """What each seed is run with."""

    minutes: float = 1.0
    nodes: int | None = None
    control: str = SOUND.name
    jobs: int = 1
    kinds: tuple[str, ...] = ()
    copies: int = 0
    forgets: bool | None = None


def run_one(work: Work, seed: int) -> Outcome:
    """Run one seed."""
    # What a killed node had begun is never awaited: that is the point.
    warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)
    control = CONTROLS.get(work.control, SOUND)
    run = Run(
        seed, work.minutes, work.nodes, control, work.kinds, work.copies, forgets=work.forgets
    )
    return run.go()


def results(work: Work, seeds: Iterable[int]) -> Iterator[Outcome]:
    """The outcomes of the seeds, as they come."""
    if work.jobs <= 1:
        yield from map(partial(run_one, work), seeds)
        return
    # A fresh interpreter for each: nothing is carried over, and forks of one seed can't differ.
    context = multiprocessing.get_context("spawn")
    with context.Pool(work.jobs, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(partial(run_one, work), seeds)


def run(work: Work, seeds: Iterable[int], tell: Callable[[str], object]) -> list[Outcome]:
    """Run all; `tell` hears one line for each seed, and everything of one that failed."""
    outcomes = []
    for outcome in results(work, seeds):
        outcomes.append(outcome)
        if outcome.violation:
            tell("\n".join(describe(outcome)) + "\n" + _replay(work, outcome) + "\n")
        else:
            tell(_line(outcome) + "\n")
    return sorted(outcomes, key=lambda one: one.seed)


def _replay(work: Work, outcome: Outcome) -> str:
    more = f" --nodes {work.nodes}" if work.nodes else ""
    if work.copies:
        more += f" --copies {work.copies}"
    if work.forgets is not None:
        more += " --forgets" if work.forgets else " --keeps"
    if work.kinds:
        more += f" --faults '{','.join(work.kinds)}'"
    return f"  replay: python -m chaos.sim --seed {outcome.seed} --minutes {work.minutes:g}{more}"


def _line(outcome: Outcome) -> str:
    mark = "held" if outcome.qualifies else "held, does not qualify"
    return (
        f"seed {outcome.seed}: {mark}; {outcome.nodes} nodes, {outcome.virtual_s:.0f} s, "
        f"{outcome.operations} operations, {sum(outcome.faults.values())} faults of "
        f"{len(outcome.faults)} kinds, equal after {outcome.converged_s:.1f} s, "
        f"{outcome.real_s:.1f} s of CPU, {outcome.trace_hash}"
    )


def summary(outcomes: list[Outcome]) -> str:
    """All outcomes in a few lines."""
    failed = [outcome for outcome in outcomes if outcome.violation]
    virtual_s = sum(outcome.virtual_s for outcome in outcomes)
    real_s = sum(outcome.real_s for outcome in outcomes)
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    converged = sorted(outcome.converged_s for outcome in outcomes if outcome.healed)
    lines = [
        f"{len(outcomes)} seeds, {sum(outcome.qualifies for outcome in outcomes)} qualify, "
        f"{len(failed)} failed",
        f"{virtual_s / 60:.0f} virtual minutes in {real_s:.0f} s of CPU "
        f"({virtual_s / max(real_s, 1e-9):.0f} x)",
        f"{sum(outcome.operations for outcome in outcomes)} operations; faults: {told}",
    ]
    floors = sum((outcome.floors for outcome in outcomes), Counter[str]())
    if floors:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(floors.items()))
        began = sum(outcome.events["emptied"] for outcome in outcomes)
        forgetful = sum(outcome.floors["floors"] > 1 for outcome in outcomes)
        lines.append(f"below the floor: {told}, {began} began anew; in {forgetful} seeds it rose")
    if converged:
        half, most = converged[len(converged) // 2], converged[-1]
        lines.append(f"equal after the heal: median {half:.1f} s, at most {most:.1f} s")
    by_invariant = Counter(outcome.invariant for outcome in failed)
    for invariant, count in by_invariant.most_common():
        seeds = [str(outcome.seed) for outcome in failed if outcome.invariant == invariant]
        lines.append(f"FAILED {invariant}: {count} ({', '.join(seeds[:20])})")
    return "\n".join(lines) + "\n"
