"""News on its way out: least told first, of those the newest first (memberlist's queue).

There is at most one piece of news about a member: what is newer makes the older one pointless
(*invalidation*). So the queue is never longer than the table of members.

It is a heap of (times sent, newest first, uid); items that are outdated are passed over when they
come up, and swept out when they are more than the live ones.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from envd.core.swim.messages import LEAST_NEWS_BYTES, News

_SLACK = 64
_MISFITS = 8
_Place = tuple[int, int, int]


class _Broadcast:
    __slots__ = ("news", "place", "size_bytes")

    def __init__(self, news: News, serial: int) -> None:
        self.news = news
        self.size_bytes = news.size_bytes
        self.place: _Place = (0, -serial, news.uid)


class Broadcasts:
    """The queue; `take` counts what it gives as sent once more."""

    __slots__ = ("_heap", "_queue", "_serial")

    def __init__(self) -> None:
        self._queue: dict[int, _Broadcast] = {}
        self._heap: list[_Place] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._queue)

    def about(self, uid: int) -> News | None:
        """The news about this member that is still being told."""
        broadcast = self._queue.get(uid)
        return broadcast.news if broadcast else None

    def put(self, news: News) -> None:
        """Tell this, and nothing older about the same member."""
        self._serial += 1
        broadcast = self._queue[news.uid] = _Broadcast(news, self._serial)
        heappush(self._heap, broadcast.place)
        if len(self._heap) > 2 * len(self._queue) + _SLACK:
            self._heap = [broadcast.place for broadcast in self._queue.values()]
            heapify(self._heap)

    def drop(self, uid: int) -> None:
        """Tell nothing about this member."""
        self._queue.pop(uid, None)

    def clear(self) -> None:
        """Tell nothing."""
        self._queue.clear()
        self._heap.clear()

    def take(self, room_bytes: int, limit: int) -> list[News]:
        """What fits one datagram; what was sent `limit` times with this leaves the queue.

        After some that don't fit it stops looking for smaller ones.
        """
        taken: list[News] = []
        again: list[_Place] = []
        misfits = 0
        while room_bytes >= LEAST_NEWS_BYTES and misfits < _MISFITS:
            broadcast = self._pop()
            if broadcast is None:
                break
            sent, newest, uid = broadcast.place
            if broadcast.size_bytes > room_bytes:
                misfits += 1
                again.append(broadcast.place)
                continue
            room_bytes -= broadcast.size_bytes
            taken.append(broadcast.news)
            if sent + 1 >= limit:
                del self._queue[uid]
            else:
                broadcast.place = (sent + 1, newest, uid)
                again.append(broadcast.place)
        for place in again:
            heappush(self._heap, place)
        return taken

    def _pop(self) -> _Broadcast | None:
        while self._heap:
            place = heappop(self._heap)
            broadcast = self._queue.get(place[2])
            if broadcast is not None and broadcast.place == place:
                return broadcast
        return None
