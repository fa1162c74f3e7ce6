"""A network of the kernel's: each node in a network namespace, on one of two bridges.

A veth pair joins the bridges; to cut the sides apart it is taken down. One way is cut by a
neighbour entry that leads nowhere: what is sent is lost without a word, as on a broken link. A
second link, which no fault touches, leads from each namespace to the clients; to other nodes
there is no way over it.

All this lives in a network and a mount namespace of the run's own (`enter`), so nothing of it
can be seen from outside, and nothing stays when the run ends, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from typing import Final, NoReturn

from chaos.live.places import CannotRun, Place, Weather

_NODE: Final = "10.77.1.{}"
_CLIENTS: Final = "10.77.2.1"
_NOWHERE: Final = "02:00:00:00:de:ad"
_PROBE: Final = (
    "ip link add p0 type bridge && ip link add p1 type veth peer name p2 "
    "&& mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add probe"
)
_UNSHARE: Final = ("unshare", "--net", "--mount", "--propagation", "private")


def refusal() -> str:
    """Why this machine can't have such networks, "" where it can."""
    for command in ("unshare", "ip", "nsenter", "mount"):
        if shutil.which(command) is None:
            return f"there is no command {command} here"
    try:
        done = subprocess.run(
            [*_UNSHARE, "sh", "-c", _PROBE], capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return "making a network namespace takes too long"
    return "" if done.returncode == 0 else f"no network namespaces: {done.stderr.strip()[:200]}"


def enter(arguments: Sequence[str]) -> NoReturn:
    """Become `python -m chaos.live` with these arguments, in namespaces of its own."""
    sys.stdout.flush()
    os.execvp(_UNSHARE[0], [*_UNSHARE, sys.executable, "-m", "chaos.live", *arguments])


def prepare() -> None:
    """Once, in namespaces of the run's own, before the first network is built."""
    os.makedirs("/run/netns", exist_ok=True)  # noqa: PTH103
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run/netns"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class NamespaceNetwork:
    """The Network of namespaces; `left` are the nodes on the first bridge, the others are on the
    second."""

    kind = "namespaces"

    def __init__(self, nodes: int, left: Collection[int]) -> None:
        self._left = frozenset(left)
        self._blocked: set[tuple[int, int]] = set()
        self.places: Sequence[Place] = [
            Place(
                f"n{number + 1}",
                _NODE.format(number + 1),
                _NODE.format(number + 1),
                7420,
                7421,
                7422,
                ("nsenter", f"--net=/run/netns/n{number + 1}"),
                insecure=True,
            )
            for number in range(nodes)
        ]

    async def open(self) -> None:
        commands = [
            "link add left type bridge",
            "link add right type bridge",
            "link add seam-left type veth peer name seam-right",
            "link set seam-left master left",
            "link set seam-right master right",
            f"addr replace {_CLIENTS}/32 dev lo",
            *(f"link set {each} up" for each in ("left", "right", "seam-left", "seam-right")),
        ]
        for number, place in enumerate(self.places):
            commands += self._node(number, place)
        for command in commands:
            await _ip(command)

    def _node(self, number: int, place: Place) -> list[str]:
        name, side = place.name, "left" if number in self._left else "right"
        inside = f"-n {name}"
        return [
            f"netns add {name}",
            f"link add {name}-data type veth peer name data netns {name}",
            f"link add {name}-ours type veth peer name ours netns {name}",
            f"link set {name}-data master {side}",
            f"link set {name}-data up",
            f"link set {name}-ours up",
            f"{inside} link set lo up",
            f"{inside} addr add {place.host}/24 dev data",
            f"{inside} link set data up",
            f"{inside} link set ours up",
            f"{inside} route add {_CLIENTS}/32 dev ours src {place.host}",
            f"route add {place.host}/32 dev {name}-ours src {_CLIENTS}",
        ]

    async def close(self) -> None:
        for place in self.places:
            await _ip(f"netns del {place.name}", must=False)
            for link in ("data", "ours"):
                await _ip(f"link del {place.name}-{link}", must=False)
        for link in ("seam-left", "left", "right"):
            await _ip(f"link del {link}", must=False)

    def runs(self, node: int, pid: int) -> None:
        return  # The kernel knows which namespace a process is in.

    async def cut(self) -> None:
        await _ip("link set seam-left down")

    async def block(self, source: int, target: int) -> None:
        self._blocked.add((source, target))
        await _ip(f"-n {self.places[source].name} neigh replace {self._at(target)} {_LEADS}")

    async def mend(self) -> None:
        await _ip("link set seam-left up")
        for source, target in sorted(self._blocked):
            await _ip(f"-n {self.places[source].name} neigh del {self._at(target)} dev data")
        self._blocked.clear()

    async def weather(self, weather: Weather) -> None:
        raise CannotRun("links of network namespaces can't be slowed without netem")

    def _at(self, node: int) -> str:
        return self.places[node].host


_LEADS: Final = f"lladdr {_NOWHERE} dev data nud permanent"


async def _ip(command: str, *, must: bool = True) -> None:
    process = await asyncio.create_subprocess_exec(
        "ip", *command.split(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    if must and process.returncode:
        raise CannotRun(f"ip {command}: {said.decode(errors='replace').strip()}")
