"""What a scenario is: what it does, and the cluster that it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from chaos.live.cluster import Shape
from chaos.live.stage import Stage

USUAL_NODES: Final = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """`run` does it. `nodes` None takes as many as the command says, else `usual`; `left` are on
    one side of a cut. `proxies`: it needs the network of proxies. `disk_mb`: the first node's disk
    is that small.
    """

    name: str
    about: str
    run: Callable[[Stage], Awaitable[None]]
    nodes: int | None = None
    left: frozenset[int] = frozenset({0, 1})
    proxies: bool = False
    disk_mb: int = 0
    usual: int = USUAL_NODES
    shape: Shape = field(default_factory=Shape)
