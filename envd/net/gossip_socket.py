"""Datagrams over UDP: sent at once or dropped, never waited for.

The sockets are read and written directly, since asyncio's transports keep what the system does
not take at once in a queue without a bound. What can't go out is counted; gossip goes on without
it. Addresses are texts "host:port", IPv6 in brackets; what came over a socket for both families
is told by its IPv4 address.

A member may be known by a name (`--advertise HOST`). The first datagram to a name starts a
look-up and waits for it, a few of them at most; what was found counts for half a minute.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from envd.logs import get_logger
from envd.net.faults import Faults
from envd.net.listening import bind
from envd.net.rarely import Rarely
from envd.net.seeds import LookUp, look_up
from envd.settings.units import Address

BUFFER_BYTES: Final = 1 << 20
MAX_DATAGRAM_BYTES: Final = 65_535
MAX_NAMES: Final = 1024
MAX_WAITING: Final = 4
NAME_LIVES_S: Final = 30.0
NAME_FAILS_S: Final = 5.0
_READS_A_TURN: Final = 64
_log = get_logger(__name__)


@dataclass(slots=True)
class Traffic:
    """What went through since the start; `dropped` could not be sent."""

    sent: int = 0
    received: int = 0
    dropped: int = 0


@dataclass(slots=True)
class _Name:
    """A name that datagrams go to: the address "ip:port" found for it, and who waits for one."""

    found: str = ""
    until: float = 0.0
    waiting: list[bytes] = field(default_factory=list)
    looking: asyncio.Task[None] | None = None


class GossipSocket:
    """The Datagrams port. `start` listens, `close` ends it.

    An exception of the receiver is a fault: counted in `faults`, logged, and the next datagram
    is read.
    """

    def __init__(self, address: Address, *, look_up: LookUp = look_up) -> None:
        self._address = address
        self._look_up = look_up
        self._faults = Faults()
        self._sockets: list[socket.socket] = []
        self._receive: Callable[[str, bytes], None] | None = None
        self._names: dict[str, _Name] = {}
        self._buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))
        self._told = Rarely(lambda: asyncio.get_running_loop().time())
        self.traffic: Final = Traffic()

    @property
    def faults(self) -> int:
        """How many datagrams ended in an exception that nobody meant to raise."""
        return self._faults.count

    async def start(self) -> int:
        """Listen; return the port. Raises StartupError where the address can't be had."""
        loop = asyncio.get_running_loop()
        self._sockets = bind(self._address, "gossip", "--gossip", socket.SOCK_DGRAM)
        for one in self._sockets:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                one.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            loop.add_reader(one, self._read, one)
        return int(self._sockets[0].getsockname()[1])

    def on_datagram(self, receive: Callable[[str, bytes], None]) -> None:
        self._receive = receive

    def send(self, address: str, datagram: bytes) -> None:
        try:
            target = _target(address)
        except ValueError:
            self._drop("no address")
            return
        if target is None:
            self._send_to_name(address, datagram)
        else:
            self._send(target, datagram)

    async def close(self) -> None:
        """Stop listening; what is sent from now on is dropped."""
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one)
            one.close()
        self._sockets = []
        looking = [name.looking for name in self._names.values() if name.looking is not None]
        self._names.clear()
        for task in looking:
            task.cancel()
        if looking:
            await asyncio.wait(looking)

    def _read(self, one: socket.socket) -> None:
        """Hand over what is there, but let others have their turn too."""
        for _ in range(_READS_A_TURN):
            try:
                size, source = one.recvfrom_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._tell("gossip.not_read", _name_of(error))
                return
            self.traffic.received += 1
            if self._receive is None:
                continue
            try:
                self._receive(_text_of(source), bytes(self._buffer[:size]))
            except Exception as error:  # noqa: BLE001 - the datagram's outermost guard
                self._faults.report("gossip", error)

    def _send(self, target: Address, datagram: bytes) -> None:
        host, family = target.host, socket.AF_INET6 if ":" in target.host else socket.AF_INET
        one = next((one for one in self._sockets if one.family is family), None)
        if one is None and family is socket.AF_INET and self._sockets:
            one, host = self._sockets[0], f"::ffff:{host}"
        if one is None:
            self._drop("no socket for its family")
            return
        try:
            one.sendto(datagram, (host, target.port))
        except OSError as error:
            self._drop(_name_of(error))
        else:
            self.traffic.sent += 1

    def _send_to_name(self, address: str, datagram: bytes) -> None:
        now = asyncio.get_running_loop().time()
        name = self._names.get(address)
        if name is None:
            if not self._make_room():
                self._drop("too many names")
                return
            name = self._names[address] = _Name()
        if now >= name.until and name.looking is None:
            name.looking = asyncio.create_task(self._find(address, name))
        if name.found:  # What was found last will do until there is better.
            self.send(name.found, datagram)
        elif name.looking is not None and len(name.waiting) < MAX_WAITING:
            name.waiting.append(datagram)
        else:
            self._drop("the name is not resolved")

    def _make_room(self) -> bool:
        """Forget the oldest name that is not being looked up, where there are too many."""
        if len(self._names) < MAX_NAMES:
            return True
        idle = next((key for key, name in self._names.items() if name.looking is None), None)
        return idle is not None and self._names.pop(idle) is not None

    async def _find(self, address: str, name: _Name) -> None:
        loop, place = asyncio.get_running_loop(), Address.parse(address)
        try:
            found = await self._look_up(place.host, place.port)
        except (OSError, TimeoutError, UnicodeError, ValueError) as error:
            found = []
            self._tell("gossip.name_unresolved", str(error) or type(error).__name__)
        finally:
            name.looking = None
        name.found = next(filter(self._reaches, found), name.found)
        name.until = loop.time() + (NAME_LIVES_S if found else NAME_FAILS_S)
        waiting, name.waiting = name.waiting, []
        for datagram in waiting:
            if name.found:
                self.send(name.found, datagram)
            else:
                self._drop("the name is not resolved")

    def _reaches(self, address: str) -> bool:
        families = {one.family for one in self._sockets}
        return socket.AF_INET6 in families or not address.startswith("[")

    def _drop(self, why: str) -> None:
        self.traffic.dropped += 1
        self._tell("gossip.dropped", why)

    def _tell(self, event: str, why: str) -> None:
        if times := self._told.due():
            _log.warning(event, why=why, times=times)


@lru_cache(maxsize=4096)
def _target(address: str) -> Address | None:
    """Where to send for an IP address, None for a name; raises ValueError for neither."""
    place = Address.parse(address)
    try:
        ip = ipaddress.ip_address(place.host)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return place if mapped is None else Address(str(mapped), place.port)


def _text_of(source: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host = source[0].removeprefix("::ffff:") if "." in source[0] else source[0]
    return f"[{host}]:{source[1]}" if ":" in host else f"{host}:{source[1]}"


def _name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
