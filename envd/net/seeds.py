"""Where to look for the first members: from `--join` to addresses "ip:port".

A seed is an IP address, a host name (all its A and AAAA records: the headless service of an
orchestrator), or, where it begins with an underscore such as `_envd-gossip._udp.example.com`,
a DNS SRV record (RFC 2782), whose targets and ports count; the seed's own port then says
nothing. Names are asked for anew each time, since members come and go. What can't be resolved
is logged now and then and left out: the caller tries again, for ever.

SRV takes the package dnspython; without it such a seed is logged and left out.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from envd.logs import get_logger
from envd.net.rarely import Rarely
from envd.settings.units import Address

LOOK_UP_S: Final = 5.0
MAX_ADDRESSES: Final = 256
_LOG_EVERY_S: Final = 60.0
LookUp = Callable[[str, int], Awaitable[list[str]]]
"""The addresses "ip:port" of a host, which may be none; raises OSError or TimeoutError."""
LookUpService = Callable[[str], Awaitable[list[tuple[str, int]]]]
"""The targets and ports of an SRV record; raises OSError or TimeoutError."""
_log = get_logger(__name__)


async def look_up(host: str, port: int) -> list[str]:
    """All addresses of a host over the system's resolver, in its order."""
    async with asyncio.timeout(LOOK_UP_S):
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    found = [Address(str(place[0]), int(place[1])) for _, _, _, _, place in infos]
    return list(dict.fromkeys(map(str, found)))


async def look_up_service(name: str) -> list[tuple[str, int]]:
    """The targets of an SRV record, the most wanted first; raises OSError."""
    try:
        resolver: Any = importlib.import_module("dns.asyncresolver")
        failure: Any = importlib.import_module("dns.exception").DNSException
    except ImportError:
        raise OSError("SRV records take the Python package dnspython") from None
    try:
        answer = await resolver.resolve(name, "SRV", lifetime=LOOK_UP_S)
    except failure as error:
        raise OSError(type(error).__name__) from error
    records = sorted(answer, key=lambda record: (record.priority, -record.weight))
    return [(record.target.to_text(omit_final_dot=True), record.port) for record in records]


class Seeds:
    """Resolves the seeds that a node was given."""

    def __init__(
        self,
        seeds: Sequence[Address],
        *,
        look_up: LookUp = look_up,
        look_up_service: LookUpService = look_up_service,
    ) -> None:
        self._seeds = tuple(seeds)
        self._look_up = look_up
        self._look_up_service = look_up_service
        self._told: dict[Address, Rarely] = {}

    async def resolve(self) -> list[str]:
        """The addresses "ip:port" of all seeds, each once, at most 256; never raises.

        The seeds are asked for side by side, so it takes about as long as the slowest: at most
        some seconds.
        """
        found = await asyncio.gather(*map(self._resolve, self._seeds))
        return list(dict.fromkeys(address for some in found for address in some))[:MAX_ADDRESSES]

    async def _resolve(self, seed: Address) -> list[str]:
        try:
            ipaddress.ip_address(seed.host)
        except ValueError:
            pass
        else:
            return [str(seed)]
        try:
            if seed.host.startswith("_"):
                return await self._resolve_service(seed)
            return await self._look_up(seed.host, seed.port)
        except (OSError, TimeoutError, UnicodeError, ValueError) as error:
            self._tell(seed, error)
            return []

    async def _resolve_service(self, seed: Address) -> list[str]:
        targets = (await self._look_up_service(seed.host))[:MAX_ADDRESSES]
        hosts = await asyncio.gather(
            *(self._look_up(host, port) for host, port in targets), return_exceptions=True
        )
        for failure in hosts:
            if isinstance(failure, Exception):
                self._tell(seed, failure)
            elif isinstance(failure, BaseException):
                raise failure
        return [one for some in hosts if not isinstance(some, BaseException) for one in some]

    def _tell(self, seed: Address, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        rarely = self._told.setdefault(seed, Rarely(loop.time, _LOG_EVERY_S))
        if times := rarely.due():
            why = str(error) or type(error).__name__
            _log.warning("seed.unresolved", seed=str(seed), why=why, times=times)
