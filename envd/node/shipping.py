"""This node's log to one peer, over one channel: its own records at once, others' if need be.

Own records go in the order of the log as soon as they are durable, in batches of what there
is, up to a window of bytes that the peer has not acknowledged. Records of other origins are
only relayed: where the peer, which tells with each heartbeat what it holds, has not got one for a
while, because its origin is gone or can't reach it. Of several nodes that could relay one, each
waits a little longer than the one before it (`rank`), so that nearly always one does.

Where the log no longer reaches back to what the peer lacks, the peer is told, and repairs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from envd.core.errors import Corrupt, NotFound, Unavailable
from envd.node import handshake
from envd.node.acknowledging import Acknowledging
from envd.node.holdings import Holdings
from envd.node.intake import IdentityLost
from envd.node.peer import HEARTBEAT_S, PeerLink
from envd.node.tail import LogTail, Tailed
from envd.node.together import run_together
from envd.node.vectors import PeerVectors, as_map
from envd.ports import Clock, PeerChannel, Store
from envd.wire import peers as wire
from envd.wire import records

BATCH_BYTES: Final = 1 << 20
WINDOW_BYTES: Final = 8 << 20
RELAY_S: Final = 0.5
SILENCE_S: Final = 5.0
_RELAYED_AGAIN_S: Final = 2.0
_RELAYS_A_BEAT: Final = 64


class _UnderWay(NamedTuple):
    """A batch without an answer; `durable_s`: when its first record became durable here."""

    number: int
    size: int
    through_lsn: int
    durable_s: float | None


@dataclass(slots=True)
class _Relayed:
    """Up to where others' records were relayed, and when."""

    lsn: int = 0
    at_s: float = 0.0


class LogShipper:
    """Ships to one peer; one for each channel."""

    def __init__(
        self,
        link: PeerLink,
        store: Store,
        tail: LogTail,
        clock: Clock,
        node_uid: int,
        acknowledging: Acknowledging,
        delay_of: Callable[[int, int], float],
        holdings: Holdings,
        *,
        everything: bool = False,
        beat_s: Callable[[], float] = lambda: HEARTBEAT_S,
        propagated: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Ships what the peer is to hold, by `holdings`.

        `delay_of(origin, target)` is how long a record of `origin` that the target lacks is
        left to others, in seconds. With `everything` all records go at once, whoever gave them:
        for a peer that hears from nobody else, or from others of other partitions. `propagated` is
        told of each batch of own records that the peer has synced: how many seconds after the first
        became durable here.
        """
        self._link = link
        self._store = store
        self._tail = tail
        self._clock = clock
        self._node_uid = node_uid
        self._acknowledging = acknowledging
        self._delay_of = delay_of
        self._holdings = holdings
        self._everything = everything
        self._beat_s = beat_s
        self._propagated = propagated
        self._loop = asyncio.get_running_loop()
        self._share: frozenset[int] | None = None
        self._position = 0
        self._number = 0
        self._under_way: deque[_UnderWay] = deque()
        self._under_way_bytes = 0
        self._room = asyncio.Event()
        self._relayed = _Relayed()
        self._beats: dict[int, tuple[float, int]] = {}

    async def run(self, channel: PeerChannel) -> NoReturn:
        """Ship until the channel ends, which raises Unavailable.

        Raises IdentityLost where the peer knows more of this node than this node does, Corrupt
        where the peer talks nonsense.
        """
        try:
            async with asyncio.timeout(SILENCE_S):
                resume = await handshake.receive(channel)
        except TimeoutError:
            raise Unavailable("the peer is silent", reason="PEER_SILENT") from None
        if isinstance(resume, wire.ResumeShare) and self._everything:
            self._share = wire.partitions_of(resume.partitions)
        elif not isinstance(resume, wire.Resume):
            raise Corrupt("a peer began a log channel with something else than its cursor")
        self._resume(resume)
        if self._lost():
            await self._tell_lost(channel)
        link = self._link
        link.began(self._loop.time())
        link.streaming = True
        self._acknowledging.reach(link.uid, reachable=True)
        try:
            await run_together(
                self._receive(channel), self._ship(channel), self._beat(channel), self._watch()
            )
        finally:
            link.streaming = False
            self._acknowledging.reach(link.uid, reachable=False)
        raise Unavailable("the channel ended")

    # -- where to begin ------------------------------------------------------------------

    def _resume(self, resume: wire.Resume | wire.ResumeShare) -> None:
        vectors = as_map(resume.vectors)
        known = self._store.last_seq
        ahead = any(
            seq > known(partition, origin)
            for (partition, origin), seq in vectors.items()
            if origin == self._node_uid
        )
        if ahead or max(resume.own_lsn, resume.relay_lsn) > self._store.last_lsn():
            raise IdentityLost("a peer holds more of this node's log than this node does")
        self._link.vectors = PeerVectors()  # What it holds may be less than it once said.
        self._link.vectors.learn(resume.vectors, self._loop.time())
        self._position = self._link.synced_lsn = resume.own_lsn
        self._link.has_told = True
        self._link.relay_lsn = resume.relay_lsn
        self._acknowledging.synced(self._link.uid, resume.own_lsn)

    def _lost(self) -> bool:
        """Tell whether the log no longer has what the peer lacks.

        Nor has it for who begins with nothing, once there is a floor: what was deleted would come
        without what deleted it, before that one knows of a floor.
        """
        link = self._link
        before = min(link.synced_lsn, link.relay_lsn)
        return before + 1 < self._store.oldest_lsn() or (not before and self._store.floor() > 0)

    async def _tell_lost(self, channel: PeerChannel) -> NoReturn:
        await channel.send(wire.encode(wire.Lost(self._store.oldest_lsn())))
        raise Unavailable("the peer lacks what the log no longer has; it repairs", reason="LOST")

    # -- own records -----------------------------------------------------------------------

    async def _ship(self, channel: PeerChannel) -> None:
        event = self._tail.join(everything=self._everything)
        try:
            while True:
                event.clear()
                rows, through, durable_s = await self._next(channel)
                if rows:
                    await self._send(channel, rows, through, durable_s)
                    self._position = through
                elif through > self._position:
                    self._position = through
                else:
                    await event.wait()
        finally:
            self._tail.leave(event)

    async def _next(self, channel: PeerChannel) -> tuple[Sequence[bytes], int, float | None]:
        """The next rows to ship at once, the lsn that is reached with them, and since when the
        first is durable (None: only the log has it)."""
        after = self._tail.all_after if self._everything else self._tail.own_after
        tailed = after(self._position, BATCH_BYTES)
        if tailed:
            wanted = [record for record in tailed if self._is_wanted(record.partition)]
            since_s = wanted[0].at_s if wanted else None
            return [record.row for record in wanted], tailed[-1].lsn, since_s
        if tailed is not None:
            return [], self._position, None
        last = self._tail.last_lsn
        try:
            page = await self._store.rows(self._position, BATCH_BYTES)
        except NotFound:
            await self._tell_lost(channel)
        rows = [row for _, row in page if self._is_to_ship(row)]
        return rows, page[-1][0] if page else last, None

    def _is_to_ship(self, row: bytes) -> bool:
        partition, origin, _, _ = records.open_log_row(row)
        return (self._everything or origin == self._node_uid) and self._is_wanted(partition)

    def _is_wanted(self, partition: int) -> bool:
        if self._everything:
            return self._share is None or partition in self._share
        return self._holdings.holds(self._link.uid, partition)

    async def _send(
        self,
        channel: PeerChannel,
        rows: Sequence[bytes],
        through_lsn: int,
        durable_s: float | None = None,
    ) -> None:
        while self._under_way_bytes > WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        self._number += 1
        size = sum(map(len, rows))
        self._under_way.append(_UnderWay(self._number, size, through_lsn, durable_s))
        self._under_way_bytes += size
        batch = wire.Batch(self._number, through_lsn, rows, self._store.floor())
        await channel.send(wire.encode(batch))

    # -- what the peer says ------------------------------------------------------------------

    async def _receive(self, channel: PeerChannel) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    frame = await handshake.receive(channel)
            except TimeoutError:
                raise Unavailable("the peer is silent", reason="PEER_SILENT") from None
            match frame:
                case wire.Ack() as ack:
                    self._acknowledged(ack.number)
                case wire.BeatBack() as back:
                    self._heard(back)
                case _:
                    continue

    def _acknowledged(self, number: int) -> None:
        while self._under_way and self._under_way[0].number <= number:
            done = self._under_way.popleft()
            self._under_way_bytes -= done.size
            if done.through_lsn:
                self._link.synced_lsn = done.through_lsn
            if done.durable_s is not None:
                self._propagated(self._loop.time() - done.durable_s)
        self._room.set()
        self._acknowledging.synced(self._link.uid, self._link.synced_lsn)

    def _heard(self, back: wire.BeatBack) -> None:
        now = self._loop.time()
        self._link.heard(now)
        self._link.vectors.learn(back.vectors, now)
        sent = self._beats.pop(back.number, None)
        if sent is not None:
            sent_s, wall_ms = sent
            took_s = now - sent_s
            self._link.measured(now, took_s, back.wall_ms - wall_ms - int(took_s * 500))

    # -- heartbeats and relays -----------------------------------------------------------------

    async def _beat(self, channel: PeerChannel) -> None:
        number = 0
        while True:
            number += 1
            now, wall_ms = self._loop.time(), self._clock.wall_ms()
            self._beats[number] = (now, wall_ms)
            self._beats.pop(number - 100, None)
            link = self._link
            if self._everything:
                link.relay_lsn = link.synced_lsn
            else:
                await self._relay_all(channel, now)
            await channel.send(
                wire.encode(wire.Beat(number, wall_ms, link.synced_lsn, link.relay_lsn))
            )
            await asyncio.sleep(self._beat_s())

    async def _watch(self) -> None:
        """See how the peer does, also while it does not read what is sent."""
        link = self._link
        while True:
            now = self._loop.time()
            self._acknowledging.reach(link.uid, reachable=link.plausible(now))
            own = self._position >= self._tail.last_own_lsn and not self._everything
            if own and not self._under_way:
                link.synced_lsn = self._position = self._tail.last_lsn
                self._acknowledging.synced(link.uid, link.synced_lsn)
            await asyncio.sleep(self._beat_s())

    async def _relay_all(self, channel: PeerChannel, now: float) -> None:
        """Relay until nothing is due or so much was looked at."""
        for _ in range(_RELAYS_A_BEAT):
            before = self._link.relay_lsn
            await self._relay(channel, now)
            if self._link.relay_lsn in {before, self._tail.last_lsn}:
                return

    async def _relay(self, channel: PeerChannel, now: float) -> None:
        """Ship what others should have brought the peer by now and did not."""
        link = self._link
        found, through = await self._others_after(link.relay_lsn)
        rows: list[bytes] = []
        held = True
        for record in found:
            if record.origin == link.uid or self._has(record):
                link.relay_lsn = record.lsn if held else link.relay_lsn
                continue
            held = False
            again = now - self._relayed.at_s >= _RELAYED_AGAIN_S
            if not again and record.lsn <= self._relayed.lsn:
                continue
            if not self._is_due(record, now):
                break
            rows.append(record.row)
            reached = record.lsn
        if held:
            link.relay_lsn = max(link.relay_lsn, through)
        if rows:
            self._relayed = _Relayed(reached, now)
            await self._send(channel, rows, 0)

    async def _others_after(self, lsn: int) -> tuple[Sequence[Tailed], int]:
        """The next records of others, and the lsn up to which there are no more of them."""
        last = self._tail.last_lsn
        tailed = self._tail.others_after(lsn, BATCH_BYTES)
        if tailed is not None:
            return tailed, tailed[-1].lsn if tailed else last
        page = await self._store.rows(lsn, BATCH_BYTES)
        named = [(at, records.open_log_row(row)[:3], row) for at, row in page]
        others = [
            Tailed(at, *name, row, 0.0) for at, name, row in named if name[1] != self._node_uid
        ]
        return others, page[-1][0] if page else last

    def _has(self, record: Tailed) -> bool:
        """Whether the peer holds a record, or need not be brought it."""
        link = self._link
        if not self._holdings.brings(link.uid, record.partition):
            return True
        return link.vectors.holds(record.partition, record.origin, record.seq)

    def _is_due(self, record: Tailed, now: float) -> bool:
        moved_s = self._link.vectors.moved_s(record.origin)
        delay_s = self._delay_of(record.origin, self._link.uid)
        return now - max(record.at_s, moved_s) >= delay_s
