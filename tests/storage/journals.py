"""Journals of known records, and what recovering one gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envd.core.errors import EnvdError, StorageError
from envd.core.hlc import bound_for
from envd.ports import Sealer
from envd.storage.journal import Journal
from envd.storage.log_pages import LogPages
from envd.storage.recovery import DroppedTail
from tests.storage.world import KIB, NODE, bytes_in

SEGMENT_BYTES = 64 * KIB


def record(lsn: int, size: int = 24) -> bytes:
    """The record that these journals hold at `lsn`."""
    return f"record {lsn} ".encode().ljust(size, b".")


def new_journal(directory: Path, sealer: Sealer, keep_segments: int = 1000) -> Journal:
    return Journal(
        directory,
        sealer,
        NODE,
        segment_bytes=SEGMENT_BYTES,
        keep_segments=keep_segments,
        bound_for=bound_for,
    )


async def started(
    directory: Path, sealer: Sealer, covered: int = 0, keep_segments: int = 1000
) -> Journal:
    journal = new_journal(directory, sealer, keep_segments)
    for _ in journal.recover(covered):
        pass
    journal.start(asyncio.get_running_loop(), covered_lsn=covered, hlc_bound=0)
    return journal


async def write_group(journal: Journal, records: Sequence[bytes], hlc: int = 0) -> list[int]:
    """Write the records as one frame; return their lsns."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = []
    with journal._wake:  # The writer can't take the first before the last is queued.
        for one in records:
            future = loop.create_future()
            futures.append(future)

            def done(
                lsn: int, error: EnvdError | None, future: asyncio.Future[int] = future
            ) -> None:
                if error is None:
                    future.set_result(lsn)
                else:
                    future.set_exception(error)

            journal.append(one, hlc, done)
    return [await future for future in futures]


async def write_groups(journal: Journal, *sizes: int, record_bytes: int = 24) -> None:
    for size in sizes:
        first = journal.last_lsn + 1
        await write_group(journal, [record(first + n, record_bytes) for n in range(size)])


def read_after(journal: Journal, sealer: Sealer, lsn: int) -> list[tuple[int, bytes]]:
    """All durable (lsn, record) after `lsn`."""
    return list(LogPages(journal, sealer).all_after(lsn, journal.last_lsn))


@dataclass(frozen=True)
class Outcome:
    """What recovering a directory gave."""

    records: list[bytes]
    dropped: DroppedTail | None
    refused: StorageError | None


def recover(directory: Path, sealer: Sealer, covered: int = 0) -> Outcome:
    """Recover, and hold that this changes no byte."""
    before = bytes_in(directory)
    journal = new_journal(directory, sealer)
    found: list[bytes] = []
    refused: StorageError | None = None
    try:
        for frame in journal.recover(covered):
            found += frame.records
    except StorageError as error:
        refused = error
    assert bytes_in(directory) == before
    return Outcome(found, journal.dropped_tail, refused)
