"""envd beside other stores: the same work, payload and durability, on this machine, now.

    python -m bench.compare --peer etcd --peer redis-always --reps 3 [--case NAME ...] [--quick]

Every repetition starts each server afresh on loopback, with its data in a temporary directory
on the same disk, one after the other: A B C A B C. So a slow minute of the machine hits all of
them. The figures are medians with their range, and the ratio envd/peer is what carries over to
other machines. Then each server is filled with a million environments, once (--large).

The plain rows come from a compiled generator where it is installed; "load by" says which. A row
where the load generator, which shares the processors with the server, was the limit says so:
there the faster server could do more. What is not installed, does not fit or fails is named as
not run, and why; nothing is installed from here. Ctrl-C ends the servers and shows what there
is so far.

The table is printed; JSON and a plot go to bench/results/ too. docs/benchmarks.md says how to
read them. The exit code is 1 where a case failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench import compiled
from bench.cases import AIMS, ALL_CASES, CASES, DEFAULT, QUICK, Repetition, Scale, reason
from bench.figures import OURS, Sample
from bench.large import ENVIRONMENTS, LARGE_CASES, SETS_S, Large, too_large
from bench.running import ended_by_signals, interruptible, machine, report, say
from bench.servers import SERVERS, Missing, calibrate

BUDGET_S: Final = 30 * 60.0
"""What a run may take: near its end, large cases of the peers are left out."""
LARGE_LEAST_S: Final = 120.0
LARGE_OURS_S: Final = 15 * 60.0


@dataclass(slots=True)
class Run:
    """What a comparison has so far: its samples, and why others are not there."""

    home: Path
    arguments: argparse.Namespace
    scale: Scale
    samples: list[Sample] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    begun_s: float = field(default_factory=time.monotonic)
    failed: bool = False
    stopped: bool = False

    def everything(self, peers: Sequence[str], *, fast: bool) -> None:
        """All repetitions, then the large cases."""
        small, large = self._chosen()
        for repetition in range(self.arguments.reps if small else 0):
            for peer in peers:
                say(f"repetition {repetition + 1} of {self.arguments.reps}: {peer}")
                self._repetition(f"{peer}-{repetition}", peer, small, fast=fast)
        for peer in peers if large else ():
            left_s = self._left_s(peer)
            why = too_large(peer, self.arguments.large, self.home)
            if not why and left_s < LARGE_LEAST_S:
                why = f"the run may take {BUDGET_S / 60:.0f} minutes, and few are left"
            if why:
                self._leave_out(f"{peer}: large", why)
                continue
            say(f"{self.arguments.large:,} environments: {peer}")
            self._large(peer, large, left_s)

    def _left_s(self, peer: str) -> float:
        """How long its large cases may take: envd's are what the others are compared with."""
        left_s = self.begun_s + BUDGET_S - time.monotonic()
        return max(left_s, LARGE_OURS_S) if peer == OURS else left_s

    def _chosen(self) -> tuple[Sequence[str], Sequence[str]]:
        """The cases of the repetitions and the large ones."""
        wanted = self.arguments.case or ALL_CASES
        large = LARGE_CASES if self.arguments.large else ()
        return [name for name in CASES if name in wanted], [
            name for name in large if name in wanted
        ]

    def _repetition(self, place: str, peer: str, cases: Sequence[str], *, fast: bool) -> None:
        server = SERVERS[peer](self.home / place)
        repetition = Repetition(server, self.scale, cases, compiled=fast)
        try:
            ended_by_signals(repetition.run())
        finally:
            self.samples += repetition.samples
            shutil.rmtree(server.home, ignore_errors=True)
        for case, why in server.client.lacks.items():
            if any(name.startswith(case) for name in cases):
                self.not_run.setdefault(f"{peer}: {case}", why)
        for case, why in repetition.failures.items():
            self.failed = True
            self._leave_out(f"{peer}: {case}", f"FAILED: {why}")

    def _large(self, peer: str, cases: Sequence[str], limit_s: float) -> None:
        server = SERVERS[peer](self.home / f"{peer}-large")
        large = Large(server, self.arguments.large, self.arguments.large_seconds)
        try:
            ended_by_signals(large.run(limit_s))
        except TimeoutError:
            self.failed = self.failed or peer == OURS
            self._leave_out(f"{peer}: the rest of large", f"not done in {limit_s / 60:.0f} minutes")
        except Exception as error:  # noqa: BLE001 - one peer must not end the others; it is named
            self.failed = True
            self._leave_out(f"{peer}: the rest of large", f"FAILED: {reason(error)}")
        finally:
            self.samples += large.samples(cases)
            shutil.rmtree(server.home, ignore_errors=True)

    def _leave_out(self, what: str, why: str) -> None:
        self.not_run[what] = why
        say(f"NOT RUN: {what}: {why}")


def main() -> int:
    arguments = _arguments()
    scale = QUICK if arguments.quick else DEFAULT
    if arguments.environments:
        scale = replace(scale, environments=arguments.environments)
    with tempfile.TemporaryDirectory(prefix="envd-bench-", dir=arguments.dir) as scratch:
        run = Run(Path(scratch), arguments, scale)
        peers, absent = _present([OURS, *dict.fromkeys(arguments.peer)], run.home)
        run.not_run.update(absent)
        lacking = compiled.missing(peers)
        for name, why in lacking.items():
            run.not_run[name] = f"{why}; the plain rows come from Python instead"
            say(f"NOT RUN: {name}: {run.not_run[name]}")
        before = calibrate(run.home)
        with interruptible(run):
            run.everything(peers, fast=not lacking)
        about = _about(run, (before, calibrate(run.home)))
    few = arguments.large != ENVIRONMENTS
    aims = {case: AIMS[case] for case in AIMS if not (few and case in LARGE_CASES)}
    report("compare", run.samples, about, aims)
    return 130 if run.stopped else int(run.failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = [name for name in SERVERS if name != OURS]
    parser.add_argument("--peer", action="append", default=[], choices=others, help="beside whom")
    parser.add_argument("--reps", type=int, default=3, help="repetitions (3)")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        choices=ALL_CASES,
        metavar="NAME",
        help=f"only these: {', '.join(ALL_CASES)}",
    )
    parser.add_argument("--quick", action="store_true", help="less of each, for a first look")
    parser.add_argument("--environments", type=int, default=0, help="how many are imported")
    parser.add_argument(
        "--large",
        type=int,
        nargs="?",
        const=ENVIRONMENTS,
        default=None,
        metavar="N",
        help=f"environments of the large cases ({ENVIRONMENTS:,}, with --quick 0: none)",
    )
    parser.add_argument(
        "--large-seconds", type=float, default=SETS_S, help="how long they are written to (60)"
    )
    parser.add_argument("--dir", default=None, help="where the data goes (the temporary directory)")
    arguments = parser.parse_args()
    if arguments.large is None:
        arguments.large = 0 if arguments.quick else ENVIRONMENTS
    if arguments.reps < 1 or min(arguments.environments, arguments.large) < 0:
        parser.error("--reps is at least 1, --environments and --large are not negative")
    if arguments.large_seconds <= 0:
        parser.error("--large-seconds is above 0")
    return arguments


def _present(wanted: Sequence[str], home: Path) -> tuple[list[str], Mapping[str, str]]:
    """Which of the peers are here, and why the others are not."""
    present: list[str] = []
    missing: dict[str, str] = {}
    for name in wanted:
        try:
            SERVERS[name](home / "unused")
            present.append(name)
        except Missing as why:
            missing[name] = str(why)
            say(f"NOT RUN: {name}: {why}")
    return present, missing


def _about(run: Run, syncs: tuple[tuple[float, float], tuple[float, float]]) -> dict[str, object]:
    return {
        **machine(),
        "repetitions": run.arguments.reps,
        "imported_environments": run.scale.environments,
        "large_environments": run.arguments.large,
        "seconds_a_case": run.scale.seconds,
        "not_run": dict(run.not_run),
        "fdatasync_ms_median_p99_before": syncs[0],
        "fdatasync_ms_median_p99_after": syncs[1],
    }


if __name__ == "__main__":
    sys.exit(main())
