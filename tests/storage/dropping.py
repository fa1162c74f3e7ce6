"""A process that writes and drops partitions until it is killed; `test_drop` reads what is left.

    python -m tests.storage.dropping DIRECTORY

In each round one variable of the round's number is set in every environment, then one partition is
dropped. Lines: `wrote PARTITION ROUND` once a partition's environments have it, `drops PARTITION
ROUND` before and `dropped PARTITION ROUND` after a drop. Flushes run all the while, and only a few
rows go in one transaction.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from tests.storage.partitions import within
from tests.storage.world import NODE, OPTIONS, Writer, keeping, open_store

DROPPING = keeping(4, options=replace(OPTIONS, flush_interval_ms=1, purged_rows=5, keep_segments=1))
PARTITIONS = (5, 6, 900)
ENVIRONMENTS = 3


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(directory: Path) -> None:
    store = await open_store(directory, options=DROPPING)
    writer = Writer(store, hlc=max(store.highest_hlc(), Writer(store).hlc))
    number = store.last_lsn() + 1  # Above all rounds of before, which had several records each.
    while True:
        for partition in PARTITIONS:
            names = within(partition, ENVIRONMENTS)
            for durable in [writer.commit(name, {f"K{number}": "v" * 700}) for name in names]:
                await durable
            say("wrote", partition, number)
        partition = PARTITIONS[number % len(PARTITIONS)]
        await store.flush()
        lsn = store.last_lsn()
        say("drops", partition, number)
        assert await store.drop(partition, lsn, NODE)
        say("dropped", partition, number)
        number += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
