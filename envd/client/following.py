"""The live environments of a client: each is fed by a watch, and kept in an offline snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from envd.client import snapshot
from envd.client.calls import ENVIRONMENTS
from envd.client.feed import Feed, Wish
from envd.client.keeping import Keeper, Place
from envd.client.live import LiveEnvironment
from envd.client.servers import Servers, closed
from envd.client.tasks import end
from envd.core.errors import Unavailable


@dataclass(eq=False, slots=True)
class _Followed:
    """A live environment and what keeps it so; `waiting` callers want its first state."""

    wish: Wish
    live: LiveEnvironment
    feed: Feed
    keeper: Keeper | None
    task: asyncio.Task[None]
    waiting: int = 0


class Following:
    """What a client follows over `servers`.

    `given` are the addresses that its snapshots are named by, and `token` gives what seals them.
    """

    def __init__(
        self,
        servers: Servers,
        given: Sequence[str],
        snapshots: Path | None,
        token: Callable[[], str],
    ) -> None:
        self._servers = servers
        self._given = given
        self._snapshots = snapshots
        self._token = token
        self._followed: dict[Wish, _Followed] = {}

    async def live(self, wish: Wish, within_s: float) -> LiveEnvironment:
        """Follow an environment, or go on to; raises what it failed with, or Unavailable."""
        followed = self._followed.get(wish)
        if followed is None or followed.feed.failed:
            followed = self._followed[wish] = self._follow(wish)
        followed.waiting += 1
        try:
            async with asyncio.timeout(within_s):
                await asyncio.shield(followed.feed.first)
        except TimeoutError:
            raise followed.live.error or _too_late() from None
        finally:
            followed.waiting -= 1
            if not followed.waiting and not followed.feed.began:
                await self._unfollow(followed)
        return followed.live

    def save_again(self) -> None:
        """Save every snapshot once more, under the token of now."""
        for followed in self._followed.values():
            if followed.keeper is not None:
                followed.keeper.again()

    async def close(self) -> None:
        """Follow nothing any more."""
        for followed in list(self._followed.values()):
            await self._unfollow(followed)

    def _follow(self, wish: Wish) -> _Followed:
        async def close() -> None:
            await self._unfollow(followed)

        live = LiveEnvironment(wish.environment, self._servers.world, close)
        keeper = self._keeper(wish)
        feed = Feed(self._servers, f"/{ENVIRONMENTS}/Watch", wish, live, keeper)
        task = asyncio.create_task(feed.run(), name=f"envd watch {wish.environment}")
        followed = _Followed(wish, live, feed, keeper, task)
        return followed

    def _keeper(self, wish: Wish) -> Keeper | None:
        if self._snapshots is None:
            return None
        context = snapshot.context_of(self._given, resolve=wish.resolve, reveal=wish.reveal)
        place = Place(self._snapshots, context, self._token)
        return Keeper(place, wish.environment, self._servers.world)

    async def _unfollow(self, followed: _Followed) -> None:
        if self._followed.get(followed.wish) is followed:
            del self._followed[followed.wish]
        await end(followed.task)
        followed.feed.fail_first(closed())
        await followed.live.end()
        if followed.keeper is not None:
            await followed.keeper.close()


def _too_late() -> Unavailable:
    return Unavailable("no answer from a node (it took too long)", reason="TIMEOUT")
