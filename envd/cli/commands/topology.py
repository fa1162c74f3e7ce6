"""`envctl cluster topology`, `where` and `recover`: who votes, and who holds what, in words."""

from __future__ import annotations

from collections.abc import Sequence

from envd.cli import exits
from envd.cli.invocation import Invocation
from envd.client.connection import Connection
from envd.core.answers import MemberView, PlaceView, TopologyView, VoterView
from envd.core.errors import Unsupported
from envd.core.placement import rank
from envd.core.requests import RecoverRequest, TopologyRequest
from envd.core.ring import partition_of
from envd.wire.plain import to_plain

SHORT_UID = 8
_STAGES = ("write_both", "streaming", "read_new", "use_new")


def voters(topology: TopologyView) -> Sequence[VoterView]:
    """Those that vote now."""
    return [each for each in topology.nodes if each.votes == "yes"]


def away(topology: TopologyView) -> str:
    """The voters that can't be reached, by name: `n1, n2`."""
    return ", ".join(_name(each) for each in voters(topology) if not each.reachable)


def reached(topology: TopologyView) -> str:
    """Example: 2 of 3 voters can be reached."""
    voting = voters(topology)
    count = sum(each.reachable for each in voting)
    return f"{count} of {len(voting)} voter{'' if len(voting) == 1 else 's'} can be reached"


def known(connection: Connection, environment: str = "") -> TopologyView | None:
    """The topology, with the place of this environment; None of a node that knows of none."""
    try:
        return connection.topology(TopologyRequest(environment) if environment else None)
    except Unsupported:
        return None


def show(invocation: Invocation) -> int:
    """`envctl cluster topology`."""
    topology = invocation.connection.topology()
    if not invocation.shows_tables():
        invocation.document(to_plain(topology))
        return exits.DONE
    screen = invocation.screen
    if topology.nodes:
        held = bool(topology.copies)
        rows = [_row(each, partitions=held) for each in topology.nodes]
        colours = ["" if each.reachable else "red" for each in topology.nodes]
        header = ("NAME", "UID", "PLACE", "STATE", "VOTES", *(("PARTITIONS",) if held else ()))
        screen.table(header, rows, colours)
    screen.line(_meaning(topology), "green" if topology.majority else "yellow")
    if topology.copies:
        screen.line(f"each partition is to have {copies(topology)}")
        if topology.under_replicated:
            screen.line(f"{topology.under_replicated:,} have fewer now", "yellow")
        if topology.moving or topology.waiting:
            screen.line(moving(topology))
    if topology.floor_ms:
        screen.line(forgotten(topology, invocation.world.wall_ms()))
    if topology.nodes and not topology.majority:
        screen.line(
            f"bring {away(topology)} back; what is lost for good: envctl cluster recover", "yellow"
        )
    return exits.DONE


def copies(topology: TopologyView) -> str:
    """Example: 3 copies; or: 2 copies in eu, 1 in us; or: a copy on every node."""
    anywhere = topology.copies.get("")
    if anywhere is not None:
        return f"{_times(anywhere, 'copy', 'copies')}" if anywhere else "a copy on every node"
    (first, count), *others = sorted(topology.copies.items())
    parts = [f"{_times(count, 'copy', 'copies')} in {first}"]
    return ", ".join([*parts, *(f"{count} in {region}" for region, count in others)])


def forgotten(topology: TopologyView, now_ms: int) -> str:
    """Example: what was deleted over 1.2 h ago is forgotten."""
    age_s = max(0, now_ms - topology.floor_ms) // 1000
    return f"what was deleted over {_duration(age_s)} ago is forgotten"


def moving(topology: TopologyView) -> str:
    """What moves, by stage, and how long it will take."""
    under_way = sum(topology.moving.values())
    stages = ", ".join(
        f"{topology.moving[stage]:,} {stage}" for stage in _STAGES if stage in topology.moving
    )
    said = f"{_times(under_way, 'partition moves', 'partitions move')}"
    said += f" ({stages})" if stages else ""
    said += f", {topology.waiting:,} {'is' if topology.waiting == 1 else 'are'} to follow"
    if topology.left_seconds is not None:
        said += f"; about {_duration(topology.left_seconds)} left at this pace"
    return said


def _times(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _duration(seconds: int) -> str:
    """Example: 45 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _row(each: VoterView, *, partitions: bool) -> tuple[str, ...]:
    silent = each.state == "alive" and not each.reachable
    state = "silent" if silent else each.state or "gone"
    votes = f"{each.votes}, leaves" if each.leaving else each.votes
    row = (_name(each), each.uid[:SHORT_UID], f"{each.region}/{each.zone}", state, votes)
    return (*row, f"{each.partitions:,}") if partitions else row


def _name(each: VoterView) -> str:
    return each.name or each.uid[:SHORT_UID]


def _meaning(topology: TopologyView) -> str:
    if not topology.nodes:
        return (
            "this node knows of no topology yet, so serial environments take no writes; "
            "look again in a moment"
        )
    takes = "take writes" if topology.majority else "take no writes"
    said = f"epoch {topology.epoch}: {reached(topology)}; serial environments {takes}"
    to_come = sum(each.votes == "next" for each in topology.nodes)
    if to_come:
        said += f"; {to_come} {'is' if to_come == 1 else 'are'} to vote next"
    return said


def where(invocation: Invocation, environment: str) -> int:
    """`envctl cluster where ENV`: which nodes hold it, and which one proposes if it is serial."""
    partition = partition_of(environment)
    members = invocation.connection.members().members
    topology = known(invocation.connection, environment)
    place = topology.place if topology else None
    storage = [each for each in members if each.role == "storage"]
    named = place.holders if place else ()
    holders = [each for each in storage if not named or each.uid in named]
    proposer = _proposer(topology, partition, named)
    if not invocation.shows_tables():
        document = {
            "environment": environment,
            "partition": partition,
            "replicas": [to_plain(each) for each in holders],
            "proposer": proposer.uid if proposer else "",
            "stage": place.stage if place else "",
            "writers": list(place.writers) if place else [],
        }
        invocation.document(document)
        return exits.DONE
    rows = [
        (
            each.name,
            each.uid[:SHORT_UID],
            each.address or "?",
            f"{each.region}/{each.zone}",
            each.state,
        )
        for each in holders
    ]
    invocation.screen.table(("NAME", "UID", "ADDRESS", "PLACE", "STATE"), rows)
    said = f"{environment} is in partition {partition}, which "
    said += _holding(place, storage) if place and named else "every storage node holds"
    if proposer is not None:
        said += f"; were it serial, {_name(proposer)} would propose its writes"
    invocation.screen.line(said)
    return exits.DONE


def _holding(place: PlaceView, members: Sequence[MemberView]) -> str:
    if not place.stage:
        return "these nodes hold"
    called = {each.uid: each.name for each in members}
    more = [uid for uid in place.writers if uid not in place.holders]
    others = ", ".join(called.get(uid, uid[:SHORT_UID]) for uid in more)
    said = f"is read from these and moves (stage {place.stage})"
    return f"{said}; its writes go to {others} too" if others else said


def _proposer(
    topology: TopologyView | None, partition: int, holders: Sequence[str]
) -> VoterView | None:
    """The first of those that decide and can be reached, in the order that all nodes share.

    Those are the holders of the partition, or the voters where every node holds everything.
    """
    deciding: Sequence[VoterView] = voters(topology) if topology else []
    if topology and holders:
        deciding = [each for each in topology.nodes if each.uid in holders]
    able = [each for each in deciding if each.reachable]
    return min(able, key=lambda each: rank(partition, int(each.uid, 16)), default=None)


def recover(invocation: Invocation) -> int:
    """`envctl cluster recover`."""
    connection = invocation.connection
    status = connection.status()
    name = f"{status.node} ({status.node_uid[:SHORT_UID]})"
    topology = connection.recover(RecoverRequest(status.node_uid, dry_run=True))
    lost = away(topology)
    if invocation.arguments.on("--dry-run"):
        said = f"{name} would vote alone; {lost} would vote no more"
    else:
        invocation.confirm(
            f"{name} is to vote alone, until others join it. Writes to serial environments that "
            f"{lost} acknowledged and that are not here may be lost; where they still run behind a "
            "cut, what they take there loses, and is kept as conflicts. Plain environments lose "
            "nothing. Go on?"
        )
        topology = connection.recover(RecoverRequest(status.node_uid))
        said = f"{name} votes alone now, in epoch {topology.epoch}; others join by themselves"
    invocation.tell(said)
    if not invocation.shows_tables():
        invocation.document(to_plain(topology))
    return exits.DONE
