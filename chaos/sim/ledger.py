"""The ledger of seeds: how many were run at which commit, and what was ever found.

A table in Markdown; a row is added for each run of many, the totals on top are those of all rows.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chaos.sim.outcome import Outcome

_HEAD = """\
# Ledger of simulator seeds

Written by `python -m chaos.sim --seeds A..B --ledger`. A seed qualifies with at least 60 virtual
seconds, 500 operations and 3 kinds of faults, and once everything was healed. Seeds of different
commits are different runs: the code decides what a seed does. A commit with `+` had changes that
were not committed yet.

Qualifying seeds so far: {total}.

| day (UTC) | commit | seeds | qualify | operations | virtual minutes | CPU s | failures |
|---|---|---|---|---|---|---|---|
"""
_ROW = re.compile(r"^\| \d{4}-", re.MULTILINE)
_QUALIFY_COLUMN = 4


def add(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Add a row for these seeds, and count anew."""
    rows = rows_of(path.read_text()) if path.exists() else []
    rows.append(row_of(outcomes, _commit(), datetime.now(UTC)))
    total = sum(int(row.split("|")[_QUALIFY_COLUMN].replace(",", "")) for row in rows)
    path.write_text(_HEAD.format(total=f"{total:,}") + "\n".join(rows) + "\n")


def rows_of(text: str) -> list[str]:
    """The rows of a ledger."""
    return [line for line in text.splitlines() if _ROW.match(line)]


def row_of(outcomes: Sequence[Outcome], commit: str, now: datetime) -> str:
    """One row for many seeds."""
    failures = [f"seed {one.seed}: {one.invariant}" for one in outcomes if one.violation]
    first, last = outcomes[0].seed, outcomes[-1].seed
    cells = (
        f"{now:%Y-%m-%d}",
        f"`{commit}`",
        f"{first}..{last}",
        f"{sum(one.qualifies for one in outcomes):,}",
        f"{sum(one.operations for one in outcomes):,}",
        f"{sum(one.virtual_s for one in outcomes) / 60:,.0f}",
        f"{sum(one.real_s for one in outcomes):,.0f}",
        "; ".join(failures) or "none",
    )
    return f"| {' | '.join(cells)} |"


def _commit() -> str:
    """The commit that is checked out, with `+` where files differ from it."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
