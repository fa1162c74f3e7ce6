"""A copy of a whole store while it runs."""

from __future__ import annotations

from pathlib import Path

from envd.storage.check import JOURNAL_NAME, STATE_NAME
from envd.storage.disk import sync_file, unusable
from envd.storage.journal import Journal
from envd.storage.state import StateDb


def copy_durably(state: StateDb, journal: Journal, directory: Path, covered_lsn: int) -> None:
    """Copy the view, and of the journal what the view does not cover, durably.

    No flush may run meanwhile, so that those segments are not recycled. Raises StorageError.
    """
    try:
        directory.mkdir(mode=0o700)
        state.copy_to(directory / STATE_NAME)
        journal.copy_files(directory / JOURNAL_NAME, covered_lsn)
        for path in (*directory.glob("*/*"), *directory.glob("*"), directory, directory.parent):
            sync_file(path)
    except OSError as error:
        raise unusable(directory, error) from error
