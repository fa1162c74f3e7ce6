"""The proof that a seed replays: other processes, other hash seeds, other Pythons, one hash."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HASH_SEEDS = ("0", "1", "31337")
_TRACE = re.compile(r"trace ([0-9a-f]{32})")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run."""

    seed: int
    minutes: float
    nodes: int | None
    copies: int = 0
    forgets: bool | None = None


def check(wanted: Wanted, pythons: Sequence[str]) -> int:
    """Run it in several ways and compare; 0 where all hashes are equal."""
    found: dict[str, str] = {}
    for python in (sys.executable, *pythons):
        for hash_seed in HASH_SEEDS if python == sys.executable else HASH_SEEDS[-1:]:
            label = f"{python}, PYTHONHASHSEED={hash_seed}"
            found[label] = trace_hash(wanted, python, hash_seed)
            sys.stdout.write(f"{found[label] or 'no hash'}  {label}\n")
    if len(set(found.values())) == 1 and "" not in found.values():
        sys.stdout.write(f"seed {wanted.seed} is the same run in all {len(found)}\n")
        return 0
    sys.stdout.write(f"error: seed {wanted.seed} is not the same run everywhere\n")
    return 1


def trace_hash(wanted: Wanted, python: str, hash_seed: str) -> str:
    """The trace hash that a fresh process prints, "" where it prints none."""
    arguments = ["--seed", str(wanted.seed), "--minutes", str(wanted.minutes)]
    if wanted.nodes:
        arguments += ["--nodes", str(wanted.nodes)]
    if wanted.copies:
        arguments += ["--copies", str(wanted.copies)]
    if wanted.forgets is not None:
        arguments += ["--forgets" if wanted.forgets else "--keeps"]
    done = subprocess.run(
        [python, "-m", "chaos.sim", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = _TRACE.search(done.stdout)
    if told is None:
        sys.stderr.write(done.stderr)
    return told[1] if told else ""
