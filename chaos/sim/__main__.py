"""`python -m chaos.sim`: run seeds, replay one, prove that they replay, try the controls."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chaos.sim import determinism, floor_faults, ledger, many, moving_faults
from chaos.sim.controls import CONTROLS, SOUND
from chaos.sim.faults import KINDS
from chaos.sim.outcome import describe

_EPILOG = """\
examples:
  python -m chaos.sim --seed 7                    one minute of seed 7: trace hash, counts, verdict
  python -m chaos.sim --seed 7 --minutes 5 --nodes 3
  python -m chaos.sim --seed 7 --nodes 10 --copies 3
                                                  partitions on three nodes each, which move
  python -m chaos.sim --seed 7 --forgets          a floor that rises, and nodes that are given up
  python -m chaos.sim --seeds 1..200 --jobs 2     many seeds; failures are told with their seed
  python -m chaos.sim --seeds 1..200 --ledger     ... and counted in chaos/LEDGER.md
  python -m chaos.sim --seed 7 --check-determinism --python ~/venv3.13/bin/python
                                                  the same hash under other hash seeds and Pythons
  python -m chaos.sim --control list              the rules that can be switched off
  python -m chaos.sim --control ack-before-sync --seeds 1..200
                                                  must end with a violation: exit code 0 if caught

Minutes are virtual and are those of the faults; starting and healing come on top. A seed qualifies
with 60 virtual seconds, 500 operations and 3 kinds of faults, and once it healed. What a seed does
depends on --minutes and --nodes too: replay with the same ones. Exit code 0: everything held
(with --control: it was caught), 1: not, 2: wrong usage.
"""


_KINDS = (*KINDS, *moving_faults.KINDS, *floor_faults.KINDS)


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments ask; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.control == "list":
        for name, control in sorted(CONTROLS.items()):
            sys.stdout.write(f"{name:<25} {control.what}\n")
        return 0
    control = CONTROLS[options.control] if options.control else SOUND
    copies = options.copies or control.copies
    if not copies and (moving := set(options.faults) & set(moving_faults.KINDS)):
        parser.error(f"{', '.join(sorted(moving))}: only with --copies")
    forgets = True if control.forgets else options.forgets
    if not forgets and (rounds := set(options.faults) & set(floor_faults.KINDS)):
        parser.error(f"{', '.join(sorted(rounds))}: only with --forgets")
    if options.check_determinism:
        wanted = determinism.Wanted(options.seed, options.minutes, options.nodes, copies, forgets)
        return determinism.check(wanted, options.python)
    first, last = options.seeds or (options.seed, options.seed)
    work = many.Work(
        max(options.minutes, control.minutes),
        options.nodes,
        control.name,
        options.jobs,
        options.faults or control.faults,
        copies,
        forgets,
    )
    if control is not SOUND:
        return _try_control(work, range(first, last + 1))
    if first == last:
        outcome = many.run_one(work, first)
        sys.stdout.write("\n".join(describe(outcome)) + "\n")
        outcomes = [outcome]
    else:
        outcomes = many.run(work, range(first, last + 1), tell=_tell)
        sys.stdout.write(many.summary(outcomes))
    if options.ledger:
        ledger.add(Path(options.ledger), outcomes)
    return int(any(outcome.violation for outcome in outcomes))


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _try_control(work: many.Work, seeds: range) -> int:
    control = CONTROLS[work.control]
    for outcome in many.results(work, seeds):
        if outcome.violation:
            tried = outcome.seed - seeds.start + 1
            sys.stdout.write(f"{control.name}: caught by seed {outcome.seed}, the {tried}. tried\n")
            sys.stdout.write(f"  {outcome.violation}\n")
            return 0
    sys.stdout.write(f"error: {control.name} was not caught by {len(seeds)} seeds\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.sim",
        description="Run envd's nodes under virtual time and faults that follow from a seed, "
        "and check the invariants of ARCHITECTURE.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, default=1, metavar="N", help="run this seed (1)")
    which.add_argument(
        "--seeds", type=_seeds, metavar="A..B", help="run these seeds; a number N means 1..N"
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, metavar="M", help="virtual minutes of faults (1)"
    )
    parser.add_argument(
        "--nodes", type=int, metavar="K", help="how many nodes; else 3 to 7, by the seed"
    )
    parser.add_argument(
        "--faults",
        type=_kinds,
        default=(),
        metavar="KIND,...",
        help="all of these kinds and no others; else each seed draws some: " + ", ".join(_KINDS),
    )
    parser.add_argument(
        "--copies",
        type=int,
        default=0,
        metavar="N",
        help="so many copies of each partition, on 8 to 12 nodes; else each of up to 7 nodes holds "
        "everything",
    )
    _add_floor(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes at once (1)")
    parser.add_argument(
        "--ledger",
        nargs="?",
        const="chaos/LEDGER.md",
        metavar="FILE",
        help="add the seeds to the count in FILE (chaos/LEDGER.md)",
    )
    parser.add_argument(
        "--control",
        choices=["list", *sorted(CONTROLS)],
        metavar="NAME",
        help="switch a rule off; `list` names them",
    )
    parser.add_argument(
        "--check-determinism",
        action="store_true",
        help="run the seed in processes with other PYTHONHASHSEEDs and compare the hashes",
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="another Python to compare with; may be given again",
    )
    return parser


def _add_floor(parser: argparse.ArgumentParser) -> None:
    floor = parser.add_mutually_exclusive_group()
    floor.add_argument(
        "--forgets",
        action="store_true",
        default=None,
        help="the floor rises every few seconds, and who is away is soon given up; else in some "
        "seeds",
    )
    floor.add_argument(
        "--keeps",
        action="store_false",
        dest="forgets",
        help="the floor rises as it does by default",
    )


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(","))
    if unknown := sorted(set(kinds) - set(_KINDS)):
        raise argparse.ArgumentTypeError(f"there is no kind {', '.join(unknown)}")
    return kinds


def _seeds(text: str) -> tuple[int, int]:
    first, dots, last = text.partition("..")
    try:
        found = (int(first), int(last)) if dots else (1, int(first))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form A..B") from None
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is empty")
    return found


if __name__ == "__main__":
    sys.exit(main())
