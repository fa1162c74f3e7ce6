"""Clients that write, delete, roll back, read and watch, and remember what they were told.

Each write has an operation id. Where its outcome is unknown, or the node refuses for now, the same
request goes to another node under the same id, a few times. The variables of GROUP are always
written together with one value that no other write has, so a part of a commit is seen at once. Half
of the reads are of what the client wrote last, with the token of that, on any node.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import Any, Final, Protocol, TypeVar

from chaos.sim.chance import Chance
from chaos.sim.checkers import Acknowledged
from chaos.sim.checkers.whole_commits import GROUP
from chaos.sim.cluster import Cluster, NodeDied
from envd.core.answers import (
    Changed,
    EnvironmentView,
    Identity,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WriteAnswer,
)
from envd.core.errors import EnvdError, OutcomeUnknown, Unavailable
from envd.core.requests import (
    DeleteRequest,
    Durability,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    RollbackRequest,
    Unset,
    WatchRequest,
    WriteRequest,
)
from envd.core.stamp import Stamp
from envd.node.api import EnvironmentApi

AnyWrite = WriteRequest | DeleteRequest | RollbackRequest
ENVIRONMENTS: Final = 24
OTHER_NAMES: Final = 6
PATIENCE_S: Final = 5.0
_TRIES: Final = 4
_GOES: Final = 0.25
"""Of all requests where clients delete much."""
_THINKING_S: Final = (0.02, 0.95)
_RETRY_S: Final = (0.05, 0.5)
_WATCH_AGAIN_S: Final = 0.5
_T = TypeVar("_T")
_Ask = Callable[[EnvironmentApi], Coroutine[Any, Any, _T]]
_DURABILITIES: Final = (
    *[Durability.DEFAULT] * 8,
    Durability.STRICT,
    Durability.LOCAL,
)


class Serving(Protocol):
    """A node that takes requests."""

    uid: int
    api: EnvironmentApi

    async def stop(self) -> None: ...


class Workload:
    """All clients of a run. `acknowledged` is called for each write that was said to be done."""

    def __init__(
        self,
        cluster: Cluster[Any],
        chance: Chance,
        acknowledged: Callable[[Acknowledged], None],
        see: Callable[[str, EnvironmentView], None],
        read_back: Callable[[str, WriteAnswer, EnvironmentView], None],
        *,
        deletes: bool = False,
    ) -> None:
        """`see` is called with the machine and each state that a client was shown, `read_back`
        with what it had written, too, where it gave the token of that. Where it `deletes`, clients
        unset and delete more than else, and write it again later."""
        self.counts: Counter[str] = Counter()
        self._stopped = False
        self._cluster = cluster
        self._chance = chance
        self._acknowledged = acknowledged
        self._see = see
        self._read_back = read_back
        self._number = 0
        self.deletes = deletes

    # -- asking ----------------------------------------------------------------------

    async def ask(self, name: str, asked: _Ask[_T]) -> _T:
        """Ask the node on a machine; raises what it raises, NodeDied, or TimeoutError."""
        cluster = self._cluster
        node: Serving | None = cluster.nodes.get(name)
        machine = cluster.machines[name]
        if node is None or machine.boot is None:
            raise Unavailable(f"{name} is down")
        async with asyncio.timeout(PATIENCE_S):
            return await cluster.call(machine.boot.process, asked(node.api))

    async def client(self, number: int) -> None:
        """One client, until `stop_clients`."""
        chance = self._chance.stream(f"client {number}")
        caller = _Caller(self, Identity(f"c{number}", "simulator"), chance)
        home = chance.choice(sorted(self._cluster.machines))
        while not self._stopped:
            await asyncio.sleep(chance.uniform(*_THINKING_S))
            if chance.random() < 0.05 or home not in self._cluster.nodes:
                home = chance.choice(sorted(self._cluster.machines))
            await caller.act(home)

    def stop_clients(self) -> None:
        """Let each client end after what it does now."""
        self._stopped = True

    async def watcher(self, name: str, shown: dict[str, str]) -> None:
        """Follow everything on one machine, over its restarts; `shown` maps to revisions."""
        identity, token = Identity("watcher", "simulator"), ""
        while name in self._cluster.machines:
            node: Serving | None = self._cluster.nodes.get(name)
            boot = self._cluster.machines[name].boot
            if node is not None and boot is not None:
                queue: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue()
                following = _follow(node.api, identity, token, queue.put_nowait, self._shown(name))
                task = self._cluster.loop.create_task(self._cluster.call(boot.process, following))
                token = await self._take(queue, task, shown, token)
            await asyncio.sleep(_WATCH_AGAIN_S)

    def _shown(self, name: str) -> Callable[[EnvironmentView], None]:
        return lambda view: self._see(name, view)

    async def _take(
        self,
        queue: asyncio.Queue[tuple[str, str, str]],
        task: asyncio.Task[None],
        shown: dict[str, str],
        token: str,
    ) -> str:
        """Take events until the watch ends; return the token to go on with."""
        task.add_done_callback(lambda _: queue.put_nowait(("end", "", "")))
        while True:
            kind, environment, text = await queue.get()
            match kind:
                case "end":
                    break
                case "reset":
                    shown.clear()
                case "token":
                    token = text
                case _:
                    self.counts["watched"] += 1
                    shown[environment] = text
        if not task.cancelled() and isinstance(error := task.exception(), EnvdError | NodeDied):
            self._cluster.trace.note("unwatched", type(error).__name__)
        return token

    def machines(self) -> list[str]:
        """The names of all machines, in order."""
        return sorted(self._cluster.machines)

    # -- what came of it ---------------------------------------------------------------

    def next_number(self) -> int:
        self._number += 1
        return self._number

    async def write(
        self, home: str, caller: Identity, request: AnyWrite, chance: Random
    ) -> WriteAnswer | None:
        """Have a write done, on another node where this one does not answer.

        Returns the answer where the first node gave it: another may have known the write from
        a repair, which has no name that a token could tell.
        """
        trace, name = self._cluster.trace, home
        names = tuple(put.name for put in getattr(request, "puts", ()))
        names += tuple(unset.name for unset in getattr(request, "unsets", ()))
        for turn in range(_TRIES):
            trace.note("call", f"{caller.name} {name} {request.operation} {turn}")
            self.counts["operations"] += turn == 0
            try:
                answer = await self.ask(name, lambda api: _written(api, caller, request))
            except (OutcomeUnknown, NodeDied, TimeoutError):
                self.counts["unknown"] += 1
                trace.note("unknown", request.operation)
            except Unavailable as error:
                self.counts["unavailable"] += 1
                trace.note("refused", f"{request.operation} {error.reason}")
            except EnvdError as error:
                self.counts["refused"] += 1
                trace.note("refused", f"{request.operation} {error.reason}")
                return None
            else:
                self._note_answer(name, request, names, answer)
                return None if turn else answer
            await asyncio.sleep(chance.uniform(*_RETRY_S))
            name = chance.choice(sorted(self._cluster.machines))
        return None

    def _note_answer(
        self, name: str, request: AnyWrite, names: tuple[str, ...], answer: WriteAnswer
    ) -> None:
        node: Serving | None = self._cluster.nodes.get(name)
        told = f"{request.operation} {name} {answer.stamp} {answer.acknowledged} {answer.detached}"
        self._cluster.trace.note("answer", told)
        self.counts["detached" if answer.detached else "acknowledged"] += 1
        local = request.durability is Durability.LOCAL
        self._acknowledged(
            Acknowledged(
                answer.environment,
                Stamp.from_hex(answer.stamp),
                names,
                name,
                node.uid if node else 0,
                safe=not answer.detached and not local,
                at_s=self._cluster.loop.time(),
            )
        )

    async def read(
        self, home: str, asked: _Ask[EnvironmentView], written: WriteAnswer | None = None
    ) -> None:
        """Read an environment, with the token of what was `written`, and look at what it shows."""
        self.counts["operations"] += 1
        try:
            view = await self.ask(home, asked)
        except (EnvdError, NodeDied, TimeoutError) as error:
            self._cluster.trace.note("unread", f"{home} {type(error).__name__}")
            return
        self._see(home, view)
        if written is not None:
            self.counts["read back"] += 1
            self._read_back(home, written, view)

    async def look(self, home: str, asked: _Ask[object]) -> None:
        """Ask something whose answer is not looked at."""
        self.counts["operations"] += 1
        try:
            await self.ask(home, asked)
        except (EnvdError, NodeDied, TimeoutError) as error:
            self._cluster.trace.note("unread", f"{home} {type(error).__name__}")


class _Caller:
    """One client: what it asks for next."""

    def __init__(self, workload: Workload, identity: Identity, chance: Random) -> None:
        self._workload = workload
        self._identity = identity
        self._chance = chance
        self._written: WriteAnswer | None = None

    async def act(self, home: str) -> None:
        """Do one thing."""
        draw, workload = self._chance.random(), self._workload
        environment = self._environment()
        if draw < 0.75:
            request = self._request(environment, draw)
            durability = self._chance.choice(_DURABILITIES)
            request = replace(request, durability=durability)
            answer = await workload.write(home, self._identity, request, self._chance)
            if answer is not None and not isinstance(request, RollbackRequest):
                self._written = answer
        elif draw < 0.84 and self._written is not None:
            await self._read_back(self._written)
        elif draw < 0.93:
            read = ReadRequest(environment, reveal=True)
            await workload.read(home, lambda api: api.get(self._identity, read))
        elif draw < 0.97:
            past = HistoryRequest(environment)
            await workload.look(home, lambda api: api.history(self._identity, past))
        else:
            await workload.look(home, lambda api: api.list(self._identity, ListRequest()))

    async def _read_back(self, written: WriteAnswer) -> None:
        """Read what was written, on any node."""
        name = self._chance.choice(self._workload.machines())
        read = ReadRequest(written.environment, reveal=True, token=written.token)
        await self._workload.read(name, lambda api: api.get(self._identity, read), written)

    def _environment(self) -> str:
        """A few are written most of the time, so that writes meet."""
        few = self._chance.random() < 0.6
        number = self._chance.randrange(4 if few else ENVIRONMENTS)
        return f"team{number % 3}/app{number}"

    def _request(self, environment: str, draw: float) -> AnyWrite:
        number = self._workload.next_number()
        operation = f"op-{number}"
        if self._workload.deletes and draw < _GOES:
            return self._removal(environment, operation, draw / _GOES)
        if draw < 0.03:
            return DeleteRequest(environment, operation=operation)
        if draw < 0.07:
            back = self._chance.randrange(1, 4)
            return RollbackRequest(environment, f"@~{back}", operation=operation)
        if draw < 0.10:
            unsets = tuple(Unset(name) for name in GROUP)
            return WriteRequest(environment, unsets=unsets, operation=operation)
        value = f"v{number}"
        puts = [Put(name, value, secret=None) for name in GROUP]
        others = self._chance.sample(range(OTHER_NAMES), self._chance.randrange(3))
        puts += [Put(f"K{other}", value, secret=other == 0 or None) for other in others]
        whole = draw > 0.72
        return WriteRequest(environment, tuple(puts), replace=whole, operation=operation)

    def _removal(self, environment: str, operation: str, draw: float) -> AnyWrite:
        if draw < 0.35:
            return DeleteRequest(environment, operation=operation)
        others = self._chance.sample(range(OTHER_NAMES), self._chance.randrange(1, 4))
        unsets = [Unset(f"K{other}") for other in others]
        if draw < 0.7:
            unsets += [Unset(name) for name in GROUP]
        return WriteRequest(environment, unsets=tuple(unsets), operation=operation)


async def _written(api: EnvironmentApi, caller: Identity, request: AnyWrite) -> WriteAnswer:
    match request:
        case WriteRequest():
            return await api.write(caller, request)
        case DeleteRequest():
            return await api.delete(caller, request)
        case RollbackRequest():
            return await api.rollback(caller, request)


async def _follow(
    api: EnvironmentApi,
    identity: Identity,
    token: str,
    tell: Callable[[tuple[str, str, str]], None],
    see: Callable[[EnvironmentView], None],
) -> None:
    """One watch on a node, as (kind, environment, revision or token); "" for one that is gone."""
    request = WatchRequest(token=token, values=True, reveal=True)
    async with aclosing(api.watch(identity, request)) as events:
        async for event in events:
            match event:
                case Reset():
                    tell(("reset", "", ""))
                case SnapshotItem(state=state):
                    see(state)
                    tell(("state", state.environment, state.revision))
                case SnapshotEnd(token=at):
                    tell(("token", "", at))
                case Changed(commit=commit, token=at, state=now):
                    if now is not None:
                        see(now)
                    tell(("state", commit.environment, now.revision if now else ""))
                    tell(("token", "", at))
