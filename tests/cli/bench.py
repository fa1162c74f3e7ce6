"""`envctl` in this process, over a real node in memory: what is typed, and what comes out."""

from __future__ import annotations

import asyncio
import io
import itertools
import shlex
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from envd.cli.endpoint import Endpoint
from envd.cli.main import main
from envd.cli.world import World
from envd.client.connection import Connection
from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    HistoryPage,
    Identity,
    ListPage,
    Membership,
    Status,
    TopologyView,
    WatchEvent,
    WriteAnswer,
)
from envd.core.backups import BackupListing, BackupRequest
from envd.core.errors import Denied, Unsupported
from envd.core.requests import (
    ConflictsRequest,
    DeleteRequest,
    HistoryRequest,
    JoinRequest,
    LeaveRequest,
    ListRequest,
    ReadRequest,
    RecoverRequest,
    RemoveRequest,
    ResolveRequest,
    RollbackRequest,
    TopologyRequest,
    WatchRequest,
    WriteRequest,
)
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BackendList,
    BindingList,
    BindingsRequest,
    BindingView,
    BindRequest,
    CheckList,
    CheckRequest,
    CostView,
    FetchRequest,
    FetchView,
    PauseRequest,
    PlanRequest,
    PlanView,
    SyncStatus,
    UnbindRequest,
)
from envd.node.api import EnvironmentApi
from envd.node.cluster_view import Cluster
from envd.node.coordinator import Coordinator
from envd.node.drafting import Wish
from envd.node.views import NodeIdentity
from envd.node.watch import WatchHub
from envd.storage.memory import MemoryStore
from tests.cut_off import CutOff
from tests.syncing import FakeSync

CANARY = "canary-7d1f-value"
"""A secret value; it must not be seen anywhere without the right to reveal."""

AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT")


@dataclass
class Clock:
    """Every look at it is a second later."""

    now_ms: int = 1_700_000_000_000

    def wall_ms(self) -> int:
        self.now_ms += 1000
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


@dataclass
class Rights:
    """Everything is allowed but the verbs in `denied`."""

    denied: set[str] = field(default_factory=set)

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        if not self.allows(identity, verb, environment):
            raise Denied(f"{identity.name} may not {verb} {environment}", reason="RIGHT_MISSING")

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        return verb not in self.denied


class NodeInMemory:
    """A node, and a Connection to it. `before` may raise or act in front of each call."""

    address = "memory:1"

    def __init__(self) -> None:
        self.rights = Rights()
        self.status_now = Status(
            node="node-1",
            node_uid="0" * 16,
            cluster="default",
            version="0.1.0",
            generation=1,
            environments=0,
            storage_bytes=0,
            uptime_seconds=1,
            insecure=False,
            data_dir="/nowhere",
            identity="admin",
            authenticated_by="token",
        )
        self.asked: list[tuple[str, Any]] = []
        self.before: Callable[[str, Any], None] = lambda call, request: None
        self.while_watching: list[Callable[[], object]] = []
        self.page_limit = 0
        self.partial_reason = ""
        self.make_backup: Callable[[BackupRequest], Iterator[bytes]] = _no_backup
        self.backups_now = BackupListing()
        self.confirmed: list[str] = []
        self.stores = FakeSync()
        self.loop = asyncio.new_event_loop()
        self._one_at_a_time = threading.Lock()
        store = self.store = MemoryStore()
        self.digest_key = b"digest-key-of-the-tests"
        node = NodeIdentity(7, "node-1", "eu")
        coordinator = Coordinator(store, Clock(), node, self.digest_key)
        cut_off = self.cut_off = CutOff(coordinator, store)
        self._api = EnvironmentApi(
            coordinator,
            WatchHub(store, node.uid),
            self.rights,
            lambda identity: self.status_now,
            gathering=cut_off.gathering,
        )
        self._coordinator = coordinator
        self._identity = Identity("admin", "token")

    def vote(self) -> None:
        """Have serial environments, as a node that votes alone: what it drafts is chosen."""
        coordinator = self._coordinator

        async def choose(wish: Wish) -> WriteAnswer:
            name = wish.request.environment
            draft = coordinator.draft(wish, coordinator.drafter.head(name))
            assert draft is not None, "the tests change something"
            return await coordinator.finish(wish.request, draft)

        async def confirm(environment: str) -> None:
            self.confirmed.append(environment)

        coordinator.chained, coordinator.confirmed = choose, confirm

    def belong_to(self, cluster: Cluster) -> None:
        """Be a member of a cluster from now on."""
        hub = WatchHub(self.store, cluster.own_uid)
        self._api = EnvironmentApi(
            self._coordinator, hub, self.rights, lambda identity: self.status_now, cluster
        )

    def get(self, request: ReadRequest) -> EnvironmentView:
        return self.run("get", request, self._api.get)

    def list(self, request: ListRequest) -> ListPage:
        page = self.run("list", replace(request, limit=self.page_limit), self._api.list)
        reason = self.partial_reason
        return replace(page, partial=True, partial_reason=reason) if reason else page

    def write(self, request: WriteRequest) -> WriteAnswer:
        return self.run("write", request, self._api.write)

    def delete(self, request: DeleteRequest) -> WriteAnswer:
        return self.run("delete", request, self._api.delete)

    def rollback(self, request: RollbackRequest) -> WriteAnswer:
        return self.run("rollback", request, self._api.rollback)

    def history(self, request: HistoryRequest) -> HistoryPage:
        return self.run("history", request, self._api.history)

    def conflicts(self, request: ConflictsRequest) -> ConflictPage:
        return self.run("conflicts", request, self._api.conflicts)

    def resolve(self, request: ResolveRequest) -> WriteAnswer:
        return self.run("resolve", request, self._api.resolve)

    def status(self) -> Status:
        self.before("status", None)
        return self.loop.run_until_complete(self._api.status(self._identity))

    def members(self) -> Membership:
        self.before("members", None)
        return self.loop.run_until_complete(self._api.cluster.members(self._identity))

    def join(self, request: JoinRequest) -> Membership:
        return self.run("join", request, self._api.cluster.join)

    def leave(self, request: LeaveRequest) -> Membership:
        return self.run("leave", request, self._api.cluster.leave)

    def remove(self, request: RemoveRequest) -> Membership:
        return self.run("remove", request, self._api.cluster.remove)

    def topology(self, request: TopologyRequest | None = None) -> TopologyView:
        self.before("topology", None)
        return self.loop.run_until_complete(self._api.cluster.topology(self._identity))

    def recover(self, request: RecoverRequest) -> TopologyView:
        return self.run("recover", request, self._api.cluster.recover)

    def watch(self, request: WatchRequest) -> Iterator[WatchEvent]:
        """Events of the real node; where there is none, the next of `while_watching` happens.

        After the last one it is as if Ctrl-C were pressed.
        """
        self.asked.append(("watch", request))
        self.before("watch", request)
        events = self._api.watch(self._identity, request)

        async def take() -> WatchEvent:
            return await anext(events)

        waiting = self.loop.create_task(take())
        try:
            while True:
                while not self._settled(waiting):
                    if not self.while_watching:
                        raise KeyboardInterrupt
                    self.while_watching.pop(0)()
                yield waiting.result()
                waiting = self.loop.create_task(take())
        finally:
            waiting.cancel()
            self.loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
            self.loop.run_until_complete(events.aclose())

    def backup(self, request: BackupRequest) -> Iterator[bytes]:
        self.asked.append(("backup", request))
        self.before("backup", request)
        yield from self.make_backup(request)

    def backups(self) -> BackupListing:
        self.before("backups", None)
        return self.backups_now

    @property
    def sync(self) -> SyncInMemory:
        return SyncInMemory(self)

    def _settled(self, task: asyncio.Task[WatchEvent]) -> bool:
        """Let everything run that can; tell whether the task is done then."""
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))
        return task.done()

    def close(self) -> None:
        return

    def writes(self) -> Sequence[WriteRequest]:
        return [request for call, request in self.asked if call == "write"]

    def run(
        self,
        call: str,
        request: Any,
        method: Callable[[Identity, Any], Awaitable[AnswerT]],
    ) -> AnswerT:
        self.asked.append((call, request))
        self.before(call, request)

        async def performed() -> AnswerT:
            return await method(self._identity, request)

        with self._one_at_a_time:
            return self.loop.run_until_complete(performed())


class SyncInMemory:
    """A SyncConnection to the reconciler of a node in memory."""

    def __init__(self, node: NodeInMemory) -> None:
        self._node = node

    def bind(self, request: BindRequest) -> BindingView:
        return self._run("bind", request, self._node.stores.bind)

    def unbind(self, request: UnbindRequest) -> BindingView:
        return self._run("unbind", request, self._node.stores.unbind)

    def bindings(self, request: BindingsRequest) -> BindingList:
        return self._run("bindings", request, self._node.stores.bindings)

    def pause(self, request: PauseRequest) -> BindingList:
        return self._run("pause", request, self._node.stores.pause)

    def status(self, request: BindingsRequest) -> SyncStatus:
        return self._run("sync_status", request, self._node.stores.status)

    def plan(self, request: PlanRequest) -> PlanView:
        return self._run("sync_plan", request, self._node.stores.plan)

    def apply(self, request: ApplyRequest) -> AppliedView:
        return self._run("sync_apply", request, self._node.stores.apply)

    def cost(self, request: BindingsRequest) -> CostView:
        return self._run("cost", request, self._node.stores.cost)

    def backends(self) -> BackendList:
        async def listed(identity: Identity, request: None) -> BackendList:
            return await self._node.stores.backends(identity)

        return self._run("backends", None, listed)

    def check(self, request: CheckRequest) -> CheckList:
        return self._run("check", request, self._node.stores.check)

    def fetch(self, request: FetchRequest) -> FetchView:
        return self._run("fetch", request, self._node.stores.fetch)

    def _run(
        self,
        call: str,
        request: RequestT,
        method: Callable[[Identity, RequestT], Awaitable[AnswerT]],
    ) -> AnswerT:
        return self._node.run(call, request, method)


def _no_backup(request: BackupRequest) -> Iterator[bytes]:
    raise Unsupported("a node in memory makes no backups")


class InThreads:
    """A Pipeline to the node in memory."""

    def __init__(self, node: NodeInMemory) -> None:
        self._node = node

    async def write(self, request: WriteRequest) -> WriteAnswer:
        return await asyncio.to_thread(self._node.write, request)

    async def close(self) -> None:
        return


class Stream(io.TextIOWrapper):
    """A standard stream that is a terminal or is none."""

    def __init__(self, raw: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(raw), "utf-8", errors="backslashreplace", newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def written(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


@dataclass
class Result:
    """What a call left; `executed` is the program that `run` became."""

    code: int
    out: str
    err: str
    executed: tuple[str, list[str], dict[str, str]] | None = None

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass
class Envctl:
    """Calls `envctl` in the directory `home`.

    `editor` is what a person does to a file in the editor; `edited` are the editor's words and
    the file, each time. Each look at the monotonic clock is a second later; `wall_ms` is what
    the other clock says. `err` is the standard error of the present call.
    """

    node: NodeInMemory
    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    endpoints: list[Endpoint] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    editor: Callable[[Path], int] = lambda path: 0
    edited: list[tuple[list[str], Path]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    wall_ms: int = 1_700_000_000_000
    ticks: Iterator[int] = field(default_factory=itertools.count)
    err: Stream | None = None

    def __call__(
        self,
        line: str,
        *more: str,
        stdin: str | bytes = b"",
        terminal: bool = False,
        typed: str | None = None,
        secret: str | type[BaseException] = "",
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Result:
        """Run `line` (split as a shell does) and the words `more`.

        `terminal` makes standard output and error terminals; `typed` makes standard input one
        on which that is typed, and `secret` is what is typed without echo.
        """
        executed: list[tuple[str, list[str], dict[str, str]]] = []

        def spawn(arguments: list[str], environment: Mapping[str, str]) -> int:
            assert not {"ENVD_TOKEN", "ENVD_BACKUP_PASSPHRASE"} & environment.keys()
            *program, file = arguments
            self.edited.append((program, Path(file)))
            return self.editor(Path(file))

        def execute(path: str, arguments: list[str], environment: Mapping[bytes, bytes]) -> int:
            if not Path(path).is_file():
                raise FileNotFoundError(2, "No such file or directory")
            shown = {name.decode(): value.decode() for name, value in environment.items()}
            executed.append((path, arguments, shown))
            return 0

        def ask_secret(question: str) -> str:
            self.questions.append(question)
            if isinstance(secret, str):
                return secret
            raise secret

        given = (typed or "").encode() if typed is not None else stdin
        self.err = Stream(terminal=terminal)
        world = World(
            {"HOME": str(self.home), **self.environ, **(environ or {})},
            str(cwd or self.home),
            Stream(given.encode() if isinstance(given, str) else given, terminal=typed is not None),
            Stream(terminal=terminal),
            self.err,
            self._connect,
            ask_secret,
            execute,
            spawn,
            self.slept.append,
            lambda: float(next(self.ticks)),
            lambda: self.wall_ms,
            lambda address, token: InThreads(self.node),
        )
        code = main([*shlex.split(line), *more], world=world)
        assert isinstance(world.stdout, Stream)
        assert isinstance(world.stderr, Stream)
        out, err = world.stdout.written(), world.stderr.written()
        assert "ENVD_DEBUG" in world.environ or "Traceback" not in err
        return Result(code, out, err, executed[0] if executed else None)

    def ok(self, line: str, *more: str, **options: Any) -> Result:
        """Run, and expect it to succeed."""
        result = self(line, *more, **options)
        assert result.code == 0, result.err
        return result

    def json(self, line: str, *more: str, **options: Any) -> Any:
        """Run with `--output json` and return the document."""
        import json

        return json.loads(self.ok(line, *more, "--output", "json", **options).out)

    def value(self, environment: str, name: str) -> str:
        """The real value of a variable."""
        return self.ok(f"get {environment} {name}").out

    def file(self, name: str, text: str | bytes) -> Path:
        """Write a file below home."""
        path = self.home / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def _connect(self, endpoint: Endpoint) -> Connection:
        self.endpoints.append(endpoint)
        return self.node
