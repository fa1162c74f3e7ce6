"""An event loop whose time is virtual: it jumps to the next timer, so a run takes no waiting.

Everything that asyncio leaves to chance is settled here, so that one seed gives one run in
every process and under every PYTHONHASHSEED: timers of the same moment run in the order in which
they were set; tasks and futures hash to their number (asyncio.TaskGroup and asyncio.wait keep
them in sets, whose order else follows addresses in memory); there are no threads, sockets or
subprocesses, and asking for one raises NotSimulated.

A `Process` is one run of one program among many on the loop. What it starts belongs to it,
by a context variable; `kill` ends all of it at once, `pause` and `resume` are SIGSTOP and
SIGCONT. What a task raises and nobody takes fails the run.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, NoReturn, TypeVar, TypeVarTuple

MAX_TURNS_AT_ONE_MOMENT = 200_000
COLLECT_EVERY_S = 120.0
_CLOSE_ATTEMPTS = 50
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_PROCESS: ContextVar[Process] = ContextVar("chaos_process")


class NotSimulated(RuntimeError):
    """The code asked for something that would leave the simulation."""


class RunFailed(Exception):
    """The run can't go on: a task failed and nobody looked, or time stands still."""


class SimFuture(asyncio.Future[_T]):
    """A future that hashes to a number, drawn when it is first asked for."""

    number: int
    process: Process | None

    def __hash__(self) -> int:
        return _number_of(self)


class SimTask(asyncio.Task[_T]):
    """A task that hashes to a number, and knows the process that it belongs to."""

    number: int
    process: Process | None
    own_context: Context

    def __hash__(self) -> int:
        return _number_of(self)


def _number_of(future: SimFuture[Any] | SimTask[Any]) -> int:
    try:
        return future.number
    except AttributeError:
        loop = future.get_loop()
        assert isinstance(loop, SimLoop)
        future.number = next(loop.numbers)
        return future.number


class SimHandle(asyncio.TimerHandle):
    """A callback on its way; leaner than asyncio's."""

    __slots__ = ("off", "process")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
        when: float,
    ) -> None:
        self._callback: Callable[..., object] | None = callback
        self._args: tuple[Any, ...] = args
        self._context = context
        self._when = when
        self.off = False
        self.process = context.get(_PROCESS)

    def __repr__(self) -> str:
        return f"<SimHandle {self._callback!r} at {self._when}>"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def cancel(self) -> None:
        self.off = True
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        return self.off

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        """Call it, in its context."""
        if self._callback is not None:
            self._context.run(self._callback, *self._args)


class Process:
    """One run of one program: tasks, callbacks and timers that end together.

    `alive` until killed. While `paused` nothing of it runs; what comes due is kept for later.
    """

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.runs = True
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)
        self._loop = loop
        self._held: deque[SimHandle] = deque()
        self._tasks: dict[SimTask[Any], None] = {}
        self._prune_at = 64
        self._mourners: dict[Callable[[], None], None] = {}
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<Process {self.name}{'' if self.alive else ' dead'}>"

    def spawn(self, coroutine: Coroutine[Any, Any, _T], name: str = "") -> SimTask[_T]:
        """Run a coroutine as a task of this process."""
        label = f"{self.name}:{name or getattr(coroutine, '__name__', 'task')}"
        return self._loop.create_task(coroutine, name=label, context=self.context.copy())

    def call_soon(self, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call it as an event of this process."""
        self._loop.call_soon(callback, *args, context=self.context)

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call it once the process is killed; it must not belong to it."""
        self._mourners[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Take back an `on_death`."""
        self._mourners.pop(callback, None)

    def pause(self) -> None:
        """Stop in mid-air, as SIGSTOP does."""
        self.paused, self.runs = True, False

    def resume(self) -> None:
        """Go on with what came due meanwhile, in order, as SIGCONT does."""
        self.paused, self.runs = False, self.alive
        self._loop.put_back(self._held)
        self._held = deque()

    def kill(self) -> None:
        """End it at once. What its `finally` blocks do reaches nothing: its ports must be dead."""
        if not self.alive:
            return
        self.alive = self.runs = False
        self._held.clear()
        tasks, self._tasks = list(self._tasks), {}
        self._loop.unwinding = True
        for task in tasks:
            _close(task)
        self._loop.unwinding = False
        mourners, self._mourners = list(self._mourners), {}
        for mourner in mourners:
            mourner()

    def set_aside(self, handle: SimHandle) -> None:
        """Take a callback that came due while nothing of this runs."""
        if self.alive:
            self._held.append(handle)

    def adopt(self, task: SimTask[Any]) -> None:
        """Note a task, so that `kill` ends it."""
        self._tasks[task] = None
        if len(self._tasks) >= self._prune_at:
            self._tasks = {task: None for task in self._tasks if not task.done()}
            self._prune_at = max(64, 2 * len(self._tasks))


def _close(task: SimTask[Any]) -> None:
    """Unwind a task's coroutine now; one that awaits while it unwinds is unwound further."""
    if task.done():
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
    coroutine = task.get_coro()
    assert isinstance(coroutine, Coroutine)
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            task.own_context.run(coroutine.close)
        except RuntimeError:
            continue  # "coroutine ignored GeneratorExit": it waits again, further out
        except (Exception, BaseExceptionGroup):  # noqa: BLE001 - a dead program tells nobody
            pass
        return


class SimLoop(asyncio.BaseEventLoop):
    """The loop; `time()` is in virtual seconds and starts at `start_s`."""

    def __init__(self, start_s: float = 1000.0) -> None:
        super().__init__()
        self.numbers = count(1)
        self.turns = 0
        self.failures: list[str] = []
        self.processes: list[Process] = []
        self.unwinding = False  # a dead program's last words are heard by nobody
        self._now = start_s
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._due: deque[SimHandle] = deque()
        self._order = 0
        self._turns_now = 0
        self._collected_at = start_s
        self._owners: dict[int, Process] = {}  # by id: weak references die before generators
        self.set_exception_handler(_note_failure)

    # -- running -------------------------------------------------------------------

    def simulate(self, main: Coroutine[Any, Any, _T]) -> _T:
        """Run `main` to its end; raises RunFailed where some other task failed unseen."""
        collecting = gc.isenabled()
        gc.disable()
        gc.freeze()  # What was there before is not looked at, and stays.
        task = self.create_task(main, name="main")
        try:
            self.run_until_complete(task)
        except RuntimeError:
            if not self.failures:
                raise
        finally:
            if not task.done():
                _close(task)
            gc.collect()  # A failed task tells of itself when it goes, which cycles may put off.
            gc.unfreeze()
            if collecting:
                gc.enable()
        if self.failures:
            raise RunFailed(self.failures[0])
        return task.result()

    def _run_once(self) -> None:
        """One turn: what is ready now, and where nothing is, what the next timer brings."""
        due = self._due
        if not due:
            self._jump()
        self._turns_now += 1
        if self._turns_now > MAX_TURNS_AT_ONE_MOMENT:
            raise RunFailed(f"no virtual time passes at {self._now:.6f}: {due[0]!r}")
        for _ in range(len(due)):
            handle = due.popleft()
            if handle.off:
                continue
            process = handle.process
            if process is not None and not process.runs:
                process.set_aside(handle)
                continue
            self.turns += 1
            try:
                handle.run()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - told to the run, which fails
                self.call_exception_handler(
                    {"message": f"a callback failed: {handle!r}", "exception": error}
                )

    def _jump(self) -> None:
        """Go to the moment of the next timer, and take all timers of that moment."""
        timers = self._timers
        while timers and timers[0][2].off:
            heapq.heappop(timers)
        if not timers:
            raise RunFailed("nothing is left that could ever happen")
        self._now = moment = max(self._now, timers[0][0])
        self._turns_now = 0
        while timers and timers[0][0] <= moment:
            handle = heapq.heappop(timers)[2]
            if not handle.off:
                self._due.append(handle)
        if moment - self._collected_at >= COLLECT_EVERY_S:
            self._collected_at = moment
            gc.collect()

    def put_back(self, handles: deque[SimHandle]) -> None:
        """Let callbacks that were set aside run now."""
        self._due.extend(handles)

    # -- what asyncio asks for -----------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> SimHandle:
        handle = SimHandle(callback, args, _or_current(context), self._now)
        self._due.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> SimHandle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> SimHandle:
        handle = SimHandle(callback, args, _or_current(context), when)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> SimHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> SimFuture[Any]:
        future: SimFuture[Any] = SimFuture(loop=self)
        future.process = _PROCESS.get(None)
        return future

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> SimTask[_T]:
        context = _or_current(context)
        label = str(name) if name is not None else f"task-{next(self.numbers)}"
        task = SimTask(coro, loop=self, name=label, context=context)
        task.own_context = context
        task.process = process = context.get(_PROCESS)
        if process is not None:
            process.adopt(task)
        return task

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        process = current_process()
        self._owners.pop(id(agen), None)
        if process is not None:
            self._owners[id(agen)] = process

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        process = self._owners.pop(id(agen), None)
        if self.is_closed() or (process is not None and not process.alive):
            return
        closing = _aclose(agen)
        if process is None:
            self.create_task(closing)
        else:
            process.spawn(closing)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count: a cancelled timer is passed over when its moment comes."""

    def close(self) -> None:
        """End every process and every task, in silence."""
        for process in self.processes:
            process.kill()
        self.unwinding = True
        for task in asyncio.all_tasks(self):
            assert isinstance(task, SimTask)
            _close(task)
        self._due.clear()
        self._timers.clear()
        super().close()

    # -- what would leave the simulation -------------------------------------------

    def run_in_executor(self, executor: object, func: object, *args: object) -> NoReturn:
        raise NotSimulated(f"a thread for {func!r}: there are none in the simulation")

    async def getaddrinfo(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotSimulated("names are not looked up in the simulation")

    async def create_connection(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotSimulated("a real connection: use the ports")

    async def create_server(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotSimulated("a real server: use the ports")

    async def create_datagram_endpoint(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotSimulated("a real socket: use the ports")

    async def subprocess_exec(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotSimulated("a real process")

    async def subprocess_shell(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotSimulated("a real process")


def _or_current(context: Context | None) -> Context:
    """An empty context is false, so `or` would not do."""
    return copy_context() if context is None else context


async def _aclose(agen: AsyncGenerator[Any, Any]) -> None:
    await agen.aclose()


def _note_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the run: something failed and nobody was there to see it."""
    assert isinstance(loop, SimLoop)
    culprit = context.get("task") or context.get("future")
    process = getattr(culprit, "process", None)
    if process is not None and not process.alive:
        return
    error = context.get("exception")
    told = f"{context.get('message')}"
    if isinstance(culprit, asyncio.Task):
        told += f" (task {culprit.get_name()})"
    if error is not None:
        told += f": {describe(error)}"
    loop.failures.append(told)
    loop.stop()


def describe(error: BaseException) -> str:
    """An exception in one text with where it came from, those of a group within it."""
    if isinstance(error, BaseExceptionGroup):
        inner = "; ".join(describe(one) for one in error.exceptions)
        return f"{type(error).__name__}({inner})"
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} [{' > '.join(frames[-6:])}]"


def current_process() -> Process | None:
    """The process that runs now, None for the simulator's own code."""
    return _PROCESS.get(None)
