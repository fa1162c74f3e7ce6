"""Backups as a node offers them: who may, one at a time, and the list.

How a file is made and where it lies comes in through the two protocols here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from envd.core.answers import Identity
from envd.core.backups import BackupChunk, BackupFacts, BackupListing, BackupRequest
from envd.core.errors import Unavailable
from envd.core.times import iso_time
from envd.ports import Authorizer, Clock, Store


class BackupMaker(Protocol):
    """Makes the file of a backup from what the store has flushed."""

    def stream(self, request: BackupRequest, created_ms: int) -> AsyncGenerator[bytes, None]:
        """Its bytes; raises InvalidRequest, StorageError. Closing it early ends the work."""
        ...


class BackupShelf(Protocol):
    """The directory that a schedule fills."""

    @property
    def directory(self) -> str:
        """Where it is."""
        ...

    async def add(self, request: BackupRequest, created_ms: int) -> BackupFacts:
        """Make a backup there, whole or not at all; raises StorageError."""
        ...

    async def prune(self, now_ms: int) -> Sequence[str]:
        """Remove what need not be kept; return the names of the files. Raises StorageError."""
        ...

    async def list(self) -> Sequence[BackupFacts]:
        """All that are there, oldest first."""
        ...

    async def newest_ms(self) -> int | None:
        """When the newest whole one of this schedule was made (unix time)."""
        ...


class ScheduleState(Protocol):
    """What a schedule tells of itself."""

    @property
    def every(self) -> str: ...

    @property
    def next_ms(self) -> int: ...

    @property
    def failure(self) -> str: ...


class Backups:
    """Every method raises Denied where the right is missing, Unavailable while the node stops."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        maker: BackupMaker,
        authorizer: Authorizer,
        shelf: BackupShelf | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._maker = maker
        self._authorizer = authorizer
        self._shelf = shelf
        self._turn = asyncio.Lock()
        self._stopping = False
        self.schedule: ScheduleState | None = None

    def stop(self) -> None:
        """Refuse what comes from now on; what runs ends at its next piece."""
        self._stopping = True

    async def create(
        self, identity: Identity, request: BackupRequest
    ) -> AsyncGenerator[BackupChunk, None]:
        """Make a backup of all that was acknowledged until now.

        Raises Unavailable where another one is being made.
        """
        self._allow(identity)
        if self._turn.locked():
            raise Unavailable(
                "the node is making another backup; nothing was done",
                hint="try again once it is done",
                reason="BACKUP_RUNNING",
                retry_after_ms=5000,
            )
        async with self._turn:
            await self._store.flush()
            async with aclosing(self._maker.stream(request, self._clock.wall_ms())) as pieces:
                async for piece in pieces:
                    self._check_running()
                    yield BackupChunk(piece)

    async def add_to_shelf(self, request: BackupRequest) -> BackupFacts:
        """Make one in the directory, for the schedule; waits for one that is being made."""
        assert self._shelf is not None
        async with self._turn:
            self._check_running()
            await self._store.flush()
            return await self._shelf.add(request, self._clock.wall_ms())

    async def list(self, identity: Identity) -> BackupListing:
        """The backups in the node's directory, and how its schedule does."""
        self._allow(identity)
        if self._shelf is None:
            return BackupListing()
        found = tuple(await self._shelf.list())
        schedule = self.schedule
        if schedule is None:
            return BackupListing(found, self._shelf.directory)
        due = iso_time(schedule.next_ms) if schedule.next_ms else ""
        return BackupListing(found, self._shelf.directory, schedule.every, due, schedule.failure)

    def _allow(self, identity: Identity) -> None:
        self._check_running()
        self._authorizer.check(identity, "backup", "")

    def _check_running(self) -> None:
        if self._stopping:
            raise Unavailable(
                "the node is stopping; there is no backup",
                hint="ask again once it is back",
                reason="STOPPING",
                retry_after_ms=1000,
            )
