"""One run of a node: the wiring of its parts, and nothing else.

A start takes the data directory's lock, opens the store (which reads back the journal's
tail), then the Unix socket, gRPC and HTTP, and only then calls itself ready. SIGTERM and
SIGINT stop it: new requests are refused, running ones get a few seconds, everything is
flushed. SIGHUP reads the settings again and applies what can change live.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import envd
from envd import reporting
from envd.core.answers import Identity, Status
from envd.core.errors import EnvdError
from envd.core.history import Retention
from envd.datadir import DataDirectory, prepare_data_directory
from envd.settings import Settings

if TYPE_CHECKING:
    from envd.clustering import Ways
    from envd.net.grpc_server import GrpcServer
    from envd.net.http import HttpServer
    from envd.net.unix import UnixServer
    from envd.node.api import EnvironmentApi
    from envd.node.backups import Backups
    from envd.node.node import Node
    from envd.security.access import LocalAccess
    from envd.settings.units import Address
    from envd.storage.check import StateCheck
    from envd.storage.disk import TimedDisk
    from envd.storage.registers import RegisterLog
    from envd.storage.store import DurableStore, StoreOptions
    from envd.syncing import NodeSync
    from envd.system import SystemClock
    from envd.telemetry.node import Telemetry

GRACE_S = 5.0
LAME_DUCK_S = 0.1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class _Ready:
    """Whether the node takes requests; asked by health checks."""

    now: bool = False

    def __call__(self) -> bool:
        return self.now


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a started node consists of."""

    directory: DataDirectory
    store: DurableStore
    ways: Ways
    node: Node
    api: EnvironmentApi
    access: LocalAccess
    telemetry: Telemetry
    backups: Backups
    sync: NodeSync | None


class Daemon:
    """One run of the node."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        from envd.logs import get_logger

        self._settings = settings
        self._reload = reload
        self._log = get_logger("envd.daemon")
        self._stop = asyncio.Event()
        self._ready = _Ready()
        self.starts_again = False

    async def run(self) -> None:
        """Start everything, wait for a signal, stop everything in the reverse order."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_settings)
        self._warn()
        async with AsyncExitStack() as stack:
            if await self._start_or_stop(stack):
                await self._stop.wait()
            self._ready.now = False
            _notify("STOPPING=1")
            self._log.info("node.stopping")
        self._log.info("node.stopped")

    def _warn(self) -> None:
        settings = self._settings
        if settings.security.insecure:
            self._log.warning(
                "node.insecure",
                detail="no TLS and no authentication: whoever reaches this node may do all",
            )
        for key in settings.ineffective():
            self._log.warning("settings.no_effect", key=key)

    async def _start_or_stop(self, stack: AsyncExitStack) -> bool:
        """Start everything; tell whether that came to its end before a signal to stop.

        A node that looks for its cluster may do so for long.
        """
        starting = asyncio.create_task(self._start(stack), name="start")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            if not starting.cancelled() and (error := starting.exception()) is not None:
                self._log.warning("node.not_started", error=type(error).__name__)
            return False
        await starting
        return True

    async def _open_directory(self, stack: AsyncExitStack, ways: Ways) -> DataDirectory:
        from envd.clustering import become_node
        from envd.system import SystemRng

        settings = self._settings
        opened = prepare_data_directory(
            settings.node.data_dir,
            key_file=settings.security.key_file,
            admin_token=settings.security.admin_token or "",
            insecure=settings.security.insecure,
            rng=SystemRng(),
            secret_file=settings.cluster.secret_file,
        )
        stack.callback(opened.close)
        if isinstance(opened, DataDirectory):
            return opened
        directory = await become_node(opened, settings, ways, SystemRng())
        stack.callback(directory.close)
        return directory

    async def _start(self, stack: AsyncExitStack) -> None:
        """Open the store and the servers; each is closed by `stack`, the last one first."""
        from envd import backups, clustering, syncing
        from envd.node.api import EnvironmentApi
        from envd.node.cluster import NodeCluster
        from envd.node.watch import WatchHub
        from envd.security.access import AllowAll, LocalAccess
        from envd.storage.check import start_check
        from envd.storage.disk import TimedDisk
        from envd.system import SystemClock, SystemRng

        settings, clock = self._settings, SystemClock()
        ways = await clustering.open_ways(settings)
        stack.push_async_callback(ways.close)
        directory = await self._open_directory(stack, ways)
        check = start_check(directory.path)  # runs beside the servers' slow imports
        _import_servers()
        telemetry = reporting.telemetry_of(settings, os.environ)
        stack.push_async_callback(telemetry.close)
        disk = TimedDisk(telemetry.syncs.observe)
        store, registers = await self._open_store(stack, directory, clock, check, disk)
        node = clustering.make_node(
            directory,
            settings,
            ways,
            store,
            clock,
            SystemRng(),
            registers=registers,
            coordinator_store=telemetry.traced(store, reporting.STORE_SPANS),
            on_identity_lost=lambda why: self._begin_anew(directory, why),
            on_stale=lambda why: self._begin_empty(directory, why),
            propagated=telemetry.propagated,
        )
        hub = WatchHub(store, directory.record.node_uid, max_watches=settings.limits.max_watches)
        started_ms = clock.monotonic_ms()

        def status_of(identity: Identity) -> Status:
            return self._status(directory, store, clock.monotonic_ms() - started_ms, identity)

        traced_coordinator = telemetry.traced(node.coordinator, reporting.COORDINATOR_SPANS)
        seeds = [str(seed) for seed in settings.cluster.join]
        api = EnvironmentApi(
            traced_coordinator,
            hub,
            AllowAll(),
            status_of,
            NodeCluster(node, seeds, self._stop.set),
            node.gathering,
            node.watches(hub),
        )
        access = LocalAccess(
            directory.admin_token, os.geteuid(), insecure=settings.security.insecure
        )
        reporting.begin(telemetry, store, hub, self._ready, directory.path, node, ways.gossip)
        kept = backups.begin(settings, directory, store, AllowAll(), clock, SystemRng(), stack)
        sync = syncing.node_sync(settings, node, directory, AllowAll())
        parts = _Parts(directory, store, ways, node, api, access, telemetry, kept, sync)
        await self._serve(stack, parts)

    async def _open_store(
        self,
        stack: AsyncExitStack,
        directory: DataDirectory,
        clock: SystemClock,
        check: StateCheck,
        disk: TimedDisk,
    ) -> tuple[DurableStore, RegisterLog]:
        from envd.storage.registers import RegisterLog
        from envd.storage.store import DurableStore

        uid = directory.record.node_uid
        store = await DurableStore.open(
            directory.path,
            directory.sealer,
            directory.digest_key,
            uid,
            clock,
            _store_options(self._settings),
            check=check,
            disk=disk,
        )
        stack.push_async_callback(store.close)
        registers = await RegisterLog.open(directory.path, directory.sealer, uid)
        stack.push_async_callback(registers.close)
        self._report_opened(directory, store)
        return store, registers

    def _status(
        self, directory: DataDirectory, store: DurableStore, up_ms: int, identity: Identity
    ) -> Status:
        settings, record = self._settings, directory.record
        return Status(
            node=settings.node.name,
            node_uid=f"{record.node_uid:016x}",
            cluster=settings.cluster.name,
            version=envd.__version__,
            generation=record.generation,
            environments=store.environment_count(),
            storage_bytes=store.storage_bytes(),
            uptime_seconds=up_ms // 1000,
            insecure=settings.security.insecure,
            data_dir=str(directory.path),
            identity=identity.name,
            authenticated_by=identity.via,
        )

    def _begin_anew(self, directory: DataDirectory, why: str) -> None:
        """The node must go on under a new uid: note it, and start again as that."""
        from envd.system import SystemRng

        record = directory.renew_identity(SystemRng(), 0)
        self._log.critical("node.renewed", uid=f"{record.node_uid:016x}", why=why)
        self.starts_again = True
        self._stop.set()

    def _begin_empty(self, directory: DataDirectory, why: str) -> None:
        """The node must not go on with what it has: note it, and start again without."""
        from envd.system import SystemRng

        record = directory.renew_empty(SystemRng())
        self._log.warning("node.emptied", uid=f"{record.node_uid:016x}", why=why)
        self.starts_again = True
        self._stop.set()

    async def _serve(self, stack: AsyncExitStack, parts: _Parts) -> None:
        """Start the servers and be a member; on the way out they stop together, in time."""
        from envd import clustering
        from envd.net.grpc_server import GrpcLimits, GrpcServer
        from envd.net.http import HttpServer, MetricsServer
        from envd.net.unix import UnixServer

        settings, api, access = self._settings, parts.api, parts.access
        calls = settings.limits.max_concurrent_requests + settings.limits.max_watches
        sync = None if parts.sync is None else parts.sync.api
        grpc_server = GrpcServer(
            api,
            access,
            settings.node.listen,
            GrpcLimits(concurrent_calls=calls),
            parts.telemetry,
            parts.backups,
            parts.ways.transport.service,
            sync=sync,
        )

        def http_at(kind: type[HttpServer], address: Address) -> HttpServer:
            return kind(
                api,
                access,
                address,
                _allowed_hosts(settings),
                self._ready,
                max_connections=settings.limits.max_concurrent_requests,
                telemetry=parts.telemetry,
            )

        http_server = http_at(HttpServer, settings.node.http)
        unix_server = UnixServer(
            api,
            access,
            settings.node.socket,
            telemetry=parts.telemetry,
            backups=parts.backups,
            sync=sync,
        )
        servers: list[GrpcServer | HttpServer | UnixServer]
        servers = [grpc_server, http_server, unix_server]
        membership = await stack.enter_async_context(AsyncExitStack())  # ends after the servers
        stack.push_async_callback(self._stop_serving, parts, servers)
        grpc_port = await grpc_server.start()
        http_port = await http_server.start()
        clustering.locate(parts.node, settings, parts.ways, grpc_port, http_port)
        await self._be_member(membership, parts)
        await unix_server.start()
        if parts.sync is not None:
            parts.telemetry.sync = parts.sync.figures
            parts.sync.start()
        also = {}
        if address := reporting.metrics_address(settings):
            metrics_server = http_at(MetricsServer, address)
            servers.append(metrics_server)
            also["metrics"] = str(replace(address, port=await metrics_server.start()))

        self._be_ready(
            grpc_server,
            parts.store,
            listen=str(replace(settings.node.listen, port=grpc_port)),
            gossip=str(replace(settings.cluster.gossip, port=parts.ways.gossip_port)),
            http=str(replace(settings.node.http, port=http_port)),
            socket=str(settings.node.socket),
            **also,
        )

    async def _stop_serving(
        self, parts: _Parts, servers: Sequence[GrpcServer | HttpServer | UnixServer]
    ) -> None:
        """Refuse what comes, let the other nodes have what was taken, and leave."""
        parts.api.stop()
        parts.backups.stop()
        if parts.sync is not None:
            await parts.sync.stop()
        # What arrives now is told that the node stops; after it, connections just end.
        await asyncio.sleep(LAME_DUCK_S)
        if not await parts.node.drain(GRACE_S):
            self._log.warning("node.not_drained", detail="it is sent on after the next start")
        await parts.node.leave()
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.stop(GRACE_S))

    async def _be_member(self, stack: AsyncExitStack, parts: _Parts) -> None:
        """Take part in the cluster from now on."""
        from envd import clustering

        await parts.node.prepare()
        if parts.directory.record.relog_from is not None:
            parts.directory.relogged()

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.critical("node.failed", error=type(error).__name__, exc_info=error)
                self._stop.set()

        async def let_go(task: asyncio.Task[None]) -> None:
            task.cancel()
            await asyncio.wait((task,))

        works = {
            "node": parts.node.run(),
            "members": clustering.keep_remembering(parts.node, parts.directory),
        }
        for name, work in works.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(ended)
            stack.push_async_callback(let_go, task)

    def _be_ready(self, grpc_server: GrpcServer, store: DurableStore, **addresses: str) -> None:
        """Tell everybody that the node serves, until its disk fails."""

        def degrade(error: EnvdError) -> None:
            self._ready.now = False
            grpc_server.set_serving(False)
            self._log.critical("node.degraded", detail=error.message, mend=error.hint)

        store.on_failure(degrade)
        _calm_interpreter()
        grpc_server.set_serving(True)
        self._ready.now = True
        _notify(f"READY=1\nMAINPID={os.getpid()}")
        self._log.info("node.ready", **addresses, pid=os.getpid())

    def _report_opened(self, directory: DataDirectory, store: DurableStore) -> None:
        if directory.created:
            self._log.info(
                "node.created",
                data_dir=str(directory.path),
                key_file=str(self._settings.security.key_file),
                detail="keep a copy of the key file in a safe place: "
                "without it the data can't be read",
            )
        mode = stat.S_IMODE(directory.path.stat().st_mode)
        if mode & 0o077:
            self._log.warning(
                "data_dir.open_to_others",
                mode=f"{mode:04o}",
                detail=f"others may look into it: chmod 700 {directory.path}",
            )
        if not directory.admin_token and not self._settings.security.insecure:
            self._log.warning(
                "access.no_token",
                detail="admin.token is missing: only the Unix socket lets anybody in; "
                "set security.admin_token to have a token again",
            )
        self._log.info(
            "store.opened",
            environments=store.environment_count(),
            bytes=store.storage_bytes(),
            generation=directory.record.generation,
        )

    def _reload_settings(self) -> None:
        """SIGHUP: take what can change live, and name what needs a restart."""
        from envd import logs

        try:
            fresh = self._reload()
        except EnvdError as error:
            self._log.error("settings.not_reloaded", detail=error.message)
            return
        changed = self._settings.differences(fresh)
        live = "observability.log_level"
        self._log.info("settings.reloaded", changed=[key for key in changed if key == live])
        if waiting := [key for key in changed if key != live]:
            self._log.warning("settings.need_restart", keys=waiting)
        logs.set_level(fresh.observability.log_level)


def _calm_interpreter() -> None:
    """Let the cycle collector look at what is new only, and less often; change threads sooner.

    The modules and the servers stay for good, and commits and states make no cycles: at its
    default pace the collector took a sixth of the time of an import. A flush holds the
    interpreter for the switch interval, and calls wait that long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(0.0005)


def _import_servers() -> None:
    import envd.net.grpc_server
    import envd.net.http
    import envd.net.unix  # noqa: F401


def _store_options(settings: Settings) -> StoreOptions:
    from envd.storage.store import StoreOptions

    storage = settings.storage
    return StoreOptions(
        segment_bytes=storage.segment_bytes,
        keep_segments=storage.keep_segments,
        map_size_bytes=storage.map_size_bytes,
        memtable_bytes=storage.memtable_bytes,
        journal_queue_bytes=storage.journal_queue_bytes,
        flush_interval_ms=storage.flush_interval_ms,
        retention=Retention(storage.history_commits, storage.history_days),
    )


def _allowed_hosts(settings: Settings) -> set[str]:
    """The names under which HTTP may be asked, besides those of loopback."""
    node = settings.node
    return {node.http.host, node.listen.host, node.advertise, socket.gethostname()}


def _notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, suppress(OSError):
        notify.connect(address)
        notify.sendall(state.encode())
