"""The client for programs without asyncio: the same calls, blocking, from any thread.

An event loop in a thread of its own does the work; what is called at the same time from several
threads goes out together, as with asyncio. Reading a live environment asks no loop: it is a
lookup in a dict. A thread does not survive a fork, so neither does a client: after one, calls
and lookups in the child say to connect anew.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Never, Self, TypeVar, Unpack

from envd.client import bulk
from envd.client.calls import forked
from envd.client.changes import DEFAULT_LIMIT, Change
from envd.client.client import Client, Options
from envd.client.live import Changes, LiveEnvironment
from envd.client.options import (
    CallOptions,
    ConflictsOptions,
    ExportOptions,
    FollowOptions,
    HistoryOptions,
    ImportOptions,
    ListOptions,
    ReadManyOptions,
    ReadOptions,
    ResolveOptions,
    SetOptions,
    SettingsOptions,
    WriteOptions,
)
from envd.client.reading import Reading
from envd.client.servers import closed
from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    HistoryPage,
    ListPage,
    Membership,
    Status,
    WriteAnswer,
)
from envd.core.errors import EnvdError, InvalidRequest
from envd.core.requests import WriteRequest

T = TypeVar("T")
CLOSE_TIMEOUT_S: Final = 10.0


def wrong_thread() -> InvalidRequest:
    """The error of a call out of a callback."""
    return InvalidRequest(
        "a callback of envd's own thread can't wait for that thread",
        hint="hand the work to a thread of the program",
        reason="WRONG_THREAD",
    )


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._running: Future[asyncio.AbstractEventLoop] = Future()
        self._waiting: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._work, name="envd client", daemon=True)
        self._thread.start()
        self._loop = self._running.result()
        self.stopped = False

    def _work(self) -> None:
        try:
            with asyncio.Runner() as runner:  # It ends what is left of tasks and generators.
                runner.run(self._until_stopped())
        except BaseException as error:
            if self._running.done():
                raise
            self._running.set_exception(error)

    async def _until_stopped(self) -> None:
        self._ending = asyncio.Event()
        self._running.set_result(asyncio.get_running_loop())
        await self._ending.wait()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Have a coroutine run there and wait for it; where the wait ends early, it does too."""
        refusal = self._refusal()
        if refusal is not None:
            work.close()
            raise refusal
        try:
            future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # The loop ended just now.
            work.close()
            raise closed() from None
        self._waiting.add(future)
        if not self._thread.is_alive():
            future.cancel()
        try:
            return future.result(timeout_s)
        except CancelledError:
            raise closed() from None
        except BaseException:
            future.cancel()
            raise
        finally:
            self._waiting.discard(future)

    def call(self, action: Callable[[], None]) -> None:
        """Have something called there, soon."""
        if not self.forked and not self.stopped:
            with suppress(RuntimeError):  # The loop ended just now.
                self._loop.call_soon_threadsafe(action)

    @property
    def forked(self) -> bool:
        """Whether this process was forked off from the one that made it."""
        return self._process != os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the caller is a callback in the loop's own thread."""
        return threading.current_thread() is self._thread

    def _refusal(self) -> InvalidRequest | None:
        if self.forked:
            return forked()
        if self.stopped:
            return closed()
        if self.is_current:
            return wrong_thread()
        return None

    def stop(self) -> None:
        """End the thread; may be called more than once."""
        if not self.stopped and not self.forked:
            self.stopped = True
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(CLOSE_TIMEOUT_S)
            for future in list(self._waiting):  # What came too late to be run or ended.
                future.cancel()


class SyncEnvironment(Reading):
    """A live environment for programs without asyncio; see `LiveEnvironment`."""

    __slots__ = ("__weakref__", "_closing", "_live", "_loop")

    def __init__(
        self,
        live: LiveEnvironment,
        loop: _Loop,
        closing: Callable[[SyncEnvironment], Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__(live.name)
        self._closing = closing
        self._live = live
        self._loop = loop

    @property
    def connected(self) -> bool:
        """Whether a node tells of changes at the moment."""
        return self._live.connected

    @property
    def stale(self) -> bool:
        """Whether there may be changes that it does not show."""
        return self._live.stale

    @property
    def error(self) -> EnvdError | None:
        """Why it is stale, None where it is not."""
        return self._live.error

    @property
    def age_s(self) -> float:
        """For how long it has been stale, in seconds; of a snapshot, since it was saved."""
        return self._live.age_s

    def changes(
        self, *, limit: int = DEFAULT_LIMIT, timeout_s: float | None = None
    ) -> Iterator[Change]:
        """Wait for the changes from now on, one by one; see `LiveEnvironment.changes`.

        It ends when the client is closed, and where none comes for `timeout_s` seconds.
        """
        return self._take(self._loop.run(self._follow(limit)), timeout_s)

    def _take(self, changes: Changes, timeout_s: float | None) -> Iterator[Change]:
        while True:
            try:
                change = self._loop.run(_next(changes, timeout_s))
            except InvalidRequest as error:
                if error.reason == "CLOSED":
                    return
                raise
            if change is None:
                return
            yield change

    async def _follow(self, limit: int) -> Changes:
        return self._live.changes(limit=limit)

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Have `callback(change)` called in envd's thread after each change, one by one.

        It should be quick and can't make calls of this client. Call the answer to end it.
        """

        async def register() -> Callable[[], None]:
            return self._live.on_change(callback)

        stop = self._loop.run(register())
        return lambda: self._loop.call(stop)

    def wait_for(
        self,
        predicate: Callable[[SyncEnvironment], object] | None = None,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> None:
        """Wait as `LiveEnvironment.wait_for` does; raises TimeoutError."""
        check = None if predicate is None else (lambda _: predicate(self))
        self._loop.run(self._live.wait_for(check, revision=revision, timeout_s=timeout_s))

    def close(self) -> None:
        """Follow it no more; the mapping keeps its last state."""
        self._loop.run(self._closing(self))

    def _forget(self) -> None:
        """After a fork: nobody will tell of changes here."""
        self._values = _Forked()


class SyncClient:
    """One program's way to envd; `envd.connect_sync` makes it. Use it in `with`, or close it."""

    def __init__(self, options: Options) -> None:
        self._loop = _Loop()
        self._ending = threading.Lock()
        self._environments: dict[int, SyncEnvironment] = {}
        try:
            self._client = self._loop.run(_made(options))
        except BaseException:
            self._loop.stop()
            raise
        own = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: _call(own))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """The addresses, never the token."""
        return repr(self._client).replace("envd.Client", "envd.SyncClient")

    def close(self) -> None:
        """End everything: live environments keep their last state, calls under way fail.

        Where another thread is at it already, it returns at once.
        """
        if self._loop.stopped or self._loop.forked:
            return  # A child has nothing of it to end.
        if self._loop.is_current:
            raise wrong_thread()
        if not self._ending.acquire(blocking=False):
            return
        try:
            self._loop.run(self._client.close(), CLOSE_TIMEOUT_S)
        finally:
            self._loop.stop()

    def use_token(self, token: str) -> None:
        """Go on with a renewed token: for calls from now on, and for the offline snapshots."""
        self._loop.run(self._client.use_token(token))

    def environment(self, name: str, **options: Unpack[FollowOptions]) -> SyncEnvironment:
        """Follow an environment; see `Client.environment` for the options and errors."""

        async def follow() -> SyncEnvironment:
            live = await self._client.environment(name, **options)
            known = self._environments.get(id(live))
            if known is None:
                known = self._environments[id(live)] = SyncEnvironment(
                    live, self._loop, self._close
                )
                live.mirror(known)
            return known

        return self._loop.run(follow())

    async def _close(self, environment: SyncEnvironment) -> None:
        live = environment._live  # noqa: SLF001 - of this module
        self._environments.pop(id(live), None)
        await live.close()

    def get(self, environment: str, *names: str, **options: Unpack[ReadOptions]) -> EnvironmentView:
        """See `Client.get`."""
        return self._loop.run(self._client.get(environment, *names, **options))

    def get_many(
        self, environments: Iterable[str], **options: Unpack[ReadManyOptions]
    ) -> dict[str, EnvironmentView]:
        """See `Client.get_many`."""
        return self._loop.run(self._client.get_many(environments, **options))

    def list(self, prefix: str = "", **options: Unpack[ListOptions]) -> ListPage:
        """See `Client.list`."""
        return self._loop.run(self._client.list(prefix, **options))

    def history(
        self, environment: str, variable: str = "", **options: Unpack[HistoryOptions]
    ) -> HistoryPage:
        """See `Client.history`."""
        return self._loop.run(self._client.history(environment, variable, **options))

    def conflicts(self, environment: str = "", **options: Unpack[ConflictsOptions]) -> ConflictPage:
        """See `Client.conflicts`."""
        return self._loop.run(self._client.conflicts(environment, **options))

    def resolve(
        self, environment: str, variable: str, take: str, **options: Unpack[ResolveOptions]
    ) -> WriteAnswer:
        """See `Client.resolve`."""
        return self._loop.run(self._client.resolve(environment, variable, take, **options))

    def members(self, **options: Unpack[CallOptions]) -> Membership:
        """See `Client.members`."""
        return self._loop.run(self._client.members(**options))

    def status(self, **options: Unpack[CallOptions]) -> Status:
        """See `Client.status`."""
        return self._loop.run(self._client.status(**options))

    def set(
        self, environment: str, variables: Mapping[str, str], **options: Unpack[SetOptions]
    ) -> WriteAnswer:
        """See `Client.set`."""
        return self._loop.run(self._client.set(environment, variables, **options))

    def unset(self, environment: str, *names: str, **options: Unpack[WriteOptions]) -> WriteAnswer:
        """See `Client.unset`."""
        return self._loop.run(self._client.unset(environment, *names, **options))

    def settings(
        self, environment: str, settings: Mapping[str, str], **options: Unpack[SettingsOptions]
    ) -> WriteAnswer:
        """See `Client.settings`."""
        return self._loop.run(self._client.settings(environment, settings, **options))

    def write(self, request: WriteRequest, **options: Unpack[CallOptions]) -> WriteAnswer:
        """See `Client.write`."""
        return self._loop.run(self._client.write(request, **options))

    def delete(self, environment: str, **options: Unpack[WriteOptions]) -> WriteAnswer:
        """See `Client.delete`."""
        return self._loop.run(self._client.delete(environment, **options))

    def rollback(
        self, environment: str, to: str, *names: str, **options: Unpack[WriteOptions]
    ) -> WriteAnswer:
        """See `Client.rollback`."""
        return self._loop.run(self._client.rollback(environment, to, *names, **options))

    def export(self, prefix: str = "", **options: Unpack[ExportOptions]) -> Iterator[bulk.Exported]:
        """See `Client.export`."""
        return self._each(self._client.export(prefix, **options))

    def import_(
        self, environments: bulk.Environments, **options: Unpack[ImportOptions]
    ) -> Iterator[tuple[str, WriteAnswer | EnvdError]]:
        """See `Client.import_`."""
        return self._each(self._client.import_(environments, **options))

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        while True:
            try:
                yield self._loop.run(_following(items))
            except StopAsyncIteration:
                return

    def _after_fork(self) -> None:
        for environment in self._environments.values():
            environment._forget()  # noqa: SLF001 - of this module


class _Forked(dict[str, str]):
    """Stands for the values of a live environment in a process that was forked off."""

    def _refuse(self, *_: object) -> Never:
        raise forked()

    __getitem__ = __contains__ = __iter__ = __len__ = get = copy = _refuse
    keys = values = items = _refuse


async def _made(options: Options) -> Client:
    return Client(options)


async def _next(changes: Changes, timeout_s: float | None) -> Change | None:
    try:
        async with asyncio.timeout(timeout_s):
            return await anext(changes, None)
    except TimeoutError:
        return None


async def _following(items: AsyncIterator[T]) -> T:
    return await anext(items)


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    found = method()
    if found is not None:
        found()
