"""`envd.connect`: from what a program says, and its environment, to a client."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from envd.client import discovery, snapshot
from envd.client.backoff import Backoff
from envd.client.client import DEFAULT_TIMEOUT_S, Client, Options
from envd.client.picking import Balance, Server, picker_for
from envd.client.servers import World
from envd.client.sync import SyncClient
from envd.core.errors import SnapshotError

REAL: Final = World(time.monotonic, lambda: time.time_ns() // 1_000_000)


def connect(
    *servers: str | Server,
    token: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    attempts: int = 8,
    balance: Balance = "round_robin",
    zone: str = "",
    snapshot: bool | str | os.PathLike[str] = True,
    members: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Client:
    """A client of the envd at these addresses; nothing is sent before the first call.

    `servers` are HOST:PORT, several with commas, or `envd.Server(address, zone)`; without any,
    ENVD_ADDR, else 127.0.0.1:7420. `token` is else ENVD_TOKEN, else, for the node of this
    machine, what the daemon left for its user. `timeout_s` is the deadline of a call in
    seconds, `attempts` how often one is tried within it. `balance` chooses among several
    servers: "round_robin", "least_connections", or "zone", which prefers those in `zone`.
    `snapshot` False keeps no offline snapshot; a path is the directory for them. With `members`
    the members of the cluster are used too, once the servers have told of them. `environ` stands
    for the process's environment.

    Raises InvalidRequest for what is no address, Unauthenticated for what is no token.
    """
    return Client(_options(**locals()))


def connect_sync(
    *servers: str | Server,
    token: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    attempts: int = 8,
    balance: Balance = "round_robin",
    zone: str = "",
    snapshot: bool | str | os.PathLike[str] = True,
    members: bool = True,
    environ: Mapping[str, str] | None = None,
) -> SyncClient:
    """The same for programs without asyncio: its calls block, and any thread may make them."""
    return SyncClient(_options(**locals()))


def _options(
    servers: tuple[str | Server, ...],
    token: str | None,
    timeout_s: float,
    attempts: int,
    balance: Balance,
    zone: str,
    snapshot: bool | str | os.PathLike[str],
    members: bool,
    environ: Mapping[str, str] | None,
) -> Options:
    variables = os.environ if environ is None else environ
    zones = {one.address: one.zone for one in servers if isinstance(one, Server)}
    given = [one.address if isinstance(one, Server) else one for one in servers]
    addresses, of_this_machine = discovery.addresses_of(given, variables)
    said = variables.get("ENVD_TOKEN", "").strip() if token is None else token
    left = ""
    if of_this_machine and token is None and not said:
        left = discovery.token_of_this_machine(variables, is_root=os.geteuid() == 0)
    chance = random.Random()  # noqa: S311 - spreads load and retries, keeps no secret
    return Options(
        servers=[Server(address, zones.get(address, "")) for address in addresses],
        picker=picker_for(balance, zone, chance.randrange(len(addresses))),
        backoff=Backoff(attempts=attempts, draw=chance.random),
        world=REAL,
        token=said or left,
        may_have_token=discovery.may_have_token if left else _anyone,
        timeout_s=timeout_s,
        snapshots=_snapshots(snapshot, variables),
        learn=members,
    )


def _anyone(_: str) -> bool:
    """A token that was said goes to the address that was said."""
    return True


def _snapshots(wanted: bool | str | os.PathLike[str], environ: Mapping[str, str]) -> Path | None:
    if isinstance(wanted, bool):
        try:
            return snapshot.directory(environ) if wanted else None
        except SnapshotError:
            return None  # A process without a home has no place for them.
    return Path(wanted)
