"""What `envctl doctor` looks at in the cluster: from the node that it asks, and from here."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

from envd.cli.commands import topology as voting
from envd.cli.commands.cluster import OFFSET_FAIL_MS, OFFSET_WARN_MS, clocks_apart, counted
from envd.core.answers import Membership, MemberView, PeerView, Status, TopologyView

LAG_WARN_MS = 10_000
FLOOR_WARN_MS = 86_400_000
_CONNECT_S = 2.0
Reach = Callable[[str], str]


class Check(NamedTuple):
    """One finding: `status` is ok, warn or fail."""

    name: str
    status: str
    detail: str
    mend: str = ""


def reach(address: str) -> str:
    """Why nothing listens at HOST:PORT (TCP) as far as this machine can tell, "" if it does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except TimeoutError:
        return "no answer"
    except (OSError, ValueError, OverflowError) as error:
        return getattr(error, "strerror", "") or "no such address"
    return ""


def checks(
    status: Status,
    membership: Membership,
    topology: TopologyView | None,
    now_ms: int,
    reached: Reach = reach,
) -> Iterator[Check]:
    """The findings about a cluster; a node alone has few, and an old one has no topology."""
    yield _members(membership)
    if topology is not None:
        yield _voters(topology)
        if topology.copies:
            yield _copies(topology)
        if topology.floor_ms:
            yield _floor(topology, now_ms)
    if membership.seeds:
        yield _seeds(membership)
    others = [each for each in membership.members if not each.answering]
    if others:
        yield _ports(others, reached)
    if membership.peers:
        yield _streams(membership)
        yield _clocks(membership.peers)
    if membership.peers or status.handoff:
        yield _handoff(status)
    if status.detached:
        yield Check(
            "detached",
            "warn",
            f"{counted(status.detached, 'commit')} on {status.node} alone",
            "bring another node back, or see why none answers: envctl cluster members",
        )
    if status.quarantined:
        yield Check(
            "quarantine",
            "fail",
            f"{counted(status.quarantined, 'record')} from the future held back",
            "set the clocks right (chronyc tracking); they are let in once their time has come",
        )


def _members(membership: Membership) -> Check:
    states = {
        state: [each.name for each in membership.members if each.state == state]
        for state in ("alive", "suspect", "down")
    }
    if not states["down"] and not states["suspect"]:
        count = len(states["alive"])
        return Check("members", "ok", f"{count} alive" if count > 1 else "this node is alone")
    parts = [
        f"{', '.join(states[state])} {state}" for state in ("down", "suspect") if states[state]
    ]
    return Check(
        "members",
        "warn",
        f"{len(states['alive'])} alive; {'; '.join(parts)}",
        "start what is down; what won't come back: envctl cluster remove MEMBER",
    )


def _voters(topology: TopologyView) -> Check:
    if not topology.nodes:
        return Check(
            "voters",
            "warn",
            "this node knows of no topology yet: serial environments take no writes",
            "look again in a moment; then see who is there: envctl cluster members",
        )
    detail, away = voting.reached(topology), voting.away(topology)
    if not topology.majority:
        return Check(
            "voters",
            "fail",
            f"{detail}: serial environments take no writes",
            f"start {away}; what is lost for good: envctl cluster recover",
        )
    if away:
        return Check(
            "voters",
            "warn",
            f"{detail}, not {away}",
            "start what is down; what won't come back: envctl cluster remove MEMBER",
        )
    return Check("voters", "ok", detail)


def _copies(topology: TopologyView) -> Check:
    wanted = voting.copies(topology)
    under_way = topology.moving or topology.waiting
    if topology.under_replicated:
        return Check(
            "copies",
            "warn",
            f"{counted(topology.under_replicated, 'partition')} with less than {wanted}",
            "start what is down; what won't come back: envctl cluster remove MEMBER, then others "
            "get its partitions: envctl cluster topology",
        )
    if under_way:
        return Check("copies", "ok", f"{wanted} of each partition; {voting.moving(topology)}")
    return Check("copies", "ok", f"{wanted} of each partition")


def _floor(topology: TopologyView, now_ms: int) -> Check:
    detail = voting.forgotten(topology, now_ms)
    away = ", ".join(sorted(each.name or each.uid for each in topology.nodes if not each.reachable))
    if now_ms - topology.floor_ms < FLOOR_WARN_MS:
        return Check("floor", "ok", detail)
    return Check(
        "floor",
        "warn",
        f"{detail}, later deletions are kept{f' for {away}' if away else ''}",
        "start what is down; what won't come back: envctl cluster remove MEMBER",
    )


def _seeds(membership: Membership) -> Check:
    silent = [
        f"{seed.address} ({seed.problem})" if seed.problem else seed.address
        for seed in membership.seeds
        if not seed.answers
    ]
    if not silent:
        return Check("seeds", "ok", f"all {len(membership.seeds)} answer")
    lone = len(silent) == len(membership.seeds)
    return Check(
        "seeds",
        "fail" if lone else "warn",
        f"no answer from {', '.join(silent)}",
        "see that envd runs there, that UDP gets through, and that --join names the gossip port",
    )


def _ports(others: list[MemberView], reached: Reach) -> Check:
    """Whether this machine reaches the gRPC ports of those that are said to be up."""
    up = [each for each in others if each.state == "alive" and each.address]
    closed = [
        f"{each.name} at {each.address} ({why})" for each in up if (why := reached(each.address))
    ]
    if not closed:
        return Check("ports", "ok", f"gRPC of {len(up)} other members can be reached from here")
    return Check(
        "ports",
        "warn",
        f"from here there is no way to {', '.join(closed)}",
        "open --listen to this machine; see that --advertise names a host that others reach",
    )


def _streams(membership: Membership) -> Check:
    up = {each.uid for each in membership.members if each.state == "alive"}
    cut = [each for each in membership.peers if each.uid in up and not each.connected]
    if not cut:
        return Check("streams", "ok", "commits go to every member that is up")
    named = [f"{each.name} ({each.problem})" if each.problem else each.name for each in cut]
    return Check(
        "streams",
        "fail",
        f"no commits go to {', '.join(named)}",
        "see that the gRPC port is open between the nodes and the cluster secret is the same",
    )


def _clocks(peers: tuple[PeerView, ...]) -> Check:
    apart = clocks_apart(peers)
    if apart is None:
        return Check("clocks", "ok", "not measured yet")
    offset_ms, detail = apart
    if abs(offset_ms) < OFFSET_WARN_MS:
        return Check("clocks", "ok", detail)
    return Check(
        "clocks",
        "warn" if abs(offset_ms) < OFFSET_FAIL_MS else "fail",
        detail,
        "let NTP keep the clocks (chronyc tracking): the later clock wins where writes conflict",
    )


def _handoff(status: Status) -> Check:
    if not status.handoff:
        return Check("handoff", "ok", "nothing waits for a peer")
    detail = f"{counted(status.handoff, 'commit')} for peers, the oldest for {status.lag_ms:,} ms"
    if status.lag_ms < LAG_WARN_MS:
        return Check("handoff", "ok", detail)
    return Check("handoff", "warn", detail, "see which peer: envctl cluster status")
