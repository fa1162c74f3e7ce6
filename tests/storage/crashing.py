"""A process that writes until it is killed; `test_crash` reads what it acknowledged.

    python -m tests.storage.crashing DIRECTORY

Several tasks write; each commit sets two variables to the same text. A line `lsn environment
number` is printed once a commit is durable. Flushes run all the while.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from tests.storage.world import KIB, OPTIONS, Writer, open_store

ENVIRONMENTS = 5


async def write_for_ever(writer: Writer, environment: str, first: int) -> None:
    number = first
    while True:
        await writer.store.admit()
        text = f"{number} ".ljust(100 + number * 37 % 900, "v")
        lsn = await writer.commit(environment, {f"A{number}": text, f"B{number}": text})
        sys.stdout.write(f"{lsn} {environment} {number}\n")
        sys.stdout.flush()
        number += 1


async def main(directory: Path) -> None:
    options = replace(OPTIONS, flush_interval_ms=1, memtable_bytes=256 * KIB)
    store = await open_store(directory, options=options)
    writer = Writer(store, hlc=max(store.highest_hlc(), Writer(store).hlc))
    first = store.last_lsn() + 1
    async with asyncio.TaskGroup() as tasks:
        for n in range(ENVIRONMENTS):
            tasks.create_task(write_for_ever(writer, f"e{n}", first))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
