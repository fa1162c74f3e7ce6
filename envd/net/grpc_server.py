"""The gRPC server of a node: the public API, health, reflection and peers on one address.

Health and reflection are open, peers prove themselves on their channels, everything else takes
a credential. Everything that a client can make grow has a bound: calls at once, the size of
messages and metadata, what a stream has under way, how often a connection may ping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from envd.core.errors import StartupError
from envd.net import reflection
from envd.net.access import Access
from envd.net.backup_service import SERVICE as BACKUPS
from envd.net.backup_service import BackupService
from envd.net.cluster_service import SERVICE as CLUSTER
from envd.net.cluster_service import ClusterService
from envd.net.environment_service import SERVICE, EnvironmentService
from envd.net.faults import Faults
from envd.net.grpc_calls import Calls, Stopper
from envd.net.health import SERVICE as HEALTH
from envd.net.health import Health
from envd.net.listening import check_free
from envd.net.peer_service import PeerService
from envd.net.pipeline import WINDOW
from envd.net.reflection import SERVICE as REFLECTION
from envd.net.sync_service import SERVICE as SYNC
from envd.net.sync_service import SyncService
from envd.node.api import EnvironmentApi
from envd.node.backups import Backups
from envd.settings.units import Address
from envd.sync.api import SyncApi
from envd.telemetry.node import Telemetry

MAX_MESSAGE_BYTES: Final = 8 << 20
RESERVED_CALLS: Final = 1024
_WHAT, _FLAG = "gRPC", "--listen"


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """What a server takes at once.

    `concurrent_calls` counts open streams too: the 10,000 watches of a node, and then some. Other
    nodes and health checks are served above it.
    `window` is how many writes of one stream are under way.
    """

    concurrent_calls: int = 12_000
    window: int = WINDOW
    message_bytes: int = MAX_MESSAGE_BYTES


class GrpcServer:
    """Serves `api` on `address`; not serving, as health tells, until `set_serving(True)`."""

    def __init__(
        self,
        api: EnvironmentApi,
        access: Access,
        address: Address,
        limits: GrpcLimits | None = None,
        telemetry: Telemetry | None = None,
        backups: Backups | None = None,
        peers: PeerService | None = None,
        sync: SyncApi | None = None,
    ) -> None:
        self._api = api
        self._backups = backups
        self._sync = sync
        self._peers = peers
        self._access = access
        self._address = address
        self._limits = limits or GrpcLimits()
        self._faults = Faults()
        self._telemetry = telemetry or Telemetry()
        self._telemetry.fault_counts.append(lambda: self._faults.count)
        if peers is not None:
            self._telemetry.fault_counts.append(lambda: peers.faults)
        self._stopper = Stopper()
        self._health = Health(SERVICE)
        self._server: grpc.aio.Server | None = None

    @property
    def faults(self) -> int:
        """How many calls ended in an exception that nobody meant to raise."""
        return self._faults.count

    async def start(self) -> int:
        """Listen; return the port. Raises StartupError where the address can't be had."""
        check_free(self._address, _WHAT, _FLAG)
        server = grpc.aio.server(
            options=_options(self._limits),
            maximum_concurrent_rpcs=self._limits.concurrent_calls + RESERVED_CALLS,
        )
        calls = Calls(
            self._access, self._faults, self._telemetry.requests, self._limits.concurrent_calls
        )
        environments = EnvironmentService(
            self._api, calls, self._stopper, window=self._limits.window
        )
        services = {
            SERVICE: environments.handlers(),
            CLUSTER: ClusterService(self._api, calls).handlers(),
            BACKUPS: BackupService(self._backups, calls).handlers(),
            SYNC: SyncService(self._sync, calls).handlers(),
            HEALTH: self._health.handlers(),
        }
        services[REFLECTION] = reflection.handlers((*services,))
        if self._peers is not None:
            services[self._peers.name] = self._peers.handlers()
        for name, handlers in services.items():
            generic = grpc.method_handlers_generic_handler(name, dict(handlers))
            server.add_generic_rpc_handlers((generic,))
            server.add_registered_method_handlers(name, handlers)
        try:
            port = server.add_insecure_port(str(self._address))
        except RuntimeError as error:
            raise StartupError(
                f"{_WHAT} can't listen on {self._address}",
                hint=f"choose another address with {_FLAG} HOST:PORT",
                reason="ADDRESS_UNUSABLE",
            ) from error
        await server.start()
        self._server = server
        return port

    def set_serving(self, serving: bool) -> None:
        """Tell health checks whether the node takes requests."""
        self._health.set_serving(serving)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, end streams, let calls end for `grace_s` seconds, cut the rest.

        `EnvironmentApi.stop` comes first: it ends the watches.
        """
        self._health.end()
        self._stopper.stop()
        if self._peers is not None:
            await self._peers.stop(grace_s)
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None


def _options(limits: GrpcLimits) -> list[tuple[str, int]]:
    """Channel arguments; keepalive as in gRPC's A8 and A9, with a ping at most every 10 s."""
    pending = 2 * (limits.concurrent_calls + RESERVED_CALLS)
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", 16 << 10),
        # Above the limit on calls, so that a call too many is refused and does not wait unseen.
        ("grpc.max_concurrent_streams", pending),
        # gRPC cancels calls at random once 1,000 wait to be begun, and tells nobody why.
        ("grpc.server.max_pending_requests", pending),
        ("grpc.server.max_pending_requests_hard_limit", pending),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
    ]
