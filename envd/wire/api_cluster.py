"""Members of the cluster in the public API's messages <-> the core's answers; as `wire.api`."""

from __future__ import annotations

from envd.core.answers import (
    Membership,
    MemberView,
    PeerView,
    PlaceView,
    SeedView,
    TopologyView,
    VoterView,
)
from envd.core.requests import (
    JoinRequest,
    LeaveRequest,
    RecoverRequest,
    RemoveRequest,
    TopologyRequest,
)
from envd.wire._pb import cluster_pb2 as pb


def join_from(message: pb.JoinRequest) -> JoinRequest:
    return JoinRequest(tuple(message.addresses))


def join_message(request: JoinRequest) -> pb.JoinRequest:
    return pb.JoinRequest(addresses=request.addresses)


def leave_from(message: pb.LeaveRequest) -> LeaveRequest:
    return LeaveRequest(message.member, message.dry_run)


def leave_message(request: LeaveRequest) -> pb.LeaveRequest:
    return pb.LeaveRequest(member=request.member, dry_run=request.dry_run)


def remove_from(message: pb.RemoveRequest) -> RemoveRequest:
    return RemoveRequest(message.member, message.dry_run)


def remove_message(request: RemoveRequest) -> pb.RemoveRequest:
    return pb.RemoveRequest(member=request.member, dry_run=request.dry_run)


def recover_from(message: pb.RecoverRequest) -> RecoverRequest:
    return RecoverRequest(message.member, message.dry_run)


def recover_message(request: RecoverRequest) -> pb.RecoverRequest:
    return pb.RecoverRequest(member=request.member, dry_run=request.dry_run)


def topology_request_from(message: pb.TopologyRequest) -> TopologyRequest:
    return TopologyRequest(message.environment)


def topology_request_message(request: TopologyRequest) -> pb.TopologyRequest:
    return pb.TopologyRequest(environment=request.environment)


def topology_message(topology: TopologyView) -> pb.TopologyResponse:
    place = topology.place
    return pb.TopologyResponse(
        epoch=topology.epoch,
        nodes=map(_voter_message, topology.nodes),
        majority=topology.majority,
        copies=topology.copies,
        moving=topology.moving,
        waiting=topology.waiting,
        under_replicated=topology.under_replicated,
        left_seconds=topology.left_seconds,
        place=None if place is None else _place_message(place),
        floor_ms=topology.floor_ms,
    )


def topology_from(message: pb.TopologyResponse) -> TopologyView:
    return TopologyView(
        message.epoch,
        tuple(map(_voter_from, message.nodes)),
        message.majority,
        dict(message.copies),
        dict(message.moving),
        message.waiting,
        message.under_replicated,
        message.left_seconds if message.HasField("left_seconds") else None,
        _place_from(message.place) if message.HasField("place") else None,
        message.floor_ms,
    )


def _place_message(place: PlaceView) -> pb.Place:
    return pb.Place(
        partition=place.partition,
        holders=place.holders,
        writers=place.writers,
        stage=place.stage,
    )


def _place_from(message: pb.Place) -> PlaceView:
    return PlaceView(
        message.partition, tuple(message.holders), tuple(message.writers), message.stage
    )


def membership_message(membership: Membership) -> pb.MembersResponse:
    return pb.MembersResponse(
        members=map(_member_message, membership.members),
        peers=map(_peer_message, membership.peers),
        seeds=[
            pb.Seed(address=seed.address, answers=seed.answers, problem=seed.problem)
            for seed in membership.seeds
        ],
    )


def membership_from(message: pb.MembersResponse) -> Membership:
    return Membership(
        tuple(map(_member_from, message.members)),
        tuple(map(_peer_from, message.peers)),
        tuple(SeedView(seed.address, seed.answers, seed.problem) for seed in message.seeds),
    )


def _member_message(view: MemberView) -> pb.Member:
    return pb.Member(
        name=view.name,
        uid=view.uid,
        address=view.address,
        region=view.region,
        zone=view.zone,
        role=view.role,
        state=view.state,
        generation=view.generation,
        gossip=view.gossip,
        http=view.http,
        release=view.release,
        answering=view.answering,
    )


def _member_from(message: pb.Member) -> MemberView:
    return MemberView(
        message.name,
        message.uid,
        message.address,
        message.region,
        message.zone,
        message.role,
        message.state,
        message.generation,
        message.gossip,
        message.http,
        message.release,
        message.answering,
    )


def _peer_message(view: PeerView) -> pb.Peer:
    return pb.Peer(
        name=view.name,
        uid=view.uid,
        address=view.address,
        connected=view.connected,
        acknowledged=view.acknowledged,
        handoff=view.handoff,
        lag_ms=view.lag_ms,
        clock_offset_ms=view.clock_offset_ms,
        heard_ms=view.heard_ms,
        phi=view.phi,
        problem=view.problem,
    )


def _peer_from(message: pb.Peer) -> PeerView:
    return PeerView(
        message.name,
        message.uid,
        message.address,
        message.connected,
        message.acknowledged,
        message.handoff,
        message.lag_ms,
        message.clock_offset_ms if message.HasField("clock_offset_ms") else None,
        message.heard_ms if message.HasField("heard_ms") else None,
        message.phi,
        message.problem,
    )


def _voter_message(view: VoterView) -> pb.Voter:
    return pb.Voter(
        name=view.name,
        uid=view.uid,
        region=view.region,
        zone=view.zone,
        state=view.state,
        votes=view.votes,
        reachable=view.reachable,
        leaving=view.leaving,
        partitions=view.partitions,
    )


def _voter_from(message: pb.Voter) -> VoterView:
    return VoterView(
        message.name,
        message.uid,
        message.region,
        message.zone,
        message.state,
        message.votes,
        message.reachable,
        message.leaving,
        message.partitions,
    )
