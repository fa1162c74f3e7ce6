"""When a write counts as acknowledged: here and on one more storage node, or honestly not.

A write is durable here first. Then, by default, its answer waits until one more storage node
has synced it; where nobody else can be reached, or nobody answers within a second, it is
answered as *detached*: acknowledged by one copy. `strict` ends such a write as of unknown
outcome, and refuses it at the beginning where it is known that nobody is there; `local` never
waits. A node that is alone in its cluster has nobody to wait for.

Peers acknowledge the own records of this node in the order of its log, so the writes that
wait are a queue by lsn, and what one peer has synced is one number. Where not every node holds
everything, only those count that hold the partition of the write, for only they are sent it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from envd.core.errors import EnvdError, OutcomeUnknown, Unavailable
from envd.core.requests import Durability
from envd.node.holdings import Holdings
from envd.node.writing import Confirmation, Copies
from envd.ports import Logged

PATIENCE_S: Final = 1.0
WANTED_COPIES: Final = 2


class _Waiting(NamedTuple):
    lsn: int
    until_s: float
    strict: bool
    holders: Collection[int] | None
    outcome: asyncio.Future[Copies]


class Acknowledging:
    """The writes of one node that wait for a second copy.

    `peers` are the other storage nodes of the cluster, reachable or not; `reachable` those of
    them whose stream takes records now.
    """

    def __init__(
        self,
        last_own_lsn: Callable[[], int] = lambda: 0,
        holdings: Holdings | None = None,
        *,
        expecting: bool = False,
    ) -> None:
        """`last_own_lsn` tells the last own record of the log, or one that is higher.

        `expecting`: there are other storage nodes, though none of them is known yet.
        """
        self._last_own_lsn = last_own_lsn
        self._expecting = expecting
        self._holdings = holdings or Holdings(0)
        self._loop = asyncio.get_running_loop()
        self._peers: dict[int, bool] = {}
        self._synced: dict[int, int] = {}
        self._highest = 0
        self._queue: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.detached = 0

    def expect(self, uid: int) -> None:
        """A storage node belongs to the cluster."""
        self._expecting = False
        self._peers.setdefault(uid, False)

    def dismiss(self, uid: int) -> None:
        """A storage node belongs to it no longer."""
        self._peers.pop(uid, None)
        self._synced.pop(uid, None)
        self._look()

    def reach(self, uid: int, *, reachable: bool) -> None:
        """Note whether a peer takes records now; where none does, nobody is waited for."""
        if uid in self._peers:
            self._peers[uid] = reachable
            self._look()

    def synced(self, uid: int, lsn: int) -> None:
        """A peer has synced all own records of this node up to `lsn`."""
        if uid not in self._peers or lsn <= self._synced.get(uid, 0):
            return
        self._synced[uid] = lsn
        if lsn > self._highest:
            self._highest = lsn
        if self._holdings.whole:
            while self._queue and self._queue[0].lsn <= lsn:
                self._settle(self._queue.popleft())
        else:
            self._look_at(lsn)

    @property
    def alone(self) -> bool:
        """Whether the cluster has no other storage node."""
        return not self._peers and not self._expecting

    @property
    def anybody(self) -> bool:
        """Whether any other storage node takes records now."""
        return any(self._peers.values())

    def _others(self, partition: int) -> Collection[int] | None:
        """The other nodes that hold a partition; None: all of them."""
        writers = self._holdings.writers(partition)
        return writers and [uid for uid in writers if uid != self._holdings.uid]

    def _any_of(self, holders: Collection[int] | None) -> bool:
        """Whether any of these takes records now."""
        return self.anybody if holders is None else any(self._peers.get(uid) for uid in holders)

    def _counted(self, lsn: int, holders: Collection[int] | None) -> int:
        """How many of these have synced all own records up to `lsn`."""
        if holders is None:
            return sum(synced >= lsn for synced in self._synced.values())
        return sum(self._synced.get(uid, 0) >= lsn for uid in holders)

    def check(self, durability: Durability, partition: int) -> None:
        """Refuse a strict write that can't be acknowledged as it asks; raises Unavailable."""
        if durability is not Durability.STRICT or self.alone:
            return
        holders = self._others(partition)
        if not self._any_of(holders) and holders != []:
            raise Unavailable(
                "no other storage node can be reached, and the write asks for two copies; "
                "nothing was done",
                hint="leave `strict` out to have it written here now and sent on later",
                reason="NO_SECOND_COPY",
                retry_after_ms=1000,
            )

    def confirm_earlier(self, durability: Durability, partition: int) -> Confirmation:
        """What the answer to a repeat waits for: all that was written here so far is confirmed."""
        outcome: asyncio.Future[Copies] = self._loop.create_future()
        self._begin_waiting(self._last_own_lsn(), durability, self._others(partition), outcome)
        return outcome

    def confirm(self, logged: Logged, durability: Durability, partition: int) -> Confirmation:
        """What the answer of a write waits for: `logged`, or its copies once they are enough."""
        if self.alone:
            return logged
        holders = self._others(partition)
        outcome: asyncio.Future[Copies] = self._loop.create_future()

        def durable(done: Logged) -> None:
            error = done.exception()
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                self._begin_waiting(done.result(), durability, holders, outcome)

        logged.add_done_callback(durable)
        return outcome

    def _begin_waiting(
        self,
        lsn: int,
        durability: Durability,
        holders: Collection[int] | None,
        outcome: asyncio.Future[Copies],
    ) -> None:
        if durability is Durability.LOCAL or holders == []:
            outcome.set_result(Copies(1, detached=False))
            return
        strict = durability is Durability.STRICT
        waiting = _Waiting(lsn, self._loop.time() + PATIENCE_S, strict, holders, outcome)
        if self._is_decided(waiting):
            self._settle(waiting)
            return
        self._queue.append(waiting)
        if self._timer is None:
            self._timer = self._loop.call_at(waiting.until_s, self._expired)

    def _settle(self, waiting: _Waiting) -> None:
        """Answer a write with what there is."""
        copies = 1 + self._counted(waiting.lsn, waiting.holders)
        detached = copies < WANTED_COPIES and not self.alone
        if waiting.outcome.done():
            return
        if detached and waiting.strict:
            waiting.outcome.set_exception(_not_confirmed())
            return
        self.detached += detached
        waiting.outcome.set_result(Copies(copies, detached))

    def _is_decided(self, waiting: _Waiting) -> bool:
        """Whether a second node has it, or none can be expected to get it now."""
        if waiting.lsn > self._highest and self._any_of(waiting.holders):
            return False
        return (
            waiting.holders is None
            or not self._any_of(waiting.holders)
            or self._counted(waiting.lsn, waiting.holders) > 0
        )

    def _look(self) -> None:
        """Answer all for which nobody can be expected any more to have a second copy soon."""
        if self._holdings.whole:
            if not self.anybody:
                while self._queue:
                    self._settle(self._queue.popleft())
        else:
            self._look_at(self._queue[-1].lsn if self._queue else 0)

    def _look_at(self, through_lsn: int) -> None:
        """Answer those that are decided, up to `through_lsn`, each by its own holders."""
        undecided: list[_Waiting] = []
        while self._queue and self._queue[0].lsn <= through_lsn:
            waiting = self._queue.popleft()
            if self._is_decided(waiting):
                self._settle(waiting)
            else:
                undecided.append(waiting)
        self._queue.extendleft(reversed(undecided))

    def _expired(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._queue and self._queue[0].until_s <= now:
            self._settle(self._queue.popleft())
        if self._queue:
            self._timer = self._loop.call_at(self._queue[0].until_s, self._expired)

    def close(self) -> None:
        """Answer all that wait with what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            self._settle(self._queue.popleft())


def _not_confirmed() -> EnvdError:
    return OutcomeUnknown(
        "no other storage node confirmed the write in time; this node has it and will send it on",
        hint="repeat it with the same --operation ID, or look with: envctl history",
        reason="NOT_CONFIRMED",
    )
