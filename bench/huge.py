"""Twenty million variables in a cluster of three, and a fourth node that joins them.

    python -m bench.huge [--environments 1000000] [--variables 20] [--quick]

Three real nodes on loopback, each with everything, are filled through all three at once. Then
clients read and write while a fourth node joins and pulls all that there is. It tells how the rate
holds, what the processes hold and whether that grows with the data, what readers and writers feel
of the join, how long it takes, and whether all four hold the same in the end.

The table is printed; JSON, with what was seen over time, and a plot go to bench/results/ too.
docs/benchmarks.md says how to read them. The exit code is 1 where something failed, 2 where this
machine is too small, 130 after Ctrl-C, which ends the nodes and shows what there is so far.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.cases import reason
from bench.huge_cases import AIMS, FEW, OF_MANY, Huge, Size, expected_s, too_large
from bench.running import ended_by_signals, interruptible, machine, report, say
from bench.servers import calibrate

ENVIRONMENTS: Final = 1_000_000
QUICK_ENVIRONMENTS: Final = 2_000
VARIABLES: Final = 20
MAX_VARIABLES: Final = 100
TOO_SMALL: Final = 2


@dataclass(slots=True)
class HugeRun:
    """What went wrong, and whether it was stopped."""

    not_run: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    stopped: bool = False

    def run(self, huge: Huge) -> None:
        """All of it; what was measured before a failure is still told."""
        try:
            ended_by_signals(huge.run())
        except Exception as error:  # noqa: BLE001 - it is named
            self.failed = True
            self.not_run["the rest"] = f"FAILED: {reason(error)}"
            say(f"NOT RUN: the rest: {self.not_run['the rest']}")


def main() -> int:
    arguments = _arguments()
    size = _size(arguments)
    begun = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="envd-bench-", dir=arguments.dir))
    run = HugeRun()
    try:
        if why := too_large(size, scratch):
            say(f"{size.variables:,} variables are too many for this machine: {why}")
            say("choose fewer --environments, or another disk with --dir DIRECTORY")
            return TOO_SMALL
        say(f"{size.environments:,} environments, {size.variables:,} variables in each of 4 nodes")
        say(f"this takes about {expected_s(size) / 60:.0f} minutes")
        before = calibrate(scratch)
        huge = Huge(scratch, size)
        with interruptible(run):
            run.run(huge)
        about = {
            **machine(),
            "environments": size.environments,
            "variables": size.variables,
            "took_s": round(time.monotonic() - begun),
            "fdatasync_ms_median_p99_before": before,
            "fdatasync_ms_median_p99_after": calibrate(scratch),
            "not_run": run.not_run,
        }
    finally:
        if arguments.keep:
            say(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    few = size.environments < FEW
    aims = {case: aim for case, aim in AIMS.items() if not (few and case in OF_MANY)}
    report("huge", huge.samples, about, aims, huge.series)
    return 130 if run.stopped else int(run.failed)


def _size(arguments: argparse.Namespace) -> Size:
    quick = arguments.quick
    environments = arguments.environments or (QUICK_ENVIRONMENTS if quick else ENVIRONMENTS)
    names = tuple(f"VARIABLE_{n:02}" for n in range(arguments.variables))
    return Size(environments, names, phase_s=3.0 if quick else 60.0, look_s=1.0 if quick else 5.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments", type=int, default=0, help=f"how many ({ENVIRONMENTS:,})")
    parser.add_argument(
        "--variables", type=int, default=VARIABLES, help=f"of each environment ({VARIABLES})"
    )
    parser.add_argument("--quick", action="store_true", help="few, for a first look")
    parser.add_argument("--dir", default=None, help="where the data goes (the temporary directory)")
    parser.add_argument("--keep", action="store_true", help="leave data and logs there")
    arguments = parser.parse_args()
    if arguments.environments < 0 or not 1 <= arguments.variables <= MAX_VARIABLES:
        parser.error(f"--environments is not negative, --variables is from 1 to {MAX_VARIABLES}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
