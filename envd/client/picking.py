"""Which of several servers a call goes to. Pure: a picker sees names and counts, never a socket.

Members that a node tells of come in by `Servers.replace` (`client.members`); nothing here changes
with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from envd.core.errors import InvalidRequest

LOCAL_WEIGHT: Final = 20
"""How many calls go to a server of the own zone for each one that goes to another zone's."""

Balance = Literal["round_robin", "least_connections", "zone"]


@dataclass(frozen=True, slots=True)
class Server:
    """One address, HOST:PORT, and the zone that it is in."""

    address: str
    zone: str = ""


class Picker(Protocol):
    def pick(self, servers: Sequence[Server], calls: Callable[[str], int]) -> Server:
        """One of `servers`, of which there is at least one.

        `calls` tells how many calls to an address are under way.
        """
        ...


class RoundRobin:
    """Each in turn, whichever of them can be used at the moment."""

    def __init__(self, start: int = 0) -> None:
        self._turn = start - 1

    def pick(self, servers: Sequence[Server], calls: Callable[[str], int]) -> Server:
        self._turn += 1
        return servers[self._turn % len(servers)]


class LeastConnections:
    """The one with the fewest calls under way; in turn where several have as few."""

    def __init__(self, start: int = 0) -> None:
        self._among_equals = RoundRobin(start)

    def pick(self, servers: Sequence[Server], calls: Callable[[str], int]) -> Server:
        fewest = min(calls(server.address) for server in servers)
        least = [server for server in servers if calls(server.address) == fewest]
        return self._among_equals.pick(least, calls)


class ZoneWeighted:
    """In turn by weight: those of the own zone `local_weight` times as often as others.

    Smooth weighted round robin (nginx): each turn everyone gains its weight, the highest is
    picked and pays the total. With weights 2, 1 the turns are A B A, not A A B.
    """

    def __init__(self, zone: str, local_weight: int = LOCAL_WEIGHT) -> None:
        self._zone = zone
        self._local_weight = local_weight
        self._gained: dict[str, int] = {}

    def pick(self, servers: Sequence[Server], calls: Callable[[str], int]) -> Server:
        total = 0
        gained = {}
        for server in servers:
            weight = self._local_weight if server.zone == self._zone else 1
            gained[server.address] = self._gained.get(server.address, 0) + weight
            total += weight
        picked = max(servers, key=lambda server: gained[server.address])
        gained[picked.address] -= total
        self._gained = gained
        return picked


def picker_for(balance: Balance, zone: str, start: int) -> Picker:
    """The picker of a name; `start` is drawn, so that clients do not all begin with the first."""
    match balance:
        case "round_robin":
            return RoundRobin(start)
        case "least_connections":
            return LeastConnections(start)
        case "zone":
            return ZoneWeighted(zone)
    raise InvalidRequest(
        f"{balance!a} is no way to balance",
        hint="it is round_robin, least_connections or zone",
    )
