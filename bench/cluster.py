"""Three nodes of envd beside three of etcd: the same work, on this machine, now.

    python -m bench.cluster [--reps 3] [--case NAME ...] [--quick]

Each repetition starts both afresh, three processes on loopback with a data directory each, one
store after the other. A write of envd counts once two nodes have synced it, as one of etcd
does; those answered with fewer copies do not count, and are said. Then, of envd alone: what it
takes to find a few differing environments among 100,000.

The table is printed; JSON and a plot go to bench/results/ too. docs/benchmarks.md says how to
read them. The exit code is 1 where a case failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.cases import reason
from bench.cluster_cases import AIMS, CASES, DEFAULT, QUICK, ClusterRepetition, expected_s
from bench.figures import Sample
from bench.finding import ENTRIES, FINDING, FINDING_S, Finding
from bench.running import ended_by_signals, interruptible, machine, report, say
from bench.servers import Missing, calibrate
from bench.trio import TRIOS


@dataclass(slots=True)
class ClusterRun:
    """What a run has so far: its samples, and why others are not there."""

    home: Path
    arguments: argparse.Namespace
    samples: list[Sample] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    stopped: bool = False

    @property
    def cases(self) -> Sequence[str]:
        """The chosen ones that need nodes."""
        return [name for name in CASES if name in (self.arguments.case or CASES)]

    def everything(self) -> None:
        """All repetitions, then what needs no nodes."""
        scale = QUICK if self.arguments.quick else DEFAULT
        if self.arguments.environments:
            scale = replace(scale, environments=self.arguments.environments)
        peers = self._present() if self.cases else []
        finding = FINDING in (self.arguments.case or [FINDING])
        seconds = expected_s(scale, self.cases, len(peers), self.arguments.reps) if peers else 0.0
        seconds += self._entries() / ENTRIES * FINDING_S if finding else 0.0
        say(f"this takes about {seconds / 60:.1f} minutes")
        for repetition in range(self.arguments.reps):
            for peer in peers:
                say(f"repetition {repetition + 1} of {self.arguments.reps}: three of {peer}")
                trio = TRIOS[peer](self.home / f"{peer}-{repetition}")
                one = ClusterRepetition(trio, scale, self.cases)
                try:
                    ended_by_signals(one.run())
                finally:
                    self.samples += one.samples
                    self._clear(trio.home)
                for case, why in one.failures.items():
                    self._fail(f"{peer}: {case}", why)
        if finding:
            self._find()

    def _clear(self, home: Path) -> None:
        if not self.arguments.keep:
            shutil.rmtree(home, ignore_errors=True)

    def _entries(self) -> int:
        return ENTRIES // 50 if self.arguments.quick else ENTRIES

    def _find(self) -> None:
        say(f"differences among {self._entries():,} environments")
        finding = Finding(self.home / "finding", self._entries())
        try:
            ended_by_signals(finding.run())
        except Exception as error:  # noqa: BLE001 - what was measured before is still told
            self._fail(FINDING, reason(error))
        finally:
            self.samples += finding.samples
            self._clear(self.home / "finding")

    def _present(self) -> Sequence[str]:
        present = []
        for name, make in TRIOS.items():
            try:
                make(self.home / "unused")
                present.append(name)
            except Missing as why:
                self.not_run[name] = str(why)
                say(f"NOT RUN: {name}: {why}")
        return present

    def _fail(self, what: str, why: str) -> None:
        self.failed = True
        self.not_run[what] = f"FAILED: {why}"
        say(f"NOT RUN: {what}: {self.not_run[what]}")


def main() -> int:
    arguments = _arguments()
    begun = time.monotonic()
    logging.getLogger("envd").setLevel(logging.ERROR)  # it tells of each difference it is given
    scratch = Path(tempfile.mkdtemp(prefix="envd-bench-", dir=arguments.dir))
    try:
        run = ClusterRun(scratch, arguments)
        before = calibrate(scratch)
        with interruptible(run):
            run.everything()
        about = {
            **machine(),
            "repetitions": arguments.reps,
            "took_s": round(time.monotonic() - begun),
            "fdatasync_ms_median_p99_before": before,
            "fdatasync_ms_median_p99_after": calibrate(scratch),
            "not_run": dict(run.not_run),
        }
    finally:
        if arguments.keep:
            say(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    report("cluster", run.samples, about, AIMS)
    return 130 if run.stopped else int(run.failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*CASES, FINDING)
    parser.add_argument("--reps", type=int, default=3, help="repetitions (3)")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        choices=names,
        metavar="NAME",
        help=f"only these: {', '.join(names)}",
    )
    parser.add_argument("--quick", action="store_true", help="less of each, for a first look")
    parser.add_argument("--environments", type=int, default=0, help="how many are imported")
    parser.add_argument("--dir", default=None, help="where the data goes (the temporary directory)")
    parser.add_argument("--keep", action="store_true", help="leave data and logs there")
    arguments = parser.parse_args()
    if arguments.reps < 1 or arguments.environments < 0:
        parser.error("--reps is at least 1, --environments is not negative")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
