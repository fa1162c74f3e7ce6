"""What readers see: the state in LMDB, and over it what is newer in memory.

Reads of one turn of the event loop fit together: the state's snapshot moves in the same turn in
which the memtable lets go of what it holds.
"""

from __future__ import annotations

from functools import reduce
from itertools import groupby

from envd.core.answers import ListedEnvironment
from envd.core.commit import Commit
from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Retention, conflicts
from envd.core.names import has_prefix
from envd.core.ring import partition_of
from envd.core.stamp import Stamp
from envd.core.versions import Roots
from envd.ports import StoredState
from envd.storage.conflict_rows import ordered
from envd.storage.memtable import Memtable
from envd.storage.rows import IndexEntry
from envd.storage.state import HISTORY_PAGE_BYTES, StateDb
from envd.wire import records


class View:
    """Reads of one store, for the thread of its event loop."""

    def __init__(
        self, state: StateDb, memtable: Memtable, digest_key: bytes, retention: Retention
    ) -> None:
        self._state = state
        self._memtable = memtable
        self._digest_key = digest_key
        self._retention = retention

    def visible(self, name: str) -> StoredState | None:
        """The durable state of one environment."""
        self.load(name)
        return self._memtable.visible(name)

    def head(self, name: str) -> StoredState | None:
        """The state that the next commit to it follows."""
        self.load(name)
        return self._memtable.head(name)

    def load(self, name: str) -> None:
        """Make sure that the memtable knows an environment."""
        if not self._memtable.knows(name):
            stored = self._state.environment(name)
            self._memtable.load(name, stored.state if stored else None)

    # -- listing -------------------------------------------------------------------

    def environments(
        self, prefix: str, after: str, limit: int, partitions: frozenset[int] | None
    ) -> list[ListedEnvironment]:
        """As the port says."""
        newer = self._newer_entries(prefix, after, partitions)
        listed: list[ListedEnvironment] = []
        while len(listed) < limit:
            page = self._state.index(prefix, after, limit, partitions)
            last = page[-1].environment if len(page) == limit else None
            merged = {entry.environment: entry for entry in page}
            merged.update(
                {name: entry for name, entry in newer.items() if last is None or name <= last}
            )
            listed += [
                merged[name].listed()
                for name in sorted(merged)
                if name > after and merged[name].exists
            ]
            if last is None:
                break
            after = last
        return listed[:limit]

    def _newer_entries(
        self, prefix: str, after: str, partitions: frozenset[int] | None
    ) -> dict[str, IndexEntry]:
        """Index entries of environments whose commits LMDB may lack."""
        newer = {}
        for name in self._unflushed(prefix, after):
            if partitions is not None and partition_of(name) not in partitions:
                continue
            state = self._memtable.visible(name)
            if state is not None:
                environment = state.environment
                newer[name] = IndexEntry(
                    name, environment.exists, state.revision, environment.live_count()
                )
        return newer

    def _unflushed(self, prefix: str, after: str) -> set[str]:
        """Environments below `prefix` after the name `after` with something that LMDB may lack."""
        return {
            name
            for name in self._memtable.unflushed_names()
            if name > after and has_prefix(name, prefix)
        }

    # -- history -------------------------------------------------------------------

    def commits(self, name: str, before: Stamp | None, limit: int) -> list[Commit]:
        """As the port says; retention is enforced by the flush, so until then there may be
        more commits, and less in `base`: together they make the same states."""
        newer = {
            stamp: encoded
            for stamp, encoded in self._memtable.unflushed(name)
            if before is None or stamp < before
        }
        page = self._state.commits(name, before, limit)
        found = {commit.stamp: commit for commit in map(records.decode_commit, page)}
        if len(page) < limit and sum(map(len, page)) >= HISTORY_PAGE_BYTES:
            oldest = min(found)  # the page was cut by size: what is older comes with the next
            newer = {stamp: encoded for stamp, encoded in newer.items() if stamp > oldest}
        for stamp in sorted(newer, reverse=True)[:limit]:
            found.setdefault(stamp, records.decode_commit(newer[stamp]))
        return [found[stamp] for stamp in sorted(found, reverse=True)[:limit]]

    def commit_rows(self, name: str) -> list[tuple[Stamp, bytes]]:
        """As the port says."""
        rows = dict(self._memtable.unflushed(name))
        rows.update(self._state.commit_rows(name))
        return sorted(rows.items())

    def base(self, name: str) -> Environment:
        """As the port says, with the bases merged in that the flush will."""
        newer = self._memtable.unflushed_bases(name)
        return reduce(Environment.merge, newer, self._state.base(name))

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        """As the port says; of what is not flushed yet they are computed here."""
        newer = self._unflushed(prefix, after)
        found: list[ConflictRecord] = []
        while len(found) < limit:
            page = self._state.conflicts(prefix, after, limit)
            last = page[-1].environment if len(page) >= limit else None
            flushed = {name: list(group) for name, group in groupby(page, _environment_of)}
            due = {name for name in newer if name > after and (last is None or name <= last)}
            for name in sorted(flushed.keys() | due):
                if len(found) < limit:
                    known = flushed.get(name, [])
                    found += self._conflicts_of(name, known) if name in due else known
            if last is None:
                break
            after = last
        return found

    def _conflicts_of(self, name: str, flushed: list[ConflictRecord]) -> list[ConflictRecord]:
        """The conflicts of an environment of which LMDB may lack something."""
        if not flushed and not self._memtable.contested(name):
            return []
        commits = [records.decode_commit(encoded) for _, encoded in self.commit_rows(name)]
        folded, kept = self._retention.of(name).split(commits)
        base = reduce(Environment.apply, folded, self.base(name))
        return ordered(conflicts(kept, base), self._digest_key)

    # -- what peers compare --------------------------------------------------------

    def roots(self) -> Roots:
        """As the port says."""
        unsettled = frozenset(map(partition_of, self._memtable.unflushed_names()))
        return Roots(self._state.roots(), unsettled)


def _environment_of(record: ConflictRecord) -> str:
    return record.environment
