"""Props that fail on purpose: a disk, and a sealer by which a flush is held or refused."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Sequence

from envd.core.errors import StorageError
from envd.ports import Subkey
from envd.storage.disk import Disk
from tests.storage.world import WitnessSealer


class FailingDisk(Disk):
    """A disk that has no room for files, that tears writes, or that fails to sync."""

    def __init__(self) -> None:
        self.full = False
        self.tears = False
        self.unsynced = False
        self.most_bytes = 1 << 30

    def write(self, descriptor: int, data: memoryview, position: int) -> int:
        if self.tears:
            super().write(descriptor, data[: len(data) // 2], position)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(descriptor, data[: self.most_bytes], position)

    def sync(self, descriptor: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().sync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        if self.unsynced:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_data(descriptor)


class StallingSealer(WitnessSealer):
    """Its owner decides when, and whether, a flush gets its key."""

    def __init__(self) -> None:
        super().__init__()
        self.may_flush = threading.Event()
        self.may_flush.set()
        self.asked = threading.Event()
        self.refusal: StorageError | None = None

    def new_subkey(self, purpose: bytes) -> Subkey:
        if purpose == b"state":
            self.asked.set()
            assert self.may_flush.wait(30)
            if self.refusal is not None:
                raise self.refusal
        return super().new_subkey(purpose)


async def outcomes(durable: Sequence[Awaitable[int]]) -> list[int | BaseException]:
    return await asyncio.gather(*durable, return_exceptions=True)
