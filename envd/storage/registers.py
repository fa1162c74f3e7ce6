"""What this node's acceptors promised and accepted, durable before they answer.

A journal of its own holds a row for each change, synced in groups as commits are; nothing of it
is shipped. All registers are in memory: what an acceptor must keep is a ballot, and a commit only
until the log holds it. So the journal is short: once it has grown, all rows are written anew
behind what there is (a snapshot), and what stands before that is recycled. Then registers that
hold nothing but a promise are forgotten, the oldest first, and one ballot stands for all of theirs:
a register that nobody knows promises nothing below it.

Where the disk takes no row, what was on its way is forgotten: nobody was answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from pathlib import Path

from envd.core.errors import Corrupt, EnvdError
from envd.core.paxos import NEVER, Acceptor
from envd.core.stamp import Stamp
from envd.files import sync_directory
from envd.ports import Sealer
from envd.storage.disk import RESTORE_HINT, Disk, make_directory, sync_file, unusable
from envd.storage.journal import Journal, stopping
from envd.storage.recovery import first_lsn
from envd.wire.registers import RegisterRow, RowKind, decode_register, encode_register

REGISTERS_NAME = "registers"
SEGMENT_BYTES = 8 << 20
"""The largest commit fits with room to spare."""
KEPT_PROMISES = 10_000
_SEGMENTS = 2
"""A snapshot is made once so many segments were begun since the last one."""
_log = logging.getLogger(__name__)


class RegisterLog:
    """The Registers of a real node. Make it with `open`; it belongs to that event loop."""

    def __init__(self, journal: Journal, kept_promises: int) -> None:
        self._journal = journal
        self._kept_promises = kept_promises
        self._heads: dict[str, Acceptor] = {}
        self._durable: dict[str, Acceptor] = {}
        self._on_their_way: dict[str, int] = {}
        self._low = NEVER
        self._generation = 0
        self._compacting = False
        self._compacted_in = 0
        self._closing = False

    @classmethod
    async def open(
        cls,
        directory: Path,
        sealer: Sealer,
        node_uid: int,
        *,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        kept_promises: int = KEPT_PROMISES,
    ) -> RegisterLog:
        """Read back, or create, the registers below a data directory.

        Raises Corrupt for damage, StorageError for a newer format, Unavailable for want of room.
        """
        where = directory / REGISTERS_NAME
        make_directory(where)
        try:
            sync_directory(directory)
        except OSError as error:
            raise unusable(directory, error) from error
        journal = Journal(
            where,
            sealer,
            node_uid,
            segment_bytes=segment_bytes,
            keep_segments=1,
            bound_for=lambda hlc: hlc,
            disk=disk,
        )
        registers = cls(journal, kept_promises)
        covered_lsn = registers._recover(where)
        for known in journal.segments:  # A killed process may have left what no sync covered.
            sync_file(known.path)
        journal.start(asyncio.get_running_loop(), covered_lsn=covered_lsn, hlc_bound=0)
        registers._compacted_in = journal.segments[0].header.number
        return registers

    def _recover(self, where: Path) -> int:
        """Read all rows; return the lsn of the last one that the newest whole snapshot replaces."""
        before = first_lsn(where) - 1
        covered_lsn, begun_lsn, whole = 0, 0, before == 0
        for frame in self._journal.recover(before):
            for lsn, raw in enumerate(frame.records, frame.first_lsn):
                row = decode_register(raw)
                if row.kind is RowKind.BEGIN:
                    begun_lsn, self._low = lsn, max(self._low, row.acceptor.promised)
                elif row.kind is RowKind.END:
                    whole = whole or begun_lsn > 0
                    covered_lsn = begun_lsn - 1 if begun_lsn else covered_lsn
                else:
                    self._durable.pop(row.register, None)
                    self._durable[row.register] = row.acceptor
        if not whole:
            raise Corrupt(
                f"what the acceptors of this node promised is not all there in {where}",
                hint=f"{RESTORE_HINT}; or start the node with an empty directory: it joins anew",
                reason="REGISTERS_INCOMPLETE",
            )
        self._heads = dict(self._durable)
        return covered_lsn

    # -- as the port says ------------------------------------------------------------

    def get(self, register: str) -> Acceptor:
        return self._heads.get(register) or Acceptor(self._low)

    def save(self, register: str, acceptor: Acceptor) -> Awaitable[None]:
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closing:
            saved.set_exception(stopping())
            return saved
        generation = self._generation

        def done(_: int, error: EnvdError | None) -> None:
            if error is None:
                self._saved(register, acceptor)
            elif generation == self._generation:
                self._refused()
            if saved.done():
                return
            if error is None:
                saved.set_result(None)
            else:
                saved.set_exception(error)

        self._journal.append(
            encode_register(RegisterRow(RowKind.REGISTER, register, acceptor)), 0, done
        )
        self._heads.pop(register, None)  # The last one saved stands last.
        self._heads[register] = acceptor
        self._on_their_way[register] = self._on_their_way.get(register, 0) + 1
        return saved

    def prune(self, register: str, position: Stamp) -> None:
        for kept in (self._heads, self._durable):
            acceptor = kept.get(register)
            if acceptor is not None and acceptor.accepted is not None:
                kept[register] = acceptor.pruned(position)

    def accepted(self) -> Mapping[str, Acceptor]:
        return {name: at for name, at in sorted(self._heads.items()) if at.accepted is not None}

    async def close(self) -> None:
        """Write what waits, and let go."""
        self._closing = True
        await self._journal.close()

    # -- what became of it -----------------------------------------------------------

    def _saved(self, register: str, acceptor: Acceptor) -> None:
        self._durable.pop(register, None)
        self._durable[register] = acceptor
        left = self._on_their_way.get(register, 0) - 1
        if left > 0:
            self._on_their_way[register] = left
        else:
            self._on_their_way.pop(register, None)
        if (
            not (self._compacting or self._closing)
            and self._segment() - self._compacted_in >= _SEGMENTS
        ):
            self._begin_snapshot()

    def _segment(self) -> int:
        """The number of the segment that grows now."""
        return self._journal.segments[-1].header.number

    def _refused(self) -> None:
        """All that was on its way is gone."""
        self._generation += 1
        self._heads = dict(self._durable)
        self._on_their_way.clear()
        self._journal.resume()

    def _begin_snapshot(self) -> None:
        """Write all rows anew; what is forgotten is so once that is durable."""
        self._forget(self._forgettable())
        self._compacting, generation = True, self._generation
        covered = 0

        def begun(lsn: int, _: EnvdError | None) -> None:
            nonlocal covered
            covered = lsn - 1

        def ended(_: int, error: EnvdError | None) -> None:
            self._compacting = False
            if error is None:
                self._journal.cover(covered)
                self._compacted_in = self._segment()
                return
            _log.warning("registers.not_compacted", extra={"reason": error.reason})
            if generation == self._generation:
                self._refused()

        self._journal.append(_row(RowKind.BEGIN, "", Acceptor(self._low)), 0, begun)
        for name, acceptor in self._heads.items():  # What is on its way stands before this.
            self._journal.append(_row(RowKind.REGISTER, name, acceptor), 0, _unheard)
        self._journal.append(_row(RowKind.END, "", Acceptor()), 0, ended)

    def _forgettable(self) -> dict[str, None]:
        """Registers with nothing but a promise, all but the newest, and none on its way."""
        promises = [name for name, at in self._durable.items() if at.accepted is None]
        oldest = promises[: max(0, len(promises) - self._kept_promises)]
        return {name: None for name in oldest if name not in self._on_their_way}

    def _forget(self, names: Mapping[str, None]) -> None:
        """At once, and not taken back where the snapshot fails: a higher ballot is always safe."""
        self._low = max([self._low, *(self._durable[name].promised for name in names)])
        for name in names:
            self._durable.pop(name, None)
            self._heads.pop(name, None)


def _row(kind: RowKind, register: str, acceptor: Acceptor) -> bytes:
    return encode_register(RegisterRow(kind, register, acceptor))


def _unheard(_: int, __: EnvdError | None) -> None:
    """The END of a snapshot tells how it went."""
