"""`envctl cluster`: who belongs to the cluster, how it does, and who comes and goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envd.cli import exits, target
from envd.cli.commands import topology as voting
from envd.cli.exits import UsageError
from envd.cli.grammar import DRY_RUN, YES, Command
from envd.cli.invocation import Invocation
from envd.core.answers import Membership, MemberView, PeerView, Status, TopologyView
from envd.core.errors import Unavailable
from envd.core.requests import JoinRequest, LeaveRequest, RemoveRequest
from envd.wire.plain import to_plain

SHORT_UID = 8
OFFSET_WARN_MS, OFFSET_FAIL_MS = 250, 5_000
"""A clock is followed up to 500 ms; writes stamped a minute ahead are refused (CLOCK_SKEW)."""
_STATES = ("alive", "suspect", "down", "left")
_COLOURS = {"alive": "", "suspect": "yellow", "down": "red", "left": "dim"}


def _cluster(invocation: Invocation) -> int:
    words = invocation.take_words()
    part = words[0] if words else ""
    perform = _PARTS.get(part)
    if perform is None:
        what = f"there is no envctl cluster {part[:32]!a}" if part else "what about the cluster?"
        raise UsageError(what, hint=f"envctl cluster {'|'.join(_PARTS)}")
    return perform(invocation, words[1:])


def _most(words: Sequence[str], most: int, usage: str) -> None:
    if len(words) > most:
        raise UsageError("too many arguments", hint=f"usage: envctl cluster {usage}")


# -- looking ---------------------------------------------------------------------------


def _status(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 0, "status")
    status = invocation.connection.status()
    if not invocation.shows_tables():
        invocation.document(to_plain(status))
        return exits.DONE
    membership = invocation.connection.members()
    topology = voting.known(invocation.connection)
    screen = invocation.screen
    screen.line(f"cluster {status.cluster}, as {status.node} sees it", "bold")
    for label, text in _figures(status, membership, topology):
        screen.line(f"  {label:<14}{text}")
    troubles = list(trouble(status, membership, topology))
    if not troubles:
        screen.line(_well(status, topology), "green")
    for each in troubles:
        screen.line(each, "yellow")
    return exits.DONE


def _figures(
    status: Status, membership: Membership, topology: TopologyView | None
) -> Iterator[tuple[str, str]]:
    states = [each.state for each in membership.members]
    counted = [f"{states.count(state)} {state}" for state in _STATES if state in states]
    yield "members", ", ".join(counted)
    if topology is not None and topology.nodes:
        yield "voters", f"{voting.reached(topology)}, epoch {topology.epoch}"
    yield "environments", f"{status.environments:,}"
    yield "partitions", f"{status.partitions:,}, {_none(status.under_replicated)} short of copies"
    oldest = f", the oldest {status.lag_ms:,} ms old" if status.handoff else ""
    yield "handoff", f"{_none(status.handoff)} to send{oldest}"
    yield "detached", f"{_none(status.detached)} on this node alone"
    yield "quarantined", f"{_none(status.quarantined)} records from the future"


def _none(count: int) -> str:
    return f"{count:,}" if count else "none"


def _well(status: Status, topology: TopologyView | None) -> str:
    if status.members == 1:
        return "All is well: this node is the only one, and nothing waits."
    if topology is not None and topology.copies:
        return f"All is well: {status.members} nodes, and {voting.copies(topology)} of everything."
    return f"All is well: {status.members} nodes, and each holds everything."


def trouble(
    status: Status, membership: Membership, topology: TopologyView | None = None
) -> Iterator[str]:
    """What is not as it should be, in words; nothing where all is well."""
    for state, one, several in (
        ("down", "does not answer", "do not answer"),
        ("suspect", "may not answer", "may not answer"),
    ):
        names = [each.name for each in membership.members if each.state == state]
        if len(names) == 1:
            yield f"{names[0]} {one}; writes go on, and it gets them once it is back."
        elif names:
            yield f"{', '.join(names)} {several}; writes go on, and reach them once they are back."
    apart = clocks_apart(membership.peers)
    if apart and abs(apart[0]) >= OFFSET_FAIL_MS:
        yield f"{apart[1]}; see envctl doctor."
    if topology is not None and not topology.majority:
        yield "serial environments take no writes; see envctl cluster topology."
    cut = [each for each in membership.peers if not each.connected and _is_up(membership, each.uid)]
    for peer in cut:
        why = f" ({peer.problem.partition(': ')[0]})" if peer.problem else ""
        yield f"nothing goes to {peer.name}, though it is up{why}; see envctl doctor."
    if status.under_replicated:
        yield f"{_are(status.under_replicated, 'partition')} short of copies."
    if status.detached:
        alone = _are(status.detached, "commit")
        yield f"{alone} safe on this node alone, until another one answers."
    if status.quarantined:
        waits = "waits" if status.quarantined == 1 else "wait"
        yield f"{counted(status.quarantined, 'record')} of the future {waits}; see envctl doctor."


def clocks_apart(peers: Sequence[PeerView]) -> tuple[int, str] | None:
    """By how much the clocks are apart (milliseconds), and in words; None where nobody measured.

    It is this node's clock that is told of where those of several others agree on that.
    """
    measured = [
        (each.clock_offset_ms, each.name) for each in peers if each.clock_offset_ms is not None
    ]
    if not measured:
        return None
    least, most = min(measured)[0], max(measured)[0]
    if len(measured) > 1 and (least >= OFFSET_WARN_MS or most <= -OFFSET_WARN_MS):
        offset_ms = least if least > 0 else most
        return offset_ms, f"this node's clock is {_offset(-offset_ms)} all others"
    offset_ms, name = max(measured, key=lambda one: abs(one[0]))
    return offset_ms, f"the clock of {name} is {_offset(offset_ms)} this node's"


def _offset(offset_ms: int) -> str:
    ahead = "ahead of" if offset_ms >= 0 else "behind"
    if abs(offset_ms) < OFFSET_FAIL_MS:
        return f"{abs(offset_ms)} ms {ahead}"
    return f"{abs(offset_ms) / 1000:,.0f} s {ahead}"


def counted(count: int, noun: str) -> str:
    """Example: counted(2, "node") is "2 nodes"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _are(count: int, noun: str) -> str:
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def _is_up(membership: Membership, uid: str) -> bool:
    return any(each.uid == uid and each.state == "alive" for each in membership.members)


def _members(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 0, "members")
    _show_members(invocation, invocation.connection.members())
    return exits.DONE


def _show_members(invocation: Invocation, membership: Membership) -> None:
    if not invocation.shows_tables():
        invocation.document(to_plain(membership))
        return
    rows = [_row(each) for each in membership.members]
    colours = [_COLOURS.get(each.state, "") for each in membership.members]
    header = ("NAME", "UID", "ADDRESS", "PLACE", "ROLE", "STATE", "STARTS")
    invocation.screen.table(header, rows, colours)


def _row(each: MemberView) -> tuple[str, ...]:
    place = f"{each.region}/{each.zone}"
    name = f"{each.name} *" if each.answering else each.name
    uid = each.uid[:SHORT_UID]
    return (name, uid, each.address or "?", place, each.role, each.state, str(each.generation))


def _topology(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 0, "topology")
    return voting.show(invocation)


# -- coming and going ------------------------------------------------------------------


def _join(invocation: Invocation, words: Sequence[str]) -> int:
    if not words:
        raise UsageError(
            "no address to join is named",
            hint="the gossip address of a member: envctl cluster join 10.0.0.1:7421",
        )
    addresses = tuple(part for word in words for part in word.split(",") if part)
    membership = invocation.connection.join(JoinRequest(addresses))
    up = sum(each.state == "alive" for each in membership.members)
    invocation.tell(f"joined; the cluster has {up} members that are alive")
    _show_members(invocation, membership)
    return exits.DONE


def _leave(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 1, "leave [MEMBER]")
    status = invocation.connection.status()
    member = words[0] if words else status.node_uid
    shown = words[0] if words else f"{status.node} ({status.node_uid[:SHORT_UID]})"
    if invocation.arguments.on("--dry-run"):
        membership = invocation.connection.leave(LeaveRequest(member, dry_run=True))
        said = f"{shown} would hand over what others lack, leave {status.cluster}, and stop"
    else:
        ask = f"{shown} leaves the cluster {status.cluster} for good, and stops. Go on?"
        invocation.confirm(ask)
        membership = _leave_for_good(invocation, member)
        said = f"{shown} has left, and stops; the others hold all that it had acknowledged"
    _tell(invocation, said, membership)
    return exits.DONE


def _leave_for_good(invocation: Invocation, member: str) -> Membership:
    """Ask again while the node hands over its partitions, and tell how far it is."""
    while True:
        try:
            return invocation.connection.leave(LeaveRequest(member))
        except Unavailable as error:
            if error.reason != "DRAINING":
                raise
            invocation.tell(error.message)


def _remove(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 1, "remove MEMBER")
    if not words:
        raise UsageError("no member is named", hint="which there are: envctl cluster members")
    (member,) = words
    if invocation.arguments.on("--dry-run"):
        membership = invocation.connection.remove(RemoveRequest(member, dry_run=True))
        said = f"{member} would be removed"
    else:
        invocation.confirm(
            f"{member} is struck from the cluster. If its machine is to join again, then with an "
            "empty data directory. Go on?"
        )
        membership = invocation.connection.remove(RemoveRequest(member))
        said = f"removed {member}"
    _tell(invocation, said, membership)
    return exits.DONE


def _recover(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 0, "recover")
    return voting.recover(invocation)


def _where(invocation: Invocation, words: Sequence[str]) -> int:
    _most(words, 1, "where [ENV]")
    named = target.environment_only(words[0]) if words else target.required_default(invocation)
    return voting.where(invocation, named)


def _tell(invocation: Invocation, said: str, membership: Membership) -> None:
    invocation.tell(said)
    if not invocation.shows_tables():
        invocation.document(to_plain(membership))


_PARTS = {
    "status": _status,
    "members": _members,
    "topology": _topology,
    "where": _where,
    "join": _join,
    "leave": _leave,
    "remove": _remove,
    "recover": _recover,
}
CLUSTER = Command(
    usage=(
        *("status", "members", "topology", "where [ENV]", "join HOST:PORT..."),
        *("leave [MEMBER]", "remove MEMBER", "recover"),
    ),
    about="""
    status says in figures and in a sentence how the cluster does. members lists the nodes that
    belong to it, as the node that is asked (*) sees them: alive, suspect (it did not answer just
    now), down, or left. STARTS counts the starts of a node. topology tells which nodes vote on
    the writes of serial environments (VOTES: yes, next, no), and whether a majority of them can
    be reached; and where not every node holds everything, how many copies there are to be, how many
    partitions each node holds, which are on their way, and how long that will take; and since when
    what was deleted is remembered, for nodes that are away. where tells which nodes hold an
    environment, whether it exists or not, and how far it is on its way.

    join has the node that is asked look for members at further addresses (gossip, 7421 by
    default), as after a cut so long that all have forgotten each other. Both need the same cluster
    secret, and clusters that were founded apart stay apart: an empty node joins when it is started
    with envd --join. leave has the node that is asked leave for good: the others get all that it
    has acknowledged, then it stops; so ask that node itself, with --server. Where not every node
    holds everything that may take long, and envctl tells how far it is; broken off, the node stays.
    To stop a node for a
    while, send it SIGTERM instead. remove strikes a node that is down and will not come back;
    MEMBER is its name, or its uid or the first digits of it. recover is for when a majority of the
    voters is lost for good: the node that is asked then votes alone, and others join it. What only
    the lost ones knew of serial environments is lost with them; plain ones lose nothing.
    """,
    examples=(
        ("envctl cluster status", "is all well?"),
        ("envctl cluster topology", "do serial environments take writes?"),
        ("envctl cluster where web/prod", "which nodes hold it?"),
        ("envctl cluster leave --server 10.0.0.3:7420", "take that node out"),
        ("envctl cluster remove node3 --yes", "a machine that is gone"),
        ("envctl cluster recover --dry-run", "who would vote no more?"),
    ),
    run=_cluster,
    flags=(DRY_RUN, YES),
)
