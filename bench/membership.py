"""Sixteen envd beside sixteen agents of serf: who finds out what, and when.

    python -m bench.membership [--nodes 16] [--rounds 3] [--only envd|serf]

Real processes on loopback, both with their settings for a local network. Each store's turn: all
start, and once each knows all, a round is: one is killed (SIGKILL) and, when all others know, it
is started again; at the end one leaves in good order. What a process logs about a member is
stamped as it comes through its pipe, for both alike.

* detected, first / by all: from the kill until the first other, and the last, holds it for down.
* back, to all: a member that returned, from the first that knows to the last.
* left, to all: a member that left, from the first that knows to the last.
* false alarms: members held for down that were not.
* idle CPU: of all processes together while nothing happens, in cores.

The exit code is 1 where something was not seen in time. Nothing is installed from here.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.figures import number
from bench.gossipers import KINDS, Gossiper, Lines, Told
from bench.processes import machine_cpu_s
from bench.servers import Missing

PATIENCE_S: Final = 90.0
IDLE_S: Final = 10.0
SETTLE_S: Final = 3.0
NOTHING_S: Final = 0.05
SEED: Final = 7
_EXPECTED: Final = {"envd": 90, "serf": 60}
Figures = dict[str, list[float]]
ROWS: Final = {
    "all know all": "s",
    "idle CPU": "cores",
    "memory of a process": "MB",
    "detected, first": "s",
    "detected, by all": "s",
    "back, to all": "s",
    "left, to all": "s",
    "false alarms": "",
}


class NotSeen(Exception):
    """Somebody did not find out in time."""


@dataclass(slots=True)
class Turn:
    """One kind of member, all of them, and what was seen of them."""

    members: Sequence[Gossiper]
    lines: Lines
    figures: Figures = field(default_factory=dict)

    def run(self, rounds: int) -> None:
        """Do it all; raises NotSeen."""
        self._begin()
        chance = random.Random(SEED)
        for _ in range(rounds):
            self._kill_and_return(chance.choice(self.members[1:]))
        self._leave(self.members[-1])

    def _note(self, row: str, figure: float) -> None:
        self.figures.setdefault(row, []).append(figure)
        print(f"  {row}: {number(figure)} {ROWS[row]}", file=sys.stderr, flush=True)

    def _begin(self) -> None:
        begun = time.monotonic()
        for member in self.members:
            member.start(self.lines)
        self._until("all know all", self._all_know_all)
        self._note("all know all", time.monotonic() - begun)
        self.lines.listen(SETTLE_S)
        cpu, others, start = self._cpu_s(), machine_cpu_s(), time.monotonic()
        self.lines.listen(IDLE_S)
        took, cpu = time.monotonic() - start, self._cpu_s() - cpu
        self._note("idle CPU", cpu / took)
        others = (machine_cpu_s() - others - cpu) / took
        if others > 0.2:
            print(f"  other processes took {others:.1f} cores", file=sys.stderr, flush=True)
        self._note("memory of a process", statistics.median(m.memory_mb() for m in self.members))

    def _all_know_all(self) -> bool:
        names = {member.name for member in self.members}
        return all(self.lines.known(name, Told.ALIVE) >= names - {name} for name in names)

    def _cpu_s(self) -> float:
        return sum(member.cpu_s() for member in self.members)

    def _kill_and_return(self, victim: Gossiper) -> None:
        others = {member.name for member in self.members} - {victim.name}
        self.lines.forget()
        killed = time.monotonic()
        victim.kill()
        down = self._told_by(others, victim, Told.DOWN)
        self._note("detected, first", min(down) - killed)
        self._note("detected, by all", max(down) - killed)
        self._count_false_alarms(victim.name)
        self.lines.forget()
        victim.start(self.lines)
        back = self._told_by(others, victim, Told.ALIVE)
        self._note("back, to all", max(back) - min(back))
        self.lines.listen(SETTLE_S)
        self._count_false_alarms(victim.name)

    def _leave(self, leaver: Gossiper) -> None:
        others = {member.name for member in self.members} - {leaver.name}
        self.lines.forget()
        leaver.signal(signal.SIGTERM if leaver.leaves_on_term else signal.SIGINT)
        gone = self._told_by(others, leaver, Told.LEFT)
        self._note("left, to all", max(gone) - min(gone))

    def _told_by(self, others: set[str], subject: Gossiper, told: Told) -> list[float]:
        """When each of the others said so for the first time."""

        def said() -> Mapping[str, float]:
            return self.lines.first(subject.name, told)

        self._until(
            f"all others hold {subject.name} for {told.value}", lambda: others <= said().keys()
        )
        return [at for name, at in said().items() if name in others]

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                raise NotSeen(f"not in {PATIENCE_S:g} s: {what}")
            self.lines.listen(0.05)

    def _count_false_alarms(self, but: str) -> None:
        wrong = {news.subject for news in self.lines.news if news.told is Told.DOWN} - {but}
        if wrong:
            self._note("false alarms", len(wrong))

    def stop(self) -> None:
        """End all processes."""
        for member in self.members:
            member.end()
        self.lines.close()


def table(found: Mapping[str, Figures]) -> str:
    """Both side by side: medians with their ranges."""
    heads = ("what", *found, "unit")
    lines = [heads]
    for row, unit in ROWS.items():
        cells = [_cell(figures.get(row, []), row) for figures in found.values()]
        lines.append((row, *cells, unit))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(figures: Sequence[float], row: str) -> str:
    if row == "false alarms":
        return number(sum(figures))
    if not figures:
        return "NOT RUN"
    median = number(statistics.median(figures))
    if len(figures) == 1:
        return median
    return f"{median} ({number(min(figures))} - {number(max(figures))})"


def verdicts(found: Mapping[str, Figures]) -> list[str]:
    """What envd should do no worse than serf, and whether it does, by the medians.

    Both send their news every 200 ms: what differs by less than NOTHING_S differs by chance.
    """
    ours, theirs = found.get("envd", {}), found.get("serf", {})
    said = []
    for row in ("detected, first", "detected, by all", "back, to all", "left, to all"):
        if ours.get(row) and theirs.get(row):
            a, b = statistics.median(ours[row]), statistics.median(theirs[row])
            said.append(f"{row}: no worse than serf: {'met' if a <= b + NOTHING_S else 'MISSED'}")
    return said


def main() -> int:
    arguments = _arguments()
    kinds = [arguments.only] if arguments.only else list(KINDS)
    seconds = sum(_EXPECTED[kind] for kind in kinds)
    print(f"this takes about {seconds / 60:.1f} minutes", file=sys.stderr)
    found: dict[str, Figures] = {}
    failed = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="envd-bench-", dir=arguments.dir))
    try:
        for kind in kinds:
            print(f"{arguments.nodes} of {kind}", file=sys.stderr, flush=True)
            try:
                turn = Turn(KINDS[kind](scratch / kind, arguments.nodes), Lines())
            except Missing as why:
                print(f"NOT RUN: {kind}: {why}", flush=True)
                continue
            found[kind] = turn.figures
            try:
                turn.run(arguments.rounds)
            except NotSeen as why:
                failed = True
                print(f"FAILED: {kind}: {why}", flush=True)
            finally:
                turn.stop()
    except KeyboardInterrupt:
        return 130
    finally:
        if arguments.keep:
            print(f"kept: {scratch}", file=sys.stderr)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
        print(table(found))
        print("\n".join(verdicts(found)), flush=True)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=16, help="how many processes (16)")
    parser.add_argument("--rounds", type=int, default=3, help="how many are killed (3)")
    parser.add_argument("--only", choices=list(KINDS), help="one kind alone")
    parser.add_argument("--dir", default=None, help="where the data goes (the temporary directory)")
    parser.add_argument("--keep", action="store_true", help="leave data and logs there")
    arguments = parser.parse_args()
    if arguments.nodes < 3 or arguments.rounds < 1:
        parser.error("--nodes is at least 3, --rounds at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
