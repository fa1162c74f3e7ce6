"""The scenarios in which partitions move, because each is on three nodes only.

Nodes come and go, die while partitions move, are lost by the zone, with their disks, or with all
that vote. Each ends in `Placing.settle`: moves end, nothing acknowledged is lost, the copies on
the disks of all holders are equal, and nobody has anything else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import envd
from chaos.live.checkers import placed, some
from chaos.live.cluster import Shape
from chaos.live.placing import COPIES, FILLED, PLACED_WITHIN_S, Placing
from chaos.live.scenario import Scenario
from chaos.live.stage import Stage

WARM_UP_S: Final = 2.0
NODES: Final = 8
_WATCHED: Final = 3
_DOWN_S: Final = (0.5, 3.0)
_DOWN_WITHIN_S: Final = 120.0
_BETWEEN_S: Final = 1.0
_LOOKED_AT: Final = 300
_MOST_ROUNDS: Final = 20
_ROLES: Final = ("who takes", "who gives", "who governs", "another holder")


async def join_and_leave(stage: Stage) -> None:
    """One node joins, then one that votes leaves."""
    placing = Placing(stage)
    first = await placing.placed()
    await placing.use()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    came = int(await placing.join(_free(stage)), 16)
    second = await placing.placed()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    number = await _one_that_goes(placing)
    went = int(await stage.uid(number), 16)
    await placing.leave(number)
    third = await placing.placed()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    tables = await placing.settle()
    stage.outcome.verdicts += [
        placed.even("loads are even at first", tables[first]),
        placed.few_moved("few move for a node that joins", tables[first], tables[second], came),
        placed.even("loads are even after the join", tables[second]),
        placed.few_moved("few move for a node that leaves", tables[second], tables[third], went),
        placed.even("loads are even after the leave", tables[third]),
    ]


async def killed_while_moving(stage: Stage) -> None:
    """Nodes join and leave; who takes, who gives and who governs is killed, again and again."""
    placing = Placing(stage)
    await placing.placed()
    await placing.use()
    await asyncio.sleep(WARM_UP_S)
    killed: Counter[str] = Counter()
    until_s = stage.now_s() + stage.seconds
    for _ in range(_MOST_ROUNDS):
        last = await _round(placing, killed)
        if stage.now_s() >= until_s and all(killed[role] for role in _ROLES):
            break
    tables = await placing.settle(killed=True)
    told = ", ".join(f"{role} {killed[role]} times" for role in _ROLES)
    what = "givers, takers and governors were killed while partitions moved"
    stage.asks(what, all(killed[role] for role in _ROLES), told)
    stage.outcome.verdicts.append(placed.even("loads are even in the end", tables[last]))


async def _round(placing: Placing, killed: Counter[str]) -> int:
    """A node joins and another one leaves, while nodes are killed; return the epoch after that."""
    free = _free(placing.stage)
    node = placing.cluster.nodes[free]
    if node.data.exists():
        await node.wipe()
    await placing.join(free)
    await _kill_while_moving(placing, free, killed, "who takes")
    await placing.placed()
    await _leave_killed(placing, killed)
    return await placing.placed()


async def _leave_killed(placing: Placing, killed: Counter[str]) -> None:
    """Have a node leave, and kill it and others meanwhile; it is told again until it has left."""
    number = await _one_that_goes(placing)
    killing = asyncio.create_task(_kill_while_moving(placing, number, killed, "who gives"))
    try:
        async with asyncio.timeout(PLACED_WITHIN_S):
            while number in placing.cluster.here:
                with suppress(envd.EnvdError):
                    await placing.leave(number)
                await asyncio.sleep(_BETWEEN_S)
            await killing
    finally:
        killing.cancel()


async def _kill_while_moving(
    placing: Placing, number: int, killed: Counter[str], role: str
) -> None:
    """Once partitions move: kill this node, who governs, and another one, as long as they do."""
    stage, cluster = placing.stage, placing.cluster
    told = await placing.until(lambda seen: bool(seen.moving))
    for what in (role, "who governs", "another holder"):
        try:
            governs = (await placing.voters())[0]
            told = await placing.topology()
        except (envd.EnvdError, LookupError):  # Who governed goes just now.
            continue
        if not told.moving or number not in cluster.here:
            return
        others = [each for each in cluster.here if each not in (governs, number)]
        target = {role: number, "who governs": governs}.get(what, stage.chance.choice(others))
        under_way = ", ".join(f"{count} {at}" for at, count in told.moving.items())
        stage.did(f"{under_way}: now {what} dies")
        killed[what] += 1
        await stage.killed_for(target, stage.chance.uniform(*_DOWN_S))
        await asyncio.sleep(stage.chance.uniform(0.0, _BETWEEN_S))


async def lose_a_zone(stage: Stage) -> None:
    """All nodes of one zone die at once, and come back later."""
    placing, cluster = Placing(stage), stage.cluster
    first = await placing.placed()
    told = await placing.topology()
    zones = {int(each.uid, 16): each.zone for each in told.nodes}
    lost = [at for at in cluster.here if cluster.nodes[at].zone == cluster.nodes[0].zone]
    await placing.use()
    await asyncio.sleep(WARM_UP_S)
    await asyncio.gather(*(cluster.nodes[number].kill() for number in lost))
    stage.did(f"SIGKILL zone {cluster.nodes[0].zone}: {len(lost)} of {cluster.size} nodes")
    await asyncio.sleep(stage.seconds)
    seen = await placing.topology()
    stage.did(
        f"{seen.under_replicated:,} partitions have a copy less, "
        f"{sum(seen.moving.values())} move; majority of the voters: {seen.majority}"
    )
    for number in lost:
        cluster.begin(number)
    for number in lost:
        await cluster.nodes[number].ready()
    stage.healed_s = stage.now_s()
    stage.did("all of them are ready again")
    last = await placing.placed()
    await asyncio.sleep(WARM_UP_S)
    tables = await placing.settle(killed=True)
    count = placed.moved(tables[first], tables[last])
    stage.outcome.verdicts.append(placed.spread_over(zones, tables[first]))
    stage.asks("the voters kept their majority", seen.majority, f"epoch {seen.epoch}")
    stage.asks("nothing moved for the zone that was away", not count, f"{count} copies moved")


async def replaced(stage: Stage) -> None:
    """A node dies with its disk; an empty one takes its place, and the dead one is removed."""
    placing, cluster = Placing(stage), stage.cluster
    first = await placing.placed()
    await placing.use()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    number = await _one_that_goes(placing)
    node, dead = cluster.nodes[number], await stage.uid(number)
    await node.kill()
    await node.wipe()
    stage.lost(number, dead)
    stage.did(f"killed {node.place.name} and removed its data")
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    await cluster.start(number)
    stage.did(f"{node.place.name} is ready again, empty")
    await placing.operator.remove(cluster.nodes[0], dead, _DOWN_WITHIN_S)
    stage.healed_s = stage.now_s()
    stage.did("removed the dead one")
    last = await placing.placed()
    await asyncio.sleep(WARM_UP_S)
    after = await stage.uid(number)
    tables = await placing.settle(killed=True)
    gone = int(dead, 16) not in tables[last].uids()
    stage.asks("it is another node, and the dead one holds nothing", gone and after != dead, after)
    stage.outcome.verdicts.append(placed.even("loads are even in the end", tables[last]))
    stage.did(f"{placed.moved(tables[first], tables[last]):,} copies moved")


async def voters_lost(stage: Stage) -> None:
    """All that vote die; one that is left votes alone; later they come back with their disks."""
    placing, cluster = Placing(stage), stage.cluster
    await placing.placed()
    await placing.use()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    voters = await placing.voters()
    left = [number for number in cluster.here if number not in voters]
    await asyncio.gather(*(cluster.nodes[number].kill() for number in voters))
    stage.did(f"SIGKILL all {len(voters)} voters of {cluster.size} nodes")
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    before = await placing.topology()
    await placing.operator.recover(cluster.nodes[left[0]], _DOWN_WITHIN_S)
    stage.did(f"{cluster.nodes[left[0]].place.name} was told to vote alone")
    after = await placing.until(lambda told: told.majority, _DOWN_WITHIN_S)
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    for number in voters:
        cluster.begin(number)
    for number in voters:
        await cluster.nodes[number].ready()
    stage.healed_s = stage.now_s()
    stage.did("the lost ones are back, with their disks")
    await placing.placed()
    await placing.until(lambda told: sum(each.votes == "yes" for each in told.nodes) == len(voters))
    await asyncio.sleep(WARM_UP_S)
    await placing.settle(killed=True, asked=False)
    stage.asks(
        "without the voters there was no majority, and then one that decides",
        not before.majority and after.majority and after.epoch >= before.epoch + 1000,
        f"epoch {before.epoch}, then {after.epoch}",
    )


async def voters_gone(stage: Stage) -> None:
    """All that vote are lost with their disks; one that is left recovers, and empty ones come."""
    placing, cluster = Placing(stage), stage.cluster
    await placing.placed()
    await placing.use()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    await stage.load.finish()
    stage.outcome.acknowledged = len(stage.load.records.acknowledged)
    await placing.quiet()
    voters = await placing.voters()
    dead = [await stage.uid(number) for number in voters]
    left = next(number for number in cluster.here if number not in voters)
    names = [*stage.names, *FILLED[:_LOOKED_AT]]
    held = await placing.operator.holders(cluster.nodes[left], names)
    before = await _revisions(cluster.clients[left], names)
    await asyncio.gather(*(cluster.nodes[number].kill() for number in voters))
    for number, uid in zip(voters, dead, strict=True):
        await cluster.nodes[number].wipe()
        stage.lost(number, uid)
    stage.did(f"SIGKILL all {len(voters)} voters of {cluster.size} nodes, and their disks are gone")
    await placing.operator.recover(cluster.nodes[left], _DOWN_WITHIN_S)
    stage.did(f"{cluster.nodes[left].place.name} was told to vote alone")
    for number in voters:
        cluster.begin(number)
    for number in voters:
        await cluster.nodes[number].ready()
    stage.did("empty ones have taken their places")
    for uid in dead:
        await placing.operator.remove(cluster.nodes[left], uid, _DOWN_WITHIN_S)
    stage.healed_s = stage.now_s()
    stage.did("the lost ones are removed")
    await placing.placed()
    after = await _revisions(cluster.clients[voters[0]], names)
    safe = {name for name, uids in held.items() if not uids <= set(dead)}
    wrong = {name for name in safe if before.get(name) != after.get(name)}
    stage.asks(
        "what a node that is left held is as it was",
        bool(safe) and not wrong,
        f"{len(safe)} environments" + (f", but not {some(wrong)}" if wrong else ""),
    )
    lost = sorted(held.keys() - safe)
    client = cluster.clients[voters[0]]
    for name in lost:
        await client.set(name, {"AGAIN": "1"})
    again = await _revisions(cluster.clients[left], lost)
    stage.asks(
        "what the lost ones held alone is gone, and is written again",
        not any(name in after for name in lost) and len(again) == len(lost),
        f"{len(lost)} environments, {len(again)} written",
    )
    tables = await placing.judge_disks()
    known = {f"{uid:016x}" for uid in tables[max(tables)].uids()}
    still = known.intersection(dead)
    stage.asks("the lost ones hold nothing any more", not still, f"{len(still)} of {len(dead)} do")


async def _revisions(client: envd.Client, names: Sequence[str]) -> Mapping[str, str]:
    """Of those that exist."""
    views = await client.get_many(names)
    return {name: view.revision for name, view in views.items()}


async def stale_copy(stage: Stage) -> None:
    """A node gets an old copy of its data back, from before partitions moved."""
    placing, cluster = Placing(stage), stage.cluster
    await placing.placed()
    await placing.use()
    await asyncio.sleep(WARM_UP_S)
    number = await _one_that_goes(placing)
    node, before = cluster.nodes[number], await stage.uid(number)
    await node.terminate()
    await node.checkpoint()
    stage.did(f"stopped {node.place.name} and copied its data")
    await cluster.start(number)
    await placing.join(_free(stage))
    await placing.placed()
    await asyncio.sleep(max(WARM_UP_S, stage.seconds / 6))
    await node.kill()
    await node.restore()
    stage.lost(number, before)
    stage.did(f"killed {node.place.name} and put the copy back")
    await cluster.start(number)
    stage.healed_s = stage.now_s()
    stage.did(f"{node.place.name} is ready again")
    async with asyncio.timeout(PLACED_WITHIN_S):
        while not node.events("node.identity_lost"):  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(_BETWEEN_S)
    last = await placing.placed()
    await asyncio.sleep(WARM_UP_S)
    after = await stage.uid(number)
    tables = await placing.settle(killed=True)
    gone = int(before, 16) not in tables[last].uids()
    stage.asks(
        "the old copy was detected; the node goes on under a new uid, the old one holds nothing",
        after != before and gone,
        f"{before}, then {after}",
    )
    stage.outcome.verdicts.append(placed.even("loads are even in the end", tables[last]))


def _free(stage: Stage) -> int:
    """The place that has no node."""
    (number,) = (at for at in range(len(stage.cluster.nodes)) if at not in stage.cluster.here)
    return number


async def _one_that_goes(placing: Placing) -> int:
    """One that nobody watches, a voter where there is such a one."""
    unwatched = [number for number in placing.cluster.here if number >= _WATCHED]
    voting = [number for number in await placing.voters() if number >= _WATCHED]
    return placing.stage.chance.choice(sorted(voting or unwatched))


_SHAPE: Final = Shape(copies=COPIES, watched=_WATCHED)
_WITH_SPARE: Final = Shape(copies=COPIES, watched=_WATCHED, spares=1)
_IN_ZONES: Final = Shape(copies=COPIES, watched=_WATCHED, zones="abc")
MOVING: Final = (
    Scenario(
        "join-and-leave",
        "a node joins, then one leaves, with three copies of each partition",
        join_and_leave,
        usual=NODES,
        shape=_WITH_SPARE,
    ),
    Scenario(
        "killed-while-moving",
        "SIGKILL of who takes, gives and governs while partitions move",
        killed_while_moving,
        usual=NODES,
        shape=_WITH_SPARE,
    ),
    Scenario(
        "lose-a-zone",
        "SIGKILL of all nodes of one of three zones, which come back",
        lose_a_zone,
        usual=NODES,
        shape=_IN_ZONES,
    ),
    Scenario(
        "replace-a-dead-node",
        "a node dies with its disk, an empty one takes its place",
        replaced,
        usual=NODES,
        shape=_SHAPE,
    ),
    Scenario(
        "lose-the-voters",
        "SIGKILL of all that vote; another one recovers, then they come back",
        voters_lost,
        usual=NODES,
        shape=_SHAPE,
    ),
    Scenario(
        "lose-the-voters-for-good",
        "all that vote are lost with their disks; another one recovers, empty ones come",
        voters_gone,
        usual=NODES,
        shape=_SHAPE,
    ),
    Scenario(
        "stale-copy",
        "a node gets an old copy of its data back, from before partitions moved",
        stale_copy,
        usual=NODES,
        shape=_WITH_SPARE,
    ),
)
