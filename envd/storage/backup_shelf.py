"""The directory of a schedule, off the event loop: threads for the disk, a process for the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from envd.core.backups import BackupFacts, BackupRequest
from envd.core.errors import StorageError
from envd.storage.backup_directory import BackupDirectory, Keep
from envd.storage.backup_process import BackupProcesses
from envd.storage.backup_read import facts
from envd.threads import finish_in_thread


class DirectoryShelf:
    """Raises StorageError where the directory can't be read or written."""

    def __init__(self, directory: BackupDirectory, keep: Keep, processes: BackupProcesses) -> None:
        self._directory = directory
        self._keep = keep
        self._processes = processes

    @property
    def directory(self) -> str:
        """Where it is."""
        return self._directory.path

    async def add(self, request: BackupRequest, created_ms: int) -> BackupFacts:
        """Make a backup and read it back whole before it counts as one."""
        path = await finish_in_thread(self._directory.prepare, created_ms)
        await self._processes.to_file(request, created_ms, path)
        made = await finish_in_thread(lambda: facts(path, check=True))
        if made.state != "checked":
            raise StorageError(
                made.detail,
                hint="the disk does not give back what was written: mend it",
                reason="BACKUP_DAMAGED",
            )
        return made

    async def prune(self, now_ms: int) -> Sequence[str]:
        """Remove what need not be kept; return the names."""
        return await finish_in_thread(self._directory.prune, self._keep, now_ms)

    async def list(self) -> Sequence[BackupFacts]:
        """All that are there, oldest first."""
        return [_tellable(each) for each in await finish_in_thread(self._directory.list)]

    async def newest_ms(self) -> int | None:
        """When the newest whole one of this schedule was made."""
        own = await finish_in_thread(self._directory.own)
        if not own or not own[-1].created:
            return None
        return int(datetime.fromisoformat(own[-1].created).timestamp() * 1000)


def _tellable(found: BackupFacts) -> BackupFacts:
    """With a file's name that is no UTF-8 escaped, since no answer could hold it."""
    file, detail = (
        text.encode("utf-8", "backslashreplace").decode() for text in (found.file, found.detail)
    )
    return replace(found, file=file, detail=detail)
