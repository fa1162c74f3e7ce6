"""envd beside other stores: the same work, payload and durability, on this machine, now.

    python -m bench.compare --peer etcd --peer redis-always --reps 3 [--case NAME ...] [--quick]

Every repetition starts each server afresh on loopback, with its data in a temporary directory
on the same disk, one after the other: A B C A B C. So a slow minute of the machine hits all of
them. The figures are medians with their range, and the ratio envd/peer is what carries over to
other machines. A peer that is not installed is named as not run. A row where the load
generator, which shares the processors with the server, was the limit says so: there the faster
server could do more.

The table is printed; JSON and a plot go to bench/results/ too.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import uvloop

from bench.cases import AIMS, CASES, DEFAULT, QUICK, Repetition, Scale
from bench.figures import OURS, Sample, document, plot, rows, table
from bench.servers import SERVERS, Missing, calibrate

RESULTS: Final = Path(__file__).parent / "results"


def main() -> int:
    arguments = _arguments()
    scale = QUICK if arguments.quick else DEFAULT
    if arguments.environments:
        scale = Scale(scale.seconds, arguments.environments, scale.events, scale.commands)
    with tempfile.TemporaryDirectory(prefix="envd-bench-", dir=arguments.dir) as scratch:
        home = Path(scratch)
        peers, missing = _present([OURS, *dict.fromkeys(arguments.peer)], home)
        before = calibrate(home)
        samples: list[Sample] = []
        for repetition in range(arguments.reps):
            for peer in peers:
                _say(f"repetition {repetition + 1} of {arguments.reps}: {peer}")
                server = SERVERS[peer](home / f"{peer}-{repetition}")
                samples += uvloop.run(Repetition(server, scale, arguments.case).run())
        about = _about(arguments, scale, missing, (before, calibrate(home)))
    _report(samples, about)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = [name for name in SERVERS if name != OURS]
    parser.add_argument("--peer", action="append", default=[], choices=others, help="beside whom")
    parser.add_argument("--reps", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--case", action="append", default=[], choices=CASES, help="only these")
    parser.add_argument("--quick", action="store_true", help="less of each, for a first look")
    parser.add_argument("--environments", type=int, default=0, help="how many are imported")
    parser.add_argument("--dir", default=None, help="where the data goes (the temporary directory)")
    arguments = parser.parse_args()
    if arguments.reps < 1 or arguments.environments < 0:
        parser.error("--reps is at least 1 and --environments not negative")
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
            _say(f"NOT RUN: {name}: {why}")
    return present, missing


def _about(
    arguments: argparse.Namespace,
    scale: Scale,
    missing: Mapping[str, str],
    syncs: tuple[tuple[float, float], tuple[float, float]],
) -> dict[str, object]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "repetitions": arguments.reps,
        "imported_environments": scale.environments,
        "seconds_a_case": scale.seconds,
        "not_run": dict(missing),
        "fdatasync_ms_median_p99_before": syncs[0],
        "fdatasync_ms_median_p99_after": syncs[1],
        "processors": os.cpu_count(),
        "load_average_after": os.getloadavg(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _report(samples: Sequence[Sample], about: Mapping[str, object]) -> None:
    made = rows(samples, AIMS)
    text = "\n".join([*(f"{key}: {said}" for key, said in about.items()), "", table(made)])
    not_run = about["not_run"]
    if isinstance(not_run, dict):
        text += "".join(f"\nNOT RUN: {name}: {why}" for name, why in not_run.items())
    RESULTS.mkdir(exist_ok=True)
    stem = f"compare-{str(about['time']).replace(':', '')}"
    (RESULTS / f"{stem}.txt").write_text(text + "\n")
    (RESULTS / f"{stem}.json").write_text(document(made, about, samples))
    (RESULTS / f"{stem}.svg").write_text(plot(made))
    print(text)
    _say(f"written: bench/results/{stem}.txt, .json and .svg")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
