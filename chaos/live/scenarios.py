"""The scenarios: what is done to the nodes while clients write.

Each ends in `Stage.settle`, which asks that nothing acknowledged is lost and that all nodes
answer alike. What a scenario asks besides stands in it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from chaos.live.checkers import Apart
from chaos.live.moving import MOVING
from chaos.live.places import Weather
from chaos.live.scenario import Scenario
from chaos.live.stage import Stage
from chaos.live.workload import LIBRARY

WARM_UP_S: Final = 2.0
PAUSED_S: Final = 10.0
FULL_WITHIN_S: Final = 60.0
_KILLED_AGAIN: Final = 0.3
_REFUSED: Final = "store.write_refused"
SLOW: Final = Weather(latency_s=0.12, jitter_s=0.06, loss=0.05, bytes_per_s=250_000)


async def one_of_three(stage: Stage) -> None:
    """Kill each of three nodes in turn."""
    stage.write_through_library()
    await asyncio.sleep(WARM_UP_S)
    for number in range(stage.cluster.size):
        await stage.killed_for(number, max(1.0, stage.seconds / 10))
    await asyncio.sleep(WARM_UP_S)
    await stage.settle()
    stage.accepted("the client that knows all nodes had no failed write", LIBRARY)


async def cut(stage: Stage) -> None:
    """Take the link between the sides down for a while; writes go on, on both."""
    stage.write_on_all()
    await asyncio.sleep(WARM_UP_S)
    uids = [await stage.uid(number) for number in range(stage.cluster.size)]
    left = frozenset(uids[number] for number in _left(stage))
    await stage.cluster.network.cut()
    from_s = stage.now_s()
    stage.did(f"cut {len(left)} from {len(uids) - len(left)}")
    await asyncio.sleep(stage.seconds)
    await stage.load.finish()
    until_s = stage.now_s()
    stage.apart = Apart((left, frozenset(uids) - left), from_s, until_s)
    await stage.cluster.network.mend()
    stage.healed_s = stage.now_s()
    stage.did("healed")
    await stage.settle()
    stage.accepted("every write was accepted, on both sides")


async def one_way(stage: Stage) -> None:
    """The first node is heard by the others, and does not hear them; then the other way round."""
    stage.write_on_all()
    await asyncio.sleep(WARM_UP_S)
    others = range(1, stage.cluster.size)
    for what, links in (
        ("nothing from the others reaches n1", [(other, 0) for other in others]),
        ("nothing from n1 reaches the others", [(0, other) for other in others]),
    ):
        for source, target in links:
            await stage.cluster.network.block(source, target)
        stage.did(what)
        await asyncio.sleep(stage.seconds / 2)
        await stage.cluster.network.mend()
        stage.healed_s = stage.now_s()
        stage.did("healed")
    await stage.settle()
    stage.accepted("every write was accepted")


async def slow_link(stage: Stage) -> None:
    """Every link is late, thin, and loses datagrams."""
    stage.write_on_all()
    await asyncio.sleep(WARM_UP_S)
    await stage.cluster.network.weather(SLOW)
    stage.did(
        f"each way {SLOW.latency_s * 1000:.0f}-{(SLOW.latency_s + SLOW.jitter_s) * 1000:.0f} ms, "
        f"{SLOW.bytes_per_s / 1000:.0f} kB/s, {SLOW.loss:.0%} of datagrams lost"
    )
    await asyncio.sleep(stage.seconds)
    told = await stage.cluster.clients[0].members()
    alive = sum(member.state == "alive" for member in told.members)
    await stage.cluster.network.weather(Weather())
    stage.healed_s = stage.now_s()
    stage.did("links are fast again")
    await stage.settle()
    stage.accepted("every write was accepted")
    stage.asks(
        "slow nodes are not called dead",
        alive == stage.cluster.size,
        f"{alive} of {stage.cluster.size} members alive in the eyes of n1",
    )


async def kill_loop(stage: Stage) -> None:
    """Kill a node at random, start it again, and so on; now and then while it starts, too."""
    stage.write_on_all(each=1)
    stage.write_through_library(writers=2)
    await asyncio.sleep(WARM_UP_S)
    until_s = stage.now_s() + stage.seconds
    while stage.now_s() < until_s:
        number = stage.chance.randrange(stage.cluster.size)
        if stage.chance.random() < _KILLED_AGAIN:
            await _killed_as_it_starts(stage, number)
        await stage.killed_for(number, stage.chance.uniform(0.1, 2.0))
        await asyncio.sleep(stage.chance.uniform(0.2, 1.0))
    await stage.settle()
    stage.accepted("the client that knows all nodes had no failed write", LIBRARY, killed=True)


async def pause(stage: Stage) -> None:
    """Stop a node with SIGSTOP for a while, and let it go on."""
    stage.write_on_all(each=1)
    stage.write_through_library(writers=2)
    await asyncio.sleep(WARM_UP_S)
    number = stage.chance.randrange(stage.cluster.size)
    node = stage.cluster.nodes[number]
    node.pause()
    stage.did(f"SIGSTOP {node.place.name}")
    await asyncio.sleep(PAUSED_S)
    node.resume()
    stage.healed_s = stage.now_s()
    stage.did(f"SIGCONT {node.place.name}")
    await asyncio.sleep(WARM_UP_S)
    await stage.settle()
    others = [each.place.name for each in stage.cluster.nodes if each is not node]
    stage.accepted("every write on the other nodes was accepted", *others)
    stage.accepted("the client that knows all nodes had no failed write", LIBRARY)


async def wiped(stage: Stage) -> None:
    """Take a node's data away; it comes back as a new node and gets everything."""
    stage.write_on_all(each=1)
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 4))
    number = stage.chance.randrange(stage.cluster.size)
    node, before = stage.cluster.nodes[number], await stage.uid(number)
    await node.kill()
    await node.wipe()
    stage.lost(number, before)
    stage.did(f"killed {node.place.name} and removed its data")
    await stage.cluster.start(number)
    stage.healed_s = stage.now_s()
    stage.did(f"{node.place.name} is ready again")
    await asyncio.sleep(WARM_UP_S)
    await stage.settle()
    after = await stage.uid(number)
    stage.asks("it came back as another node", after != before, f"{before}, then {after}")


async def stale(stage: Stage) -> None:
    """Put back a copy of a node's data that was made earlier."""
    stage.write_on_all(each=1)
    await asyncio.sleep(WARM_UP_S)
    number = stage.chance.randrange(stage.cluster.size)
    node, before = stage.cluster.nodes[number], await stage.uid(number)
    await node.terminate()
    await node.checkpoint()
    stage.did(f"stopped {node.place.name} and copied its data")
    await stage.cluster.start(number)
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 4))
    await node.kill()
    await node.restore()
    stage.lost(number, before)
    stage.did(f"killed {node.place.name} and put the copy back")
    await stage.cluster.start(number)
    stage.healed_s = stage.now_s()
    stage.did(f"{node.place.name} is ready again")
    await asyncio.sleep(WARM_UP_S)
    await stage.settle()
    after = await stage.uid(number)
    lost = [event.get("detail", "") for event in node.events("node.identity_lost")]
    stage.asks(
        "the old copy was detected, and the node goes on under a new uid",
        after != before and bool(lost),
        f"{before}, then {after}; {lost[0] if lost else 'no log line says why'}",
    )


async def rolling_restart(stage: Stage) -> None:
    """SIGTERM and start again, one node after the other, under load."""
    stage.write_through_library()
    await asyncio.sleep(WARM_UP_S)
    codes = []
    for number in range(stage.cluster.size):
        node = stage.cluster.nodes[number]
        began_s = stage.now_s()
        codes.append(await node.terminate())
        stage.did(f"SIGTERM {node.place.name}: ended after {stage.now_s() - began_s:.1f} s")
        await stage.cluster.start(number)
        await stage.cluster.whole()
        stage.healed_s = stage.now_s()
        stage.did(f"{node.place.name} is back, and all are connected")
    await asyncio.sleep(WARM_UP_S)
    await stage.settle()
    stage.accepted("no request failed", LIBRARY)
    stage.asks("every node ended with exit code 0", not any(codes), f"exit codes {codes}")


async def disk_full(stage: Stage) -> None:
    """Fill the disk of the first node; make room again later.

    Its disk is a small tmpfs where one can be mounted. Else no file of it may grow (RLIMIT_FSIZE):
    a node takes that for a broken disk and wants a restart once it is mended.
    """
    node = stage.cluster.nodes[0]
    stage.write_on_all(each=2, value_bytes=16_384)
    await asyncio.sleep(WARM_UP_S)
    is_tmpfs = node.data.is_mount()
    filler = node.data / "filler"
    if is_tmpfs:
        size = await asyncio.to_thread(_fill, filler)
        stage.did(f"filled the tmpfs of {node.place.name} ({size >> 20} MiB were free)")
    else:
        node.bound_files(1 << 20)
        stage.did(f"no tmpfs here: no file of {node.place.name} may grow beyond 1 MiB")
    async with asyncio.timeout(FULL_WITHIN_S):
        while not node.events(_REFUSED):  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(0.2)
    stage.did(f"{node.place.name} refuses a record")
    await asyncio.sleep(stage.seconds / 6)
    refused = len(node.events(_REFUSED))
    if is_tmpfs:
        filler.unlink()
    else:
        await node.terminate()
        await stage.cluster.start(0)
    room_s = stage.healed_s = stage.now_s()
    stage.did(f"made room again{'' if is_tmpfs else ' by a restart'}, after {refused} refusals")
    await asyncio.sleep(WARM_UP_S)
    await stage.settle()
    await _judge_room(stage, room_s, "without a restart" if is_tmpfs else "after a restart")


async def _judge_room(stage: Stage, room_s: float, how: str) -> None:
    others = [each.place.name for each in stage.cluster.nodes[1:]]
    stage.accepted("every write on the other nodes was accepted", *others)
    uid = await stage.uid(0)
    again = sum(
        write.origin == uid and write.began_s > room_s for write in stage.load.records.acknowledged
    )
    stage.asks(f"with room it takes writes again, {how}", bool(again), f"{again} taken")


async def _killed_as_it_starts(stage: Stage, number: int) -> None:
    node = stage.cluster.nodes[number]
    await node.kill()
    stage.cluster.begin(number)
    await asyncio.sleep(stage.chance.uniform(0.2, 3.0))
    stage.did(f"SIGKILL {node.place.name}, started it, and killed it again at once")


def _left(stage: Stage) -> frozenset[int]:
    return BY_NAME[stage.outcome.scenario].left


def _fill(path: object) -> int:
    """Write zeros until the disk is full; return how many bytes it took."""
    size, chunk = 0, 1 << 20
    with open(str(path), "wb", buffering=0) as file:
        while chunk:
            try:
                size += file.write(b"\0" * chunk)
            except OSError:
                chunk //= 2
    return size


ALL: Final = (
    Scenario("one-of-three", "SIGKILL of each of three nodes in turn", one_of_three, nodes=3),
    Scenario("cut-2-3", "five nodes cut into two and three", cut, nodes=5),
    Scenario("cut-1-2", "three nodes, one of them cut off", cut, nodes=3, left=frozenset({0})),
    Scenario("one-way", "one node does not hear the others, then is not heard", one_way, nodes=3),
    Scenario("slow-link", "late, thin links that lose datagrams", slow_link, proxies=True),
    Scenario("kill-loop", "SIGKILL of a random node, again and again", kill_loop),
    Scenario("pause", f"SIGSTOP of one node for {PAUSED_S:.0f} s", pause, nodes=3),
    Scenario(
        "disk-full", "the disk of one node is full for a while", disk_full, nodes=3, disk_mb=400
    ),
    Scenario("wiped", "one node loses its data", wiped, nodes=3),
    Scenario("stale", "one node gets an old copy of its data back", stale, nodes=3),
    Scenario("rolling-restart", "SIGTERM and restart, node by node", rolling_restart, nodes=3),
    *MOVING,
)
BY_NAME: Final = {scenario.name: scenario for scenario in ALL}
