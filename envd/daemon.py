"""`envd`: the wiring of a node, and nothing else.

A start takes the data directory's lock, opens the store (which reads back the journal's
tail), then the Unix socket, gRPC and HTTP, and only then calls itself ready. SIGTERM and
SIGINT stop it: new requests are refused, running ones get a few seconds, everything is
flushed, exit 0. SIGHUP reads the settings again and applies what can change live.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import envd
from envd import reporting, streams
from envd import settings as settings_module
from envd.core.answers import Identity, Status
from envd.core.errors import EnvdError
from envd.core.history import Retention
from envd.datadir import DataDirectory, open_data_directory
from envd.settings import Settings

if TYPE_CHECKING:
    from envd.net.grpc_server import GrpcServer
    from envd.node.api import EnvironmentApi
    from envd.node.backups import Backups
    from envd.security.access import LocalAccess
    from envd.settings.units import Address
    from envd.storage.store import DurableStore, StoreOptions
    from envd.telemetry.node import Telemetry

GRACE_S = 5.0
LAME_DUCK_S = 0.1
WRONG_USAGE = 2
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(argv: list[str] | None = None) -> int:
    """Run `envd` with these arguments; return the exit code."""
    streams.open_missing()
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:2] == ["config", "check"]:
        return _config_check(arguments[2:])
    flags = vars(_parser().parse_args(arguments))
    try:
        settings = _load(flags)
    except EnvdError as error:
        return _report(error)
    from envd import logs

    log = settings.observability
    logs.configure(log.log_level, log.log_format, sys.stderr)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold values in clear
    try:
        _run_loop(_Daemon(settings, lambda: _load(flags)).run())
    except EnvdError as error:
        return _report(error)
    return 0


class _Parser(argparse.ArgumentParser):
    """Tells a wrong flag as every other error is told."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\nhint: see {self.prog} --help", file=sys.stderr)  # noqa: T201
        sys.exit(WRONG_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="envd",
        description="Keep environment variables on this node. Without any flag: one node with "
        "the embedded store, on loopback, its data in your state directory.",
        epilog="`envd config check FILE` validates a configuration file and prints what would "
        "be in force. Stop the daemon with SIGTERM or Ctrl-C: nothing acknowledged is lost, "
        "whichever way it ends. Use it with envctl.",
    )
    settings_module.add_flags(parser)
    return parser


def _load(flags: dict[str, Any]) -> Settings:
    file = settings_module.config_file(flags, os.environ)
    return settings_module.load(flags, os.environ, file)


def _config_check(arguments: list[str]) -> int:
    parser = _Parser(
        prog="envd config check",
        description="Validate a configuration file and print the effective settings, with "
        "secrets masked and where each comes from. Exit code 0 where it is valid.",
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    file = parser.parse_args(arguments).file
    try:
        settings = settings_module.load({}, os.environ, file)
    except EnvdError as error:
        return _report(error)
    sys.stdout.write(settings_module.render_effective(settings))
    for key in settings.ineffective():
        print(f"warning: {key} has no effect in this version", file=sys.stderr)  # noqa: T201
    return 0


def _report(error: EnvdError) -> int:
    lines = [f"error: {error.message}", *([f"hint: {error.hint}"] if error.hint else [])]
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - the command's own error output
    return WRONG_USAGE if error.reason == settings_module.FLAG_REASON else 1


def _run_loop(main_task: Coroutine[Any, Any, None]) -> None:
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main_task)


@dataclass(slots=True)
class _Ready:
    """Whether the node takes requests; asked by health checks."""

    now: bool = False

    def __call__(self) -> bool:
        return self.now


class _Daemon:
    """One run of the node."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        from envd.logs import get_logger

        self._settings = settings
        self._reload = reload
        self._log = get_logger("envd.daemon")
        self._stop = asyncio.Event()
        self._ready = _Ready()

    async def run(self) -> None:
        """Start everything, wait for a signal, stop everything in the reverse order."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_settings)
        self._warn()
        async with AsyncExitStack() as stack:
            await self._start(stack)
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

    async def _start(self, stack: AsyncExitStack) -> None:
        """Open the store and the servers; each is closed by `stack`, the last one first."""
        from envd import backups
        from envd.node.api import EnvironmentApi
        from envd.node.coordinator import Coordinator
        from envd.node.views import NodeIdentity
        from envd.node.watch import WatchHub
        from envd.security.access import AllowAll, LocalAccess
        from envd.storage.check import start_check
        from envd.storage.disk import TimedDisk
        from envd.storage.store import DurableStore
        from envd.system import SystemClock, SystemRng

        settings, clock = self._settings, SystemClock()
        directory = open_data_directory(
            settings.node.data_dir,
            key_file=settings.security.key_file,
            admin_token=settings.security.admin_token or "",
            insecure=settings.security.insecure,
            rng=SystemRng(),
        )
        stack.callback(directory.close)
        check = start_check(directory.path)  # runs beside the servers' slow imports
        _import_servers()
        telemetry = reporting.telemetry_of(settings, os.environ)
        stack.push_async_callback(telemetry.close)
        store = await DurableStore.open(
            directory.path,
            directory.sealer,
            directory.digest_key,
            directory.record.node_uid,
            clock,
            _store_options(settings),
            check=check,
            disk=TimedDisk(telemetry.syncs.observe),
        )
        stack.push_async_callback(store.close)
        self._report_opened(directory, store)
        node = NodeIdentity(directory.record.node_uid, settings.node.name, settings.node.region)
        hub = WatchHub(store, node.uid, max_watches=settings.limits.max_watches)
        started_ms = clock.monotonic_ms()

        def status_of(identity: Identity) -> Status:
            return Status(
                node=node.name,
                node_uid=f"{node.uid:016x}",
                cluster=settings.cluster.name,
                version=envd.__version__,
                generation=directory.record.generation,
                environments=store.environment_count(),
                storage_bytes=store.storage_bytes(),
                uptime_seconds=(clock.monotonic_ms() - started_ms) // 1000,
                insecure=settings.security.insecure,
                data_dir=str(directory.path),
                identity=identity.name,
                authenticated_by=identity.via,
            )

        traced = telemetry.traced(store, reporting.STORE_SPANS)
        coordinator = Coordinator(traced, clock, node, directory.digest_key)
        traced_coordinator = telemetry.traced(coordinator, reporting.COORDINATOR_SPANS)
        api = EnvironmentApi(traced_coordinator, hub, AllowAll(), status_of)
        access = LocalAccess(
            directory.admin_token, os.geteuid(), insecure=settings.security.insecure
        )
        reporting.begin(telemetry, store, hub, self._ready, directory.path)
        kept = backups.begin(settings, directory, store, AllowAll(), clock, SystemRng(), stack)
        await self._serve(stack, store, api, access, telemetry, kept)

    async def _serve(
        self,
        stack: AsyncExitStack,
        store: DurableStore,
        api: EnvironmentApi,
        access: LocalAccess,
        telemetry: Telemetry,
        kept: Backups,
    ) -> None:
        """Start the servers; on the way out they stop together, within GRACE_S."""
        from envd.net.grpc_server import GrpcLimits, GrpcServer
        from envd.net.http import HttpServer, MetricsServer
        from envd.net.unix import UnixServer

        settings = self._settings
        calls = settings.limits.max_concurrent_requests + settings.limits.max_watches
        grpc_server = GrpcServer(
            api,
            access,
            settings.node.listen,
            GrpcLimits(concurrent_calls=calls),
            telemetry,
            kept,
        )

        def http_at(kind: type[HttpServer], address: Address) -> HttpServer:
            return kind(
                api,
                access,
                address,
                _allowed_hosts(settings),
                self._ready,
                max_connections=settings.limits.max_concurrent_requests,
                telemetry=telemetry,
            )

        http_server = http_at(HttpServer, settings.node.http)
        unix_server = UnixServer(
            api, access, settings.node.socket, telemetry=telemetry, backups=kept
        )
        servers: list[GrpcServer | HttpServer | UnixServer]
        servers = [grpc_server, http_server, unix_server]

        async def stop() -> None:
            api.stop()
            kept.stop()
            # What arrives now is told that the node stops; after it, connections just end.
            await asyncio.sleep(LAME_DUCK_S)
            async with asyncio.TaskGroup() as group:
                for server in servers:
                    group.create_task(server.stop(GRACE_S))

        stack.push_async_callback(stop)
        grpc_port = await grpc_server.start()
        http_port = await http_server.start()
        await unix_server.start()
        also = {}
        if address := reporting.metrics_address(settings):
            metrics_server = http_at(MetricsServer, address)
            servers.append(metrics_server)
            also["metrics"] = str(replace(address, port=await metrics_server.start()))

        self._be_ready(
            grpc_server,
            store,
            listen=str(replace(settings.node.listen, port=grpc_port)),
            http=str(replace(settings.node.http, port=http_port)),
            socket=str(settings.node.socket),
            **also,
        )

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


if __name__ == "__main__":
    sys.exit(main())
