"""What the controls about the floor do to a node: see `chaos.sim.controls`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

from envd.core.errors import EnvdError
from envd.node.floors import Floors
from envd.node.node import Node
from envd.ports import Store


class _Judgeless:
    """The floors of a node that lets everything in, whatever its time."""

    def __init__(self, floors: Floors) -> None:
        self._inner = floors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def judges_below(self, partition: int) -> int:
        return 0

    def passes_below(self, partition: int, floor: int = 0) -> int:
        return 0


def judge_nothing(node: Node) -> None:
    """What comes at or below the floor is taken in as if there were none."""
    intake = node.__dict__["_intake"]
    intake.__dict__["_floors"] = cast(Floors, _Judgeless(intake.__dict__["_floors"]))


def raise_at_once(node: Node) -> None:
    """The floor goes up as soon as it is heard of, before what is below it is here."""
    store: Store = node.__dict__["_ports"].store
    tasks: set[asyncio.Task[None]] = set()

    async def rise() -> None:
        with suppress(EnvdError):
            await store.raise_floor(node.floors.agreed.hlc)

    def changed() -> None:
        task = asyncio.get_running_loop().create_task(rise(), name="rise")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    node.floors.subscribe(changed)
