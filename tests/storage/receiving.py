"""A process that takes in what a peer ships until it is killed; `test_crash` reads what is left.

    python -m tests.storage.receiving DIRECTORY

The n-th commit of the peer and the base that goes with it are the same in every run. A line
with its number is printed once the n-th commit is durable; flushes run all the while.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

from envd.core.commit import Commit
from envd.core.environment import Environment
from envd.core.ring import partition_of
from envd.core.versions import Cursor
from tests.storage.others import PEER, at, base_of, commit_at, merged, shipped
from tests.storage.world import OPTIONS, keeping, open_store

RECEIVING = keeping(20, options=replace(OPTIONS, flush_interval_ms=1))
NAMES = ("a", "b", "c/d")
_ON_THEIR_WAY = 8


def nth_commit(n: int) -> Commit:
    """Every third one had not seen what it replaces."""
    name = NAMES[n % len(NAMES)]
    saw = at(n - 3 if n % 9 else n - 6)
    return commit_at(at(n), name, {"X": str(n), f"K{n % 7}": "v" * (n * 37 % 500)}, saw=saw)


def nth_base(n: int) -> Environment | None:
    """Every tenth commit comes with a base."""
    name = NAMES[n % len(NAMES)]
    return None if n % 10 else base_of(name, [commit_at(at(-n - 1, 8), name, {f"OLD{n}": "1"})])


async def main(directory: Path) -> None:
    store = await open_store(directory, options=RECEIVING)
    held = sum(seq for (_, origin), seq in store.vectors().items() if origin == PEER)
    waiting: deque[tuple[int, Awaitable[int]]] = deque()
    n = held
    while True:
        base = nth_base(n)
        if base is not None:
            await merged(store, base)
        waiting.append((n, shipped(store, nth_commit(n))))
        n += 1
        if len(waiting) > _ON_THEIR_WAY:
            durable, logged = waiting.popleft()
            await logged
            store.advance({(partition_of("told"), PEER + 1): durable}, {PEER: Cursor(durable, 0)})
            sys.stdout.write(f"{durable}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
