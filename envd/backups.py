"""The wiring of a node's backups: what its servers offer, and the task of its schedule."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from envd.datadir import DataDirectory
from envd.node.backup_schedule import BackupSchedule
from envd.node.backups import Backups
from envd.ports import Authorizer, Clock, Rng
from envd.settings import Settings
from envd.storage.backup_directory import BackupDirectory, Keep
from envd.storage.backup_process import BackupProcesses, JobOrder
from envd.storage.backup_shelf import DirectoryShelf
from envd.storage.store import DurableStore


def begin(
    settings: Settings,
    directory: DataDirectory,
    store: DurableStore,
    authorizer: Authorizer,
    clock: Clock,
    rng: Rng,
    stack: AsyncExitStack,
) -> Backups:
    """Make the node's backups ready and begin its schedule, where the settings have one.

    `stack` ends the schedule, before the store is closed.
    """
    record, wanted = directory.record, settings.backup
    order = JobOrder(
        data_dir=str(directory.path.absolute()),
        storage_keys=directory.sealer.storage_keys(),
        digest_key=directory.digest_key,
        map_size_bytes=settings.storage.map_size_bytes,
        cluster=settings.cluster.name,
        cluster_id=record.cluster_id,
        node=settings.node.name,
        node_uid=f"{record.node_uid:016x}",
    )
    processes = BackupProcesses(order, store.forget_dead_readers)
    shelf = None
    if wanted.directory is not None:
        kept = BackupDirectory(wanted.directory.absolute(), order.node_uid)
        shelf = DirectoryShelf(kept, Keep(wanted.keep_count, wanted.keep_days), processes)
    backups = Backups(store, clock, processes, authorizer, shelf)
    if shelf is not None and wanted.every is not None:
        schedule = BackupSchedule(backups, shelf, wanted.recovery_keys, wanted.every, clock, rng)
        backups.schedule = schedule
        stack.push_async_callback(_end, asyncio.create_task(schedule.run(), name="backups"))
    return backups


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
