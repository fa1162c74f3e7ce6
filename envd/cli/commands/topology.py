"""`envctl cluster topology`, `where` and `recover`: who votes, and who holds what, in words."""

from __future__ import annotations

from collections.abc import Sequence

from envd.cli import exits
from envd.cli.invocation import Invocation
from envd.client.connection import Connection
from envd.core.answers import TopologyView, VoterView
from envd.core.errors import Unsupported
from envd.core.placement import rank
from envd.core.requests import RecoverRequest
from envd.core.ring import partition_of
from envd.wire.plain import to_plain

SHORT_UID = 8


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


def known(connection: Connection) -> TopologyView | None:
    """The topology, None of a node whose version knows of none."""
    try:
        return connection.topology()
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
        rows = [_row(each) for each in topology.nodes]
        colours = ["" if each.reachable else "red" for each in topology.nodes]
        screen.table(("NAME", "UID", "PLACE", "STATE", "VOTES"), rows, colours)
    screen.line(_meaning(topology), "green" if topology.majority else "yellow")
    if topology.nodes and not topology.majority:
        screen.line(
            f"bring {away(topology)} back; what is lost for good: envctl cluster recover", "yellow"
        )
    return exits.DONE


def _row(each: VoterView) -> tuple[str, ...]:
    silent = each.state == "alive" and not each.reachable
    state = "silent" if silent else each.state or "gone"
    votes = f"{each.votes}, leaves" if each.leaving else each.votes
    return (_name(each), each.uid[:SHORT_UID], f"{each.region}/{each.zone}", state, votes)


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
    holders = [each for each in members if each.role == "storage"]
    proposer = _proposer(known(invocation.connection), partition)
    if not invocation.shows_tables():
        document = {
            "environment": environment,
            "partition": partition,
            "replicas": [to_plain(each) for each in holders],
            "proposer": proposer.uid if proposer else "",
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
    said = f"{environment} is in partition {partition}, which every storage node holds"
    if proposer is not None:
        said += f"; were it serial, {_name(proposer)} would propose its writes"
    invocation.screen.line(said)
    return exits.DONE


def _proposer(topology: TopologyView | None, partition: int) -> VoterView | None:
    """The first voter that can be reached, in the order that all nodes share for a partition."""
    able = [each for each in voters(topology) if each.reachable] if topology else []
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
