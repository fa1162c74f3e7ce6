"""Taking over from a node that decided before: what its acceptor has open, and what its log holds.

First what is open there, which binds that node to the new epoch: from then on it accepts nothing of
an earlier one. Then its log; and what was open is kept by the acceptor here, once the log here
holds what that follows. Who has done so with a majority of those that decided before knows all that
was ever chosen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial

from envd.core.shares import to_bitmap
from envd.node.acceptor import AcceptorService
from envd.node.proposing import Ask
from envd.node.repair import Ask as AskOne
from envd.wire import peers as wire

Pull = Callable[[AskOne, Collection[int] | None], Awaitable[object]]
"""(ask, partitions): have this node hold what a peer holds of these, None: of all."""


class TakingOver:
    """Takes over from one node at a time; `ask` asks a peer."""

    def __init__(self, acceptor: AcceptorService, ask: Ask) -> None:
        self._acceptor = acceptor
        self._ask = ask

    async def take_over(
        self, uid: int, epoch: int, pull: Pull, partitions: Collection[int] | None = None
    ) -> None:
        """Take over from the node `uid`, of these partitions alone where they are given.

        Raises what the peer or the store does; then nothing is lost, and it is to be done again.
        """
        found: list[wire.Open] = []
        named = b"" if partitions is None else to_bitmap(partitions)
        while True:
            after = found[-1].environment if found else ""
            asked = (epoch, after, named) if named else (epoch, after)
            page = wire.unpack(
                list[wire.Open], await self._ask(uid, "serial.open", wire.pack(asked))
            )
            if not page:
                break
            found += page
        await pull(partial(self._ask, uid), partitions)
        for each in found:
            await self._acceptor.adopt(each)
