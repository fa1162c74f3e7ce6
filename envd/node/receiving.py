"""The log of one peer, taken in from the channel that it dialed.

Batches are applied as they come, and acknowledged once they are durable here, in order. What
can't be taken (a hole, no room, a clock that is wrong) ends the channel: the peer dials again,
and begins at the cursor that this node remembers. So no error leaves a hole behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple, NoReturn

from envd.core.errors import Corrupt, EnvdError, Unavailable
from envd.core.shares import to_bitmap
from envd.core.versions import Cursor
from envd.node import handshake
from envd.node.intake import MAX_SEQ, Intake, Taken
from envd.node.peer import PeerLink
from envd.node.together import run_together
from envd.node.vectors import VectorChanges, VectorFeed
from envd.ports import Clock, Logged, PeerChannel, Store
from envd.wire import peers as wire

_ROWS_A_TURN: Final = 16
SILENCE_S: Final = 5.0


class NeedsRepair(EnvdError):
    """The peer's log does not connect with what this node holds."""

    default_reason = "NEEDS_REPAIR"


class _Taken(NamedTuple):
    """One batch; `mark` was made before it."""

    number: int
    through_lsn: int
    logged: Logged | None
    mark: int


class LogReceiver:
    """Takes in the log of one peer; one for each channel."""

    def __init__(
        self,
        link: PeerLink,
        store: Store,
        intake: Intake,
        feed: VectorFeed,
        clock: Clock,
        *,
        origins: bool = True,
        share: Collection[int] | None = None,
    ) -> None:
        """`origins`: the peer ships what it gave itself, apart from relays; else everything, of
        the partitions of the `share` where there is one."""
        self._share = share
        self._origins = origins
        self._link = link
        self._store = store
        self._intake = intake
        self._feed = feed
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._taken: deque[_Taken] = deque()
        self._news = asyncio.Event()

    async def run(self, channel: PeerChannel) -> NoReturn:
        """Take in until the channel ends, which raises Unavailable.

        Raises NeedsRepair where a hole shows, IdentityLost, Corrupt, and what the store refuses
        with.
        """
        changes = self._feed.join()
        try:
            await channel.send(wire.encode(self._resume()))
            await run_together(self._receive(channel, changes), self._acknowledge(channel))
        finally:
            self._feed.leave(changes)
            self._link.beats_no_more()
        raise Unavailable("the channel ended")

    def _resume(self) -> wire.Resume | wire.ResumeShare:
        cursor = self._store.cursor(self._link.uid)
        if self._share is None:
            return wire.Resume(*cursor, self._feed.whole())
        return wire.ResumeShare(*cursor, self._feed.whole(), to_bitmap(self._share))

    async def _receive(self, channel: PeerChannel, changes: VectorChanges) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    frame = await handshake.receive(channel)
            except TimeoutError:
                raise Unavailable("the peer is silent", reason="PEER_SILENT") from None
            match frame:
                case wire.Batch() as batch:
                    await self._take(batch)
                case wire.Beat() as beat:
                    self._hear(beat)
                    back = wire.BeatBack(beat.number, self._clock.wall_ms(), changes.take())
                    await channel.send(wire.encode(back))
                case wire.Lost():
                    raise NeedsRepair("the peer's log no longer has what this node lacks")
                case _:
                    continue

    async def _take(self, batch: wire.Batch) -> None:
        mark = self._intake.mark()
        for number, row in enumerate(batch.rows, 1):
            direct = self._origins and batch.through_lsn > 0
            taken = await self._intake.take(
                row, direct=direct, sender=self._link.uid, floor=batch.floor
            )
            if taken is Taken.BEHIND:
                await self._intake.settled(mark)
                raise NeedsRepair("a commit of a serial environment follows one that is not here")
            if taken is Taken.GAP:
                await self._intake.settled(mark)  # Where the store refused one, that is the hole.
                raise NeedsRepair("a record does not follow what this node holds")
            if number % _ROWS_A_TURN == 0:
                await asyncio.sleep(0)
        latest = self._intake.latest()
        self._taken.append(_Taken(batch.number, batch.through_lsn, latest, mark))
        self._news.set()

    async def _acknowledge(self, channel: PeerChannel) -> None:
        while True:
            while not self._taken:
                self._news.clear()
                await self._news.wait()
            done = self._taken.popleft()
            if done.logged is not None:
                await asyncio.shield(done.logged)
            while self._taken and _is_durable(self._taken[0].logged):
                self._note(done)
                done = self._taken.popleft()
            self._note(done)
            await channel.send(wire.encode(wire.Ack(done.number)))

    def _note(self, done: _Taken) -> None:
        self._intake.check(done.mark)
        if done.through_lsn:
            self._remember(done.through_lsn, 0)

    def _hear(self, beat: wire.Beat) -> None:
        self._link.beat(self._loop.time())
        self._remember(beat.own_lsn, beat.relay_lsn)

    def _remember(self, own_lsn: int, relay_lsn: int) -> None:
        if not (0 <= own_lsn <= MAX_SEQ and 0 <= relay_lsn <= MAX_SEQ):
            raise Corrupt("a peer's cursor is none")
        known = self._store.cursor(self._link.uid)
        cursor = Cursor(max(known.own_lsn, own_lsn), max(known.relay_lsn, relay_lsn))
        if cursor != known:
            self._store.advance({}, {self._link.uid: cursor})


def _is_durable(logged: Logged | None) -> bool:
    return logged is None or (logged.done() and logged.exception() is None)
