"""A store under test: either kind, with a flush or a restart between any two steps."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from envd.core.history import Retention
from envd.ports import Store
from envd.storage.memory import MemoryStore
from tests.storage.world import DIGEST_KEY, NODE, Writer, crash_copy, keeping, open_store

KINDS = (
    "memory",
    "memory, recovered",
    "durable",
    "durable, flushed",
    "durable, reopened",
    "durable, killed",
)
KEPT = Retention()


@dataclass
class Kept:
    """One store under test. `step` does between two steps what its kind says."""

    kind: str
    directory: Path
    retention: Retention
    store: Store
    writer: Writer
    crashes: int = 0

    async def put(self, environment: str, **values: str | None) -> int:
        """Write variables, wait until they are durable, step."""
        return await self.wait(self.writer.commit(environment, values))

    async def delete(self, environment: str) -> int:
        return await self.wait(self.writer.commit(environment, deletes=True))

    async def wait(self, durable: Awaitable[int]) -> int:
        lsn = await durable
        await self.step()
        return lsn

    async def step(self) -> None:
        if self.kind == "durable, flushed":
            await self.store.flush()
        if self.kind in {"memory, recovered", "durable, killed"}:
            await self.crash()
        if self.kind == "durable, reopened":
            await self.reopen()

    async def reopen(self) -> None:
        """Stop and start again."""
        await self.store.close()
        self.store = self.writer.store = await self._started()

    async def crash(self) -> None:
        """Be killed and start again on what is on the disk."""
        if not isinstance(self.store, MemoryStore):
            self.crashes += 1
            left = crash_copy(self.directory, self.directory.parent / f"left-{self.crashes}")
            await self.store.close()
            rmtree(self.directory)
            left.rename(self.directory)
        self.store = self.writer.store = await self._started()

    async def _started(self) -> Store:
        if isinstance(self.store, MemoryStore):
            return MemoryStore.recovered(
                self.store.crash(), self.retention, node_uid=NODE, digest_key=DIGEST_KEY
            )
        return await opened(self.directory, self.retention)


async def opened(directory: Path, retention: Retention) -> Store:
    return await open_store(directory, options=keeping(retention.commits, retention.days))


async def make_kept(kind: str, directory: Path, retention: Retention = KEPT) -> Kept:
    directory = directory / "data"
    directory.mkdir()
    if kind.startswith("memory"):
        store: Store = MemoryStore(retention, node_uid=NODE, digest_key=DIGEST_KEY)
    else:
        store = await opened(directory, retention)
    return Kept(kind, directory, retention, store, Writer(store))
